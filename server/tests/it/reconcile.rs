//! The journal against the balances: what is found to be gone, and that it stays found until somebody mends it.

mod command;

use std::sync::Arc;

use uuid::Uuid;
use zbl_server::{
    account::{Change, Direction},
    reconcile::Reconciler,
    strategy,
    timeline::Phase,
};

use crate::app::{Bench, Database, deduction, money};

/// Two changes that have read the same: the second overwrites the first.
pub async fn race(bench: &Bench, [first, second]: [Change; 2]) {
    let none = Some(strategy::find("none").unwrap());
    let gates = [first, second].map(|change| bench.gates.hold(change.request_id, Phase::Compute));
    let calls = [first, second].map(|change| {
        let ledger = Arc::clone(&bench.ledger);
        tokio::spawn(async move { ledger.apply(change, none).await })
    });
    for gate in &gates {
        gate.arrived().await;
    }
    for (gate, call) in gates.into_iter().zip(calls) {
        gate.release();
        call.await.unwrap().unwrap();
    }
}

/// A whole round: every account is listed, and then the end of the list.
pub async fn loss(reconciler: &mut Reconciler) -> u128 {
    for _ in 0..4 {
        reconciler.tick().await.unwrap();
    }
    reconciler.finding().borrow().loss
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_update_is_found_and_closed_by_a_reset() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let mut reconciler = Reconciler::new(Arc::clone(&bench.ledger.bench().store));
        let (user_id, other) = (bench.account("1000.00").await, bench.account("50.00").await);
        for strategy in ["atomic", "batched", "pessimistic", "optimistic", "serializable", "mutex", "none"] {
            bench.ledger.apply(deduction(user_id), Some(strategy::find(strategy).unwrap())).await.unwrap();
        }
        assert_eq!(loss(&mut reconciler).await, 0, "one after the other");

        race(&bench, [deduction(user_id), deduction(user_id)]).await;
        assert_eq!(loss(&mut reconciler).await, 1000);
        // A lost deposit elsewhere does not make up for it.
        let deposit = || Change { direction: Direction::Deposit, amount: money("3.00"), ..deduction(other) };
        race(&bench, [deposit(), deposit()]).await;
        assert_eq!(loss(&mut reconciler).await, 1300);
        // Whoever begins anew finds the same, and what is done afterwards changes nothing.
        bench.ledger.apply(deduction(user_id), None).await.unwrap();
        let mut anew = Reconciler::new(Arc::clone(&bench.ledger.bench().store));
        assert_eq!((loss(&mut reconciler).await, loss(&mut anew).await), (1300, 1300));

        bench.ledger.reset(user_id, money("1000.00"), Uuid::new_v4()).await.unwrap();
        assert_eq!(loss(&mut reconciler).await, 300, "what was lost before a RESET is history");
        bench.ledger.apply(deduction(user_id), None).await.unwrap();
        assert_eq!(loss(&mut reconciler).await, 300);
    }
}

/// The balance is changed behind the service's back, and put right in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_that_was_tampered_with_is_found_and_closed_by_its_repair() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let mut reconciler = Reconciler::new(Arc::clone(&bench.ledger.bench().store));
    let user_id = bench.account("1000.00").await;
    let set = |balance: &str| {
        let sql = format!("UPDATE accounts SET balance = {balance} WHERE user_id = {user_id}");
        test_support::query(&database.url, &sql).unwrap();
    };
    assert_eq!(loss(&mut reconciler).await, 0);
    set("990.00");
    assert_eq!(loss(&mut reconciler).await, 1000);
    bench.ledger.apply(deduction(user_id), None).await.unwrap();
    assert_eq!(loss(&mut reconciler).await, 1000);
    set("990.00");
    assert_eq!(loss(&mut reconciler).await, 0);

    // Restored from an old copy, in which nothing was wrong.
    set("800.00");
    assert_eq!(loss(&mut reconciler).await, 19_000);
    for restored in
        ["DELETE FROM entries WHERE version > 1 AND", "UPDATE accounts SET balance = 1000, version = 1 WHERE"]
    {
        test_support::query(&database.url, &format!("{restored} user_id = {user_id}")).unwrap();
    }
    assert_eq!(loss(&mut reconciler).await, 0);
}

/// A copy of the database is put in its place, and written on past the version that was known; later an account goes.
#[tokio::test(flavor = "multi_thread")]
async fn another_history_is_not_held_against_the_one_that_was_known() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let mut reconciler = Reconciler::new(Arc::clone(&bench.ledger.bench().store));
    let user_id = bench.account("1000.00").await;
    bench.ledger.apply(deduction(user_id), None).await.unwrap();
    assert_eq!(loss(&mut reconciler).await, 0);
    let execute = |sql: &str| test_support::query(&database.url, &format!("{sql} user_id = {user_id}")).unwrap();

    execute("DELETE FROM entries WHERE version > 1 AND");
    execute("UPDATE accounts SET balance = 1000, version = 1 WHERE");
    let deposit = || Change { direction: Direction::Deposit, amount: money("3.00"), ..deduction(user_id) };
    for _ in 0..3 {
        bench.ledger.apply(deposit(), None).await.unwrap();
    }
    assert_eq!(loss(&mut reconciler).await, 0);

    execute("UPDATE accounts SET balance = balance - 1 WHERE");
    assert_eq!(loss(&mut reconciler).await, 100);
    execute("DELETE FROM entries WHERE");
    execute("DELETE FROM accounts WHERE");
    assert_eq!(loss(&mut reconciler).await, 0);
}

/// It takes no locks, and still sees no loss that is none: not while accounts are written beside it.
#[tokio::test(flavor = "multi_thread")]
async fn writers_beside_it_raise_no_false_alarm() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let mut reconciler = Reconciler::new(Arc::clone(&bench.ledger.bench().store));
        let user_ids = [bench.account("1000.00").await, bench.account("1000.00").await];
        let writers = ["atomic", "batched", "optimistic"].map(|name| {
            let (ledger, row) = (Arc::clone(&bench.ledger), strategy::find(name).ok());
            tokio::spawn(async move {
                for turn in 0..40 {
                    let change = deduction(user_ids[turn % 2]);
                    ledger.apply(change, row).await.unwrap();
                    if turn == 20 {
                        ledger.reset(change.user_id, money("1000.00"), Uuid::new_v4()).await.unwrap();
                    }
                }
            })
        });
        let mut ticks = 0;
        while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            reconciler.tick().await.unwrap();
            assert_eq!(reconciler.finding().borrow().loss, 0, "after {ticks} ticks");
            ticks += 1;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert!(ticks > 3, "only {ticks} ticks beside the writers");
    }
}

/// A journal that is longer than a tick reads, and more accounts than a tick lists.
#[tokio::test(flavor = "multi_thread")]
async fn long_journals_and_many_accounts_take_several_ticks() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("1000.00").await;
    let insert = |from: i64, to: i64| {
        format!(
            "INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy) \
             SELECT {user_id}, seq, UNHEX(LPAD(HEX(seq), 32, '0')), 'DEPOSIT', 1, 1000 + seq - 1, seq - 1, 'atomic' \
             FROM seq_{from}_to_{to}"
        )
    };
    test_support::query(&database.url, &insert(2, 25_000)).unwrap();
    let accounts = "INSERT INTO accounts (user_id, balance, version) SELECT seq, 7, 1 FROM seq_1_to_1200";
    test_support::query(&database.url, accounts).unwrap();
    let opened = "INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy) \
                  SELECT seq, 1, UNHEX(LPAD(HEX(seq), 32, '0')), 'OPEN', 7, 7, 0, '' FROM seq_1_to_1200";
    test_support::query(&database.url, opened).unwrap();
    // 3.00 more than the journal says.
    let balance = format!("UPDATE accounts SET version = 25000, balance = 26002 WHERE user_id = {user_id}");
    test_support::query(&database.url, &balance).unwrap();

    let mut reconciler = Reconciler::new(Arc::clone(&bench.ledger.bench().store));
    let store = &bench.ledger.bench().store;
    let mut ticks = 0;
    while reconciler.finding().borrow().loss == 0 {
        let before = store.work().round_trips;
        reconciler.tick().await.unwrap();
        assert!(store.work().round_trips - before <= 501, "a tick's work is bounded");
        ticks += 1;
        assert!(ticks <= 10, "never found");
    }
    assert_eq!(reconciler.finding().borrow().loss, 300);
    // 26 200 entries of 1201 accounts: at most 10 000 and 500 a tick.
    assert!((4..=10).contains(&ticks), "{ticks}");
}
