//! The server as an orchestrator and a tool see it: health, reflection, readiness, and how it stops.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use futures::stream;
use test_support::NewConnections;
use tokio::time::timeout;
use tonic::{Code, Request, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};
use zbl_proto::{
    Reason,
    v1::{
        DeductRequest, DeductStreamRequest, StreamTimelineRequest, WatchStatusRequest,
        account_service_client::AccountServiceClient,
    },
};
use zbl_server::timeline::Phase;

use super::{Said, deduct, outages::behind_proxy, said};
use crate::app::{Database, PATIENCE, Served, deduction, until};

/// What health is kept for: the server as a whole and each service.
const HEALTH_OF: [&str; 3] = ["", "zbl.v1.AccountService", "zbl.v1.LabService"];

async fn on_sqlite(words: &[&str]) -> (Served, Database) {
    let database = Database::sqlite();
    (Served::start(&database.url, words).await, database)
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_for_each_service() {
    let (served, _database) = on_sqlite(&[]).await;
    let mut health = HealthClient::new(served.channel());
    for service in HEALTH_OF {
        assert_eq!(health.check(about(service)).await.unwrap().into_inner().status(), ServingStatus::Serving);
    }
    assert_eq!(health.check(about("zbl.v1.Absent")).await.unwrap_err().code(), Code::NotFound);
}

/// The same questions in both editions of reflection: what grpcurl, grpcui and evans ask first.
macro_rules! reflects {
    ($test:ident, $edition:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            use tonic_reflection::pb::$edition::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let (served, _database) = on_sqlite(&[]).await;
            let symbols =
                ["zbl.v1.AccountService", "zbl.v1.LabService", "google.rpc.ErrorInfo", "grpc.health.v1.Health"];
            let list = MessageRequest::ListServices(String::new());
            let files = symbols.map(|symbol| MessageRequest::FileContainingSymbol(symbol.to_owned()));
            let requests = std::iter::once(list).chain(files);
            let requests: Vec<_> = requests
                .map(|ask| ServerReflectionRequest { host: String::new(), message_request: Some(ask) })
                .collect();
            let mut client = ServerReflectionClient::new(served.channel());
            let mut answers = client.server_reflection_info(stream::iter(requests)).await.unwrap().into_inner();

            let Some(MessageResponse::ListServicesResponse(list)) =
                answers.message().await.unwrap().unwrap().message_response
            else {
                panic!("no list")
            };
            let services: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
            let expected = ["zbl.v1.AccountService", "zbl.v1.LabService", "grpc.health.v1.Health"];
            assert!(expected.iter().all(|name| services.contains(name)), "{services:?}");
            for symbol in symbols {
                let answer = answers.message().await.unwrap().unwrap().message_response;
                let Some(MessageResponse::FileDescriptorResponse(found)) = answer else {
                    panic!("{symbol}: {answer:?}")
                };
                // A file descriptor spells the names of what it declares.
                let name = symbol.rsplit('.').next().unwrap().as_bytes();
                let declares = |file: &Vec<u8>| file.windows(name.len()).any(|window| window == name);
                assert!(found.file_descriptor_proto.iter().any(declares), "{symbol}");
            }
        }
    };
}

reflects!(reflection_answers_in_its_second_edition, v1);
reflects!(reflection_answers_in_its_first_edition, v1alpha);

/// Status and body of a GET.
pub(crate) async fn get(address: SocketAddr, path: &'static str) -> (u16, String) {
    let get = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    };
    tokio::task::spawn_blocking(get).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_the_database() {
    let (served, proxy, _database) = behind_proxy(&[]).await;
    let ok = (200, "ok".to_owned());
    assert_eq!((get(served.http, "/healthz").await, get(served.http, "/readyz").await), (ok.clone(), ok.clone()));

    proxy.set_new_connections(NewConnections::Refuse);
    proxy.drop_all();
    let (status, body) = get(served.http, "/readyz").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("NOT_READY"), "{body}");
    assert_eq!(get(served.http, "/healthz").await, ok, "the process is up all the same");

    proxy.set_new_connections(NewConnections::Pass);
    until("the server is ready again", async || get(served.http, "/readyz").await == ok).await;
}

/// First it says so, then it goes: in between everybody is served, new connections too.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_to_stop_says_so_before_it_does() {
    let (mut served, _database) = on_sqlite(&["--drain-delay", "1s", "--shutdown-grace", "1h"]).await;
    let user_id = served.bench.account("1000.00").await;
    let mut watch = served.lab().watch_status(WatchStatusRequest { interval: None }).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let asked = Instant::now();
    served.ask_to_stop();
    until("it is not ready", async || get(served.http, "/readyz").await.0 == 503).await;
    assert_eq!(get(served.http, "/healthz").await.0, 200, "the process is up all the same");
    let status = HealthClient::new(served.channel()).check(about("")).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    let fresh = Endpoint::from_shared(format!("http://{}", served.grpc)).unwrap().connect().await.unwrap();
    AccountServiceClient::new(fresh).deduct(deduct(user_id, "10")).await.unwrap();

    let end = async {
        while watch.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    let end = timeout(PATIENCE, end).await.expect("the watch does not end").unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    assert!(asked.elapsed() >= Duration::from_secs(1), "it did not wait");
    drop(watch);
    served.stopped().await;
}

/// What is too large is refused by its size, and not read.
#[tokio::test(flavor = "multi_thread")]
async fn messages_and_heads_have_a_largest_size() {
    let (served, _database) = on_sqlite(&[]).await;
    let user_id = served.bench.account("1000.00").await;
    for size in [100_000, 5_000_000] {
        let amount = "1".repeat(size);
        let take = DeductRequest { amount, ..deduct(user_id, "1") };
        let expected = Said::plain(Code::ResourceExhausted, Reason::MessageTooLarge, &[("most_bytes", "65536")]);
        assert_eq!(said(served.account().deduct(take.clone())).await, expected, "{size}");
        // In a stream too; it ends with that.
        let items = stream::iter([DeductStreamRequest { deduct: Some(take) }]);
        let mut answers = served.account().deduct_stream(items).await.unwrap().into_inner();
        assert_eq!(Said::by(&answers.message().await.unwrap_err()), expected, "{size}");
    }
    let mut call = Request::new(deduct(user_id, "1"));
    call.metadata_mut().insert("x-large", "1".repeat(100_000).parse().unwrap());
    served.account().deduct(call).await.unwrap_err();
    served.account().deduct(deduct(user_id, "1")).await.unwrap();
    assert_eq!(served.bench.journal(user_id).await.len(), 2);
}

/// What cannot be read is told with a reason, and was not done.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_of_the_contract_is_told_by_name() {
    let (served, _database) = on_sqlite(&[]).await;
    let user_id = served.bench.account("1000.00").await;
    let head = |timeout: Option<&'static str>| {
        let uri = format!("http://{}/zbl.v1.AccountService/Deduct", served.grpc);
        let call = http::Request::post(uri).header("content-type", "application/grpc");
        match timeout {
            Some(timeout) => call.header("grpc-timeout", timeout),
            None => call,
        }
    };
    let malformed = Said::plain(Code::InvalidArgument, Reason::MalformedMessage, &[]);
    // A field that is cut off, one of a wrong type, a message that is cut off, a flag that is none, and no message.
    for bytes in [&b"\0\0\0\0\x02\x0a\x09"[..], b"\0\0\0\0\x02\x08", b"\0\0\0\0\x02\x0a", b"\x07\0\0\0\0", b""] {
        assert_eq!(Said::by(&raw_call(served.grpc, head(None), bytes).await.unwrap()), malformed, "{bytes:?}");
    }
    let invalid = Said::invalid(Reason::InvalidTimeout, "grpc-timeout");
    let take = framed(&deduct(user_id, "1"));
    for wrong in ["", "S", "1", "1x", "-1S", "123456789S", "1.5S", " 1S"] {
        assert_eq!(Said::by(&raw_call(served.grpc, head(Some(wrong)), &take).await.unwrap()), invalid, "{wrong:?}");
    }
    assert_eq!(served.bench.journal(user_id).await.len(), 1);
    assert!(raw_call(served.grpc, head(Some("5S")), &take).await.is_none(), "it is well formed");
    assert_eq!(served.bench.journal(user_id).await.len(), 2);
}

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), &bytes].concat()
}

/// Sends these bytes as a call's message; its refusal, if it is refused before an answer begins.
async fn raw_call(address: SocketAddr, head: http::request::Builder, bytes: &[u8]) -> Option<tonic::Status> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (answer, mut body) = send.send_request(head.body(()).unwrap(), false).unwrap();
    // What is refused by its head alone may be over by now; the answer tells.
    let _ = body.send_data(bytes::Bytes::copy_from_slice(bytes), true);
    tonic::Status::from_header_map(timeout(PATIENCE, answer).await.expect("no answer").unwrap().headers())
}

/// The grace is longer than anybody waits here: the server must not need it when only watchers are left.
#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_server_stops() {
    let (mut served, _database) = on_sqlite(&["--shutdown-grace", "1h", "--heartbeat", "1h"]).await;
    let mut timeline = served.account().stream_timeline(StreamTimelineRequest::default()).await.unwrap().into_inner();
    let mut watches = Vec::new();
    for service in HEALTH_OF {
        let mut watch = HealthClient::new(served.channel()).watch(about(service)).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        watches.push(watch);
    }

    served.ask_to_stop();
    let end = timeout(PATIENCE, timeline.message()).await.expect("the timeline does not end");
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    for (mut watch, service) in watches.into_iter().zip(HEALTH_OF) {
        let end = async {
            let last = watch.message().await.unwrap().as_ref().map(HealthCheckResponse::status);
            (last, watch.message().await.unwrap())
        };
        let end = timeout(PATIENCE, end).await.unwrap_or_else(|_| panic!("the health of {service:?} does not end"));
        assert_eq!(end, (Some(ServingStatus::NotServing), None), "{service:?}");
    }
    served.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_are_answered_before_the_server_stops() {
    let (mut served, _database) = on_sqlite(&["--shutdown-grace", "1h"]).await;
    let change = deduction(served.bench.account("1000.00").await);
    let gate = served.bench.gates.hold(change.request_id, Phase::Commit);
    let take = DeductRequest { request_id: change.request_id.to_string(), ..deduct(change.user_id, "10") };
    let mut account = served.account();
    let call = tokio::spawn(async move { account.deduct(take).await });
    gate.arrived().await;
    served.ask_to_stop();
    until("the port is closed", async || TcpStream::connect(served.http).is_err()).await;
    assert!(served.is_serving(), "it does not wait for the call");
    gate.release();
    assert_eq!(call.await.unwrap().unwrap().into_inner().balance, "990.00");
    served.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_end_delays_the_stop_by_the_grace_only() {
    let (mut served, _database) = on_sqlite(&["--shutdown-grace", "50ms"]).await;
    let change = deduction(served.bench.account("1000.00").await);
    let gate = served.bench.gates.hold(change.request_id, Phase::Commit);
    let take = DeductRequest { request_id: change.request_id.to_string(), ..deduct(change.user_id, "10") };
    let mut account = served.account();
    tokio::spawn(async move { account.deduct(take).await });
    gate.arrived().await;
    served.ask_to_stop();
    served.stopped().await;
    drop(gate);
}
