//! Each strategy on each store under the one schedule that matters: two operations, both held after what they read and
//! before what they write. The matrix comes from the registry; what is expected follows from guarantee and conflict.

use test_support::MariaDb;
use uuid::Uuid;
use zbl_server::{
    account::{Change, Receipt, Refusal},
    error::Error,
    gate::Point,
    strategy::{self, Conflict, Guarantee, REGISTRY, Row},
    timeline::Phase,
};

use crate::app::{Bench, Database, deduction, money, until};

/// What came of two operations that met.
struct Duel {
    first: (Change, Result<Receipt, Error>),
    second: (Change, Result<Receipt, Error>),
    /// Whether the second stood before its write while the first was still held before its own.
    both_had_read: bool,
}

/// Holds two deductions of 10.00 before their writes, the first one on `one` and the second on `other`, then lets the
/// first go on, and then the second. An operation that cannot come so far because of a lock is seen to be blocked by
/// it, in the database or in the process; nothing here depends on time.
async fn duel(one: &Bench, other: &Bench, user_id: i64, strategy: &'static Row) -> Duel {
    let (first, second) = (deduction(user_id), deduction(user_id));
    let start = |bench: &Bench, change: Change| {
        let ledger = std::sync::Arc::clone(&bench.ledger);
        tokio::spawn(async move { ledger.apply(change, Some(strategy)).await })
    };
    let hold = |bench: &Bench, change: Change| std::sync::Arc::new(bench.gates.hold(change.request_id, Phase::Write));
    let (first_gate, second_gate) = (hold(one, first), hold(other, second));

    let first_task = start(one, first);
    first_gate.arrived().await;
    let second_task = start(other, second);
    let mut both_had_read = false;
    until("the second operation reads, or waits for a lock", async || {
        both_had_read = has_arrived(&second_gate).await;
        both_had_read || blocked(one, other).await
    })
    .await;

    drop(first_gate);
    until("the first operation ends, or waits for the second", async || {
        first_task.is_finished() || blocked(one, other).await
    })
    .await;
    drop(second_gate);
    Duel { first: (first, first_task.await.unwrap()), second: (second, second_task.await.unwrap()), both_had_read }
}

async fn has_arrived(gate: &zbl_server::gate::Script) -> bool {
    use futures::FutureExt;
    gate.arrived().now_or_never().is_some()
}

async fn blocked(one: &Bench, other: &Bench) -> bool {
    one.ledger.blocked().await.unwrap() + other.ledger.blocked().await.unwrap() > 0
}

impl Duel {
    fn attempts(&self) -> u32 {
        [&self.first, &self.second].iter().map(|(_, result)| result.as_ref().unwrap().attempts).sum()
    }

    /// Why writes failed, over both operations.
    fn failures(&self, one: &Bench, other: &Bench) -> Vec<&'static str> {
        let spans = [one.spans(self.first.0.request_id), other.spans(self.second.0.request_id)];
        spans.concat().iter().filter_map(|span| span.failure).collect()
    }
}

/// Money for both, on one server.
async fn check_plenty(bench: &Bench, row: &'static Row) {
    let label = format!("{} on {}", row.name, bench.ledger.bench().store.name());
    let user_id = bench.account("1000.00").await;
    let duel = duel(bench, bench, user_id, row).await;
    let (first, second) = (duel.first.1.as_ref().unwrap(), duel.second.1.as_ref().unwrap());
    if row.guarantee == Guarantee::LosesUpdates {
        assert!(duel.both_had_read, "{label}");
        check_lost(bench, user_id, first, second).await;
        return;
    }
    assert_eq!(bench.balance(user_id).await, money("980.00"), "{label}");
    let journal = bench.journal(user_id).await;
    assert!(journal.iter().all(|entry| entry.version == entry.version_before + 1), "{label}: {journal:?}");
    assert!(bench.races(user_id).is_empty(), "{label}");
    // How it was kept apart: so that this fails where the guard is taken out and only the journal's key still holds.
    let failures = duel.failures(bench, bench);
    if row.conflict == Conflict::Retries && duel.both_had_read {
        assert_eq!(duel.attempts(), 3, "{label}");
        assert!(failures.iter().all(|why| ["OVERTAKEN", "CONTENDED"].contains(why)), "{label}: {failures:?}");
        assert!(!failures.is_empty(), "{label}");
    } else {
        assert_eq!((duel.attempts(), failures), (2, vec![]), "{label}");
    }
}

/// Exactly one is lost: the first is the victim, the second the overwriter, and the timeline says so.
async fn check_lost(bench: &Bench, user_id: i64, victim: &Receipt, overwriter: &Receipt) {
    assert_eq!((victim.version, victim.version_before, victim.balance), (2, 1, money("990.00")));
    assert_eq!((overwriter.version, overwriter.version_before, overwriter.balance), (3, 1, money("990.00")));
    assert_eq!(bench.balance(user_id).await, money("990.00"));
    let races = bench.races(user_id);
    let [race] = races.as_slice() else { panic!("{races:?}") };
    assert_eq!(race.overwriter.request_id, overwriter.request_id);
    let victims: Vec<Uuid> = race.victims.iter().map(|victim| victim.request_id).collect();
    assert_eq!(victims, [victim.request_id]);
    assert_eq!((race.seen.version, race.destroyed), (1, money("10.00")));
}

/// Money for one of the two only: a strategy that keeps them apart refuses the other.
async fn check_scarce(bench: &Bench, row: &'static Row) {
    let label = format!("{} on {}", row.name, bench.ledger.bench().store.name());
    let user_id = bench.account("15.00").await;
    let duel = duel(bench, bench, user_id, row).await;
    assert_eq!(bench.balance(user_id).await, money("5.00"), "{label}");
    let sold = [&duel.first.1, &duel.second.1].iter().filter(|result| result.is_ok()).count();
    if row.guarantee == Guarantee::LosesUpdates {
        assert_eq!(sold, 2, "{label}: both believe they took the money");
        return;
    }
    assert_eq!(sold, 1, "{label}");
    let refused = [duel.first.1, duel.second.1].into_iter().find_map(Result::err).unwrap();
    assert!(matches!(refused, Error::Refused(Refusal::InsufficientBalance { .. })), "{label}: {refused:?}");
}

/// A request is repeated while its first call stands before its commit, and in the meantime the money has gone: the
/// repeat must not be refused on what it cannot see yet. It waits for the row lock, and then finds the first receipt.
async fn check_refusal_waits_for_the_commit(bench: &Bench) {
    let row = strategy::find("none").unwrap();
    let user_id = bench.account("10.00").await;
    let change = deduction(user_id);
    let held = bench.gates.script(change.request_id, &[Phase::Write, Phase::Commit].map(Point::Before));
    let start = || {
        let ledger = std::sync::Arc::clone(&bench.ledger);
        tokio::spawn(async move { ledger.apply(change, Some(row)).await })
    };
    let first = start();
    held.arrived().await;
    bench.ledger.apply(deduction(user_id), Some(row)).await.unwrap();
    held.step();
    held.arrived().await;
    let repeat = start();
    until("the repeat ends, or waits for the first call", async || repeat.is_finished() || blocked(bench, bench).await)
        .await;
    held.release();
    let (first, repeat) = (first.await.unwrap().unwrap(), repeat.await.unwrap().unwrap());
    assert!(repeat.is_replay());
    assert_eq!(first.version, repeat.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_strategy_keeps_its_guarantee_on_sqlite() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    check_refusal_waits_for_the_commit(&bench).await;
    for row in REGISTRY {
        check_plenty(&bench, row).await;
        check_scarce(&bench, row).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_strategy_keeps_its_guarantee_on_mariadb_or_mysql() {
    let (_server, url) = where_no_other_test_waits();
    let bench = Bench::open(&url, &[]).await;
    for row in REGISTRY {
        check_plenty(&bench, row).await;
        check_scarce(&bench, row).await;
    }
    check_refusal_waits_for_the_commit(&bench).await;
    two_instances(&url).await;
}

/// A database where every lock wait counted is this test's: its own on MySQL, which counts for each database. MariaDB
/// counts for the whole server, so there it takes a server of its own.
pub fn where_no_other_test_waits() -> (Option<MariaDb>, String) {
    let url = Database::mysql().url;
    let version = test_support::query(&url, "SELECT VERSION()").unwrap().concat().concat();
    if !version.contains("MariaDB") {
        return (None, url);
    }
    let server = MariaDb::start().unwrap();
    server.create_database("zbl").unwrap();
    let url = server.url("zbl");
    (Some(server), url)
}

/// Two instances on one database: what one process alone kept apart overwrites; what promises Always still does.
async fn two_instances(url: &str) {
    let (one, other) = (Bench::open(url, &[]).await, Bench::open(url, &[]).await);
    for row in REGISTRY {
        let user_id = one.account("1000.00").await;
        let duel = duel(&one, &other, user_id, row).await;
        let (first, second) = (duel.first.1.as_ref().unwrap(), duel.second.1.as_ref().unwrap());
        match row.guarantee {
            Guarantee::LosesUpdates | Guarantee::OneProcess => check_lost(&other, user_id, first, second).await,
            Guarantee::WhileLeaseHolds | Guarantee::Always => {
                assert_eq!(one.balance(user_id).await, money("980.00"), "{}", row.name);
            }
        }
    }
}
