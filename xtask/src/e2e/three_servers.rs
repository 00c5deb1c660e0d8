//! Three servers on one database and one Redis. A mutex guards the memory of one process only, and loses; what the
//! database or Redis guards does not.

use std::time::Duration;

use test_support::{Redis, fresh_database};

use super::{
    attack::{Attack, Finished, check_clean, ensure_accounted_loss, ensure_clean, runs},
    checks::{Checks, ensure},
    stage::{Server, Stage, argument},
};
use crate::command::Failure;

/// The strategies that promise never to overwrite, with any number of servers, and need nothing but the database.
pub(super) const ALWAYS: [&str; 7] =
    ["optimistic", "pessimistic", "atomic", "atomic_three_trips", "serializable", "batched", "event_sourced"];

/// Those that lock in Redis: one that promises as much, and those that promise it while their leases hold.
const FENCED: [&str; 1] = ["redis_lock_fenced"];
const LEASED: [&str; 2] = ["redis_lock", "redlock"];

/// The Redis servers of redlock.
const NODES: usize = 5;
/// The race is wide: of a hundred workers on three servers, some overwrite in practically every attack.
const TRIES: u32 = 5;
/// One attack takes some tens of seconds on an idle machine, in a debug build; this is one for each strategy.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let url = fresh_database()?;
    let nodes = (0..NODES).map(|_| Redis::start()).collect::<Result<Vec<_>, _>>()?;
    let urls: Vec<String> = nodes.iter().map(Redis::url).collect();
    let (redis, redlock) = (format!("--redis-url={}", urls[0]), format!("--redlock-urls={}", urls.join(",")));
    let start = |_| Server::start_with(stage, &url, &[&redis, &redlock]);
    let servers = (0..3).map(start).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<_> = servers.iter().map(Server::address).collect();
    checks.check_and_note("mutex on three servers is LOST, every cent accounted for", || {
        for attempt in 1..=TRIES {
            let arguments = ["--strategy", "mutex", "--expect", "lost"];
            let finished = Attack::start(stage, "three-mutex", &addresses, &arguments)?.finish()?;
            if finished.result["verdict"] == "LOST" {
                let Finished { result, .. } = finished.expect(0, "LOST")?;
                ensure_accounted_loss(&result)?;
                return Ok(format!("(lost {} in attack {attempt} of at most {TRIES})", result["lost"]));
            }
            finished.ended.expect(10)?;
        }
        Err(Failure::Failed(format!("{TRIES} attacks lost nothing")))
    });
    checks.check("mutex on one of them is CLEAN", || {
        let attack = Attack::start(stage, "one-mutex", &addresses[..1], &["--strategy", "mutex"])?;
        ensure_clean(&attack.finish()?.expect(0, "CLEAN")?.result)
    });
    let mut compared = Vec::new();
    checks.check("compare attacks every strategy over the three servers, none is caught", || {
        let file = stage.path("three-servers.json");
        let mut compare = stage.command("loadgen", &["compare", "--json", &argument(&file)]);
        for address in &addresses {
            compare.args(["--addr", &address.to_string()]);
        }
        stage.run(compare, COMPARE_TIMEOUT)?.expect(0)?;
        compared = runs(&file)?;
        Ok(())
    });
    let always: Vec<&str> = ALWAYS.into_iter().chain(FENCED).collect();
    check_clean(checks, "three servers", &compared, "ALWAYS", &always);
    check_clean(checks, "three servers", &compared, "WHILE_LEASE_HOLDS", &LEASED);
    check_redis_away(stage, checks)
}

/// Started without its Redis, a server does what needs none, and the rest when Redis is there.
fn check_redis_away(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let mut redis = Redis::start()?;
    redis.kill()?;
    // An attack waits less long for what is down than a breaker usually stays open.
    let settings = ["--redis-url", &redis.url(), "--breaker-open=200ms"];
    let server = Server::start_with(stage, &stage.sqlite_url("redis-away.db"), &settings)?;
    let attack = |strategy: &str, name: &str| {
        // What is down is not waited for long.
        let arguments = ["--strategy", strategy, "--workers", "5", "--deductions", "2", "--outage", "1s"];
        Attack::start(stage, name, &[server.address()], &arguments)?.finish()
    };
    checks.check("a server starts without its Redis and serves what needs none", || {
        ensure_clean(&attack("batched", "without-redis")?.expect(0, "CLEAN")?.result)
    });
    checks.check("what locks in Redis is refused meanwhile, with a reason", || {
        let Finished { ended, result } = attack("redis_lock_fenced", "redis-away")?;
        let refused =
            ["BACKEND_DOWN", "CIRCUIT_OPEN"].map(|reason| result["failed"][reason].as_u64().unwrap_or_default());
        ensure(refused.iter().sum::<u64>() > 0 && result["acknowledged"]["count"] == 0, || {
            format!("{}\n{result}", ended.output)
        })
    });
    redis.restart()?;
    checks.check("and is used without a restart when Redis is back", || {
        ensure_clean(&attack("redis_lock_fenced", "redis-back")?.expect(0, "CLEAN")?.result)
    });
    Ok(())
}
