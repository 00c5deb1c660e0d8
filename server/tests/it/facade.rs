//! The JSON facade, as curl would use it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use crate::app::{Database, PATIENCE, Served, deduction};

/// Status and parsed body of a request; `body` goes as JSON.
async fn request(address: SocketAddr, line: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    let text = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    exchange(address, text).await
}

/// Status and head of the answer to a GET, in lower case.
pub async fn head(address: SocketAddr, line: &str) -> (u16, String) {
    let text = format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let (head, _) = answer(address, text).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase())
}

async fn exchange(address: SocketAddr, text: String) -> (u16, Value) {
    let (head, body) = answer(address, text).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(&body).unwrap())
}

/// Head and body of the answer.
pub async fn answer(address: SocketAddr, text: String) -> (String, String) {
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A server that has read enough may close before all is written.
        let _ = stream.write_all(text.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        (head.to_owned(), body.to_owned())
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deduction_by_string_and_by_number_is_exact() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user = served.bench.account("1000.00").await;
        for (amount, balance) in [("\"10.00\"", "990.00"), ("10.10", "979.90"), ("0.1", "979.80"), ("7", "972.80")] {
            let body = format!(r#"{{"user_id":{user},"amount":{amount}}}"#);
            let (status, answer) = request(served.http, "POST /deduct", &body).await;
            assert_eq!((status, &answer["code"], &answer["message"]), (200, &200.into(), &"ok".into()), "{answer}");
            assert_eq!(answer["data"]["user_id"], user);
            let number: Value = serde_json::from_str(balance).unwrap();
            assert_eq!(answer["data"]["balance"], number, "{answer}");
        }
        let (status, answer) = request(served.http, &format!("GET /balance/{user}"), "").await;
        assert_eq!((status, &answer["data"]["version"]), (200, &5.into()), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_told_by_version_and_by_time() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user = served.bench.account("1000.00").await;
        served.bench.ledger.apply(deduction(user), None).await.unwrap();
        let opened = served.bench.journal(user).await[0].created_at.and_utc();
        let (status, answer) = request(served.http, &format!("GET /balance/{user}?as_of_version=1"), "").await;
        let number: Value = serde_json::from_str("1000.00").unwrap();
        assert_eq!((status, &answer["data"]["balance"]), (200, &number), "{answer}");
        let time: chrono::DateTime<chrono::Utc> = answer["data"]["entry_time"].as_str().unwrap().parse().unwrap();
        assert_eq!(time, opened);
        let (status, answer) =
            request(served.http, &format!("GET /balance/{user}?as_of_time=9999-01-01T00:00:00Z"), "").await;
        assert_eq!((status, &answer["data"]["version"]), (200, &2.into()), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_recognised_here_and_over_grpc() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user = served.bench.account("1000.00").await;
    let id = uuid::Uuid::new_v4();
    let body = format!(r#"{{"user_id":{user},"amount":"10.00","request_id":"{id}","strategy":"atomic"}}"#);
    let first = request(served.http, "POST /deduct", &body).await;
    assert_eq!(first, request(served.http, "POST /deduct", &body).await);
    assert_eq!(served.bench.journal(user).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_have_a_status_a_reason_and_no_effect() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user = served.bench.account("100.00").await;
    let deduct = "POST /deduct";
    let with = |amount: &str| format!(r#"{{"user_id":{user},"amount":{amount}}}"#);
    let large = "x".repeat(1024 * 1024);
    let cases = [
        (deduct, with("1.001"), 400, "INVALID_AMOUNT"),
        (deduct, with("1e1"), 400, "INVALID_AMOUNT"),
        (deduct, with("-1"), 400, "INVALID_AMOUNT"),
        (deduct, with("null"), 400, "INVALID_AMOUNT"),
        (deduct, with("[1]"), 400, "INVALID_AMOUNT"),
        (deduct, with("1000"), 409, "INSUFFICIENT_BALANCE"),
        (deduct, r#"{"user_id":404,"amount":1}"#.to_owned(), 404, "ACCOUNT_NOT_FOUND"),
        (deduct, r#"{"user_id":0,"amount":1}"#.to_owned(), 400, "INVALID_USER_ID"),
        (deduct, r#"{"user_id":1.5,"amount":1}"#.to_owned(), 400, "INVALID_JSON"),
        (deduct, format!(r#"{{"user_id":{user},"amount":1,"strategy":"hope"}}"#), 400, "UNKNOWN_STRATEGY"),
        (deduct, format!(r#"{{"user_id":{user},"amount":1,"request_id":"x"}}"#), 400, "INVALID_REQUEST_ID"),
        (deduct, format!(r#"{{"user_id":{user},"amount":1,"unknown":1}}"#), 400, "INVALID_JSON"),
        (deduct, "{".to_owned(), 400, "INVALID_JSON"),
        (deduct, String::new(), 400, "INVALID_JSON"),
        (deduct, large, 413, "BODY_TOO_LARGE"),
        ("GET /deduct", String::new(), 405, "METHOD_NOT_ALLOWED"),
        ("GET /balance/x", String::new(), 400, "INVALID_USER_ID"),
        ("GET /balance/0", String::new(), 400, "INVALID_USER_ID"),
        ("GET /balance/404", String::new(), 404, "ACCOUNT_NOT_FOUND"),
        ("GET /balance/404?as_of_version=1", String::new(), 404, "ACCOUNT_NOT_FOUND"),
        (&format!("GET /balance/{user}?as_of_version=0"), String::new(), 400, "INVALID_AS_OF"),
        (&format!("GET /balance/{user}?as_of_version=2"), String::new(), 400, "INVALID_AS_OF"),
        (&format!("GET /balance/{user}?as_of_version=x"), String::new(), 400, "INVALID_QUERY"),
        (&format!("GET /balance/{user}?as_of_time=yesterday"), String::new(), 400, "INVALID_AS_OF"),
        (&format!("GET /balance/{user}?as_of_time=2001-01-01T00:00:00Z"), String::new(), 404, "ACCOUNT_NOT_FOUND"),
        (&format!("GET /balance/{user}?as_of_version=1&as_of_time=x"), String::new(), 400, "INVALID_QUERY"),
        ("GET /api/swimlane?limit=x", String::new(), 400, "INVALID_QUERY"),
        ("GET /api/swimlane?unknown=1", String::new(), 400, "INVALID_QUERY"),
        ("GET /nowhere", String::new(), 404, "NOT_FOUND"),
    ];
    for (line, body, status, reason) in cases {
        let (answered, answer) = request(served.http, line, &body).await;
        let shown = &body[..body.len().min(80)];
        assert_eq!(
            (answered, &answer["reason"], &answer["code"]),
            (status, &reason.into(), &status.into()),
            "{line} {shown}: {answer}"
        );
        assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()), "{line} {shown}: {answer}");
    }
    assert_eq!(served.bench.journal(user).await.len(), 1, "nothing was changed");
}

/// What a form on a foreign page could post is refused: it would not have to ask this server first.
#[tokio::test(flavor = "multi_thread")]
async fn only_json_is_taken() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user = served.bench.account("100.00").await;
    let body = format!(r#"{{"user_id":{user},"amount":1}}"#);
    let (address, length) = (served.http, body.len());
    let head = format!("POST /deduct HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: text/plain\r\n");
    let (status, answer) = exchange(address, format!("{head}content-length: {length}\r\n\r\n{body}")).await;
    assert_eq!((status, &answer["reason"]), (415, &"INVALID_CONTENT_TYPE".into()), "{answer}");
    assert_eq!(served.bench.journal(user).await.len(), 1);

    let clear = format!("POST /api/swimlane/clear HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    let (status, answer) = exchange(address, format!("{clear}content-length: 0\r\n\r\n")).await;
    assert_eq!((status, &answer["reason"]), (415, &"INVALID_CONTENT_TYPE".into()), "{answer}");
}

/// A foreign name that resolves to this machine is not this server's.
#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_only_loopback_names_are_answered() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user = served.bench.account("100.00").await;
    let port = served.http.port();
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        ("127.0.0.1".to_owned(), 200),
        (format!("[::1]:{port}"), 200),
        (format!("bank.example:{port}"), 403),
        ("127.0.0.1.bank.example".to_owned(), 403),
    ] {
        let head = format!("GET /balance/{user} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        assert_eq!(exchange(served.http, head).await.0, status, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_swimlane_shows_what_happened_until_it_is_cleared() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--strategy", "pessimistic"]).await;
    let (user, other) = (served.bench.account("100.00").await, served.bench.account("100.00").await);
    for user in [user, other] {
        request(served.http, "POST /deduct", &format!(r#"{{"user_id":{user},"amount":"1"}}"#)).await;
    }
    let (_, answer) = request(served.http, &format!("GET /api/swimlane?user_id={user}"), "").await;
    let phases: Vec<&Value> =
        answer["data"]["events"].as_array().unwrap().iter().map(|event| &event["phase"]).collect();
    assert_eq!(phases, ["read", "compute", "write", "commit"], "{answer}");
    let (_, answer) = request(served.http, "GET /api/swimlane?limit=3", "").await;
    let sequences: Vec<&Value> = answer["data"]["events"].as_array().unwrap().iter().map(|e| &e["sequence"]).collect();
    assert_eq!(sequences, [6, 7, 8], "the newest: {answer}");

    let (status, answer) = request(served.http, "POST /api/swimlane/clear", "").await;
    assert_eq!((status, &answer["data"]["cleared"]), (200, &8.into()), "{answer}");
    let (_, answer) = request(served.http, "GET /api/swimlane", "").await;
    assert_eq!(answer["data"]["events"], Value::Array(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_is_the_labs_and_asks_for_its_token() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--lab-token", "secret"]).await;
    let (status, answer) = request(served.http, "POST /api/swimlane/clear", "").await;
    assert_eq!((status, &answer["reason"]), (401, &"LAB_UNAUTHENTICATED".into()), "{answer}");
    let address = served.http;
    let head = format!("POST /api/swimlane/clear HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    let head = format!("{head}authorization: Bearer secret\r\ncontent-type: application/json\r\n");
    let text = format!("{head}content-length: 0\r\n\r\n");
    assert_eq!(exchange(address, text).await.0, 200);
}
