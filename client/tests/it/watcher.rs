//! The `timeline` binary against scripted servers and files: what it prints and how it ends.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use test_support::Collector;
use tonic::Status;
use zbl_proto::v1::stream_timeline_response::Event;
use zbl_proto::v1::{Gap, GapReason, Phase, Span, State, StreamTimelineResponse};

use crate::scripted::{Script, Session};

fn event(epoch: &str, sequence: i64, event: Event) -> StreamTimelineResponse {
    let instance = format!("host-{epoch}");
    StreamTimelineResponse { epoch: epoch.to_owned(), sequence, instance, event: Some(event) }
}

/// A span that ends `sequence` milliseconds into the epoch.
fn span(epoch: &str, sequence: i64) -> StreamTimelineResponse {
    let span = Span {
        user_id: 7,
        request_id: format!("{epoch}{sequence:07}-"),
        phase: Phase::Commit.into(),
        start_ns: sequence * 1_000_000,
        written: Some(State { balance: "1.00".to_owned(), version: sequence }),
        ..Span::default()
    };
    event(epoch, sequence, Event::Span(span))
}

/// Runs the binary to its end.
async fn timeline(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_timeline"));
    command.args(arguments).env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn killed() -> Result<StreamTimelineResponse, Status> {
    Err(Status::unavailable("killed"))
}

/// A server that is killed, comes back, repeats itself, is killed again and comes back as another run.
fn restarted() -> [Session; 3] {
    let gap = Gap { reason: GapReason::EpochChanged.into(), after_sequence: 5, next_sequence: 1 };
    [
        vec![Ok(span("a", 1)), Ok(span("a", 4)), killed()],
        vec![Ok(span("a", 1)), Ok(span("a", 4)), Ok(span("a", 5)), killed()],
        vec![Ok(event("b", 0, Event::Gap(gap))), Ok(span("b", 1))],
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_leaves_no_duplicate_and_a_named_gap() {
    let client = Script::default().sessions(restarted()).serve().await;
    let output = timeline(&["--addr", client.address(), "--retained", "--limit", "4"]).await;
    let text = stdout(&output);
    assert!(output.status.success(), "{text}");
    for request in ["a0000001", "a0000004", "a0000005", "b0000001"] {
        assert_eq!(text.matches(request).count(), 1, "{request} in {text}");
    }
    assert_eq!(text.matches("-- connection lost").count(), 2, "{text}");
    assert!(text.contains("-- GAP  the server was restarted"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_calls_begin_traces() {
    let collector = Collector::start().await.unwrap();
    let script = Script::default().sessions([vec![Ok(span("a", 1))]]).lingering();
    let client = script.serve().await;
    let watch = ["--addr", client.address(), "--retained", "--limit", "1"];
    let output = timeline(&[&watch[..], &["--otlp-endpoint", &collector.endpoint()]].concat()).await;
    assert!(output.status.success(), "{output:?}");
    // It has sent them before it ended.
    let [call] = collector.spans().try_into().unwrap();
    assert_eq!((call.service.as_str(), call.name.as_str()), ("timeline", "zbl.v1.AccountService/StreamTimeline"));
    assert_eq!(script.asked().parents, [format!("00-{}-{}-01", call.trace_id, call.span_id)]);
    // With nobody to send them to, the server is told of none.
    let script = Script::default().sessions([vec![Ok(span("a", 1))]]).lingering();
    let client = script.serve().await;
    let alone = timeline(&["--addr", client.address(), "--retained", "--limit", "1"]).await;
    assert!(alone.status.success() && script.asked().timelines.len() == 1, "{alone:?}");
    assert_eq!(script.asked().parents, [""; 0]);
    // Where nobody listens, it shows the same.
    let script = Script::default().sessions([vec![Ok(span("a", 1))]]).lingering();
    let client = script.serve().await;
    let watch = ["--addr", client.address(), "--retained", "--limit", "1", "--otlp-endpoint", "http://127.0.0.1:1"];
    // All but the address.
    let shown = |output: &Output| stdout(output).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(shown(&timeline(&watch).await), shown(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_replayed_the_same() {
    let client = Script::default().sessions(restarted()).serve().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (recording, trace) = (path("recording"), path("trace.json"));
    let live = timeline(&["--addr", client.address(), "--retained", "--limit", "4", "--record", &recording]).await;
    assert!(live.status.success());

    let replayed = timeline(&["--replay", &recording, "--speed", "max"]).await;
    assert_eq!(stdout(&replayed), stdout(&live));

    let json = timeline(&["--replay", &recording, "--speed", "0", "-o", "ndjson"]).await;
    let lines: Vec<Value> = stdout(&json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let spans: Vec<_> = lines.iter().filter(|line| line["event"]["span"].is_object()).collect();
    assert_eq!(spans.len(), 4);
    assert_eq!((&spans[3]["event"]["epoch"], &spans[3]["event"]["instance"]), (&"b".into(), &"host-b".into()));

    let perfetto = timeline(&["--replay", &recording, "--speed", "0", "-o", "perfetto", &trace]).await;
    assert!(perfetto.status.success() && perfetto.stdout.is_empty());
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    let slices = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").count();
    assert_eq!(slices, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_leaves_a_whole_trace() {
    // The script has one session; the next is refused for good.
    let client = Script::default().sessions([vec![Ok(span("a", 1)), Ok(span("a", 4)), killed()]]).serve().await;
    let output = timeline(&["--addr", client.address(), "--retained", "-o", "perfetto"]).await;
    let printed = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let trace: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    let slices = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").count();
    assert_eq!(slices, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_merged_and_told_apart() {
    let one = Script::default().sessions([vec![Ok(span("a", 2)), Ok(span("a", 4))]]).lingering().serve().await;
    let two = Script::default().sessions([vec![Ok(span("b", 3)), Ok(span("b", 5))]]).lingering().serve().await;
    let recording = tempfile::NamedTempFile::new().unwrap();
    let recording = recording.path().to_str().unwrap();
    let servers = ["--addr", one.address(), "--addr", two.address()];
    let rest = ["--retained", "--limit", "4", "--record", recording];
    let live = timeline(&[&servers[..], &rest].concat()).await;
    assert!(live.status.success(), "{live:?}");
    // Replayed without a pause, so that no slow machine can put a silence between the servers.
    let output = timeline(&["--replay", recording, "--speed", "max"]).await;
    let text = stdout(&output);
    for told in ["-- srv 1: epoch a of host-a", "-- srv 2: epoch b of host-b", "committed 1.00@v5"] {
        assert!(text.contains(told), "{text}");
    }
    let position = |request: &str| text.find(request).unwrap_or_else(|| panic!("{request} in {text}"));
    let order = ["a0000002", "b0000003", "a0000004", "b0000005"].map(position);
    assert!(order.is_sorted(), "each commit stands behind the one it saw: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn since_leaves_out_what_is_older() {
    let retained =
        || Script::default().sessions([(1..=9).map(|sequence| Ok(span("a", sequence))).collect::<Session>()]);
    for (since, first) in [("7", "a0000008"), ("2ms", "a0000007")] {
        let client = retained().lingering().serve().await;
        let output = timeline(&["--addr", client.address(), "--since", since, "-o", "ndjson", "--limit", "2"]).await;
        let text = stdout(&output);
        let line = text.lines().find(|line| line.contains("\"span\"")).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(first), "{since}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_errors_and_foreign_files_end_with_2() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (arguments, problem) in [
        (&["--replay", manifest][..], "its first line is not the header"),
        (&["--replay", "/no/such/file"], "/no/such/file"),
        (&["--replay", manifest, "--addr", "a:1"], "cannot be used with"),
        (&["--replay", manifest, "--speed", "nan"], "0 or max for no pause"),
        (&["--speed", "2"], "--replay"),
        (&["-o", "yaml"], "give line, ndjson or perfetto"),
        (&["--since", "yesterday"], "EPOCH:SEQUENCE"),
        (&["--since", "5", "--addr", "a:1", "--addr", "b:1"], "a sequence belongs to one server"),
        (&["--addr", "ftp://a:1"], "only http and https are spoken"),
    ] {
        let output = timeline(arguments).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(problem), "{arguments:?}: {stderr}");
    }
}
