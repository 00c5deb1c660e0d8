//! Circuit breakers under load: when MariaDB is killed, or Redis, callers are refused within milliseconds and told when to
//! come back, nobody waits for what is not there, and when it is there again so is the service, without a restart.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use test_support::{MariaDb, Redis, poll_until};
use zbl_client::Reason;

use super::{
    callers::{Callers, Ended, p99},
    checks::{Checks, ensure},
    load::Load,
    probe::{get, metric},
    stage::{Server, Stage},
};
use crate::command::Failure;

/// The outage falls into it.
const LENGTH: Duration = Duration::from_secs(12);
const CALLERS: usize = 8;
/// Calls before the kill: the breaker has successes to outweigh.
const UNDER_WAY: usize = 200;
const UNDER_WAY_TIMEOUT: Duration = Duration::from_secs(120);
/// By default a breaker looks 10 s back, so what went well in them must be outweighed.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How many refusals are looked at.
const REFUSALS: usize = 400;
/// A refusal is made in microseconds; this is what a debug build on a busy machine makes of it. Whoever waits for a
/// connection waits for --pool-wait, 5 s.
const REFUSED_WITHIN: Duration = Duration::from_millis(250);
/// Starting the database again takes some seconds, and three probes have to succeed.
const BACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Closed, half open and open in `breaker_position`.
const CLOSED: f64 = 0.0;
const OPEN: f64 = 2.0;

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    check_database(stage, checks)?;
    check_redis(stage, checks)
}

fn check_database(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let mut database = MariaDb::start()?;
    database.create_database("zbl")?;
    // The breaker is as it is by default: open for a minute, unless the readiness check finds the database alive.
    let server = Server::start(stage, &database.url("zbl"))?;
    let workload = ["--strategy", "atomic", "--accounts", "4", "--concurrency", "8"];
    let load = Load::start(stage, "breaker", server.address(), LENGTH, &workload)?;
    let callers = Callers::start(server.address(), CALLERS, "pessimistic")?;
    under_way(&callers)?;
    let killed = Instant::now();
    database.kill()?;
    let refused = check_refusals(checks, "MariaDB", "database", &callers, server.http_address(), killed);
    database.restart()?;
    checks.check_and_note("MariaDB is back, and so is the service, by itself: /readyz is what looks", || {
        // As an orchestrator asks; each answer wakes the breaker.
        let (http, back) = (server.http_address(), Instant::now());
        let ready = poll_until(BACK_TIMEOUT, || (get(http, "/readyz").ok()?.0 == 200).then_some(()));
        ensure(ready.is_some(), || format!("not ready {BACK_TIMEOUT:?} after the restart"))?;
        is_closed(&callers, http, "database", back)
    });
    drop(callers);
    checks.check_and_note("nothing was lost on the way, nothing is unknown: CLEAN", || {
        let result = load.finish()?;
        ensure(result["outage_retries"].as_u64() > Some(0), || format!("it met no outage: {result}"))?;
        Ok(format!("({} calls repeated over the outage)", result["outage_retries"]))
    });
    refused
}

fn check_redis(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let mut redis = Redis::start()?;
    // Nobody but callers looks whether Redis is there, so the breaker has to let some in soon.
    let settings = ["--redis-url", &redis.url(), "--breaker-open=2s", "--lease=2s"];
    let server = Server::start_with(stage, &stage.sqlite_url("breaker.db"), &settings)?;
    let callers = Callers::start(server.address(), CALLERS, "redis_lock")?;
    under_way(&callers)?;
    let killed = Instant::now();
    redis.kill()?;
    let refused = check_refusals(checks, "Redis", "redis_lock", &callers, server.http_address(), killed);
    checks.check("what needs no Redis is served meanwhile", || {
        let others = Callers::start(server.address(), 1, "batched")?;
        let done = poll_until(BACK_TIMEOUT, || others.ended(Ended::is_done).first().copied());
        ensure(done.is_some() && others.ended(|call| !call.is_done()).is_empty(), || "batched is refused".into())
    });
    redis.restart()?;
    checks.check_and_note("Redis is back, and so are its locks", || {
        is_closed(&callers, server.http_address(), "redis_lock", Instant::now())
    });
    refused
}

fn under_way(callers: &Callers) -> Result<(), Failure> {
    let under_way = poll_until(UNDER_WAY_TIMEOUT, || (callers.ended(Ended::is_done).len() >= UNDER_WAY).then_some(()));
    under_way.ok_or_else(|| Failure::Failed(format!("not {UNDER_WAY} calls within {UNDER_WAY_TIMEOUT:?}")))
}

/// What callers are told while it is away, and what metrics say; fails where nobody is refused at all.
fn check_refusals(
    checks: &mut Checks,
    name: &str,
    breaker: &str,
    callers: &Callers,
    http: SocketAddr,
    killed: Instant,
) -> Result<(), Failure> {
    let first = || callers.ended(|call| call.is(Reason::CircuitOpen)).first().map(|call| call.begun);
    let opened = poll_until(OPEN_TIMEOUT, first);
    let opened = opened.ok_or_else(|| Failure::Failed(format!("{name}: no CIRCUIT_OPEN within {OPEN_TIMEOUT:?}")))?;
    let calls = || callers.ended(|call| call.begun > opened);
    let refused =
        poll_until(OPEN_TIMEOUT, || Some(calls()).filter(|calls| calls.len() >= REFUSALS)).unwrap_or_default();
    checks.check_and_note(
        &format!("{name} is killed: refused with CIRCUIT_OPEN at once, and told when to come back"),
        || {
            let open: Vec<Ended> = refused.iter().filter(|call| call.is(Reason::CircuitOpen)).copied().collect();
            // The rest are probes, which learn that it is still away.
            ensure(open.len() >= REFUSALS * 9 / 10, || format!("{} of {} refused so", open.len(), refused.len()))?;
            let told = open.iter().all(|call| call.refused.is_some_and(|refused| refused.retry_after.is_some()));
            ensure(told, || "some are not told when to come back".into())?;
            let p99 = p99(&open);
            ensure(p99 <= REFUSED_WITHIN, || format!("the p99 of refusals is {p99:?}, more than {REFUSED_WITHIN:?}"))?;
            Ok(format!("(open {:.1?} after the kill, {} refusals, p99 {p99:.1?})", opened - killed, open.len()))
        },
    );
    checks.check(&format!("{name}: breaker_position and breaker_transitions_total tell"), || {
        let look = || metric(http, "breaker_position", &[("breaker", breaker)]).filter(|position| *position >= OPEN);
        ensure(poll_until(OPEN_TIMEOUT, look).is_some(), || "the breaker is not shown as open".into())?;
        let opened = metric(http, "breaker_transitions_total", &[("breaker", breaker), ("to", "open")]);
        ensure(opened >= Some(1.0), || format!("opened {opened:?} times"))
    });
    Ok(())
}

/// Waits until calls succeed again; for how long that took.
fn is_closed(callers: &Callers, http: SocketAddr, breaker: &str, since: Instant) -> Result<String, Failure> {
    let served =
        poll_until(BACK_TIMEOUT, || callers.ended(|call| call.is_done() && call.begun > since).first().copied());
    let served =
        served.ok_or_else(|| Failure::Failed(format!("nobody is served {BACK_TIMEOUT:?} after it is back")))?;
    let closed = || metric(http, "breaker_position", &[("breaker", breaker)]).filter(|position| *position <= CLOSED);
    ensure(poll_until(BACK_TIMEOUT, closed).is_some(), || "the breaker does not close".into())?;
    Ok(format!("(served again {:.1?} after that)", served.begun + served.took - since))
}
