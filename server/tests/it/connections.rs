//! Clients that say nothing, or half of it, or take nothing: none is waited for, on either port, and all the while the
//! others are served.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use test_support::Authority;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::Request;
use tonic_types::StatusExt;
use zbl_proto::v1::{DeductRequest, StreamTimelineRequest};

use crate::{
    app::{Database, PATIENCE, Served, until},
    wire::{deduct, serving::get},
};

/// What a connection may take to say what it wants.
const HANDSHAKE: Duration = Duration::from_millis(500);

async fn serve(words: &[&str]) -> (Served, Database) {
    let database = Database::sqlite();
    let words = [&["--handshake-timeout=500ms"], words].concat();
    (Served::start(&database.url, &words).await, database)
}

/// Says these words and waits until the server closes the connection; what it answered, and when that was.
async fn closed(address: SocketAddr, words: &[u8]) -> (Vec<u8>, Duration) {
    // Before the server can have begun to count.
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(words).await.unwrap();
    let mut answer = Vec::new();
    // A reset ends it as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection stays open");
    (answer, began.elapsed())
}

/// Both ports serve others.
async fn is_served(served: &Served) {
    let user_id = served.bench.account("1.00").await;
    served.account().deduct(deduct(user_id, "1")).await.unwrap();
    assert_eq!(get(served.http, "/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_half_of_it_is_not_waited_for() {
    let (served, _database) = serve(&[]).await;
    let half_preface = b"PRI * HTTP/2.0\r\n\r\nSM";
    let half_head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ";
    for (port, words) in [
        (served.grpc, &b""[..]),
        (served.grpc, half_preface),
        (served.http, b""),
        (served.http, half_preface),
        (served.http, half_head),
    ] {
        let (waited, ()) = tokio::join!(closed(port, words), is_served(&served));
        let (answer, after) = waited;
        assert!(after >= HANDSHAKE, "{words:?} after {after:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    // What is no HTTP at all is not even waited for.
    closed(served.grpc, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    is_served(&served).await;
}

/// Nor does one that says nothing keep a server from stopping.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_to_stop_waits_for_nobody_who_says_nothing() {
    let database = Database::sqlite();
    let mut served = Served::start(&database.url, &["--handshake-timeout=1h", "--shutdown-grace=1h"]).await;
    let _silent = [TcpStream::connect(served.grpc).await.unwrap(), TcpStream::connect(served.http).await.unwrap()];
    is_served(&served).await;
    served.ask_to_stop();
    timeout(PATIENCE, served.stopped()).await.expect("it waits for whoever says nothing");
}

/// Browsers let any page post plain text without asking first, and over TLS they reach the port of gRPC.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_foreign_page_can_send_is_no_call() {
    let (served, _database) = serve(&[]).await;
    let user_id = served.bench.account("10.00").await;
    for (method, content_type) in [("POST", "text/plain"), ("POST", ""), ("GET", "application/grpc")] {
        let answer = plain_call(served.grpc, method, content_type, user_id).await;
        assert_eq!(answer, "MALFORMED_MESSAGE", "{method} {content_type}");
    }
    let answer = plain_call(served.grpc, "POST", "application/grpc+proto", user_id).await;
    assert_eq!(answer, "", "a call of gRPC");
    assert_eq!(served.bench.balance(user_id).await, crate::app::money("9.00"));
}

/// Deducts 1.00 by a request with this head; the reason of the error, if it is one.
async fn plain_call(address: SocketAddr, method: &str, content_type: &str, user_id: i64) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("http://{address}/zbl.v1.AccountService/Deduct");
    let request =
        http::Request::builder().method(method).uri(uri).header("content-type", content_type).body(()).unwrap();
    let (answer, mut body) = send.send_request(request, false).unwrap();
    let message = prost::Message::encode_to_vec(&deduct(user_id, "1"));
    let framed = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()][..], &message].concat();
    // A refusal by the head alone can be there first, and then nobody takes the message.
    let _ = body.send_data(framed.into(), true);
    let answer = answer.await.unwrap();
    let refused = tonic::Status::from_header_map(answer.headers()).filter(|status| status.code() != tonic::Code::Ok);
    let mut body = answer.into_body();
    while body.data().await.is_some() {}
    refused.and_then(|status| Some(status.get_details_error_info()?.reason)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stalls_in_the_handshake_is_not_waited_for() {
    let authority = Authority::new().unwrap();
    let signed = authority.sign("server", &["127.0.0.1"]).unwrap();
    let flags = [("cert", &signed.certificate), ("key", &signed.key)];
    let flags = flags.map(|(flag, path)| format!("--tls-{flag}={}", path.display()));
    let (served, _database) = serve(&flags.each_ref().map(String::as_str)).await;
    for port in [served.grpc, served.http] {
        // The first bytes of a ClientHello.
        for words in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
            let (_, after) = closed(port, words).await;
            assert!(after >= HANDSHAKE, "{words:?} after {after:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (served, _database) = serve(&["--max-deadline=500ms"]).await;
    let head = "POST /deduct HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{";
    let (answer, _) = closed(served.http, head.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("EXPIRED"), "{answer}");

    let status = half_a_call(served.grpc).await;
    assert_eq!(status.0, "4", "{status:?}");
    assert!(status.1.contains("EXPIRED"), "{status:?}");
    is_served(&served).await;
}

/// Calls Deduct with a message that never comes; code and details of the answer.
async fn half_a_call(address: SocketAddr) -> (String, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("http://{address}/zbl.v1.AccountService/Deduct");
    let request = http::Request::post(uri).header("content-type", "application/grpc").body(()).unwrap();
    let (answer, mut body) = send.send_request(request, false).unwrap();
    body.send_data(bytes::Bytes::from_static(&[0, 0, 0, 0, 9, 1]), false).unwrap();
    let head = timeout(PATIENCE, answer).await.expect("no answer").unwrap();
    let status = tonic::Status::from_header_map(head.headers()).unwrap();
    ((status.code() as i32).to_string(), String::from_utf8_lossy(status.details()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_connections() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--max-connections=3", "--handshake-timeout=1h"]).await;
    for port in [served.grpc, served.http] {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(TcpStream::connect(port).await.unwrap());
        }
        // Closed at once, not after the hour.
        let (answer, _) = closed(port, b"").await;
        assert!(answer.is_empty());
        // The other port has connections of its own.
        drop(held.pop());
        until("there is room again", async || {
            let mut stream = TcpStream::connect(port).await.unwrap();
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            matches!(stream.read(&mut [0; 1]).await, Ok(1))
        })
        .await;
    }
    is_served(&served).await;
    let (_, metrics) = get(served.http, "/metrics").await;
    let refused = |line: &&str| {
        line.starts_with("connections_refused_total{") && line.contains("\"full\"") && !line.ends_with(" 0")
    };
    assert_eq!(metrics.lines().filter(refused).count(), 2, "{metrics}");
}

/// A reader that takes nothing keeps nobody else waiting, and what is kept for it is bounded by the ring.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_holds_nobody_up() {
    let (served, _database) = serve(&["--timeline-capacity=1024"]).await;
    let mut watch = served.account().stream_timeline(StreamTimelineRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap();
    let user_id = served.bench.account("100000.00").await;
    for _ in 0..2_000 {
        let request = Request::new(DeductRequest { strategy: "mutex".to_owned(), ..deduct(user_id, "1") });
        served.account().deduct(request).await.unwrap();
    }
    is_served(&served).await;
    drop(watch);
}
