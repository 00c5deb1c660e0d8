//! Mixed abuse of a real server while honest work goes on: the work is done and nothing of it lost, whoever misbehaves is
//! refused by name or put out, memory stays flat, and nothing panics.

mod actors;
mod frames;
mod memory;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use test_support::fresh_database;

use super::{
    checks::{Checks, ensure},
    load::Load,
    probe::get,
    stage::{Server, Stage},
};
use crate::command::Failure;
use actors::{Abuse, INVENTED, Target};
use memory::Memory;

/// Long enough for each abuse to come round a few times, and for a leak of a few percent a second to show.
const SHORT: Duration = Duration::from_secs(30);
/// By how much what an allocator keeps back differs from one quarter of the time to another, and where a busy machine has
/// hardly warmed up in a quarter of it.
const NOISE_PERCENT: u64 = 10;
const NOISE_PERCENT_SHORT: u64 = 40;
/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Calls at a time. Those that never end would fill it up in a minute if they were not cut off.
const MAX_CONCURRENT: &str = "--max-concurrent=256";
/// A call whose message never comes is over after this.
const MAX_DEADLINE: &str = "--max-deadline=5s";
/// A connection that does not say what it wants is closed after this.
const HANDSHAKE: &str = "--handshake-timeout=2s";
/// Full within a second or two: a ring that is still filling looks like a leak.
const TIMELINE: &str = "--timeline-capacity=1024";
/// Honest calls a second, which a debug build on a busy machine does beside all this.
const RATE: &str = "40";
/// New lines in /metrics that abuse may add once all has been seen: some reason that came up late. One label that callers
/// can invent would be hundreds.
const MOST_NEW_LINES: usize = 60;
/// What the log may grow by: what is refused is not worth a line each.
const MOST_LINES: usize = 1_000;

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    run_for(SHORT, stage, checks)
}

/// The same for as long as one likes.
pub(super) fn run_for(length: Duration, stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let settings = ["--lab-token=right", MAX_CONCURRENT, MAX_DEADLINE, HANDSHAKE, TIMELINE];
    let server = Server::start_with(stage, &fresh_database()?, &settings)?;
    let target = Target { grpc: server.address(), http: server.http_address() };
    let work = ["--mix", "deduct=80,balance=20", "--accounts", "4", "--rate", RATE, "--threshold", "failed<1%"];
    let honest = Load::start(stage, "abuse-honest", target.grpc, length, &work)?;
    let rounds: [AtomicU64; Abuse::ALL.len()] = Default::default();
    let Watched { failures, memory, metric_lines } = abuse(target, length, &rounds, server.pid())?;

    for (((abuse, what), rounds), failure) in Abuse::ALL.iter().zip(&rounds).zip(failures) {
        checks.check_and_note(what, || {
            let rounds = rounds.load(Ordering::Relaxed);
            ensure(failure.is_none(), || failure.unwrap_or_default())?;
            ensure(rounds > 0, || format!("{abuse:?} never came round"))?;
            Ok(format!("({rounds} rounds)"))
        });
    }
    checks.check_and_note("honest work goes on meanwhile: CLEAN, fewer than 1 % refused", || {
        let result = honest.finish()?;
        let [done, asked, p99] = [&result["acknowledged"], &result["requests"], &result["latency_us"]["p99"]];
        Ok(format!("({done} of {asked} calls, p99 {p99} µs)"))
    });
    let noise_percent = if length > SHORT { NOISE_PERCENT } else { NOISE_PERCENT_SHORT };
    checks.check_and_note("memory is flat", || memory.judge(noise_percent));
    checks.check_and_note("what is invented makes no series in /metrics", || {
        let after = metrics(target.http)?;
        let invented = after.lines().find(|line| line.contains(INVENTED));
        ensure(invented.is_none(), || format!("{invented:?}"))?;
        let lines = after.lines().count();
        ensure(lines <= metric_lines + MOST_NEW_LINES, || format!("{metric_lines} lines, then {lines}"))?;
        Ok(format!("({metric_lines} lines, then {lines})"))
    });
    checks.check_and_note("the log tells of no panic, and is not flooded", || {
        let log = server.output();
        ensure(!log.contains("panicked"), || log.clone())?;
        let lines = log.lines().count();
        ensure(lines <= MOST_LINES, || format!("{lines} lines, the last of them {:?}", log.lines().last()))?;
        Ok(format!("({lines} lines)"))
    });
    Ok(())
}

/// What there was to see while they were at it.
struct Watched {
    /// Who of them was not answered as they should be.
    failures: Vec<Option<String>>,
    memory: Memory,
    /// How long /metrics was after half of the time.
    metric_lines: usize,
}

/// Lets all of them loose for a while.
fn abuse(
    target: Target,
    length: Duration,
    rounds: &[AtomicU64; Abuse::ALL.len()],
    pid: u32,
) -> Result<Watched, Failure> {
    thread::scope(|scope| {
        let begun = Instant::now();
        let abusers: Vec<_> = Abuse::ALL
            .iter()
            .zip(rounds)
            .map(|((abuse, _), rounds)| scope.spawn(move || alone(*abuse, target, length, rounds)))
            .collect();
        let (mut memory, mut metric_lines) = (Memory::of(pid), None);
        while begun.elapsed() < length {
            memory.look()?;
            if metric_lines.is_none() && begun.elapsed() >= length / 2 {
                metric_lines = Some(metrics(target.http)?.lines().count());
            }
            #[expect(clippy::disallowed_methods, reason = "the pause between two looks; no runtime here")]
            thread::sleep(SAMPLE_EVERY);
        }
        let lost = || Some("its thread was lost".to_owned());
        let failures = abusers.into_iter().map(|abuser| abuser.join().unwrap_or_else(|_| lost())).collect();
        Ok(Watched { failures, memory, metric_lines: metric_lines.unwrap_or_default() })
    })
}

/// One of them, on a thread of its own; why it ended before its time.
fn alone(abuse: Abuse, target: Target, length: Duration, rounds: &AtomicU64) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            runtime.block_on(async { tokio::time::timeout(length, abuse.repeat(target, rounds)).await.ok() })
        }
        Err(error) => Some(error.to_string()),
    }
}

/// What `/metrics` says.
fn metrics(http: SocketAddr) -> Result<String, Failure> {
    let (status, text) = get(http, "/metrics").map_err(|error| Failure::Failed(format!("/metrics: {error}")))?;
    ensure(status == 200, || text.clone())?;
    Ok(text)
}
