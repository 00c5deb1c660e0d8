//! Tokens, as every service asks for them. Which token opens what is `access.rs`'s, and tested there.

use test_support::Authority;
use tonic::{Code, Request, Status, metadata::MetadataValue};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;
use zbl_client::{Client, Credentials, Money, Retry};
use zbl_proto::v1::{GetBalanceRequest, GetStatusRequest};

use crate::{
    app::{Database, Served},
    facade::{answer, head},
    wire::{deduct, serving::get},
};

async fn serve(words: &[&str]) -> (Served, Database) {
    let database = Database::sqlite();
    (Served::start(&database.url, words).await, database)
}

/// A call that shows a token, or none.
fn showing<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut call = Request::new(message);
    if let Some(token) = token {
        let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
        call.metadata_mut().insert("authorization", value);
    }
    call
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap_or_else(|| panic!("no reason: {status:?}")).reason
}

/// What the first answer of reflection is, in one of its editions.
macro_rules! reflect {
    ($served:expr, $edition:ident, $token:expr) => {{
        use tonic_reflection::pb::$edition::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest,
        };
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let call = showing($token, futures::stream::iter([ask]));
        ServerReflectionClient::new($served.channel()).server_reflection_info(call).await.map(drop)
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_but_health_asks_for_it() {
    let (served, _database) = serve(&["--auth-token=s3cret"]).await;
    let user_id = served.bench.account("10.00").await;
    for wrong in [None, Some("wrong"), Some("s3cre"), Some("s3crett")] {
        let balance = GetBalanceRequest { user_id, consistent: false, as_of: None };
        let refusals = [
            served.account().deduct(showing(wrong, deduct(user_id, "1"))).await.map(drop),
            served.account().get_balance(showing(wrong, balance)).await.map(drop),
            served.account().deduct_stream(showing(wrong, futures::stream::empty())).await.map(drop),
            served.lab().get_status(showing(wrong, GetStatusRequest {})).await.map(drop),
            reflect!(served, v1, wrong),
            reflect!(served, v1alpha, wrong),
        ];
        for refusal in refusals {
            let status = refusal.unwrap_err();
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
            assert!(!format!("{status:?}").contains("s3cret"), "{status:?}");
        }
    }
    let right = Some("s3cret");
    served.account().deduct(showing(right, deduct(user_id, "1"))).await.unwrap();
    served.lab().get_status(showing(right, GetStatusRequest {})).await.unwrap();
    reflect!(served, v1, right).unwrap();
    reflect!(served, v1alpha, right).unwrap();
    let about = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "zbl.v1.AccountService", "zbl.v1.LabService"] {
        HealthClient::new(served.channel()).check(about(service)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_port_asks_for_it_too_and_says_how() {
    let (served, _database) = serve(&["--auth-token=s3cret"]).await;
    let user_id = served.bench.account("10.00").await;
    let (balance, http) = (format!("GET /balance/{user_id}"), served.http);
    for line in ["POST /deduct", &balance, "GET /api/swimlane", "POST /api/swimlane/clear", "GET /metrics"] {
        let json = "content-type: application/json\r\ncontent-length: 0\r\n";
        let asked = async |more: &str| {
            answer(http, format!("{line} HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n{json}{more}\r\n")).await
        };
        for wrong in ["", "authorization: Bearer wrong\r\n", "authorization: Basic s3cret\r\n"] {
            let (head, body) = asked(wrong).await;
            assert!(head.starts_with("HTTP/1.1 401 ") && body.contains("UNAUTHENTICATED"), "{line}: {head}\n{body}");
            assert!(head.to_lowercase().contains("www-authenticate: bearer"), "{line}: {head}");
        }
        let (head, _) = asked("authorization: Bearer s3cret\r\n").await;
        // An empty body is no deduction.
        let expected = if line == "POST /deduct" { " 400 " } else { " 200 " };
        assert!(head.contains(expected), "{line}: {head}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(http, path).await.0, 200, "{path}");
    }
    assert_eq!(head(http, "GET /nope").await.0, 404);
}

/// Behind TLS as without it, and with the client library.
#[tokio::test(flavor = "multi_thread")]
async fn clients_show_it() {
    let authority = Authority::new().unwrap();
    let signed = authority.sign("server", &["127.0.0.1"]).unwrap();
    let tls = [("cert", &signed.certificate), ("key", &signed.key)];
    let tls = tls.map(|(flag, path)| format!("--tls-{flag}={}", path.display()));
    let (served, _database) = serve(&[&tls[0], &tls[1], "--auth-token=service", "--lab-token=lab"]).await;
    let trusting = Credentials::default().with_tls(Some(&authority.certificate()), None).unwrap();
    let client = |token: &str| {
        let credentials = trusting.clone().with_token(token).unwrap();
        Client::connect_lazy_with(&format!("https://{}", served.grpc), &credentials).unwrap().with_retry(Retry::NEVER)
    };
    let (service, lab, wrong) = (client("service"), client("lab"), client("wrong"));
    let account = service.open_account(None, Money::from_minor(100)).await.unwrap().user_id;
    assert_eq!(service.status().await.unwrap_err().to_string().split(':').next(), Some("LAB_UNAUTHENTICATED"));
    lab.reset_account(account, Money::from_minor(900)).await.unwrap();
    assert_eq!(lab.balance(account).await.unwrap().balance, Money::from_minor(900));
    assert_eq!(wrong.balance(account).await.unwrap_err().to_string().split(':').next(), Some("UNAUTHENTICATED"));
    let mut timeline = service.apart().timeline(None, zbl_client::Start::Retained);
    assert!(matches!(timeline.next().await, Ok(zbl_client::TimelineItem::Connected)), "the stream shows it too");
}
