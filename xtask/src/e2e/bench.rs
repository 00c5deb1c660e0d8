//! `loadgen bench` as a process: both loops, the stream, thresholds and exit codes, the files it leaves behind, and the
//! comparison of two of them. The figures are held against each other; how fast anything is, is not checked here.

use std::{fs, time::Duration};

use serde_json::Value;
use test_support::fresh_database;

use super::{
    checks::{Checks, ensure},
    stage::{Ended, Server, Stage, argument},
};
use crate::command::{Failure, workspace};

/// Everything here takes a second or two, and ends by itself.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The race is wide: a second of calls by sixteen callers without any guard practically always loses.
const TRIES: u32 = 5;

const AS_EXPECTED: i32 = 0;
const USAGE: i32 = 2;
const NOT_AS_EXPECTED: i32 = 10;
const THRESHOLD_FAILED: i32 = 11;

/// What no call can keep.
const IMPOSSIBLE: &str = "p99<1us";
/// What every call keeps: its deadline is shorter.
const CERTAIN: &str = "p99<60s";
/// Calls per second of the open loop, and calls in its second.
const RATE: i64 = 200;

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let server = Server::start(stage, &fresh_database()?)?;
    let bench = Bench { stage, server: &server };
    let mut first = Value::Null;
    checks.check_and_note("closed loop: CLEAN, the figures agree, page and histogram log are made", || {
        first = bench.closed()?;
        Ok(format!("({} calls)", first["requests"]))
    });
    checks.check("the result has exactly the fields that loadgen/bench.schema.json requires", || published(&first));
    checks.check("open loop: the schedule is fixed in advance, and kept or owned up to", || bench.open());
    checks.check("by DeductStream: CLEAN", || {
        let result = bench.run("stream", &["--strategy", "batched", "--stream"], AS_EXPECTED)?.1;
        ensure(result["stream"] == true, || result.to_string())?;
        clean(&result)
    });
    checks.check("deductions and balances mixed: both are called, the deductions are CLEAN", || bench.mixed());
    checks.check("health checks: nothing is deducted, so nothing is judged", || {
        let result = bench.run("health", &["--method", "health"], AS_EXPECTED)?.1;
        ensure(result["verdict"].is_null() && result["acknowledged"].as_u64() > Some(0), || result.to_string())
    });
    checks.check("a threshold that is missed ends with 11, one that holds with 0", || bench.thresholds());
    checks.check_and_note("none: LOST ends with 10, whatever the thresholds say", || bench.lost());
    checks.check("a threshold, a rate or a mix that makes no sense is refused with 2", || {
        bench.run("wrong", &["--rate", "1e-20"], USAGE)?.0.saying(&["the rate must be between"])?;
        bench.run("wrong", &["--threshold", "p99 is nice"], USAGE)?.0.saying(&["--threshold"])?;
        bench.run("wrong", &["--mix", "deduct=80,prayer=20"], USAGE)?.0.saying(&["--mix"]).map(drop)
    });
    checks.check_and_note("soak: CLEAN, and memory is told; too short a one ends with 11", || bench.soak());
    checks.check("report: one result again, two side by side", || bench.report());
    Ok(())
}

/// A server to measure.
struct Bench<'a> {
    stage: &'a Stage,
    server: &'a Server<'a>,
}

impl Bench<'_> {
    /// Measures for a second, expecting an exit code, and reads the result file.
    fn run(&self, name: &str, arguments: &[&str], code: i32) -> Result<(Ended, Value), Failure> {
        let (ended, result) = self.end(name, arguments)?;
        Ok((ended.expect(code)?, result))
    }

    /// The same, however it ends; the result is null when none was written.
    fn end(&self, name: &str, arguments: &[&str]) -> Result<(Ended, Value), Failure> {
        let file = self.stage.path(&format!("bench-{name}.json"));
        let mut command = self.stage.command("loadgen", &["bench", "--addr", &self.server.address().to_string()]);
        command.args(["--json", &argument(&file), "--connections", "2", "--warmup", "200ms", "--duration", "1s"]);
        command.args(arguments);
        let ended = self.stage.run(command, TIMEOUT)?;
        let text = fs::read_to_string(&file).unwrap_or_default();
        Ok((ended, serde_json::from_str(&text).unwrap_or_default()))
    }

    fn closed(&self) -> Result<Value, Failure> {
        let [page, log] = ["bench.html", "bench.hlog"].map(|name| self.stage.path(name));
        let files = ["--html", &argument(&page), "--hlog", &argument(&log)].map(str::to_owned);
        let arguments = ["--strategy", "batched", "--accounts", "3", "--concurrency", "16"];
        let arguments: Vec<&str> = arguments.into_iter().chain(files.iter().map(String::as_str)).collect();
        let (ended, result) = self.run("closed", &arguments, AS_EXPECTED)?;
        ended.saying(&["acknowledged/s  CLEAN", "per second, refusals included"])?;
        clean(&result)?;
        ensure(result["verdict"]["accounts_checked"] == 3, || result["verdict"].to_string())?;
        ensure(result["schedule"].is_null() && result["pacing"]["loop"] == "closed", || result["pacing"].to_string())?;
        let read = |file| fs::read_to_string(file).map_err(|error| Failure::Failed(error.to_string()));
        let page = read(&page)?.to_lowercase();
        ensure(page.starts_with("<!doctype html>") && page.contains("batched"), || "that is no page".into())?;
        let fetched = ["src=\"http", "href=\"http", "@import", "fetch("].into_iter().find(|text| page.contains(text));
        ensure(fetched.is_none(), || format!("the page fetches something: {fetched:?}"))?;
        let log = read(&log)?;
        ensure(log.contains("Interval_Max") && log.lines().count() > 2, || format!("no histogram log: {log}"))?;
        Ok(result)
    }

    fn open(&self) -> Result<(), Failure> {
        let result = self.run("open", &["--strategy", "atomic", "--rate", &RATE.to_string()], AS_EXPECTED)?.1;
        clean(&result)?;
        let schedule = &result["schedule"];
        let [sent, dropped, late] = ["sent", "dropped", "late"].map(|name| schedule[name].as_i64().unwrap_or(-1));
        // The second begins at some call's turn: one more or less.
        let due = (RATE - 1)..=(RATE + 1);
        ensure(due.contains(&(sent + dropped)) && late <= sent, || schedule.to_string())?;
        // From the intended start it can only be later than from the sending.
        let [latency, observed] = ["latency_us", "observed_latency_us"].map(|name| result[name]["max"].as_u64());
        ensure(observed.is_some() && latency >= observed, || format!("{latency:?} against {observed:?}"))
    }

    fn mixed(&self) -> Result<(), Failure> {
        let arguments = ["--strategy", "atomic", "--mix", "deduct=80,balance=20", "--concurrency", "8"];
        let result = self.run("mixed", &arguments, AS_EXPECTED)?.1;
        clean(&result)?;
        let [deduct, balance] = ["deduct", "balance"].map(|name| result["methods"][name]["requests"].as_u64());
        ensure(deduct > balance && balance > Some(0), || result["methods"].to_string())
    }

    fn thresholds(&self) -> Result<(), Failure> {
        let both = ["--strategy", "atomic", "--threshold", CERTAIN, "--threshold", IMPOSSIBLE];
        let (ended, result) = self.run("missed", &both, THRESHOLD_FAILED)?;
        ended.saying(&[IMPOSSIBLE])?;
        let passed: Vec<_> = result["thresholds"].as_array().into_iter().flatten().map(|one| &one["passed"]).collect();
        ensure(passed == [true, false], || result["thresholds"].to_string())?;
        self.run("kept", &both[..4], AS_EXPECTED).map(drop)
    }

    fn lost(&self) -> Result<String, Failure> {
        let arguments = ["--strategy", "none", "--concurrency", "16", "--expect", "clean", "--threshold", IMPOSSIBLE];
        for attempt in 1..=TRIES {
            let (ended, result) = self.end("none", &arguments)?;
            if ended.code == Some(THRESHOLD_FAILED) {
                continue;
            }
            ended.expect(NOT_AS_EXPECTED)?;
            let verdict = &result["verdict"];
            let count = verdict["lost_updates_count"].as_u64();
            ensure(verdict["verdict"] == "LOST" && count > Some(0), || verdict.to_string())?;
            return Ok(format!("({} lost in bench {attempt} of at most {TRIES})", verdict["lost"]));
        }
        Err(Failure::Failed(format!("{TRIES} benches lost nothing")))
    }

    fn soak(&self) -> Result<String, Failure> {
        let file = self.stage.path("soak.json");
        let [grpc, http] = [self.server.address(), self.server.http_address()].map(|address| address.to_string());
        let soak = |length: &str, code: i32| {
            let mut command = self.stage.command("loadgen", &["soak", "--addr", &grpc, "--http-addr", &http]);
            // How even latency is on this machine is not checked here.
            command.args(["--rate", "50", "--accounts", "2", "--p99-drift", "100000", "--memory-growth", "100"]);
            command.args(["--duration", length, "--json", &argument(&file)]);
            self.stage.run(command, TIMEOUT)?.expect(code)
        };
        soak("1s", THRESHOLD_FAILED)?.saying(&["too short to tell"])?;
        soak("8s", AS_EXPECTED)?.saying(&["CLEAN  soak", "by DeductStream"])?;
        let text = fs::read_to_string(&file).map_err(|error| Failure::Failed(error.to_string()))?;
        let result: Value = serde_json::from_str(&text).map_err(|error| Failure::Failed(error.to_string()))?;
        let trend = &result["memory_trend"];
        let [held, seen] = [&trend["end_bytes"], &result["timeline"]["events"]].map(Value::as_u64);
        ensure(held > Some(1 << 20) && seen > Some(0), || format!("{trend}, {}", result["timeline"]))?;
        Ok(format!("({} acknowledged, {held:?} bytes held, {seen:?} events seen)", result["acknowledged"]))
    }

    fn report(&self) -> Result<(), Failure> {
        let [one, other] = ["closed", "stream"].map(|name| argument(&self.stage.path(&format!("bench-{name}.json"))));
        let report = |files: &[&str]| {
            let arguments: Vec<&str> = ["report"].into_iter().chain(files.iter().copied()).collect();
            self.stage.run(self.stage.command("loadgen", &arguments), TIMEOUT)?.expect(AS_EXPECTED)
        };
        report(&[&one])?.saying(&["batched", "CLEAN"])?;
        report(&[&one, &other])?.saying(&["p99", "×"])?;
        report(&[&one, &other, "--markdown"])?.saying(&["| "])?;
        let absent = self.stage.command("loadgen", &["report", "absent.json"]);
        self.stage.run(absent, TIMEOUT)?.expect(USAGE)?.saying(&["absent.json"]).map(drop)
    }
}

/// Fails unless nothing was lost or left unknown, and the figures agree with each other.
fn clean(result: &Value) -> Result<(), Failure> {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let failed: u64 = result["failed"].as_object().into_iter().flatten().map(|(_, number)| count(number)).sum();
    let [requests, acknowledged, unknown] = ["requests", "acknowledged", "unknown"].map(|name| count(&result[name]));
    ensure(acknowledged > 0 && requests == acknowledged + failed + unknown, || {
        format!("{requests} requests, {acknowledged} acknowledged, {failed} failed, {unknown} unknown")
    })?;
    let verdict = &result["verdict"];
    let is_clean = verdict["verdict"] == "CLEAN" && verdict["lost_updates_count"] == 0 && verdict["lost"] == "0.00";
    ensure(is_clean, || format!("not CLEAN: {verdict}"))?;
    let curve = ["p50", "p90", "p99", "p999", "max"].map(|name| count(&result["latency_us"][name]));
    ensure(curve.is_sorted() && curve[0] > 0, || format!("no latency curve: {curve:?}"))
}

/// Fails unless a result has exactly the fields that the published schema requires.
fn published(result: &Value) -> Result<(), Failure> {
    let file = workspace().join("loadgen/bench.schema.json");
    let unreadable = |error: String| Failure::Failed(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(&file).map_err(|error| unreadable(error.to_string()))?;
    let schema: Value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let mut required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut present: Vec<&str> = result.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    required.sort_unstable();
    present.sort_unstable();
    ensure(!required.is_empty() && required == present, || format!("required {required:?}, present {present:?}"))
}
