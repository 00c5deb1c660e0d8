//! What a change costs, counted by the store: round trips and transactions, for each strategy.

use zbl_server::{store::Work, strategy::REGISTRY, timeline::Phase};

use crate::app::{Bench, Database, deduction};

/// Round trips to MySQL of one change that meets nobody. The three-trip rival must be what its name says, and no other
/// may grow a trip unnoticed.
const ROUND_TRIPS: [(&str, u64); 12] = [
    ("none", 6),
    ("mutex", 6),
    ("optimistic", 5),
    ("pessimistic", 5),
    ("atomic", 5),
    ("atomic_three_trips", 3),
    ("serializable", 5),
    ("batched", 5),
    ("event_sourced", 6),
    ("redis_lock", 6),
    ("redlock", 6),
    ("redis_lock_fenced", 7),
];

/// The claim of a fencing token is a transaction of its own.
fn commits(name: &str) -> u64 {
    if name == "redis_lock_fenced" { 2 } else { 1 }
}

async fn cost_of_one(bench: &Bench, name: &str) -> Work {
    let row = zbl_server::strategy::find(name).unwrap();
    let user_id = bench.account("1000.00").await;
    let before = bench.ledger.bench().store.work();
    bench.ledger.apply(deduction(user_id), Some(row)).await.unwrap();
    let after = bench.ledger.bench().store.work();
    Work {
        round_trips: after.round_trips - before.round_trips,
        commits: after.commits - before.commits,
        rollbacks: after.rollbacks - before.rollbacks,
        locks_held: after.locks_held - before.locks_held,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_strategy_takes_as_many_round_trips_as_it_should() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    for row in REGISTRY {
        let cost = cost_of_one(&bench, row.name).await;
        let known = ROUND_TRIPS.iter().find(|(name, _)| *name == row.name).map(|(_, trips)| *trips);
        assert_eq!(Some(cost.round_trips), known, "{}", row.name);
        assert_eq!((cost.commits, cost.rollbacks), (commits(row.name), 0), "{}", row.name);
        assert!(!cost.locks_held.is_zero(), "{}", row.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_strategy_commits_once_on_sqlite() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    for row in REGISTRY {
        let cost = cost_of_one(&bench, row.name).await;
        assert_eq!((cost.commits, cost.rollbacks), (commits(row.name), 0), "{}", row.name);
        assert!(cost.round_trips > 0 && !cost.locks_held.is_zero(), "{}", row.name);
    }
}

/// Ten changes that come in one batch cost what one does.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_shares_its_round_trips() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("1000.00").await;
    let row = zbl_server::strategy::find("batched").unwrap();
    let start = |change| {
        let ledger = std::sync::Arc::clone(&bench.ledger);
        tokio::spawn(async move { ledger.apply(change, Some(row)).await })
    };
    let first = deduction(user_id);
    let gate = bench.gates.hold(first.request_id, Phase::Write);
    let mut calls = vec![start(first)];
    gate.arrived().await;
    calls.extend((0..10).map(|_| start(deduction(user_id))));
    crate::app::until("ten are queued", async || bench.ledger.batches().waiting == 10).await;
    let before = bench.ledger.bench().store.work();
    gate.release();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let after = bench.ledger.bench().store.work();
    // The first one's ends, write and commit, and the whole of the second batch.
    assert_eq!((after.round_trips - before.round_trips, after.commits - before.commits), (3 + 5, 2));
    let batches = bench.ledger.batches();
    assert_eq!((batches.batches, batches.changes, batches.largest, batches.waiting), (2, 11, 10, 0));
    assert!(!batches.queued.is_zero());
}
