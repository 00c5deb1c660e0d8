//! Repeated requests, refused requests that were applied before, and requests settled while still on their way.

use uuid::Uuid;
use zbl_server::{
    account::{Change, Direction, EntryKind, Refusal},
    error::Error,
    ledger::{Fate, Resolve},
    strategy::{self, REGISTRY},
    timeline::Phase,
};

use crate::app::{Bench, Database, deduction, money};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_returns_the_first_receipt_whatever_the_strategy() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        for row in REGISTRY {
            let user_id = bench.account("10.00").await;
            let change = deduction(user_id);
            let first = bench.ledger.apply(change, Some(row)).await.unwrap();
            assert_eq!(first.attempts, 1);
            // The money is gone, so each of these would be refused if it were a new request.
            for again in REGISTRY {
                let repeat = bench.ledger.apply(change, Some(again)).await.unwrap();
                assert!(repeat.is_replay());
                assert_eq!(zbl_server::account::Receipt { attempts: 1, ..repeat }, first, "{} again", again.name);
            }
            assert_eq!(bench.journal(user_id).await.len(), 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_in_parallel_applies_once() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        for row in REGISTRY {
            let user_id = bench.account("1000.00").await;
            let change = deduction(user_id);
            let calls = (0..8).map(|_| bench.ledger.apply(change, Some(row)));
            let receipts = futures::future::try_join_all(calls).await.unwrap();
            assert!(receipts.iter().all(|receipt| receipt.version == receipts[0].version), "{receipts:?}");
            assert_eq!(receipts.iter().filter(|receipt| !receipt.is_replay()).count(), 1, "{}", row.name);
            assert_eq!(bench.balance(user_id).await, money("990.00"), "{}", row.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_another_payload_is_refused() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = bench.account("1000.00").await;
        let change = deduction(user_id);
        bench.ledger.apply(change, None).await.unwrap();
        for other in [Change { amount: money("10.01"), ..change }, Change { direction: Direction::Deposit, ..change }] {
            for row in REGISTRY {
                let result = bench.ledger.apply(other, Some(row)).await;
                assert!(matches!(result, Err(Error::Refused(Refusal::RequestIdReused { .. }))), "{result:?}");
            }
        }
        assert_eq!(bench.balance(user_id).await, money("990.00"));
    }
}

/// A request is on its way, past its read, when its caller gives up and has it resolved: it must not apply any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_resolved_request_that_arrives_late_has_no_effect() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        // Those that hold no lock while held here; a lock would make the settlement wait, which is another proof.
        for strategy in ["none", "optimistic", "atomic"].map(|name| strategy::find(name).unwrap()) {
            let user_id = bench.account("1000.00").await;
            let change = deduction(user_id);
            let gate = bench.gates.hold(change.request_id, Phase::Write);
            let late = tokio::spawn({
                let ledger = std::sync::Arc::clone(&bench.ledger);
                async move { ledger.apply(change, Some(strategy)).await }
            });
            gate.arrived().await;
            assert_eq!(bench.ledger.fate(user_id, change.request_id, Resolve::Look).await.unwrap(), Fate::NotFound);
            assert_eq!(bench.ledger.fate(user_id, change.request_id, Resolve::Finally).await.unwrap(), Fate::Voided);
            gate.release();
            let refused = late.await.unwrap();
            assert!(
                matches!(refused, Err(Error::Refused(Refusal::RequestIdReused { .. }))),
                "{}: {refused:?}",
                strategy.name
            );
            assert_eq!(bench.balance(user_id).await, money("1000.00"), "{}", strategy.name);
            let kinds: Vec<EntryKind> = bench.journal(user_id).await.iter().map(|entry| entry.kind).collect();
            assert_eq!(kinds, [EntryKind::Open, EntryKind::Void], "{}", strategy.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openings_and_resets_can_be_repeated() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let id = Uuid::new_v4();
        let first = bench.ledger.open(0, money("5.00"), id).await.unwrap();
        let again = bench.ledger.open(0, money("5.00"), id).await.unwrap();
        assert_eq!(
            (first.user_id, first.replayed, again.user_id, again.replayed),
            (again.user_id, false, first.user_id, true)
        );
        let taken = bench.ledger.open(first.user_id, money("5.00"), Uuid::new_v4()).await;
        assert!(matches!(taken, Err(Error::Refused(Refusal::AccountExists { .. }))), "{taken:?}");

        let id = Uuid::new_v4();
        for replayed in [false, true] {
            let reset = bench.ledger.reset(first.user_id, money("7.00"), id).await.unwrap();
            assert_eq!((reset.state.version, reset.replayed), (2, replayed), "the version goes on, once");
        }
        let journal = bench.journal(first.user_id).await;
        let total: i64 = journal.iter().map(|entry| entry.delta.minor()).sum();
        assert_eq!((journal.len(), total), (2, 700), "the balance is the sum of the deltas");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_that_would_overflow_is_refused_by_every_strategy() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = 77;
        bench.ledger.open(user_id, money("92233720368547758.00"), Uuid::new_v4()).await.unwrap();
        for row in REGISTRY {
            let deposit = Change { direction: Direction::Deposit, amount: money("0.08"), ..deduction(user_id) };
            let result = bench.ledger.apply(deposit, Some(row)).await;
            assert!(matches!(result, Err(Error::Refused(Refusal::BalanceOverflow { .. }))), "{}: {result:?}", row.name);
        }
        assert_eq!(bench.journal(user_id).await.len(), 1);
        let fits = Change { direction: Direction::Deposit, amount: money("0.07"), ..deduction(user_id) };
        bench.ledger.apply(fits, None).await.unwrap();
        assert_eq!(bench.balance(user_id).await.minor(), i64::MAX);
    }
}

/// A balance of 18 digits is more than a double holds to the cent: nowhere may one get in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_cent_is_exact_at_the_largest_balance() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        for row in REGISTRY {
            let user_id = bench.account("92233720368547758.07").await;
            let cent = Change { amount: money("0.01"), ..deduction(user_id) };
            let receipt = bench.ledger.apply(cent, Some(row)).await.unwrap();
            assert_eq!(receipt.balance, money("92233720368547758.06"), "{} on {}", row.name, database.url);
            // One cent more than there is room for, two when there was one.
            for (amount, fits) in [("0.02", false), ("0.01", true)] {
                let add = Change { direction: Direction::Deposit, amount: money(amount), ..deduction(user_id) };
                let result = bench.ledger.apply(add, Some(row)).await;
                assert_eq!(result.is_ok(), fits, "{} on {}: {result:?}", row.name, database.url);
            }
            assert_eq!(bench.balance(user_id).await.minor(), i64::MAX, "{} on {}", row.name, database.url);
        }
    }
}
