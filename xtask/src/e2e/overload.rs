//! Overload: at twice what the service can do it goes on doing what it can, those it takes on are answered in time, and
//! the others are told at once to come back. Open loop: load comes at fixed times, whatever becomes of it, as callers do
//! who know nothing of each other; latency counts from when a call was due.
//!
//! What bounds the service here is a lock that is held for a while, as one on a slow database is, and not the processor: a
//! debug build, on a machine that the load generator shares, would show what these cost. `docs/OPERATIONS.md` has what was
//! measured with a release build.

use std::time::Duration;

use serde_json::Value;
use test_support::MariaDb;
use zbl_client::Reason;

use super::{
    callers::{Callers, p99},
    checks::{Checks, ensure},
    load::Load,
    stage::{Server, Stage},
};
use crate::command::Failure;

/// Each deduction holds its account's row for this long, so some forty a second are all there can be.
const HELD: &str = "--compute-delay=20ms";
/// Calls at a time: what one hot account does in less than a second. Fewer would refuse a burst that is over before it
/// matters, more would only make all of them wait (Little's law: the wait is this, divided by what is done a second).
const MAX_CONCURRENT: u32 = 32;
/// Callers that keep the service busy without a refusal, for its capacity.
const BUSY: &str = "12";
const LENGTH: Duration = Duration::from_secs(6);
/// Of what it can do, measured before and after. On a quiet machine it is 90 % and more.
const GOODPUT_LEAST: f64 = 0.7;
/// Callers beside the bench who time what they are told.
const CALLERS: usize = 8;
/// How often the load is doubled if nobody is refused.
const MOST_DOUBLED: usize = 2;
/// How much longer than by that law the slowest of a hundred may wait, on a machine that does other things as well.
const UNEVEN: f64 = 3.0;
/// A refusal costs no wait; this is what a busy machine makes of it.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let database = MariaDb::start()?;
    database.create_database("zbl")?;
    let server =
        Server::start_with(stage, &database.url("zbl"), &[&format!("--max-concurrent={MAX_CONCURRENT}"), HELD])?;
    let bench = |name: &str, load: &[&str]| bench(stage, &server, name, load);

    let before = bench("before", &["--concurrency", BUSY])?;
    let others = Callers::start(server.address(), CALLERS, "pessimistic")?;
    let mut twice = (2.0 * figure(&before, "acknowledged_per_s")).ceil();
    let mut over = bench("over", &["--rate", &twice.to_string()])?;
    for _ in 0..MOST_DOUBLED {
        let is_over = over["failed"].as_object().is_some_and(|failed| !failed.is_empty());
        if is_over && !others.ended(|call| call.is(Reason::Overloaded)).is_empty() {
            break;
        }
        // A machine that was busy with something else has become faster: that was no overload, or hardly one.
        twice *= 2.0;
        over = bench("over", &["--rate", &twice.to_string()])?;
    }
    let refused = others.ended(|call| call.is(Reason::Overloaded));
    drop(others);
    let after = bench("after", &["--concurrency", BUSY])?;

    let [before, goodput, after] = [&before, &over, &after].map(|result| figure(result, "acknowledged_per_s"));
    checks.check_and_note("at twice the capacity goodput stays near its peak", || {
        let least = GOODPUT_LEAST * (before + after) / 2.0;
        let figures = format!("{before:.0}/s, then {goodput:.0}/s at {twice:.0}/s offered, then {after:.0}/s");
        ensure(goodput >= least, || format!("less than {least:.0}/s: {figures}"))?;
        Ok(format!("({figures})"))
    });
    checks.check_and_note("what is taken on is answered in time, counted from when it was due", || {
        let p99 = Duration::from_micros(over["latency_us"]["p99"].as_u64().unwrap_or(u64::MAX));
        let most = Duration::from_secs_f64(UNEVEN * f64::from(MAX_CONCURRENT) / goodput.max(1.0));
        ensure(p99 <= most, || format!("p99 {p99:.1?}, more than {most:.1?}"))?;
        Ok(format!("(p99 {p99:.1?} of at most {most:.1?})"))
    });
    checks.check_and_note("the rest is refused, by name and at once, and told when to come back", || {
        let failed = over["failed"].as_object().cloned().unwrap_or_default();
        let is_named = failed.len() == 1 && failed.contains_key("OVERLOADED");
        ensure(is_named && over["unknown"] == 0, || format!("{failed:?}, {} unknown", over["unknown"]))?;
        let told = refused.iter().all(|call| call.refused.is_some_and(|refused| refused.retry_after.is_some()));
        let p99 = p99(&refused);
        ensure(!refused.is_empty() && told && p99 <= REFUSED_WITHIN, || format!("{} of p99 {p99:?}", refused.len()))?;
        Ok(format!("({} OVERLOADED; of {} that were timed p99 {p99:.1?})", failed["OVERLOADED"], refused.len()))
    });
    Ok(())
}

/// Measures one hot account; fails unless nothing was lost.
fn bench(stage: &Stage, server: &Server<'_>, name: &str, load: &[&str]) -> Result<Value, Failure> {
    let arguments = [&["--strategy", "pessimistic"], load].concat();
    Load::start(stage, &format!("overload-{name}"), server.address(), LENGTH, &arguments)?.finish()
}

fn figure(result: &Value, name: &str) -> f64 {
    result[name].as_f64().unwrap_or_default()
}
