//! The lab as grpcurl sees it: a reset, an attack with its progress and its verdict, one attack at a time, what the server
//! is doing, and the token that opens the lab.

use std::time::Duration;

use serde_json::Value;
use test_support::poll_until;

use super::{
    refusals::expect,
    tool::{Grpcurl, objects},
};
use crate::{
    command::Failure,
    e2e::{
        attack::amount,
        checks::{Checks, ensure},
        stage::{Server, Stage},
    },
};

const RESOURCE_EXHAUSTED: i32 = 8;
const UNAUTHENTICATED: i32 = 16;

const TOKEN: &str = "open-sesame";

/// Progress and statuses come every 100 ms here.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// The race is wide: an attack by a hundred workers without any guard practically always loses.
const TRIES: u32 = 5;
/// Two workers with so much to do are at it for minutes, if nobody stops them.
const LONG: &str = r#"{"workers":2,"deductions":50000,"amount":"0.01","strategy":"atomic"}"#;

pub(super) fn run(stage: &Stage, grpcurl: &Grpcurl<'_>, checks: &mut Checks) -> Result<(), Failure> {
    checks.check("ResetAccount journals a RESET", || reset(grpcurl));
    checks.check("RunAttack by default: progress, then CLEAN with exactly 100 sold", || clean(grpcurl));
    checks.check_and_note("RunAttack on none: LOST, the pairs add up to the loss", || lost(grpcurl));
    checks.check("OVERLOADED: a second RunAttack; ending the first one makes room", || one_at_a_time(grpcurl));
    checks.check("GetStatus and WatchStatus tell store, strategies and connections", || status(grpcurl));
    checks.check("ClearTimeline forgets, and watchers are told by a gap", || clear(grpcurl));
    let url = stage.sqlite_url("token.db");
    let guarded = Server::start_with(stage, &url, &["--lab-token", TOKEN])?;
    let stranger = grpcurl.clone().aimed_at(guarded.address());
    checks.check("LAB_UNAUTHENTICATED: no token, or another; the right one opens the lab", || token(&stranger));
    Ok(())
}

fn reset(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let before = grpcurl.call("AccountService/GetBalance", r#"{"user_id":2}"#)?;
    let after = grpcurl.call("LabService/ResetAccount", r#"{"user_id":2,"balance":"50.00"}"#)?;
    let version = |answer: &Value| answer["version"].as_str().and_then(|version| version.parse::<i64>().ok());
    let goes_on = version(&before).is_some_and(|before| version(&after) == before.checked_add(1));
    ensure(goes_on && after["balance"] == "50.00", || format!("{before}, then {after}"))
}

/// Runs an attack; fails unless it tells its progress first and its result last.
fn attack(grpcurl: &Grpcurl<'_>, request: &str) -> Result<Value, Failure> {
    let steps = grpcurl.answers("LabService/RunAttack", request)?;
    let Some((last, before)) = steps.split_last() else { return Err(Failure::Failed("no step at all".into())) };
    let told = !before.is_empty() && before.iter().all(|step| step["progress"]["total"] == "1000");
    ensure(told, || format!("not the progress of 1000 operations: {before:?}"))?;
    ensure(last["result"].is_object(), || format!("the last step is no result: {last}"))?;
    Ok(last["result"].clone())
}

fn clean(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let result = attack(grpcurl, "{}")?;
    let sold = result["verdict"] == "VERDICT_CLEAN" && result["acknowledged"] == "100" && result["lost"] == "0.00";
    ensure(sold && result["failed"]["INSUFFICIENT_BALANCE"] == "900", || result.to_string())?;
    let account = format!(r#"{{"user_id":{}}}"#, result["userId"].as_str().unwrap_or_default());
    let stored = grpcurl.call("AccountService/GetBalance", &account)?;
    ensure(stored["balance"] == result["finalBalance"], || format!("{stored}, but {result}"))
}

fn lost(grpcurl: &Grpcurl<'_>) -> Result<String, Failure> {
    for attempt in 1..=TRIES {
        let result = attack(grpcurl, r#"{"strategy":"none"}"#)?;
        if result["verdict"] == "VERDICT_LOST" {
            let pairs = result["lostUpdates"].as_array().map(Vec::as_slice).unwrap_or_default();
            let sum = pairs.iter().map(|pair| amount(&pair["amount"])).sum::<Result<i64, Failure>>()?;
            ensure(sum > 0 && amount(&result["lost"])? == sum, || result.to_string())?;
            return Ok(format!("(lost {} in attack {attempt} of at most {TRIES})", result["lost"]));
        }
    }
    Err(Failure::Failed(format!("{TRIES} attacks lost nothing")))
}

fn one_at_a_time(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let mut first = grpcurl.stream("LabService/RunAttack", LONG)?;
    first.wait_for_line("progress", STEP_TIMEOUT)?;
    expect(grpcurl, "LabService/RunAttack", "{}", RESOURCE_EXHAUSTED, "OVERLOADED")?;
    first.kill()?;
    // The server learns of the end by the network, in its own time.
    let small = r#"{"workers":1,"deductions":1}"#;
    let room = poll_until(STEP_TIMEOUT, || grpcurl.answers("LabService/RunAttack", small).ok());
    ensure(room.is_some(), || "the first attack goes on although nobody listens".into())
}

fn status(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let is_whole = |status: &Value| {
        let strategies = status["strategies"].as_array().map_or(0, Vec::len);
        let pool = status["pool"]["max"].as_i64().unwrap_or_default();
        status["store"] == "sqlite" && status["defaultStrategy"] == "batched" && strategies >= 6 && pool > 0
    };
    let once = grpcurl.call("LabService/GetStatus", "{}")?;
    ensure(is_whole(&once["status"]), || once.to_string())?;
    let stream = grpcurl.stream("LabService/WatchStatus", r#"{"interval":"0.1s"}"#)?;
    let two = poll_until(STEP_TIMEOUT, || Some(objects(&stream.output())).filter(|statuses| statuses.len() >= 2));
    let two = two.ok_or_else(|| Failure::Failed(format!("not two statuses:\n{}", stream.output())))?;
    ensure(two.iter().all(|answer| is_whole(&answer["status"])), || format!("{two:?}"))
}

fn clear(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    grpcurl.call("AccountService/Deduct", r#"{"user_id":1,"amount":"0.01"}"#)?;
    let mut watcher = grpcurl.stream("AccountService/StreamTimeline", r#"{"include_retained":true}"#)?;
    watcher.wait_for_line("span", STEP_TIMEOUT)?;
    let cleared = grpcurl.call("LabService/ClearTimeline", "{}")?;
    let count = cleared["cleared"].as_str().and_then(|count| count.parse::<u64>().ok());
    ensure(count.is_some_and(|count| count > 0), || cleared.to_string())?;
    watcher.wait_for_line("GAP_REASON_CLEARED", STEP_TIMEOUT)?;
    Ok(())
}

fn token(stranger: &Grpcurl<'_>) -> Result<(), Failure> {
    for caller in [stranger.clone(), stranger.clone().with_token("open-barley")] {
        expect(&caller, "LabService/GetStatus", "{}", UNAUTHENTICATED, "LAB_UNAUTHENTICATED")?;
    }
    stranger.clone().with_token(TOKEN).call("LabService/GetStatus", "{}").map(drop)
}
