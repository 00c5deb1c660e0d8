//! Circuit breakers before the database and before Redis: when they open, what they must let through all the same, and that
//! they close by themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use test_support::{Cut, CutProxy, MariaDb, NewConnections, Redis};
use zbl_server::{
    account::{Direction, Refusal},
    breaker::{Figures, Position},
    error::{Backend, Error},
    gate::Point,
    ledger::{Fate, Resolve},
    strategy::{self, Row},
    timeline::Phase,
};

use tokio::time::timeout;

use crate::{
    app::{Bench, Database, deduction, money, until},
    stalls::signal,
};

/// Opens at the first failure, and stays open for longer than any test.
const TOUCHY: [&str; 3] = ["--breaker-least=1", "--breaker-failed=1", "--breaker-open=1h"];

/// Far below what a call waits for a database, a lock or a connection.
const AT_ONCE: Duration = Duration::from_millis(250);

fn row(name: &str) -> &'static Row {
    strategy::find(name).unwrap()
}

fn is_open(error: &Error, of: Backend) -> bool {
    matches!(error, Error::CircuitOpen { backend, .. } if *backend == of)
}

/// A database dies under load and comes back. Callers are told at once, nobody is left waiting, the service is back
/// without anybody's help, and what was told of each change is true.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_dies_under_load_is_not_waited_for() {
    let mut server = MariaDb::start().unwrap();
    server.create_database("zbl").unwrap();
    let words = ["--breaker-window=1s", "--breaker-open=500ms", "--settle-timeout=30s"];
    let bench = Bench::open(&server.url("zbl"), &words).await;
    let user_id = bench.account("1000000.00").await;
    let (over, open, acknowledged) =
        (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let workers: Vec<_> = (0..32)
        .map(|worker| {
            let (ledger, over) = (Arc::clone(&bench.ledger), Arc::clone(&over));
            let (open, acknowledged) = (Arc::clone(&open), Arc::clone(&acknowledged));
            let strategy = row(["batched", "atomic", "pessimistic", "optimistic"][worker % 4]);
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    match ledger.apply(deduction(user_id), Some(strategy)).await {
                        Ok(_) => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                        Err(error) if is_open(&error, Backend::Database) => {
                            // Unless it had waited for something else before.
                            open.fetch_add(u64::from(began.elapsed() < AT_ONCE), Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        Err(Error::BackendDown { .. } | Error::Contended { .. }) => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    until("the load is on", async || read(&acknowledged) > 200).await;

    server.kill().unwrap();
    until("callers are told at once", async || read(&open) > 500).await;
    let dead = read(&acknowledged);

    server.restart().unwrap();
    until("the service is back", async || read(&acknowledged) > dead + 200).await;
    over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    bench.ledger.drained().await;
    let state = bench.ledger.state(user_id).await.unwrap();
    let applied = read(&acknowledged).cast_signed();
    assert_eq!(state.version, applied + 1, "acknowledged and journaled are the same");
    assert_eq!(state.balance.minor(), money("1000000.00").minor() - applied * 1000);
}

/// The lost commit itself opens the breaker. What became of it is asked all the same: refused, a known outcome would
/// become an unknown one.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_settled_through_an_open_breaker() {
    for (cut, attempts) in [(Cut::BehindCommit, 1), (Cut::BeforeCommit, 2)] {
        let database = Database::mysql();
        let proxy = CutProxy::start(&database.url).unwrap();
        let bench = Bench::open(&proxy.url(database.url.rsplit('/').next().unwrap()), &TOUCHY).await;
        let user_id = bench.account("1000.00").await;
        proxy.arm(cut, 1);
        let change = deduction(user_id);
        let receipt = bench.ledger.apply(change, Some(row("atomic"))).await.unwrap();
        assert_eq!((proxy.cuts(), receipt.attempts, receipt.version), (1, attempts, 2), "{cut:?}");
        // And whoever has answered is asked again.
        for _ in 0..4 {
            bench.ledger.apply(deduction(user_id), Some(row("atomic"))).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_lost_its_commit_is_settled_through_an_open_breaker() {
    let database = Database::mysql();
    let proxy = CutProxy::start(&database.url).unwrap();
    let bench = Bench::open(&proxy.url(database.url.rsplit('/').next().unwrap()), &TOUCHY).await;
    proxy.arm(Cut::BehindCommit, 1);
    let user_id = bench.account("5.00").await;
    assert_eq!((proxy.cuts(), bench.balance(user_id).await), (1, money("5.00")));
}

/// An answer is an answer, whatever it says.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_contention_and_repeats_are_no_failures() {
    for database in Database::each() {
        let words = [&TOUCHY[..], &["--max-attempts=2", "--lock-wait=1s", "--operation-timeout=1s"]].concat();
        let bench = Bench::open(&database.url, &words).await;
        let user_id = bench.account("15.00").await;
        let change = deduction(user_id);
        for strategy in ["atomic", "optimistic", "pessimistic", "batched"].map(row) {
            bench.ledger.apply(change, Some(strategy)).await.unwrap();
            let refused = bench.ledger.apply(deduction(user_id), Some(strategy)).await;
            assert!(matches!(refused, Err(Error::Refused(Refusal::InsufficientBalance { .. }))), "{refused:?}");
            let absent = bench.ledger.apply(deduction(404), Some(strategy)).await;
            assert!(matches!(absent, Err(Error::Refused(Refusal::AccountNotFound { .. }))), "{absent:?}");
        }
        // One holds the row for longer than the other waits.
        let holder = zbl_server::account::Change { direction: Direction::Deposit, ..deduction(user_id) };
        let gate = bench.gates.script(holder.request_id, &[Point::Before(Phase::Commit)]);
        let ledger = Arc::clone(&bench.ledger);
        let held = tokio::spawn(async move { ledger.apply(holder, Some(row("pessimistic"))).await });
        gate.arrived().await;
        if database.url.starts_with("mysql") {
            let kept_out = bench.ledger.apply(deduction(user_id), Some(row("pessimistic"))).await;
            assert!(matches!(kept_out, Err(Error::Contended { .. })), "{kept_out:?}");
        }
        gate.release();
        held.await.unwrap().unwrap();
        assert_eq!(bench.balance(user_id).await, money("15.00"));
    }
}

/// While it is open, nothing reaches the database, and asking what became of a change is refused without harm.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_spares_the_database_until_it_is_seen_alive() {
    let database = Database::mysql();
    let proxy = CutProxy::start(&database.url).unwrap();
    let bench = Bench::open(&proxy.url(database.url.rsplit('/').next().unwrap()), &TOUCHY).await;
    let user_id = bench.account("1000.00").await;
    proxy.set_new_connections(NewConnections::Refuse);
    proxy.drop_all();
    let change = deduction(user_id);
    let first = bench.ledger.apply(change, None).await;
    assert!(matches!(first, Err(Error::BackendDown { .. } | Error::CircuitOpen { .. })), "{first:?}");
    proxy.set_new_connections(NewConnections::Pass);

    let breaker = || bench.ledger.bench().breakers[0].figures();
    let trips = bench.ledger.bench().store.work().round_trips;
    for row in strategy::REGISTRY {
        let refused = bench.ledger.apply(deduction(user_id), Some(row)).await.unwrap_err();
        assert!(is_open(&refused, Backend::Database), "{}: {refused}", row.name);
    }
    let refused = bench.ledger.fate(user_id, change.request_id, Resolve::Finally).await.unwrap_err();
    assert!(is_open(&refused, Backend::Database), "{refused}");
    assert_eq!(bench.ledger.bench().store.work().round_trips, trips, "the database was asked");
    let Figures { name, position, retry_after, refused, .. } = breaker();
    assert_eq!((name, position), ("database", Position::Open));
    assert!(retry_after > Duration::from_secs(3500) && refused > strategy::REGISTRY.len() as u64, "{:?}", breaker());

    // An old link may be found dead first.
    until("it is seen alive", async || bench.ledger.bench().store.ping().await.is_ok()).await;
    assert_eq!(bench.ledger.fate(user_id, change.request_id, Resolve::Finally).await.unwrap(), Fate::Voided);
    for _ in 0..4 {
        bench.ledger.apply(deduction(user_id), None).await.unwrap();
    }
    assert_eq!(breaker().position, Position::Closed);
}

/// A database that stands still refuses nobody, and callers with little patience leave before a question ends. That it does
/// not answer is seen all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stands_still_is_seen_by_callers_who_do_not_wait_for_it() {
    let server = MariaDb::start().unwrap();
    server.create_database("zbl").unwrap();
    let words = ["--lock-wait=1s", "--pool-wait=1s", "--pool-size=4", "--breaker-open=1h"];
    let bench = Bench::open(&server.url("zbl"), &words).await;
    let user_id = bench.account("10.00").await;
    bench.ledger.state(user_id).await.unwrap();
    signal(&server, "-STOP");
    until("the breaker opens", async || {
        let read = timeout(AT_ONCE, bench.ledger.state(user_id)).await;
        matches!(read, Ok(Err(error)) if is_open(&error, Backend::Database))
    })
    .await;
    signal(&server, "-CONT");
}

/// A Redis that stands still lets only the first of each account's queue find that out; the others' waiting for their turn
/// says nothing in its favour.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_is_seen_though_others_wait_for_their_turn() {
    let redis = Redis::start().unwrap();
    let database = Database::sqlite();
    let url = redis.url();
    let words = ["--redis-url", &url, "--cache=false", "--breaker-window=2s", "--breaker-open=1h"];
    let words = [&words[..], &["--redis-wait=200ms", "--lease-wait=500ms", "--max-attempts=1"]].concat();
    let bench = Bench::open(&database.url, &words).await;
    let user_id = bench.account("10000.00").await;
    let locked = row("redis_lock");
    for _ in 0..20 {
        bench.ledger.apply(deduction(user_id), Some(locked)).await.unwrap();
    }
    redis.pause().unwrap();
    until("the breaker opens", async || {
        let calls = (0..20).map(|_| bench.ledger.apply(deduction(user_id), Some(locked)));
        let answers = futures::future::join_all(calls).await;
        answers.iter().any(|answer| answer.as_ref().is_err_and(|error| is_open(error, Backend::LockServer)))
    })
    .await;
    redis.resume().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_is_not_waited_for() {
    let mut redis = Redis::start().unwrap();
    let database = Database::sqlite();
    let url = redis.url();
    let words =
        ["--redis-url", &url, "--cache=false", "--breaker-window=1s", "--breaker-open=500ms", "--redis-wait=200ms"];
    let bench = Bench::open(&database.url, &words).await;
    let user_id = bench.account("1000.00").await;
    let locked = row("redis_lock");
    let change = deduction(user_id);
    bench.ledger.apply(change, Some(locked)).await.unwrap();

    redis.kill().unwrap();
    let ask = async |change| bench.ledger.apply(change, Some(locked)).await;
    until("the breaker opens", async || {
        ask(deduction(user_id)).await.is_err_and(|error| is_open(&error, Backend::LockServer))
    })
    .await;
    // What was applied is known all the same, and so is everything that needs no lock.
    assert!(ask(change).await.unwrap().is_replay());
    bench.ledger.apply(deduction(user_id), Some(row("atomic"))).await.unwrap();

    redis.restart().unwrap();
    until("Redis is asked again", async || ask(deduction(user_id)).await.is_ok()).await;
    for _ in 0..4 {
        ask(deduction(user_id)).await.unwrap();
    }
}
