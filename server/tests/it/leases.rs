//! The strategies that lock in Redis, where their leases lapse and their Redis dies: what a lease alone loses, and what a
//! fencing token does not.

use std::sync::Arc;

use test_support::Redis;
use tokio::task::JoinHandle;
use zbl_proto::v1::GetStatusRequest;
use zbl_server::{
    account::{Change, Receipt, Refusal},
    error::{Backend, Error},
    gate::Script,
    strategy::{self, Row},
    timeline::Phase,
};

use crate::app::{Bench, Database, Served, WITHOUT_REDIS, deduction, money, until};

fn named(name: &str) -> &'static Row {
    strategy::find(name).unwrap()
}

/// A bench with a Redis of its own.
async fn bench(database: &Database, redis: &Redis) -> Bench {
    Bench::open(&database.url, &["--redis-url", &redis.url(), "--lease", "1500ms"]).await
}

/// An operation, and where it is held.
struct Actor {
    change: Change,
    script: Script,
    call: JoinHandle<Result<Receipt, Error>>,
}

/// Calls a deduction of 10.00, to be held before a phase.
fn actor(bench: &Bench, user_id: i64, row: &'static Row, phase: Phase) -> Actor {
    let change = deduction(user_id);
    let script = bench.gates.hold(change.request_id, phase);
    let ledger = Arc::clone(&bench.ledger);
    Actor { change, script, call: tokio::spawn(async move { ledger.apply(change, Some(row)).await }) }
}

impl Actor {
    async fn end(self) -> (Change, Receipt) {
        self.script.release();
        (self.change, self.call.await.unwrap().unwrap())
    }
}

fn failures(bench: &Bench, change: Change) -> Vec<&'static str> {
    bench.spans(change.request_id).into_iter().filter_map(|span| span.failure).collect()
}

/// Takes the lock of an account away from whoever holds it, as the end of a lease would.
fn lapse(redis: &Redis, user_id: i64) {
    assert_eq!(redis.command(&["DEL", &format!("zbl:lock:{user_id}")]).unwrap().trim(), "1", "nobody held it");
}

/// The first stands before `phase` when its lease lapses; the second locks, reads, and stands before its write; then the
/// first goes on, and at last the second.
async fn lapsed_before(
    bench: &Bench,
    redis: &Redis,
    name: &str,
    phase: Phase,
) -> (i64, (Change, Receipt), (Change, Receipt)) {
    let user_id = bench.account("100.00").await;
    let first = actor(bench, user_id, named(name), phase);
    first.script.arrived().await;
    let lost = || bench.ledger.bench().locks.single.as_ref().unwrap().lock.figures().lost;
    let lost_before = lost();
    lapse(redis, user_id);
    let second = actor(bench, user_id, named(name), Phase::Write);
    second.script.arrived().await;
    until("the first is told that its lease is lost", async || lost() > lost_before).await;
    first.script.release();
    let mut call = first.call;
    until("the first ends, or waits for the second", async || {
        call.is_finished() || bench.ledger.blocked().await.unwrap() > 0
    })
    .await;
    let second = second.end().await;
    let first = (first.change, (&mut call).await.unwrap().unwrap());
    (user_id, first, second)
}

/// The one moment that no lease covers: after the last look at it, before the commit arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_lapses_after_the_last_look_at_it_loses_money() {
    let (database, redis) = (Database::mysql(), Redis::start().unwrap());
    let bench = bench(&database, &redis).await;
    let (user_id, (_, first), (_, second)) = lapsed_before(&bench, &redis, "redis_lock", Phase::Commit).await;
    assert_eq!((first.version, first.attempts), (2, 1));
    assert_eq!((second.version, second.version_before), (3, 1), "it wrote over the first");
    assert_eq!(bench.balance(user_id).await, money("90.00"));
    assert_eq!(bench.races(user_id).len(), 1);
}

/// Until then a holder that is told of its loss does not write, and starts again.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_has_lost_its_lease_does_not_write() {
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let bench = bench(&database, &redis).await;
        for phase in [Phase::Compute, Phase::Write] {
            let (user_id, first, second) = lapsed_before(&bench, &redis, "redis_lock", phase).await;
            assert_eq!(failures(&bench, first.0), Vec::<&str>::new(), "the checks are no phases");
            assert_eq!((first.1.attempts, first.1.version_before), (2, 2), "{phase:?}");
            assert_eq!((second.1.version, second.1.version_before), (2, 1), "{phase:?}");
            assert_eq!(bench.balance(user_id).await, money("80.00"), "{phase:?}");
        }
    }
}

/// Wherever the lease lapses, the token keeps the two apart. Before its read the first has claimed nothing yet: that is
/// the schedule "B reads, old A writes, B writes", which loses where tokens are only looked at when writing.
#[tokio::test(flavor = "multi_thread")]
async fn a_fencing_token_keeps_them_apart_wherever_the_lease_lapses() {
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let bench = bench(&database, &redis).await;
        for phase in [Phase::Read, Phase::Compute, Phase::Write] {
            let (user_id, first, second) = lapsed_before(&bench, &redis, "redis_lock_fenced", phase).await;
            assert_eq!(failures(&bench, first.0), ["FENCED"], "{phase:?}");
            assert_eq!((first.1.attempts, first.1.version, first.1.version_before), (2, 3, 2), "{phase:?}");
            assert_eq!(failures(&bench, second.0), Vec::<&str>::new(), "{phase:?}");
            assert_eq!((second.1.attempts, second.1.version, second.1.version_before), (1, 2, 1), "{phase:?}");
            assert_eq!(bench.balance(user_id).await, money("80.00"), "{phase:?}");
        }
    }
}

/// Having written, the first has locked the row: the claim of the second waits for it, and reads what it committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_waits_for_a_write_under_an_older_token() {
    let (database, redis) = (Database::mysql(), Redis::start().unwrap());
    let bench = bench(&database, &redis).await;
    let user_id = bench.account("100.00").await;
    let row = named("redis_lock_fenced");
    let first = actor(&bench, user_id, row, Phase::Commit);
    first.script.arrived().await;
    lapse(&redis, user_id);
    let second = actor(&bench, user_id, row, Phase::Compute);
    let redis_and_database = async || bench.ledger.lock_waits().await.unwrap().in_database;
    until("the claim waits for the row", async || redis_and_database().await > 0).await;
    let (_, first) = first.end().await;
    let (_, second) = second.end().await;
    assert_eq!((first.version, second.version, second.version_before, second.attempts), (2, 3, 2, 1));
}

/// A writer without a token is no part of the fence: the version meets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_takes_no_token_is_not_overwritten_either() {
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let bench = bench(&database, &redis).await;
        let user_id = bench.account("100.00").await;
        let fenced = actor(&bench, user_id, named("redis_lock_fenced"), Phase::Write);
        fenced.script.arrived().await;
        bench.ledger.apply(deduction(user_id), Some(named("pessimistic"))).await.unwrap();
        let (change, receipt) = fenced.end().await;
        assert_eq!(failures(&bench, change), ["OVERTAKEN"]);
        assert_eq!((receipt.attempts, receipt.version, receipt.version_before), (2, 3, 2));
        assert_eq!(bench.balance(user_id).await, money("80.00"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_memory_is_lifted_above_what_the_row_has_seen() {
    for database in Database::each() {
        let mut redis = Redis::start().unwrap();
        let bench = bench(&database, &redis).await;
        let user_id = bench.account("100.00").await;
        let row = Some(named("redis_lock_fenced"));
        for _ in 0..3 {
            assert_eq!(bench.ledger.apply(deduction(user_id), row).await.unwrap().attempts, 1);
        }
        redis.restart().unwrap();
        let mut change = deduction(user_id);
        let mut receipt = None;
        until("Redis is reached again", async || {
            change = deduction(user_id);
            receipt = bench.ledger.apply(change, row).await.ok();
            receipt.is_some()
        })
        .await;
        // Its first token was 1, which the row had seen.
        assert_eq!((receipt.unwrap().attempts, failures(&bench, change)), (2, vec!["FENCED"]));
        assert_eq!(bench.ledger.apply(deduction(user_id), row).await.unwrap().attempts, 1);
        assert_eq!(bench.balance(user_id).await, money("50.00"));
    }
}

/// Down at the start or later: what locks in Redis says so, everything else works, a repeat still gets its receipt; back,
/// it is used again without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_redis_a_strategy_says_so_and_comes_back_with_it() {
    let (database, mut redis) = (Database::sqlite(), Redis::start().unwrap());
    redis.kill().unwrap();
    let bench = bench(&database, &redis).await;
    let user_id = bench.account("1000.00").await;
    bench.ledger.apply(deduction(user_id), None).await.unwrap();
    for name in ["redis_lock", "redis_lock_fenced"] {
        let down = bench.ledger.apply(deduction(user_id), Some(named(name))).await.unwrap_err();
        assert!(matches!(down, Error::BackendDown { backend: Backend::LockServer, .. }), "{name}: {down:?}");
        redis.restart().unwrap();
        let change = deduction(user_id);
        until("Redis is used again", async || bench.ledger.apply(change, Some(named(name))).await.is_ok()).await;
        redis.kill().unwrap();
        let repeat = bench.ledger.apply(change, Some(named(name))).await.unwrap();
        assert!(repeat.is_replay(), "{name}");
        let other = Change { amount: money("7.00"), ..change };
        let reused = bench.ledger.apply(other, Some(named(name))).await.unwrap_err();
        assert!(matches!(reused, Error::Refused(Refusal::RequestIdReused { .. })), "{name}: {reused:?}");
    }
    assert_eq!(bench.journal(user_id).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configured_redis_a_strategy_is_unavailable_and_says_what_it_needs() {
    let bench = Bench::open(&Database::sqlite().url, &[WITHOUT_REDIS]).await;
    let user_id = bench.account("100.00").await;
    for (name, flag) in
        [("redis_lock", "--redis-url"), ("redis_lock_fenced", "--redis-url"), ("redlock", "--redlock-urls")]
    {
        let refused = bench.ledger.apply(deduction(user_id), Some(named(name))).await.unwrap_err();
        let Error::StrategyUnavailable { reason, .. } = refused else { panic!("{name}: {refused:?}") };
        assert!(reason.contains(flag), "{name}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_who_holds_a_lock_for_how_long_and_how_many_wait() {
    let served = Served::start(&Database::sqlite().url, &["--instance", "here", "--lease", "3s"]).await;
    let user_id = served.bench.account("100.00").await;
    let holder = actor(&served.bench, user_id, named("redis_lock"), Phase::Write);
    holder.script.arrived().await;
    let waiter = actor(&served.bench, user_id, named("redis_lock"), Phase::Read);
    let status = async || served.lab().get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
    until("the second waits", async || served.bench.ledger.blocked().await.unwrap() == 1).await;
    let leases = status().await.leases;
    let [lease] = leases.as_slice() else { panic!("{leases:?}") };
    assert_eq!((lease.lock.as_str(), lease.key.as_str(), lease.waiters), ("redis_lock", &*user_id.to_string(), 1));
    assert_eq!(lease.holder, format!("here/{}", holder.change.request_id));
    let ttl = lease.ttl.as_ref().unwrap();
    assert!(ttl.seconds < 3 && (ttl.seconds, ttl.nanos) > (0, 0), "{ttl:?}");
    holder.end().await;
    waiter.end().await;
    let status = status().await;
    assert!(status.leases.is_empty(), "{:?}", status.leases);
    let lock = status.locks.iter().find(|lock| lock.lock == "redis_lock").unwrap();
    assert_eq!((lock.acquired, lock.busy, lock.down, lock.lost), (2, 0, 0, 0));
    assert!(lock.waited.as_ref().unwrap().nanos > 0 && lock.held.as_ref().unwrap().nanos > 0);
}
