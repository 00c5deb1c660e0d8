//! The link to the database cut around COMMIT, for every strategy: whatever was cut, the call ends with a definite and
//! true answer. And a database that is away for longer: a reason, never a wrong answer.

use futures::future::join_all;
use test_support::{Cut, CutProxy, NewConnections};
use zbl_server::{
    error::Error,
    ledger::{Fate, Resolve},
    strategy::REGISTRY,
};

use crate::app::{Bench, Database, deduction, money};

/// A ledger whose database is behind a proxy.
async fn behind_proxy(words: &[&str]) -> (Bench, CutProxy, Database) {
    let database = Database::mysql();
    let proxy = CutProxy::start(&database.url).unwrap();
    let name = database.url.rsplit('/').next().unwrap();
    (Bench::open(&proxy.url(name), words).await, proxy, database)
}

const CUTS: [Cut; 2] = [Cut::BeforeCommit, Cut::BehindCommit];

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_commit_is_settled_for_every_strategy() {
    let (bench, proxy, _database) = behind_proxy(&[]).await;
    for row in REGISTRY {
        for cut in CUTS {
            let label = format!("{} cut {cut:?}", row.name);
            let user_id = bench.account("1000.00").await;
            let change = deduction(user_id);
            let before = proxy.cuts();
            proxy.arm(cut, 1);
            let receipt = bench.ledger.apply(change, Some(row)).await.expect(&label);
            assert_eq!(proxy.cuts(), before + 1, "{label}: nothing was cut");
            assert_eq!((receipt.balance, receipt.version), (money("990.00"), 2), "{label}");
            assert_eq!(receipt.attempts, if cut == Cut::BeforeCommit { 2 } else { 1 }, "{label}");
            assert_eq!(bench.balance(user_id).await, money("990.00"), "{label}");
            assert_eq!(bench.journal(user_id).await.len(), 2, "{label}: applied once");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openings_resets_and_voids_survive_a_cut_too() {
    let (bench, proxy, _database) = behind_proxy(&[]).await;
    for cut in CUTS {
        proxy.arm(cut, 1);
        let user_id = bench.account("1000.00").await;
        assert_eq!(bench.journal(user_id).await.len(), 1);

        proxy.arm(cut, 1);
        let reset = bench.ledger.reset(user_id, money("5.00"), uuid::Uuid::new_v4()).await.unwrap();
        assert_eq!((reset.state.balance, reset.state.version), (money("5.00"), 2));

        let absent = uuid::Uuid::new_v4();
        proxy.arm(cut, 1);
        assert_eq!(bench.ledger.fate(user_id, absent, Resolve::Finally).await.unwrap(), Fate::Voided);
        assert_eq!(bench.journal(user_id).await.len(), 3);
    }
    assert_eq!(proxy.cuts(), 6);
}

/// Many at once, their commits cut here and there: the safe ones all take effect exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn cuts_among_many_lose_and_double_nothing() {
    let (bench, proxy, _database) = behind_proxy(&[]).await;
    let safe = REGISTRY.iter().filter(|row| row.guarantee != zbl_server::strategy::Guarantee::LosesUpdates);
    for (row, cut) in safe.flat_map(|row| CUTS.map(|cut| (row, cut))) {
        let user_id = bench.account("1000.00").await;
        proxy.arm(cut, 5);
        let calls = (0..20).map(|_| bench.ledger.apply(deduction(user_id), Some(row)));
        let acknowledged = join_all(calls).await.into_iter().filter(Result::is_ok).count();
        proxy.arm(cut, 0);
        let journaled = bench.journal(user_id).await.len() - 1;
        assert_eq!(acknowledged, journaled, "{} cut {cut:?}", row.name);
        let left = money("1000.00").minor() - 1000 * i64::try_from(journaled).unwrap();
        assert_eq!(bench.balance(user_id).await.minor(), left, "{} cut {cut:?}", row.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stays_away_is_a_reason_not_an_answer() {
    let (bench, proxy, _database) = behind_proxy(&["--settle-timeout", "300ms"]).await;
    let user_id = bench.account("1000.00").await;

    proxy.set_new_connections(NewConnections::Refuse);
    proxy.drop_all();
    let before_any_write = bench.ledger.apply(deduction(user_id), None).await;
    assert!(matches!(before_any_write, Err(Error::BackendDown(_))), "{before_any_write:?}");
    assert!(matches!(bench.ledger.state(user_id).await, Err(Error::BackendDown(_))));
    proxy.set_new_connections(NewConnections::Pass);
    assert_eq!(bench.balance(user_id).await, money("1000.00"), "back without a restart, and nothing was changed");

    for (cut, fate_is_journaled) in [(Cut::BehindCommit, true), (Cut::BeforeCommit, false)] {
        let change = deduction(user_id);
        // Warm, so that the call needs no new connection before its commit.
        bench.balance(user_id).await;
        let gate = bench.gates.hold(change.request_id, zbl_server::timeline::Phase::Commit);
        let call = tokio::spawn({
            let ledger = std::sync::Arc::clone(&bench.ledger);
            async move { ledger.apply(change, None).await }
        });
        gate.arrived().await;
        proxy.set_new_connections(NewConnections::Refuse);
        proxy.arm(cut, 1);
        gate.release();
        let unknown = call.await.unwrap();
        assert!(matches!(unknown, Err(Error::OutcomeUnknown { .. })), "{unknown:?}");
        proxy.set_new_connections(NewConnections::Pass);
        let fate = bench.ledger.fate(user_id, change.request_id, Resolve::Finally).await.unwrap();
        assert_eq!(matches!(fate, Fate::Journaled(_)), fate_is_journaled, "{cut:?}: {fate:?}");
        assert_eq!(fate == Fate::Voided, !fate_is_journaled, "{cut:?}: {fate:?}");
    }
    assert_eq!(bench.balance(user_id).await, money("990.00"));
}
