//! What is looked at over time, on made-up figures.

use serde_json::{Value, json};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use zbl_client::Credentials;

use super::memory::{Sample, Trend};
use super::*;
use crate::report::bench::{Bench, Window, sample};
use crate::verdict::Verdict;

const LIMITS: Limits = Limits { memory_growth_percent: 10.0, p99_drift_percent: 100.0 };
const MB: u64 = 1_000_000;

fn samples(bytes: impl Fn(u64) -> u64) -> Vec<Sample> {
    (0..100).map(|n| Sample { at_ms: n * 1_000, bytes: bytes(n) }).collect()
}

/// A bench of two minutes whose seconds have these 99th percentiles.
fn work(p99_us: impl Fn(u64) -> u64) -> Bench {
    let window = |n| Window {
        at_ms: n * 1_000,
        length_ms: 1_000,
        acknowledged: 10,
        failed: 1,
        p50_us: 500,
        p99_us: p99_us(n),
        max_us: p99_us(n),
    };
    Bench { series: (0..120).map(window).collect(), ..sample::closed() }
}

fn soak(works: Vec<Bench>, memory: Vec<Sample>) -> Soak {
    Soak::new(LIMITS, SystemTime::UNIX_EPOCH, works, memory, Watched::default())
}

fn passed(soak: &Soak) -> Vec<bool> {
    soak.limits.iter().map(|limit| limit.passed).collect()
}

#[test]
fn a_trend_is_told_from_warming_up() {
    let flat = Trend::of(&samples(|n| if n < 20 { n * MB } else { 50 * MB })).unwrap();
    assert_eq!((flat.start_bytes, flat.end_bytes, flat.most_bytes), (50 * MB, 50 * MB, 50 * MB));
    assert!(flat.growth_percent.abs() < 0.1 && flat.bytes_per_hour.abs() < 1.0, "{flat:?}");
    let leak = Trend::of(&samples(|n| 50 * MB + n * MB)).unwrap();
    assert!((leak.bytes_per_hour / 3.6e9 - 1.0).abs() < 1e-6, "a megabyte a second: {leak:?}");
    assert!(leak.growth_percent > 50.0, "{leak:?}");
    assert_eq!(Trend::of(&samples(|_| 1)[..3]), None);
}

#[test]
fn growth_and_drift_are_held_against_their_limits() {
    let steady = || vec![work(|_| 2_000), work(|_| 2_000)];
    assert_eq!(passed(&soak(steady(), samples(|_| 50 * MB))), [true, true]);
    assert_eq!(passed(&soak(steady(), samples(|n| 50 * MB + n * MB))), [false, true]);
    // A few megabytes are an allocator's noise, a few milliseconds a machine's, whatever they are in percent.
    assert_eq!(passed(&soak(steady(), samples(|n| MB + n * 50_000))), [true, true]);
    assert_eq!(passed(&soak(vec![work(|n| 100 + n * 10)], samples(|_| MB))), [true, true]);
    assert_eq!(passed(&soak(vec![work(|n| 2_000 + n * 1_000)], samples(|_| MB))), [true, false]);
    // What could not be measured does not pass.
    assert_eq!(passed(&soak(Vec::new(), Vec::new())), [false, false]);
}

#[test]
fn the_whole_is_the_sum_of_its_works_and_has_the_worst_verdict() {
    let whole = soak(vec![work(|_| 1_000), work(|_| 3_000)], samples(|_| MB));
    assert_eq!(whole.windows.len(), 60);
    let first = whole.windows[0];
    assert_eq!((first.length_ms, first.acknowledged, first.failed, first.max_us), (2_000, 40, 4, 3_000));
    assert_eq!((whole.acknowledged, whole.verdict), (2 * sample::closed().acknowledged, Verdict::Clean));
    let mut lost = work(|_| 1_000);
    lost.verdict.as_mut().unwrap().verdict = Verdict::Lost;
    assert_eq!(soak(vec![lost, work(|_| 1_000)], Vec::new()).verdict, Verdict::Lost);
    assert_eq!(soak(Vec::new(), Vec::new()).verdict, Verdict::Inconclusive);
}

#[test]
fn results_follow_the_published_schema_and_the_text_tells_the_same() {
    let schema: Value = serde_json::from_str(include_str!("../../soak.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let soak = soak(vec![work(|_| 1_000)], samples(|n| 50 * MB + n * MB));
    let mut written = serde_json::to_value(&soak).unwrap();
    let errors: Vec<String> = validator.iter_errors(&written).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    written["invented"] = json!(1);
    assert!(!validator.is_valid(&written));
    let text = text(&soak);
    for part in ["CLEAN  soak of 10 s", "NOT KEPT        memory_growth<=10%", "kept            p99_drift<=100%", "MB/h"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

/// What comes of an answer to the question for memory, and the question.
async fn looked(answer: &'static str) -> (Result<Vec<Sample>, String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let credentials = Credentials::default().with_token("s3cret").unwrap();
    let port = HttpPort::at(&listener.local_addr().unwrap().to_string(), &credentials).unwrap();
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut question).await.unwrap(), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(question).unwrap()
    };
    let (memory, question) = tokio::join!(Memory::of(port), served);
    (memory.map(Memory::into_samples).map_err(|error| error.to_string()), question)
}

#[tokio::test]
async fn memory_is_read_from_the_metrics_and_a_refusal_is_told_as_one() {
    let (memory, question) =
        looked("HTTP/1.0 200 OK\r\nx: y\r\n\r\nother 1\nprocess_resident_memory_bytes 5e7\n").await;
    assert_eq!(memory.unwrap()[0].bytes, 50 * MB);
    assert!(question.starts_with("GET /metrics HTTP/1.0\r\n"), "{question}");
    assert!(question.contains("\r\nauthorization: Bearer s3cret\r\n"), "{question}");
    for (answer, told) in [
        (
            "HTTP/1.0 401 Unauthorized\r\n\r\nprocess_resident_memory_bytes 5e7\n",
            "401); give one of its tokens with --token",
        ),
        ("HTTP/1.0 404 Not Found\r\n\r\n", "HTTP status 404; name the server's HTTP port with --http-addr"),
        ("HTTP/1.0 200 OK\r\n\r\nother 1\n", "no such series"),
        ("\x15\x03\x03", "not HTTP; name the server's HTTP port with --http-addr, with https://"),
    ] {
        let error = looked(answer).await.0.unwrap_err();
        assert!(error.contains(told) && !error.contains("s3cret"), "{error}");
    }
}
