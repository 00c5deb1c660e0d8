//! The JSON facade as curl sees it: amounts as strings and as numbers, balances with their digits, the timeline as JSON,
//! and its errors, none of which changes a balance.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

use super::{
    checks::{Checks, ensure},
    stage::{Server, Stage},
};
use crate::command::{Failure, answers};

/// How long curl waits, in seconds, and how long curl is waited for.
const MAX_TIME_S: &str = "30";
const TIMEOUT: Duration = Duration::from_secs(40);

/// A browser lets a foreign page send this content type only with the server's leave, so the facade insists on it.
const JSON: &str = "content-type: application/json";

/// More than any request needs, and more than the facade takes.
const BODY_TOO_LARGE: usize = 17 * 1024;

/// A request that must be refused: status, reason, path, and what else curl is told.
type Refused = (u16, &'static str, &'static str, &'static [&'static str]);

const REFUSED: [Refused; 15] = [
    (400, "INVALID_AMOUNT", "/deduct", &["-H", JSON, "-d", r#"{"user_id":1,"amount":"1.001"}"#]),
    (400, "INVALID_AMOUNT", "/deduct", &["-H", JSON, "-d", r#"{"user_id":1,"amount":1.001}"#]),
    (400, "INVALID_AMOUNT", "/deduct", &["-H", JSON, "-d", r#"{"user_id":1,"amount":1e1}"#]),
    (400, "INVALID_AMOUNT", "/deduct", &["-H", JSON, "-d", r#"{"user_id":1,"amount":null}"#]),
    (400, "UNKNOWN_STRATEGY", "/deduct", &["-H", JSON, "-d", r#"{"user_id":1,"amount":1,"strategy":"hope"}"#]),
    (400, "INVALID_JSON", "/deduct", &["-H", JSON, "-d", r#"{"user_id":1"#]),
    (400, "INVALID_JSON", "/deduct", &["-H", JSON, "-d", r#"{"user_id":1,"amount":1,"amuont":2}"#]),
    (400, "INVALID_USER_ID", "/balance/everybody", &[]),
    (400, "INVALID_QUERY", "/api/swimlane?limit=many", &[]),
    (404, "ACCOUNT_NOT_FOUND", "/balance/4711", &[]),
    (404, "ACCOUNT_NOT_FOUND", "/deduct", &["-H", JSON, "-d", r#"{"user_id":4711,"amount":1}"#]),
    (404, "NOT_FOUND", "/nowhere", &[]),
    (405, "METHOD_NOT_ALLOWED", "/deduct", &[]),
    (409, "INSUFFICIENT_BALANCE", "/deduct", &["-H", JSON, "-d", r#"{"user_id":1,"amount":5000.00}"#]),
    (415, "INVALID_CONTENT_TYPE", "/deduct", &["-d", r#"{"user_id":1,"amount":1}"#]),
];

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    if !answers("curl", &["--version"]) {
        return Err(Failure::Failed("curl is not installed; run: apt-get install curl".into()));
    }
    let server = Server::start(stage, &stage.sqlite_url("facade.db"))?;
    let curl = Curl { stage, address: server.http_address() };
    checks.check("up and ready", || {
        let probes = [curl.get("/healthz")?, curl.get("/readyz")?];
        ensure(probes.iter().all(|probe| probe.status == 200 && probe.body == "ok"), || format!("{probes:?}"))
    });
    checks.check("POST /deduct takes strings and numbers by their digits, GET /balance agrees", || deduct(&curl));
    checks.check("the same request id answers with the first receipt", || repeat(&curl));
    checks.check("GET /api/swimlane shows phases, POST /api/swimlane/clear forgets them", || swimlane(&curl));
    for (status, reason, path, arguments) in REFUSED {
        let what = arguments.last().map_or_else(|| path.to_owned(), |body| format!("{path} {body}"));
        checks.check(&format!("{status} {reason}: {what}"), || refused(&curl, status, reason, path, arguments));
    }
    checks.check("413 BODY_TOO_LARGE: /deduct with 17 KiB", || {
        let body = format!(r#"{{"user_id":1,"amount":"{}"}}"#, "1".repeat(BODY_TOO_LARGE));
        refused(&curl, 413, "BODY_TOO_LARGE", "/deduct", &["-H", JSON, "-d", &body])
    });
    Ok(())
}

/// curl, aimed at one server.
struct Curl<'a> {
    stage: &'a Stage,
    address: SocketAddr,
}

/// What the server answered.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.body).map_err(|error| Failure::Failed(format!("{error}: {self:?}")))
    }

    /// The data of a success.
    fn data(&self) -> Result<Value, Failure> {
        let envelope = self.json()?;
        let is_ok = self.status == 200 && envelope["code"] == 200 && envelope["message"] == "ok";
        ensure(is_ok && envelope.get("reason").is_none(), || format!("not a success: {self:?}"))?;
        Ok(envelope["data"].clone())
    }
}

impl Curl<'_> {
    fn ask(&self, path: &str, arguments: &[&str]) -> Result<Answer, Failure> {
        let mut command = self.stage.foreign("curl");
        command.args(["--silent", "--show-error", "--max-time", MAX_TIME_S, "--write-out", "\n%{http_code}"]);
        command.args(arguments).arg(format!("http://{}{path}", self.address));
        let output = self.stage.run(command, TIMEOUT)?.expect(0)?.output;
        let answer = output.trim_end().rsplit_once('\n');
        let answer = answer.and_then(|(body, status)| Some(Answer { status: status.parse().ok()?, body: body.into() }));
        answer.ok_or_else(|| Failure::Failed(format!("{path}: no answer in {output:?}")))
    }

    fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(path, &[])
    }

    fn deduct(&self, body: &str) -> Result<Answer, Failure> {
        self.ask("/deduct", &["-H", JSON, "-d", body])
    }
}

fn deduct(curl: &Curl<'_>) -> Result<(), Failure> {
    for (amount, balance, version) in [(r#""10.00""#, "990.00", 2), ("10.00", "980.00", 3), ("0.1", "979.90", 4)] {
        let receipt = curl.deduct(&format!(r#"{{"user_id":1,"amount":{amount}}}"#))?;
        let data = receipt.data()?;
        ensure(data["version"] == version && data["strategy"] == "batched", || format!("{receipt:?}"))?;
        let stored = curl.get("/balance/1")?;
        ensure(stored.data()?["version"] == version, || format!("{stored:?}"))?;
        // Read off the text: a JSON reader would take 990.00 for 990.
        let number = format!(r#""balance":{balance},"#);
        ensure([&receipt, &stored].iter().all(|answer| answer.body.contains(&number)), || {
            format!("{number} is not in {receipt:?} and {stored:?}")
        })?;
    }
    Ok(())
}

fn repeat(curl: &Curl<'_>) -> Result<(), Failure> {
    let body = r#"{"user_id":1,"amount":1,"request_id":"7b3c9a52-6d0e-4f5b-9b1d-2f6f0a8c1e06"}"#;
    let (first, second) = (curl.deduct(body)?, curl.deduct(body)?);
    first.data()?;
    ensure(first == second, || format!("{first:?}, then {second:?}"))
}

fn swimlane(curl: &Curl<'_>) -> Result<(), Failure> {
    let count = |answer: &Value| answer["events"].as_array().map_or(0, Vec::len);
    let lane = curl.get("/api/swimlane?user_id=1")?.data()?;
    let committed = lane["events"].as_array().into_iter().flatten().any(|event| event["phase"] == "commit");
    ensure(committed && count(&lane) > 2, || lane.to_string())?;
    let newest = curl.get("/api/swimlane?user_id=1&limit=2")?.data()?;
    ensure(count(&newest) == 2, || newest.to_string())?;
    let cleared = curl.ask("/api/swimlane/clear", &["-X", "POST", "-H", "content-type: application/json"])?.data()?;
    ensure(cleared["cleared"].as_u64() >= Some(1), || cleared.to_string())?;
    let empty = curl.get("/api/swimlane?user_id=1")?.data()?;
    ensure(count(&empty) == 0, || empty.to_string())
}

/// Fails unless the request is refused like this, and account 1 is after it what it was before.
fn refused(curl: &Curl<'_>, status: u16, reason: &str, path: &str, arguments: &[&str]) -> Result<(), Failure> {
    let before = curl.get("/balance/1")?;
    let answer = curl.ask(path, arguments)?;
    let envelope = answer.json()?;
    let is_right = answer.status == status && envelope["code"] == status && envelope["reason"] == reason;
    ensure(is_right && envelope["message"] != "", || format!("expected {status} {reason}: {answer:?}"))?;
    let after = curl.get("/balance/1")?;
    ensure(before == after, || format!("the balance has changed: {before:?} to {after:?}"))
}
