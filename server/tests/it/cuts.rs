//! The link to the database cut around COMMIT, for every strategy: whatever was cut, the call ends with a definite and
//! true answer. And a database that is away for longer: a reason, never a wrong answer.

use std::sync::Arc;

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use test_support::{Cut, CutProxy, NewConnections, Redis};
use uuid::Uuid;
use zbl_server::{
    account::Change,
    error::{Error, UnknownCause},
    ledger::{Fate, Ledger, Resolve},
    strategy::{Conflict, Guarantee, REGISTRY, Row},
    timeline::Phase,
};

use crate::{
    app::{Bench, Database, deduction, money, until},
    schedules::where_no_other_test_waits,
};

/// A ledger whose database is behind a proxy.
async fn behind_proxy(url: &str, words: &[&str]) -> (Bench, CutProxy) {
    let proxy = CutProxy::start(url).unwrap();
    let name = url.rsplit('/').next().unwrap();
    (Bench::open(&proxy.url(name), words).await, proxy)
}

/// A strategy that works over the same links as everything else: those of `batched` are its own, and when one of them is
/// cut, the others still tell what became of the commit.
const ONE_LINK: [&str; 2] = ["--strategy", "pessimistic"];

const CUTS: [Cut; 2] = [Cut::BeforeCommit, Cut::BehindCommit];

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_commit_is_settled_for_every_strategy() {
    let (bench, proxy) = behind_proxy(&Database::mysql().url, &[]).await;
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
    let (bench, proxy) = behind_proxy(&Database::mysql().url, &[]).await;
    for cut in CUTS {
        proxy.arm(cut, 1);
        let user_id = bench.account("1000.00").await;
        assert_eq!(bench.journal(user_id).await.len(), 1);

        proxy.arm(cut, 1);
        let reset = bench.ledger.reset(user_id, money("5.00"), Uuid::new_v4()).await.unwrap();
        assert_eq!((reset.state.balance, reset.state.version), (money("5.00"), 2));

        let absent = Uuid::new_v4();
        proxy.arm(cut, 1);
        assert_eq!(bench.ledger.fate(user_id, absent, Resolve::Finally).await.unwrap(), Fate::Voided);
        assert_eq!(bench.journal(user_id).await.len(), 3);
    }
    assert_eq!(proxy.cuts(), 6);
}

/// Makes a call and loses its COMMIT on the way: it arrives when the call waits for what that COMMIT is to unlock, or has
/// ended without having waited.
async fn in_flight<T: Send + 'static>(
    bench: &Bench,
    proxy: &CutProxy,
    call: impl Future<Output = T> + Send + 'static,
) -> T {
    let before = proxy.cuts();
    proxy.arm(Cut::InFlight, 1);
    let call = tokio::spawn(call);
    until("the call waits for its own commit, or ends", async || {
        call.is_finished() || (proxy.cuts() > before && bench.ledger.blocked().await.unwrap() > 0)
    })
    .await;
    assert_eq!(proxy.release_held(), 1, "nothing was in flight");
    call.await.unwrap()
}

/// The COMMIT arrives after its fate was asked for: "not found" without the row lock would be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_flight_is_waited_for() {
    let (_server, url) = where_no_other_test_waits();
    let (bench, proxy) = behind_proxy(&url, &[]).await;
    for row in REGISTRY {
        let user_id = bench.account("1000.00").await;
        let (ledger, change) = (Arc::clone(&bench.ledger), deduction(user_id));
        let call = async move { ledger.apply(change, Some(row)).await };
        let receipt = in_flight(&bench, &proxy, call).await.expect(row.name);
        assert_eq!((receipt.balance, receipt.version), (money("990.00"), 2), "{}", row.name);
        assert_eq!(receipt.attempts, 1, "{}: settled, not tried again", row.name);
        assert_eq!(bench.balance(user_id).await, money("990.00"), "{}", row.name);
        assert_eq!(bench.journal(user_id).await.len(), 2, "{}: applied once", row.name);
    }

    let ledger = Arc::clone(&bench.ledger);
    let opening = async move { ledger.open(0, money("1000.00"), Uuid::new_v4()).await };
    let user_id = in_flight(&bench, &proxy, opening).await.unwrap().user_id;
    let ledger = Arc::clone(&bench.ledger);
    let reset = async move { ledger.reset(user_id, money("5.00"), Uuid::new_v4()).await };
    assert_eq!(in_flight(&bench, &proxy, reset).await.unwrap().state.version, 2);
    let ledger = Arc::clone(&bench.ledger);
    let resolve = async move { ledger.fate(user_id, Uuid::new_v4(), Resolve::Finally).await };
    assert_eq!(in_flight(&bench, &proxy, resolve).await.unwrap(), Fate::Voided);
    assert_eq!(bench.journal(user_id).await.len(), 3, "each applied once");
}

/// Another operation comes while the COMMIT of the first is in flight and the first is being settled: whatever keeps the
/// two apart must still do so then.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_flight_is_not_overwritten() {
    let (_server, url) = where_no_other_test_waits();
    let (bench, proxy) = behind_proxy(&url, &[]).await;
    for row in safe() {
        let user_id = bench.account("1000.00").await;
        let start = |change: Change| {
            let ledger = Arc::clone(&bench.ledger);
            tokio::spawn(async move { ledger.apply(change, Some(row)).await })
        };
        let before = proxy.cuts();
        proxy.arm(Cut::InFlight, 1);
        let first = start(deduction(user_id));
        until("the first COMMIT is in flight", async || proxy.cuts() > before).await;

        let change = deduction(user_id);
        let gate = bench.gates.hold(change.request_id, Phase::Write);
        let second = start(change);
        until("the second has read, or both wait: it for the first, the first for its own commit", async || {
            gate.arrived().now_or_never().is_some() || bench.ledger.blocked().await.unwrap() >= 2
        })
        .await;
        assert_eq!(proxy.release_held(), 1, "{}", row.name);
        gate.release();
        let first = first.await.unwrap().expect(row.name);
        let second = second.await.unwrap().expect(row.name);
        assert_eq!((first.version, first.attempts, second.version), (2, 1, 3), "{}", row.name);
        assert_eq!(second.version_before, 2, "{}: it wrote over the first", row.name);
        assert_eq!(bench.balance(user_id).await, money("980.00"), "{}", row.name);
    }
}

/// A commit whose fate could not be learnt in time can still happen. The lock in Redis is not given back meanwhile: another
/// server stays out until the lease has run out.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_not_given_back_while_a_commit_is_in_flight() {
    let (redis, url) = (Redis::start().unwrap(), Database::mysql().url);
    let redis_url = redis.url();
    let words = ["--redis-url", &redis_url, "--cache=false", "--lease", "60s", "--settle-timeout", "300ms"];
    let (bench, proxy) = behind_proxy(&url, &words).await;
    let user_id = bench.account("1000.00").await;
    let row = zbl_server::strategy::find("redis_lock").unwrap();
    proxy.arm(Cut::InFlight, 1);
    let unknown = bench.ledger.apply(deduction(user_id), Some(row)).await;
    assert!(matches!(unknown, Err(Error::OutcomeUnknown { .. })), "{unknown:?}");
    assert_eq!(redis.command(&["EXISTS", &format!("zbl:lock:{user_id}")]).unwrap().trim(), "1");
    assert_eq!(proxy.release_held(), 1, "nothing was in flight");
    until("it happens after all", async || bench.balance(user_id).await == money("990.00")).await;
}

/// The strategies that lose nothing within one process.
fn safe() -> impl Iterator<Item = &'static Row> {
    REGISTRY.iter().filter(|row| row.guarantee != Guarantee::LosesUpdates)
}

/// Many at once, their commits cut here and there: the safe ones all take effect exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn cuts_among_many_lose_and_double_nothing() {
    const CUTS_EACH: u32 = 5;
    let (bench, proxy) = behind_proxy(&Database::mysql().url, &[]).await;
    for (row, cut) in safe().flat_map(|row| CUTS.map(|cut| (row, cut))) {
        let label = format!("{} cut {cut:?}", row.name);
        let user_id = bench.account("1000.00").await;
        let before = proxy.cuts();
        proxy.arm(cut, CUTS_EACH);
        let (mut called, mut acknowledged) = (0, 0);
        // What commits many changes at once has fewer commits to cut, but one at least in each round.
        for _ in 0..CUTS_EACH {
            let calls = (0..20).map(|_| bench.ledger.apply(deduction(user_id), Some(row)));
            called += calls.len();
            acknowledged += join_all(calls).await.into_iter().filter(Result::is_ok).count();
            if proxy.cuts() == before + CUTS_EACH {
                break;
            }
        }
        assert_eq!(proxy.cuts(), before + CUTS_EACH, "{label}");
        match row.conflict {
            Conflict::Waits => assert_eq!(acknowledged, called, "{label}"),
            Conflict::Retries | Conflict::Overwrites => assert!(acknowledged > 0, "{label}"),
        }
        let journaled = bench.journal(user_id).await.len() - 1;
        assert_eq!(acknowledged, journaled, "{label}");
        let left = money("1000.00").minor() - 1000 * i64::try_from(journaled).unwrap();
        assert_eq!(bench.balance(user_id).await.minor(), left, "{label}");
    }
}

/// A call that changes an account; its result is whether it had done so before.
type Call = fn(Arc<Ledger>, i64, Uuid) -> BoxFuture<'static, Result<bool, Error>>;

const CALLS: [(&str, Call); 3] = [
    ("open", |ledger, _, request_id| {
        async move { Ok(ledger.open(0, money("1000.00"), request_id).await?.replayed) }.boxed()
    }),
    ("reset", |ledger, user_id, request_id| {
        async move { Ok(ledger.reset(user_id, money("1000.00"), request_id).await?.replayed) }.boxed()
    }),
    ("deduct", |ledger, user_id, request_id| {
        let change = Change { request_id, ..deduction(user_id) };
        async move { Ok(ledger.apply(change, None).await?.is_replay()) }.boxed()
    }),
];

/// The COMMIT was sent and nobody can look what became of it, because the database is away or because it has not arrived
/// yet. Then the outcome is unknown: what the looking ran into says nothing about the effect.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_settled_in_time_is_unknown() {
    let limits = ["--settle-timeout", "300ms", "--operation-timeout", "300ms", "--lock-wait", "1s"];
    let (bench, proxy) = behind_proxy(&Database::mysql().url, &[&limits[..], &ONE_LINK].concat()).await;
    let user_id = bench.account("1000.00").await;
    let cases = [
        (Cut::BeforeCommit, NewConnections::Refuse),
        (Cut::BehindCommit, NewConnections::Refuse),
        (Cut::InFlight, NewConnections::Pass),
    ];
    for ((name, call), (cut, meanwhile)) in CALLS.into_iter().flat_map(|call| cases.map(|case| (call, case))) {
        let request_id = Uuid::new_v4();
        // Warm, so that the call needs no new connection before its commit.
        bench.balance(user_id).await;
        proxy.set_new_connections(meanwhile);
        proxy.arm(cut, 1);
        let unknown = call(Arc::clone(&bench.ledger), user_id, request_id).await;
        let link_lost = matches!(unknown, Err(Error::OutcomeUnknown { cause: UnknownCause::LinkLost, .. }));
        assert!(link_lost, "{name} cut {cut:?}: {unknown:?}");

        assert_eq!(proxy.release_held(), usize::from(cut == Cut::InFlight), "{name} cut {cut:?}");
        proxy.set_new_connections(NewConnections::Pass);
        let had_taken_effect = call(Arc::clone(&bench.ledger), user_id, request_id).await.unwrap();
        assert_eq!(had_taken_effect, cut != Cut::BeforeCommit, "{name} cut {cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stays_away_is_a_reason_not_an_answer() {
    let limit = ["--settle-timeout", "300ms"];
    let (bench, proxy) = behind_proxy(&Database::mysql().url, &[limit, ONE_LINK].concat()).await;
    let user_id = bench.account("1000.00").await;

    proxy.set_new_connections(NewConnections::Refuse);
    proxy.drop_all();
    let before_any_write = bench.ledger.apply(deduction(user_id), None).await;
    assert!(matches!(before_any_write, Err(Error::BackendDown { .. })), "{before_any_write:?}");
    assert!(matches!(bench.ledger.state(user_id).await, Err(Error::BackendDown { .. })));
    proxy.set_new_connections(NewConnections::Pass);
    assert_eq!(bench.balance(user_id).await, money("1000.00"), "back without a restart, and nothing was changed");

    for (cut, fate_is_journaled) in [(Cut::BehindCommit, true), (Cut::BeforeCommit, false)] {
        let change = deduction(user_id);
        // Warm, so that the call needs no new connection before its commit.
        bench.balance(user_id).await;
        let gate = bench.gates.hold(change.request_id, Phase::Commit);
        let call = tokio::spawn({
            let ledger = Arc::clone(&bench.ledger);
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
