//! Traces, as a collector on the network receives them, and as answers, the timeline and the log tell of them.

mod callers;
mod outages;

use test_support::{CollectedSpan, Collector, Cut};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;
use zbl_proto::{
    TRACE_KEY,
    v1::{
        DeductRequest, DeductStreamRequest, GetBalanceRequest, StreamTimelineRequest, stream_timeline_response::Event,
    },
};

use crate::{
    app::{Database, Served, until},
    facade, wire,
};

/// What a caller sends, made up.
struct Caller {
    trace_id: String,
    span_id: String,
}

impl Caller {
    fn new() -> Self {
        let (trace_id, span_id) = (Uuid::new_v4(), Uuid::new_v4());
        Self { trace_id: trace_id.simple().to_string(), span_id: span_id.simple().to_string()[..16].to_owned() }
    }

    /// A call from its span; `flags` say whether the trace is recorded.
    fn call<T>(&self, message: T, flags: &str) -> Request<T> {
        let mut request = Request::new(message);
        let parent = format!("00-{}-{}-{flags}", self.trace_id, self.span_id);
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        request
    }
}

fn take(user_id: i64, strategy: &str) -> DeductRequest {
    DeductRequest { strategy: strategy.to_owned(), ..wire::deduct(user_id, "10") }
}

/// The trace that an answer, or a refusal, says it is part of.
fn told<T>(answer: &Result<Response<T>, Status>) -> String {
    let metadata = match answer {
        Ok(answer) => answer.metadata(),
        Err(status) => status.metadata(),
    };
    metadata.get(TRACE_KEY).expect("the answer names no trace").to_str().unwrap().to_owned()
}

/// The trace's spans, once this many of them have come.
async fn spans(collector: &Collector, trace_id: &str, count: usize) -> Vec<CollectedSpan> {
    until("the spans are exported", async || collector.trace(trace_id).len() >= count).await;
    let mut spans = collector.trace(trace_id);
    spans.sort_by_key(|span| span.time.start);
    spans
}

fn says<'a>(span: &'a CollectedSpan, name: &str) -> &'a str {
    span.attributes.get(name).map_or("", String::as_str)
}

/// The timeline's spans of a change: the trace of each.
async fn timeline_traces(served: &Served, request_id: &str, count: usize) -> Vec<String> {
    let request = StreamTimelineRequest { include_retained: true, ..StreamTimelineRequest::default() };
    let mut events = served.account().stream_timeline(request).await.unwrap().into_inner();
    let mut traces = Vec::new();
    while traces.len() < count {
        match events.message().await.unwrap().unwrap().event {
            Some(Event::Span(span)) if span.request_id == request_id => traces.push(span.trace_id),
            _ => {}
        }
    }
    traces
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deduction_continues_its_callers_trace_phase_by_phase() {
    let collector = Collector::start().await.unwrap();
    for (database, system) in Database::each().iter().zip(["sqlite", "mariadb"]) {
        let served = Served::start(&database.url, &["--otlp-endpoint", &collector.endpoint()]).await;
        let user_id = served.bench.account("1000.00").await;
        for (strategy, phases) in [
            ("pessimistic", &["read", "compute", "write", "commit"][..]),
            ("batched", &["lock_wait", "read", "write", "commit"]),
        ] {
            let (caller, take) = (Caller::new(), take(user_id, strategy));
            let request_id = take.request_id.clone();
            let answer = served.account().deduct(caller.call(take, "01")).await;
            assert_eq!(told(&answer), caller.trace_id);
            let told = timeline_traces(&served, &request_id, phases.len()).await;
            assert!(told.iter().all(|trace_id| *trace_id == caller.trace_id), "{told:?}");

            let spans = spans(&collector, &caller.trace_id, phases.len() + 1).await;
            let [call, parts @ ..] = spans.as_slice() else { panic!("no spans") };
            assert_eq!(
                (call.name.as_str(), call.parent_id.as_str()),
                ("zbl.v1.AccountService/Deduct", &*caller.span_id)
            );
            assert_eq!((call.service.as_str(), format!("{:?}", call.kind).as_str()), ("zbl-server", "Server"));
            for (name, value) in [
                ("rpc.system.name", "grpc"),
                ("rpc.method", "zbl.v1.AccountService/Deduct"),
                ("rpc.response.status_code", "OK"),
                ("zbl.user_id", user_id.to_string().as_str()),
                ("zbl.request_id", &request_id),
                ("zbl.strategy", strategy),
            ] {
                assert_eq!(says(call, name), value, "{name}");
            }
            assert_eq!(parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), phases);
            for part in parts {
                assert_eq!(part.parent_id, call.span_id, "{part:?}");
                assert!(call.time.start <= part.time.start && part.time.end <= call.time.end, "{call:?} {part:?}");
                assert!(part.schema_url.starts_with("https://opentelemetry.io/schemas/1."), "{part:?}");
                let (statement, kind) = match part.name.as_str() {
                    "read" => ("SELECT", "Client"),
                    "write" => ("UPDATE", "Client"),
                    "commit" => ("COMMIT", "Client"),
                    _ => ("", "Internal"),
                };
                assert_eq!((says(part, "db.operation.name"), format!("{:?}", part.kind).as_str()), (statement, kind));
                assert_eq!(says(part, "db.system.name"), if statement.is_empty() { "" } else { system }, "{part:?}");
                let has_place = system == "mariadb" && !statement.is_empty();
                assert_eq!(says(part, "db.namespace").is_empty(), !has_place, "{part:?}");
                assert_eq!(says(part, "server.port").is_empty(), !has_place, "{part:?}");
                assert_eq!((says(part, "zbl.attempt"), part.is_error), ("1", false), "{part:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_has_ids_and_is_not_exported() {
    let collector = Collector::start().await.unwrap();
    let database = Database::sqlite();
    let words = ["--otlp-endpoint", &collector.endpoint(), "--trace-sample", "0"];
    let served = Served::start(&database.url, &words).await;
    let user_id = served.bench.account("1000.00").await;

    let unsampled = Caller::new();
    assert_eq!(
        told(&served.account().deduct(unsampled.call(take(user_id, "batched"), "00")).await),
        unsampled.trace_id
    );
    // Nobody says anything of a trace: a new one each time.
    let (first, second) = (take(user_id, "pessimistic"), take(user_id, "pessimistic"));
    let request_id = first.request_id.clone();
    let ours = told(&served.account().deduct(first).await);
    assert_eq!((ours.len(), timeline_traces(&served, &request_id, 4).await), (32, vec![ours.clone(); 4]));
    assert_ne!(told(&served.account().deduct(second).await), ours);
    // What is malformed is ignored.
    let mut malformed = Request::new(GetBalanceRequest { user_id, consistent: true, as_of: None });
    malformed.metadata_mut().insert("traceparent", "00-0-0-01".parse().unwrap());
    assert_ne!(told(&served.account().get_balance(malformed).await), "0");

    // The last one is sampled by its caller: when it is there, whatever came before it would be too.
    let sampled = Caller::new();
    served.account().deduct(sampled.call(take(user_id, "batched"), "01")).await.unwrap();
    assert_eq!(spans(&collector, &sampled.trace_id, 5).await.len(), 5);
    for trace_id in [&unsampled.trace_id, &ours] {
        assert_eq!(collector.trace(trace_id).len(), 0);
    }
}

/// Refusals and the heads of streams name their trace as answers do, and their spans tell how they ended.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_streams_are_traced_too() {
    let collector = Collector::start().await.unwrap();
    let database = Database::mysql();
    let served = Served::start(&database.url, &["--otlp-endpoint", &collector.endpoint()]).await;
    let user_id = served.bench.account("1000.00").await;

    let refused = Caller::new();
    let too_much = wire::deduct(user_id, "5000");
    assert_eq!(told(&served.account().deduct(refused.call(too_much, "01")).await), refused.trace_id);
    let call = &spans(&collector, &refused.trace_id, 1).await[0];
    // Its caller's doing, not the server's error.
    assert_eq!((says(call, "rpc.response.status_code"), call.is_error), ("FAILED_PRECONDITION", false));

    let unknown = Caller::new();
    let mut grpc = tonic::client::Grpc::new(served.channel());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<GetBalanceRequest, GetBalanceRequest>::default();
    let message = GetBalanceRequest { user_id, consistent: true, as_of: None };
    let path = "/zbl.v1.AccountService/Invented".parse().unwrap();
    let answer = grpc.unary(unknown.call(message, "01"), path, codec).await;
    assert_eq!((told(&answer), answer.unwrap_err().code()), (unknown.trace_id.clone(), Code::Unimplemented));
    let call = &spans(&collector, &unknown.trace_id, 1).await[0];
    assert_eq!((call.name.as_str(), says(call, "rpc.method"), call.is_error), ("grpc", "_OTHER", true));
    assert_eq!(says(call, "error.type"), "UNIMPLEMENTED");

    // Cut off by its caller.
    let watcher = Caller::new();
    let stream = served.account().stream_timeline(watcher.call(StreamTimelineRequest::default(), "01")).await;
    assert_eq!(told(&stream), watcher.trace_id);
    drop(stream);
    let call = &spans(&collector, &watcher.trace_id, 1).await[0];
    assert_eq!(says(call, "rpc.response.status_code"), "CANCELLED");

    // Each item of a stream is a part of it, with phases of its own.
    let many = Caller::new();
    let items = [take(user_id, "batched"), take(user_id, "pessimistic"), wire::deduct(404, "1")];
    let items = items.map(|deduct| DeductStreamRequest { deduct: Some(deduct) });
    let mut answers =
        served.account().deduct_stream(many.call(tokio_stream::iter(items), "01")).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    until("the stream's spans are exported", async || {
        let spans = collector.trace(&many.trace_id);
        spans.iter().filter(|span| span.name == "item").count() == 3
            && spans.iter().any(|span| span.name.ends_with("DeductStream"))
    })
    .await;
    let spans = collector.trace(&many.trace_id);
    let call = spans.iter().find(|span| span.name == "zbl.v1.AccountService/DeductStream").unwrap();
    assert_eq!((&call.parent_id, says(call, "rpc.response.status_code")), (&many.span_id, "OK"));
    let mut phases: Vec<usize> = Vec::new();
    for item in spans.iter().filter(|span| span.name == "item") {
        assert_eq!(item.parent_id, call.span_id);
        let within: Vec<_> = spans.iter().filter(|span| span.parent_id == item.span_id).collect();
        for part in &within {
            assert!(item.time.start <= part.time.start && part.time.end <= item.time.end, "{item:?} {part:?}");
        }
        phases.push(within.iter().filter(|part| part.name == "commit").count());
    }
    phases.sort_unstable();
    assert_eq!(phases, [0, 1, 1], "each applied item commits within its own span");
}

/// The JSON facade is traced as the calls that it spells.
#[tokio::test(flavor = "multi_thread")]
async fn http_is_traced_too() {
    let collector = Collector::start().await.unwrap();
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--otlp-endpoint", &collector.endpoint()]).await;
    let (status, head) = facade::head(served.http, "GET /balance/404").await;
    let trace_id = head.lines().find_map(|line| line.strip_prefix("zbl-trace-id: ")).unwrap();
    let call = &spans(&collector, trace_id, 1).await[0];
    assert_eq!(
        (status, call.name.as_str(), says(call, "http.route")),
        (404, "GET /balance/{user_id}", "/balance/{user_id}")
    );
    assert_eq!((says(call, "http.response.status_code"), call.is_error), ("404", false));
}

/// A commit whose link is cut fails, and what became of it is settled: both are in the trace.
#[tokio::test(flavor = "multi_thread")]
async fn the_settlement_of_a_lost_commit_is_in_its_trace() {
    let collector = Collector::start().await.unwrap();
    let proxy = test_support::CutProxy::start(&Database::mysql().url).unwrap();
    let url = proxy.url(Database::mysql().url.rsplit('/').next().unwrap());
    let served = Served::start(&url, &["--otlp-endpoint", &collector.endpoint()]).await;
    let user_id = served.bench.account("1000.00").await;
    // Of a batch that failed the phase that did is told, and how long it was queued.
    for (strategy, count) in [("pessimistic", 6), ("batched", 4)] {
        let caller = Caller::new();
        proxy.arm(Cut::BehindCommit, 1);
        served.account().deduct(caller.call(take(user_id, strategy), "01")).await.unwrap();
        let spans = spans(&collector, &caller.trace_id, count).await;
        let call = spans.iter().find(|span| span.parent_id == caller.span_id).unwrap();
        let part =
            |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
        let (commit, settle) = (part("commit"), part("settle"));
        assert_eq!((says(commit, "error.type"), commit.is_error), ("LINK_LOST", true), "{strategy}");
        assert_eq!((says(settle, "zbl.settled"), settle.is_error), ("journaled", false), "{strategy}");
        assert_eq!((&settle.parent_id, &commit.parent_id), (&call.span_id, &call.span_id));
        assert!(commit.time.end <= settle.time.start && settle.time.end <= call.time.end, "{strategy}");
    }
}
