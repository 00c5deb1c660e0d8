//! `/metrics`: what is told, in what form, and that it names nobody.

use std::collections::BTreeSet;

use zbl_proto::v1::{DeductRequest, GetBalanceRequest, StreamTimelineRequest};
use zbl_server::strategy::REGISTRY;

use crate::{
    app::{Database, Served, until},
    wire::{self, serving::get},
};

/// The family that a sample belongs to.
fn family(sample: &str) -> &str {
    let name = sample.split(['{', ' ']).next().unwrap();
    ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

/// The value of a sample; 0 where it is not there yet. Other tests of this process count too.
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_and_nobody_is_named() {
    let database = Database::mysql();
    let served = Served::start(&database.url, &["--reconcile-every=20ms", "--rate-limit=100000"]).await;
    let user_id = served.bench.account("1000.00").await;
    let before = get(served.http, "/metrics").await.1;
    let mut requests = Vec::new();
    for row in REGISTRY {
        let take = DeductRequest { strategy: row.name.to_owned(), ..wire::deduct(user_id, "10") };
        requests.push(take.request_id.clone());
        served.account().deduct(take).await.unwrap();
    }
    served.account().deduct(wire::deduct(user_id, "5000")).await.unwrap_err();
    let unknown = DeductRequest { strategy: "unheard-of".to_owned(), ..wire::deduct(user_id, "1") };
    served.account().deduct(unknown).await.unwrap_err();
    served.account().get_balance(GetBalanceRequest { user_id: -1, consistent: true, as_of: None }).await.unwrap_err();
    let stream = served.account().stream_timeline(StreamTimelineRequest::default()).await.unwrap();
    drop(stream);

    let grown = |after: &str, sample: &str| value(after, sample) > value(&before, sample);
    let mut expected: Vec<String> = [
        r#"deduct_requests_total{status="INSUFFICIENT_BALANCE",strategy="batched"}"#,
        r#"deduct_requests_total{status="UNKNOWN_STRATEGY",strategy="unknown"}"#,
        r#"grpc_server_handled_total{grpc_type="unary",grpc_service="zbl.v1.AccountService",grpc_method="Deduct",grpc_code="OK"}"#,
        r#"grpc_server_handled_total{grpc_type="unary",grpc_service="zbl.v1.AccountService",grpc_method="Deduct",grpc_code="FailedPrecondition"}"#,
        r#"grpc_server_handled_total{grpc_type="unary",grpc_service="zbl.v1.AccountService",grpc_method="GetBalance",grpc_code="InvalidArgument"}"#,
        r#"grpc_server_handled_total{grpc_type="server_stream",grpc_service="zbl.v1.AccountService",grpc_method="StreamTimeline",grpc_code="Canceled"}"#,
        r#"grpc_server_handling_seconds_count{grpc_type="unary",grpc_service="zbl.v1.AccountService",grpc_method="Deduct"}"#,
        r#"lock_wait_duration_seconds_count{strategy="batched"}"#,
        r#"lock_wait_duration_seconds_count{strategy="mutex"}"#,
        r#"lock_wait_duration_seconds_count{strategy="redis_lock"}"#,
        "reconciliation_entries_total",
        "changes_acknowledged_total",
        "batched_changes_total",
        "db_commits_total",
        "timeline_events_total",
    ]
    .map(str::to_owned)
    .into();
    for row in REGISTRY {
        expected.push(format!(r#"deduct_requests_total{{status="OK",strategy="{}"}}"#, row.name));
        expected.push(format!(r#"deduct_duration_seconds_count{{strategy="{}"}}"#, row.name));
    }
    let mut text = String::new();
    until("everything is counted", async || {
        text = get(served.http, "/metrics").await.1;
        expected.retain(|sample| !grown(&text, sample));
        if !expected.is_empty() {
            eprintln!("not yet: {expected:?}");
        }
        expected.is_empty()
    })
    .await;
    for present in
        ["balance_loss_amount ", "breaker_position{", "db_pool_connections{", "limiter_calls ", "build_info{"]
    {
        assert!(text.lines().any(|line| line.starts_with(present)), "{present}");
    }
    for named in requests.iter().chain([&user_id.to_string()]) {
        assert!(!text.contains(named.as_str()), "{named}");
    }
    let described = |keyword: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(keyword));
        lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let families: BTreeSet<String> = samples.map(|line| family(line).to_owned()).collect();
    assert_eq!(described("# TYPE "), families);
    assert_eq!(families.difference(&described("# HELP ")).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Paths are the callers'; what is counted by is not.
#[tokio::test(flavor = "multi_thread")]
async fn invented_methods_are_counted_as_one() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    for method in 0..50 {
        let path = format!("/zbl.v1.AccountService/Invented{method}").parse().unwrap();
        let mut grpc = tonic::client::Grpc::new(served.channel());
        grpc.ready().await.unwrap();
        let codec = tonic_prost_codec();
        let answer = grpc
            .unary(tonic::Request::new(GetBalanceRequest { user_id: 1, consistent: true, as_of: None }), path, codec)
            .await;
        assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
    }
    let text = get(served.http, "/metrics").await.1;
    assert!(!text.contains("Invented"), "a caller's path became a label");
    assert!(
        value(&text, r#"grpc_server_started_total{grpc_type="unary",grpc_service="unknown",grpc_method="unknown"}"#)
            >= 50.0
    );
}

fn tonic_prost_codec() -> tonic_prost::ProstCodec<GetBalanceRequest, zbl_proto::v1::GetBalanceResponse> {
    tonic_prost::ProstCodec::default()
}
