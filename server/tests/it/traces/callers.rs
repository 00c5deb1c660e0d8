//! Our own callers begin traces: the client, the bench and its streams; and the log of a server's process tells of them.

use std::{collections::BTreeMap, process::Command, time::Duration};

use serde_json::Value;
use test_support::{CollectedSpan, Collector, Process, free_port};
use tokio::sync::watch;
use tonic::{Code, transport::Endpoint};
use zbl_client::{Change, Client, Money};
use zbl_loadgen::{
    attack::stop,
    bench::{self, Length, Plan, Transport},
    report::bench::{Method, Pacing},
};
use zbl_proto::v1::account_service_client::AccountServiceClient;
use zbl_trace::{Program, Ratio, Traces};

use super::{Caller, take};
use crate::app::{Database, PATIENCE, Served, until};

fn traces(name: &'static str, collector: &Collector) -> Traces {
    let program = Program { name, version: "0", instance: "test".to_owned() };
    Traces::start(program, Some(&collector.endpoint().parse().unwrap()), Ratio::ALL).unwrap()
}

/// The server's spans that are within one of `service`'s: their names, and how the caller saw them end.
fn continued(collector: &Collector, service: &str) -> Vec<[String; 2]> {
    let (theirs, ours): (Vec<_>, Vec<_>) = collector.spans().into_iter().partition(|span| span.service == "zbl-server");
    let ours: BTreeMap<_, _> =
        ours.iter().filter(|span| span.service == service).map(|span| (&span.span_id, span)).collect();
    let within = |span: &CollectedSpan| {
        let parent = ours.get(&span.parent_id)?;
        assert_eq!((format!("{:?}", parent.kind).as_str(), &parent.name), ("Client", &span.name));
        assert_eq!(parent.trace_id, span.trace_id);
        Some([span.name.clone(), parent.attributes["rpc.response.status_code"].clone()])
    };
    theirs.iter().filter_map(within).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_benches_begin_traces() {
    let collector = Collector::start().await.unwrap();
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--otlp-endpoint", &collector.endpoint()]).await;
    let client = Client::connect_lazy(&served.grpc.to_string()).unwrap();

    let calling = traces("client", &collector);
    let traced = client.clone().with_tracer(calling.tracer().clone());
    let account = traced.open_account(None, Money::parse("10.00").unwrap()).await.unwrap();
    traced.deduct(&Change::new(account.user_id, Money::parse("1.00").unwrap())).await.unwrap();
    calling.stop().await;
    let expected = ["OpenAccount", "Deduct"].map(|call| [format!("zbl.v1.AccountService/{call}"), "OK".to_owned()]);
    until("the client's calls are continued", async || continued(&collector, "client") == expected).await;

    for (name, transport, method, calls, ended) in [
        ("bench", Transport::Unary, "zbl.v1.AccountService/Deduct", 20, "OK"),
        // A bench does not wait for its streams to end.
        ("stream", Transport::Stream, "zbl.v1.AccountService/DeductStream", 1, "CANCELLED"),
    ] {
        let benching = traces(name, &collector);
        let plan = Plan {
            clients: vec![client.clone().with_tracer(benching.tracer().clone())],
            connections: 1,
            mix: BTreeMap::from([(Method::Deduct, 1)]),
            transport,
            strategy: "batched".to_owned(),
            accounts: 1,
            zipf: None,
            first_user: Some(account.user_id),
            amount: Money::from_minor(1),
            opening: Money::from_minor(0),
            pacing: Pacing::Closed { concurrency: 2 },
            length: Length::Requests(20),
            warmup: Duration::ZERO,
            outage: Duration::from_secs(1),
            seed: 1,
            thresholds: Vec::new(),
        };
        let (progress, (_stopper, stop)) = (watch::Sender::default(), stop());
        bench::run(&plan, None, &progress, &stop).await.unwrap();
        benching.stop().await;
        let expected = [method.to_owned(), ended.to_owned()];
        until("the bench's calls are continued", async || {
            continued(&collector, name).iter().filter(|call| **call == expected).count() == calls
        })
        .await;
    }
}

/// The log of a process, which is no terminal: JSON, with the ids of the call that each line is about.
#[tokio::test(flavor = "multi_thread")]
async fn log_lines_name_the_trace_and_the_call() {
    let directory = tempfile::tempdir().unwrap();
    let [grpc, http] = [(); 2].map(|()| free_port().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_zbl-server"));
    command.current_dir(&directory).env_clear().args(["--log", "zbl_server=debug", "--rate-limit", "1"]);
    command.args(["--grpc-addr", &format!("127.0.0.1:{grpc}"), "--http-addr", &format!("127.0.0.1:{http}")]);
    let mut server = Process::spawn(command).unwrap();
    server.wait_for_port(([127, 0, 0, 1], grpc).into(), PATIENCE).unwrap();
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{grpc}")).unwrap().connect_lazy();

    let caller = Caller::new();
    let mut call = caller.call(take(404, "pessimistic"), "00");
    call.metadata_mut().insert("x-request-id", r#"my"call\7"#.parse().unwrap());
    let mut account = AccountServiceClient::new(channel);
    account.deduct(call).await.unwrap_err();
    let line = server.wait_for_line("ACCOUNT_NOT_FOUND", PATIENCE).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!((line["trace_id"].as_str(), line["call_id"].as_str()), (Some(&*caller.trace_id), Some(r#"my"call\7"#)));
    assert_eq!((line["level"].as_str(), line["reason"].as_str()), (Some("DEBUG"), Some("ACCOUNT_NOT_FOUND")));

    // What a layer refuses is told in the same way.
    let refused = Caller::new();
    until("a layer refuses a call", async || {
        let answer = account.deduct(refused.call(take(404, "pessimistic"), "00")).await;
        answer.is_err_and(|status| status.code() == Code::ResourceExhausted)
    })
    .await;
    let line: Value = serde_json::from_str(&server.wait_for_line("RATE_LIMITED", PATIENCE).unwrap()).unwrap();
    assert_eq!(line["trace_id"].as_str(), Some(&*refused.trace_id));
}
