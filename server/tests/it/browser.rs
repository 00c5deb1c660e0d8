//! The HTTP port as browsers use it: gRPC-Web over HTTP/1.1, and what a foreign page meets.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message;
use tokio::{net::TcpStream, time::timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use zbl_proto::v1::{
    DeductRequest, DeductResponse, GetStatusRequest, GetStatusResponse, StreamTimelineRequest, StreamTimelineResponse,
    stream_timeline_response::Event,
};

use crate::app::{Database, PATIENCE, Served, deduction, money};

const DEDUCT: &str = "/zbl.v1.AccountService/Deduct";
const STREAM_TIMELINE: &str = "/zbl.v1.AccountService/StreamTimeline";
const GET_STATUS: &str = "/zbl.v1.LabService/GetStatus";

/// What every call of gRPC-Web says of itself.
const GRPC_WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");

/// The flag of a frame that holds trailers.
const TRAILERS: u8 = 0x80;

/// An answer, its body under way.
struct Answer {
    status: u16,
    head: HeaderMap,
    body: BoxBody<Bytes, String>,
    received: BytesMut,
}

impl Answer {
    /// The next message, or how the call ended.
    async fn next<M: Message + Default>(&mut self) -> Result<M, Status> {
        let (flag, data) = timeout(PATIENCE, self.frame()).await.expect("no frame");
        if flag & TRAILERS == 0 {
            return Ok(M::decode(data).unwrap());
        }
        let text = String::from_utf8(data.to_vec()).unwrap();
        let line = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            let name: HeaderName = name.parse().unwrap();
            (name, value.trim().parse::<HeaderValue>().unwrap())
        };
        Err(Status::from_header_map(&text.lines().map(line).collect()).expect(&text))
    }

    async fn frame(&mut self) -> (u8, Bytes) {
        const HEAD: usize = 5;
        loop {
            if let Some(length) = self.received.get(1..HEAD) {
                let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.received.len() >= HEAD + length {
                    let flag = self.received.get_u8();
                    self.received.advance(HEAD - 1);
                    return (flag, self.received.split_to(length).freeze());
                }
            }
            let more = self.body.frame().await.expect("the body ended within a frame").unwrap();
            self.received.extend_from_slice(&more.into_data().unwrap());
        }
    }

    /// How a call ended that has no messages: told in the head.
    fn refused(&self) -> Status {
        assert_eq!(self.status, 200, "{:?}", self.head);
        Status::from_header_map(&self.head).unwrap_or_else(|| panic!("no status: {:?}", self.head))
    }

    /// The reason of an answer in JSON.
    async fn reason(self) -> (u16, String) {
        let body = self.body.collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        (self.status, json["reason"].as_str().unwrap_or_default().to_owned())
    }
}

fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat().into()
}

/// Sends a request over HTTP/1.1.
async fn send(address: SocketAddr, method: Method, path: &str, head: &[(&str, &str)], body: Bytes) -> Answer {
    let request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    let request = head.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = timeout(PATIENCE, client.request(request.body(Full::new(body)).unwrap())).await.unwrap().unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.map_err(|error| error.to_string()).boxed();
    Answer { status: parts.status.as_u16(), head: parts.headers, body, received: BytesMut::new() }
}

/// A call as our page makes it.
async fn call(address: SocketAddr, path: &str, message: &impl Message, more: &[(&str, &str)]) -> Answer {
    let (host, origin) = (address.to_string(), format!("http://{address}"));
    let own = [GRPC_WEB, ("host", &host), ("origin", &origin), ("sec-fetch-site", "same-origin"), ("x-grpc-web", "1")];
    send(address, Method::POST, path, &[&own[..], more].concat(), framed(message)).await
}

fn deduct(user_id: i64, amount: &str) -> DeductRequest {
    DeductRequest { user_id, amount: amount.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_calls_as_programs_do() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user_id = served.bench.account("100.00").await;
        let mut answer = call(served.http, DEDUCT, &deduct(user_id, "10.00"), &[]).await;
        assert_eq!((answer.status, &answer.head["content-type"]), (200, &GRPC_WEB.1.parse().unwrap()));
        assert_eq!(answer.head["x-content-type-options"], "nosniff");
        let receipt = answer.next::<DeductResponse>().await.unwrap();
        assert_eq!((receipt.balance.as_str(), receipt.version), ("90.00", 2));
        assert_eq!(answer.next::<DeductResponse>().await.unwrap_err().code(), Code::Ok);

        let refused = call(served.http, DEDUCT, &deduct(user_id, "100.00"), &[]).await.refused();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert_eq!(refused.get_details_error_info().unwrap().reason, "INSUFFICIENT_BALANCE");
    }
}

/// What is retained and what follows, until the server stops, which is told in the frame of the trailers.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_follows_the_timeline_and_hears_why_it_ends() {
    let database = Database::sqlite();
    let mut served = Served::start(&database.url, &["--strategy=pessimistic"]).await;
    let user_id = served.bench.account("100.00").await;
    served.bench.ledger.apply(deduction(user_id), None).await.unwrap();
    let request = StreamTimelineRequest { user_id, include_retained: true, ..Default::default() };
    let mut answer = call(served.http, STREAM_TIMELINE, &request, &[]).await;
    let mut seen = async |spans: usize| {
        let mut phases = Vec::new();
        while phases.len() < spans {
            if let Some(Event::Span(span)) = answer.next::<StreamTimelineResponse>().await.unwrap().event {
                phases.push(span.phase().as_str_name());
            }
        }
        phases
    };
    let retained = seen(4).await;
    served.bench.ledger.apply(deduction(user_id), None).await.unwrap();
    assert_eq!(seen(4).await, retained);
    served.ask_to_stop();
    let ended = loop {
        if let Err(ended) = answer.next::<StreamTimelineResponse>().await {
            break ended;
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert_eq!(ended.get_details_error_info().unwrap().reason, "SHUTTING_DOWN");
    drop(answer);
    served.stopped().await;
}

/// A page that is not ours, by each of the marks that a browser gives it.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_is_refused_whatever_it_asks_for() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user_id = served.bench.account("100.00").await;
    let balance = format!("/balance/{user_id}");
    let port = served.http.port();
    let (rebound, elsewhere) = (format!("bank.example:{port}"), format!("http://127.0.0.1:{}", port ^ 1));
    let foreign: [(&[(&str, &str)], &str); 8] = [
        (&[("origin", "https://evil.example")], "FOREIGN_ORIGIN"),
        (&[("origin", "null")], "FOREIGN_ORIGIN"),
        (&[("origin", &elsewhere)], "FOREIGN_ORIGIN"),
        (&[("sec-fetch-site", "cross-site")], "FOREIGN_ORIGIN"),
        (&[("sec-fetch-site", "same-site")], "FOREIGN_ORIGIN"),
        (&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], "FOREIGN_ORIGIN"),
        (&[("host", &rebound)], "FOREIGN_HOST"),
        (
            &[("host", &rebound), ("origin", &format!("http://{rebound}")), ("sec-fetch-site", "same-origin")],
            "FOREIGN_HOST",
        ),
    ];
    for (marks, reason) in foreign {
        for (method, path) in [
            (Method::POST, DEDUCT),
            (Method::POST, "/deduct"),
            (Method::GET, &balance),
            (Method::GET, "/source/none.rs"),
            (Method::GET, "/api/swimlane"),
            (Method::GET, "/"),
        ] {
            let head = [&[GRPC_WEB][..], marks].concat();
            let answer = send(served.http, method, path, &head, framed(&deduct(user_id, "1.00"))).await;
            assert!(!answer.head.keys().any(|name| name.as_str().starts_with("access-control")), "{:?}", answer.head);
            assert_eq!(answer.reason().await, (403, reason.to_owned()), "{path} {marks:?}");
        }
    }
    // Before it sends what it may not, a browser asks; nothing is granted.
    let asks = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let preflight = send(served.http, Method::OPTIONS, DEDUCT, &asks, Bytes::new()).await;
    assert!(preflight.status >= 400 && !preflight.head.contains_key("access-control-allow-origin"));
    assert_eq!(served.bench.balance(user_id).await, money("100.00"));
}

/// A link to the page may be anywhere. What it leads to is the page, and nothing that a link could do.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_from_elsewhere_leads_to_the_page_alone() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let follows = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    for (method, path, status) in [
        (Method::GET, "/", 200),
        (Method::POST, "/", 405),
        (Method::GET, "/source/none.rs", 403),
        (Method::GET, "/balance/1", 403),
        (Method::POST, "/deduct", 403),
    ] {
        let answer = send(served.http, method.clone(), path, &follows, Bytes::new()).await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
    // Health is asked for by machines.
    assert_eq!(send(served.http, Method::GET, "/healthz", &[("host", "pod.example")], Bytes::new()).await.status, 200);
}

/// Further in, a call would look like one of gRPC.
#[tokio::test(flavor = "multi_thread")]
async fn only_grpc_web_is_a_call_there() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user_id = served.bench.account("100.00").await;
    let body = framed(&deduct(user_id, "1.00"));
    for kind in ["text/plain", "application/json", "application/grpc", "application/x-www-form-urlencoded", ""] {
        let answer = send(served.http, Method::POST, DEDUCT, &[("content-type", kind)], body.clone()).await;
        assert_eq!(answer.reason().await, (415, "INVALID_CONTENT_TYPE".to_owned()), "{kind}");
    }
    let got = send(served.http, Method::GET, DEDUCT, &[GRPC_WEB], Bytes::new()).await;
    assert_eq!(got.reason().await, (405, "METHOD_NOT_ALLOWED".to_owned()));

    // Over HTTP/2, where a name stands in place of the Host.
    let own = served.http.to_string();
    for (authority, kind, status) in
        [(own.as_str(), "text/plain", 415), (&own, "application/grpc", 415), ("bank.example", GRPC_WEB.1, 403)]
    {
        let stream = TcpStream::connect(served.http).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request =
            Request::post(format!("http://{authority}{DEDUCT}")).header("content-type", kind).body(()).unwrap();
        let (answer, mut sent) = send.send_request(request, false).unwrap();
        // A refusal by the head alone can be there first, and then nobody takes the message.
        let _ = sent.send_data(body.clone(), true);
        assert_eq!(answer.await.unwrap().status().as_u16(), status, "{authority} {kind}");
    }
    assert_eq!(served.bench.balance(user_id).await, money("100.00"));
}

/// The page holds no secret; what it calls asks for the token.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_public_and_its_calls_are_not() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--auth-token=s3cret", "--lab-token=lab"]).await;
    let user_id = served.bench.account("100.00").await;
    for path in ["/", "/source/pessimistic.rs"] {
        let answer = send(served.http, Method::GET, path, &[], Bytes::new()).await;
        assert_eq!((answer.status, answer.head.contains_key("etag") || path == "/"), (200, true), "{path}");
    }
    for wrong in [&[][..], &[("authorization", "Bearer wrong")]] {
        let refused = call(served.http, DEDUCT, &deduct(user_id, "1.00"), wrong).await.refused();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "UNAUTHENTICATED");
        let refused = call(served.http, GET_STATUS, &GetStatusRequest {}, wrong).await.refused();
        assert_eq!(refused.get_details_error_info().unwrap().reason, "LAB_UNAUTHENTICATED");
    }
    let mut answer = call(served.http, DEDUCT, &deduct(user_id, "1.00"), &[("authorization", "Bearer s3cret")]).await;
    assert_eq!(answer.next::<DeductResponse>().await.unwrap().balance, "99.00");
    let mut answer = call(served.http, GET_STATUS, &GetStatusRequest {}, &[("authorization", "Bearer lab")]).await;
    assert!(answer.next::<GetStatusResponse>().await.unwrap().status.is_some());
}
