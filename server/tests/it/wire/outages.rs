//! When the server cannot do its work, or cannot know whether it did: what callers are told, and what is true afterwards.

use std::time::{Duration, Instant};

use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use test_support::{Cut, CutProxy, NewConnections};
use tokio::task::JoinHandle;
use tonic::{Code, Request, body::Body};
use tonic_types::StatusExt;
use zbl_proto::{
    Reason,
    v1::{
        DeductRequest, DeductResponse, DeductionState, GetBalanceRequest, GetDeductionRequest, GetDeductionResponse,
        account_service_client::AccountServiceClient,
    },
};
use zbl_server::timeline::Phase;

use super::{Answer, Said, deduct, deposit, said, state};
use crate::app::{Database, Served, deduction, until};

/// A server whose database is behind a proxy.
pub(super) async fn behind_proxy(words: &[&str]) -> (Served, CutProxy, Database) {
    let database = Database::mysql();
    let proxy = CutProxy::start(&database.url).unwrap();
    let name = database.url.rsplit('/').next().unwrap();
    (Served::start(&proxy.url(name), words).await, proxy, database)
}

async fn fate(served: &Served, take: &DeductRequest, resolve: bool) -> GetDeductionResponse {
    let which = GetDeductionRequest { user_id: take.user_id, request_id: take.request_id.clone(), resolve };
    served.account().get_deduction(which).await.unwrap().into_inner()
}

/// A deduction with a deadline. The caller does not watch it himself, as tonic's own client would: what is seen is what
/// the server does about it.
fn within(
    served: &Served,
    deadline: Duration,
    take: DeductRequest,
) -> impl Future<Output = Answer<DeductResponse>> + use<> {
    let http: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let origin = format!("http://{}", served.grpc).parse().unwrap();
    let mut account = AccountServiceClient::with_origin(http, origin);
    let mut request = Request::new(take);
    request.set_timeout(deadline);
    async move { account.deduct(request).await }
}

/// A deduction on its way, held before its commit.
pub(super) struct Held {
    pub(super) take: DeductRequest,
    pub(super) gate: zbl_server::gate::Script,
    pub(super) call: JoinHandle<Answer<DeductResponse>>,
}

impl Held {
    pub(super) async fn before_commit(served: &Served, user_id: i64) -> Self {
        let mut account = served.account();
        Self::started_by(served, user_id, |take| tokio::spawn(async move { account.deduct(take).await })).await
    }

    /// The same with a deadline.
    async fn with_deadline(served: &Served, user_id: i64, deadline: Duration) -> Self {
        Self::started_by(served, user_id, |take| {
            let call = within(served, deadline, take);
            tokio::spawn(call)
        })
        .await
    }

    async fn started_by(
        served: &Served,
        user_id: i64,
        start: impl FnOnce(DeductRequest) -> JoinHandle<Answer<DeductResponse>>,
    ) -> Self {
        let change = deduction(user_id);
        let gate = served.bench.gates.hold(change.request_id, Phase::Commit);
        let take = DeductRequest { request_id: change.request_id.to_string(), ..deduct(user_id, "10") };
        let call = start(take.clone());
        gate.arrived().await;
        Self { take, gate, call }
    }
}

/// Longer than a deduction takes to come to its commit, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(1);

/// The deadline passes in mid-transaction: the caller is told so with our reason, and the transaction ends as it would.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_leaves_the_outcome_to_be_asked_for() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user_id = served.bench.account("1000.00").await;
        let Held { take, gate, call } = Held::with_deadline(&served, user_id, DEADLINE).await;
        let expected = Said::plain(Code::DeadlineExceeded, Reason::OutcomeUnknown, &[]);
        assert_eq!(said(async { call.await.unwrap() }).await, expected);

        let not_yet = fate(&served, &take, false).await;
        assert_eq!((not_yet.state(), not_yet.r#final), (DeductionState::NotFound, false));
        gate.release();
        let settled = fate(&served, &take, true).await;
        assert_eq!((settled.state(), settled.r#final), (DeductionState::Succeeded, true));
        assert_eq!(state(&served, user_id).await, ("990.00".to_owned(), 2));
    }
}

/// The deadline passes while the change waits for its turn: it is dropped, and the caller is told that it had no effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_in_a_queue_had_no_effect() {
    let database = Database::sqlite();
    for strategy in ["mutex", "batched"] {
        let served = Served::start(&database.url, &["--strategy", strategy]).await;
        let user_id = served.bench.account("1000.00").await;
        let Held { gate, call, .. } = Held::before_commit(&served, user_id).await;
        let expected = Said::plain(Code::DeadlineExceeded, Reason::Expired, &[]);
        let late = within(&served, Duration::from_millis(200), deduct(user_id, "10"));
        assert_eq!(said(late).await, expected, "{strategy}");
        gate.release();
        call.await.unwrap().unwrap();
        assert_eq!(state(&served, user_id).await, ("990.00".to_owned(), 2), "{strategy}");
    }
}

/// The deadline passes while the change waits for a row that somebody else has locked: it is dropped, and does not go on
/// waiting in the database for as long as others might.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_before_a_locked_row_had_no_effect() {
    let database = Database::mysql();
    let other = Served::start(&database.url, &["--strategy", "pessimistic"]).await;
    let user_id = other.bench.account("1000.00").await;
    for strategy in ["pessimistic", "atomic", "atomic_three_trips", "optimistic", "batched"] {
        let served = Served::start(&database.url, &["--strategy", strategy, "--lock-wait", "60s"]).await;
        let before = state(&served, user_id).await;
        let holder = Held::before_commit(&other, user_id).await;
        let began = Instant::now();
        let late = within(&served, Duration::from_millis(600), deduct(user_id, "10"));
        let expected = Said::plain(Code::DeadlineExceeded, Reason::Expired, &[]);
        assert_eq!(said(late).await, expected, "{strategy}");
        until("nobody waits for the row", async || other.bench.ledger.lock_waits().await.unwrap().in_database == 0)
            .await;
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(4), "{strategy}: the database waited for {waited:?}");
        holder.gate.release();
        holder.call.await.unwrap().unwrap();
        until("nothing is under way", async || served.bench.ledger.in_flight() == 0).await;
        let after = state(&served, user_id).await;
        assert_eq!(after.1, before.1 + 1, "{strategy}: only the holder's change is there");
    }
}

/// The row comes free just after the deadline: what was told to have had no effect has none.
#[tokio::test(flavor = "multi_thread")]
async fn what_expired_is_not_committed_after_all() {
    let database = Database::mysql();
    let other = Served::start(&database.url, &["--strategy", "pessimistic"]).await;
    let user_id = other.bench.account("1000.00").await;
    for strategy in ["atomic", "atomic_three_trips", "pessimistic", "batched"] {
        let served = Served::start(&database.url, &["--strategy", strategy]).await;
        let (_, before) = state(&served, user_id).await;
        let holder = Held::before_commit(&other, user_id).await;
        let late = within(&served, Duration::from_millis(500), deduct(user_id, "1"));
        let expected = Said::plain(Code::DeadlineExceeded, Reason::Expired, &[]);
        assert_eq!(said(late).await, expected, "{strategy}");
        holder.gate.release();
        holder.call.await.unwrap().unwrap();
        until("nothing is under way", async || served.bench.ledger.in_flight() == 0).await;
        assert_eq!(state(&served, user_id).await.1, before + 1, "{strategy}: only the holder's change is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_lost_at_commit_leaves_the_outcome_to_be_asked_for() {
    // `batched` has links of its own: when one of them is cut, the others still tell what became of the commit.
    let (served, proxy, _database) = behind_proxy(&["--settle-timeout", "200ms", "--strategy", "pessimistic"]).await;
    let user_id = served.bench.account("1000.00").await;
    let fates = [(Cut::BehindCommit, DeductionState::Succeeded), (Cut::BeforeCommit, DeductionState::Voided)];
    for (cut, expected) in fates {
        let Held { take, gate, call } = Held::before_commit(&served, user_id).await;
        proxy.set_new_connections(NewConnections::Refuse);
        proxy.arm(cut, 1);
        gate.release();
        let unknown = Said::plain(Code::Unknown, Reason::OutcomeUnknown, &[]);
        assert_eq!(said(async { call.await.unwrap() }).await, unknown, "{cut:?}");
        proxy.set_new_connections(NewConnections::Pass);
        assert_eq!(fate(&served, &take, true).await.state(), expected, "{cut:?}");
    }
    assert_eq!(state(&served, user_id).await, ("990.00".to_owned(), 3), "one deduction, one void");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away() {
    let (served, proxy, _database) = behind_proxy(&[]).await;
    let user_id = served.bench.account("1000.00").await;
    proxy.set_new_connections(NewConnections::Refuse);
    proxy.drop_all();
    let mut account = served.account();
    let expected = Said::plain(Code::Unavailable, Reason::BackendDown, &[("backend", "database")]);
    assert_eq!(said(account.deduct(deduct(user_id, "1"))).await, expected);
    assert_eq!(said(account.deposit(deposit(user_id, "1"))).await, expected);
    assert_eq!(
        said(account.get_balance(GetBalanceRequest { user_id, consistent: false, as_of: None })).await,
        expected
    );
    proxy.set_new_connections(NewConnections::Pass);
    assert_eq!(state(&served, user_id).await, ("1000.00".to_owned(), 1), "back, and nothing was changed");
}

/// What is open says for how long, and that nothing was changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_has_been_away_for_a_while() {
    let (served, proxy, _database) = behind_proxy(&["--breaker-window", "1s", "--breaker-open", "1h"]).await;
    let user_id = served.bench.account("1000.00").await;
    proxy.set_new_connections(NewConnections::Refuse);
    proxy.drop_all();
    let mut account = served.account();
    let plain = Said::plain(Code::Unavailable, Reason::CircuitOpen, &[("backend", "database")]);
    let expected = Said { retry: true, ..plain };
    let mut ask =
        async || said(account.get_balance(GetBalanceRequest { user_id, consistent: true, as_of: None })).await;
    until("the breaker opens", async || ask().await == expected).await;
    let status = served.account().deduct(deduct(user_id, "1")).await.unwrap_err();
    let left = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((Duration::from_secs(3500)..=Duration::from_secs(3600)).contains(&left), "{left:?}");
    assert_eq!(Said::by(&status), expected);
}

/// One connection, and a transaction that keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn more_work_than_there_are_connections() {
    let database = Database::mysql();
    // Each call a transaction of its own: a batch would take the second one up with it.
    let words = ["--pool-size", "1", "--pool-wait", "500ms", "--strategy", "pessimistic"];
    let served = Served::start(&database.url, &words).await;
    let user_id = served.bench.account("1000.00").await;
    let Held { gate, call, .. } = Held::before_commit(&served, user_id).await;
    let plain = Said::plain(Code::ResourceExhausted, Reason::Overloaded, &[]);
    let expected = Said { retry: true, quota: true, ..plain };
    assert_eq!(said(served.account().deduct(deduct(user_id, "1"))).await, expected);
    gate.release();
    call.await.unwrap().unwrap();
    assert_eq!(state(&served, user_id).await, ("990.00".to_owned(), 2), "only the one that had the connection");
}
