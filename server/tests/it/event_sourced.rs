//! `event_sourced` beyond what every strategy is put through: what it folds, from where, and what it makes of a journal that
//! is not whole.

use std::sync::Arc;

use zbl_server::{
    account::{Money, Receipt, State},
    error::Error,
    strategy,
    timeline::Phase,
};

use crate::app::{Bench, Database, deduction, money};

async fn deduct(bench: &Bench, user_id: i64) -> Result<Receipt, Error> {
    bench.ledger.apply(deduction(user_id), Some(strategy::find("event_sourced").unwrap())).await
}

async fn snapshot(bench: &Bench, user_id: i64) -> State {
    bench.ledger.bench().store.snapshot(user_id).await.unwrap()
}

/// Appends deposits of one cent to the journal of an account at version 1, and brings its row up to date; no snapshot is
/// made of them.
fn deposit_cents(url: &str, user_id: i64, events: i64) {
    let digits = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL \
                  SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let numbers = format!(
        "SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS n \
         FROM {digits} a, {digits} b, {digits} c, {digits} e, {digits} f"
    );
    let append = format!(
        "INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy) \
         SELECT {user_id}, n + 2, UNHEX(SUBSTR(SHA2(n, 256), 1, 32)), 'DEPOSIT', 0.01, 1000 + 0.01 * (n + 1), n + 1, 'atomic' \
         FROM ({numbers}) AS numbers WHERE n < {events} ORDER BY n"
    );
    test_support::query(url, &append).unwrap();
    let project = format!(
        "UPDATE accounts SET version = {}, balance = 1000 + 0.01 * {events} WHERE user_id = {user_id}",
        events + 1
    );
    test_support::query(url, &project).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_begins_with_the_last_snapshot() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("1000.00").await;
    deposit_cents(&database.url, user_id, 298);
    assert_eq!(snapshot(&bench, user_id).await, State::NONE);
    let receipt = deduct(&bench, user_id).await.unwrap();
    assert_eq!((receipt.version, receipt.balance), (300, money("992.98")));
    assert_eq!(snapshot(&bench, user_id).await, State { balance: money("992.98"), version: 300 });

    // What came before it is not looked at any more.
    let cut = format!("DELETE FROM entries WHERE user_id = {user_id} AND version < 300");
    test_support::query(&database.url, &cut).unwrap();
    for version in 301..=304 {
        assert_eq!(deduct(&bench, user_id).await.unwrap().version, version);
    }
    assert_eq!(snapshot(&bench, user_id).await.version, 300, "the next one comes with version 400");
}

/// The journal has the last word, and not a copy of what it came to.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_contradicts_the_journal_is_not_believed() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    for tamper in ["balance = balance + 500", "version = version + 50"] {
        let user_id = bench.account("1000.00").await;
        deposit_cents(&database.url, user_id, 98);
        assert_eq!(deduct(&bench, user_id).await.unwrap().version, 100);
        test_support::query(&database.url, &format!("UPDATE snapshots SET {tamper} WHERE user_id = {user_id}"))
            .unwrap();
        let receipt = deduct(&bench, user_id).await.unwrap();
        assert_eq!((receipt.version, receipt.balance), (101, money("980.98")), "{tamper}");
    }
}

/// Where nobody has kept a snapshot for long, it is made on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_journal_is_folded_once() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("1000.00").await;
    deposit_cents(&database.url, user_id, 25_000);
    let receipt = deduct(&bench, user_id).await.unwrap();
    assert_eq!((receipt.version, receipt.balance, receipt.attempts), (25_002, money("1240.00"), 1));
    assert_eq!(snapshot(&bench, user_id).await, State { balance: money("1199.99"), version: 20_000 });
}

/// Events that were overwritten are in the journal and not in the balance.
#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_from_what_survived() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = bench.account("1000.00").await;
        let none = Some(strategy::find("none").unwrap());
        let changes = [deduction(user_id), deduction(user_id)];
        let gates = changes.map(|change| bench.gates.hold(change.request_id, Phase::Compute));
        let calls = changes.map(|change| {
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
        let left = bench.balance(user_id).await;
        let receipt = deduct(&bench, user_id).await.unwrap();
        assert_eq!((receipt.version, receipt.version_before), (4, 3));
        assert_eq!(Some(receipt.balance), left.checked_sub(Money::from_minor(1_000)));
        assert_eq!(bench.balance(user_id).await, receipt.balance);
    }
}

/// It does not decide on a journal that contradicts itself, and says where it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_not_whole_is_told() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    for (tamper, told) in [
        ("DELETE FROM entries WHERE version = 2 AND", "version 2 is missing"),
        (
            "UPDATE entries SET balance_after = balance_after + 1 WHERE version = 3 AND",
            "version 3 leaves 981.00 behind",
        ),
        ("UPDATE entries SET delta = delta - 0.01 WHERE version = 2 AND", "version 2 leaves 990.00 behind"),
    ] {
        let user_id = bench.account("1000.00").await;
        for _ in 0..2 {
            deduct(&bench, user_id).await.unwrap();
        }
        test_support::query(&database.url, &format!("{tamper} user_id = {user_id}")).unwrap();
        let error = deduct(&bench, user_id).await.unwrap_err().to_string();
        assert!(error.contains(told) && error.contains(&user_id.to_string()), "{error}");
        assert_eq!(bench.balance(user_id).await, money("980.00"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_recognised_in_the_stream() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = bench.account("1000.00").await;
        let change = deduction(user_id);
        let event_sourced = Some(strategy::find("event_sourced").unwrap());
        let calls = [(); 8].map(|()| {
            let ledger = Arc::clone(&bench.ledger);
            tokio::spawn(async move { ledger.apply(change, event_sourced).await })
        });
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap().version, 2);
        }
        assert_eq!(bench.journal(user_id).await.len(), 2);
        assert_eq!(bench.balance(user_id).await, money("990.00"));
    }
}
