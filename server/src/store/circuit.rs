//! The database behind a circuit breaker: the one place where it is asked for leave, and told what came of it.
//!
//! A read is one question, and so is a transaction, from its first statement to its end. What failed is the link:
//! refused, lost, or without an answer. Contention, duplicate keys and refusals are answers. A pool without a free
//! connection, and a caller who went away, say nothing about the database.

mod outbox;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::RangeInclusive,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use async_trait::async_trait;
use chrono::NaiveDate;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{
    AccountWrite, BlindWrite, Error, FencedRead, Filter, IfLocked, Isolation, LockWaits, Matched, PoolState, Result,
    RowLock, Selection, Store, Transaction, Work,
    outbox::{Ending, Key, Outgoing},
    reports::{Ranking, Reports, Standing},
};
use crate::{
    account::{Entry, Money, NewEntry, State},
    breaker::{Breaker, Leave, Refused},
    chain::Record,
    report::Turnover,
};

/// A store, or what is read of it in reports, behind a breaker.
pub struct Circuit<S: ?Sized = dyn Store> {
    inner: Arc<S>,
    breaker: Arc<Breaker>,
}

impl From<Refused> for Error {
    fn from(Refused { retry_after }: Refused) -> Self {
        Self::NotAsked { retry_after }
    }
}

/// Says what came of a question.
fn tell(leave: Leave, error: Option<&Error>) {
    match error {
        None | Some(Error::Contended(_) | Error::Duplicate(_)) => leave.succeeded(),
        Some(Error::Lost(_) | Error::CommitLost(_) | Error::Down(_)) => leave.failed(),
        Some(Error::Exhausted(_) | Error::NotAsked { .. } | Error::Unexpected(_)) => drop(leave),
    }
}

impl<S: ?Sized + Send + Sync> Circuit<S> {
    /// `inner`, asked only when `breaker` gives leave.
    pub const fn new(inner: Arc<S>, breaker: Arc<Breaker>) -> Self {
        Self { inner, breaker }
    }

    /// Asks, if there is leave. When whoever asks goes away, the question is waited for all the same: callers with little
    /// patience would otherwise never learn, nor tell, that a database has stopped answering. It ends as every wait for a
    /// link and a statement does.
    async fn asked<T, F>(&self, question: impl FnOnce(Arc<S>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let leave = self.breaker.enter()?;
        let question = question(Arc::clone(&self.inner));
        let told = async move {
            let answer = question.await;
            tell(leave, answer.as_ref().err());
            answer
        };
        ToItsEnd(Some(Box::pin(told))).await
    }
}

#[async_trait]
impl Reports for Circuit<dyn Reports> {
    async fn standing(&self) -> Result<Standing> {
        self.asked(|reports| async move { reports.standing().await }).await
    }

    async fn days(
        &self,
        user_id: i64,
        within: RangeInclusive<NaiveDate>,
        limit: i64,
    ) -> Result<(Standing, Vec<(NaiveDate, Turnover)>)> {
        self.asked(move |reports| async move { reports.days(user_id, within, limit).await }).await
    }

    async fn top(&self, ranking: Ranking) -> Result<(Standing, Vec<(i64, Turnover)>)> {
        self.asked(move |reports| async move { reports.top(ranking).await }).await
    }

    async fn rebuild(&self) -> Result<i64> {
        self.asked(|reports| async move { reports.rebuild().await }).await
    }
}

impl Circuit {
    fn behind(&self, inner: Box<dyn Transaction>) -> Box<dyn Transaction> {
        Box::new(CircuitTransaction { inner, breaker: Arc::clone(&self.breaker), asked: Asked::Nothing })
    }
}

#[async_trait]
impl Store for Circuit {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn read(&self, user_id: i64) -> Result<Option<State>> {
        self.asked(move |store| async move { store.read(user_id).await }).await
    }

    async fn read_fenced(&self, user_id: i64, token: i64, until: Option<Instant>) -> Result<Option<FencedRead>> {
        self.asked(move |store| async move { store.read_fenced(user_id, token, until).await }).await
    }

    async fn find(&self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        self.asked(move |store| async move { store.find(user_id, request_id).await }).await
    }

    async fn entries(&self, user_id: i64, after_version: i64, limit: i64) -> Result<Vec<Entry>> {
        self.asked(move |store| async move { store.entries(user_id, after_version, limit).await }).await
    }

    async fn outgoing(&self, key: Key) -> Result<Option<Outgoing>> {
        self.asked(move |store| async move { store.outgoing(key).await }).await
    }

    async fn select(&self, selection: Selection) -> Result<Vec<Entry>> {
        self.asked(move |store| async move { store.select(selection).await }).await
    }

    async fn entries_of_accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<Entry>> {
        self.asked(move |store| async move { store.entries_of_accounts(after_user_id, limit).await }).await
    }

    async fn records(&self, after: (i64, i64), limit: i64) -> Result<Vec<Record>> {
        self.asked(move |store| async move { store.records(after, limit).await }).await
    }

    async fn snapshot(&self, user_id: i64) -> Result<State> {
        self.asked(move |store| async move { store.snapshot(user_id).await }).await
    }

    async fn keyspace(&self) -> Result<String> {
        self.asked(move |store| async move { store.keyspace().await }).await
    }

    async fn filter(&self) -> Result<Filter> {
        self.asked(move |store| async move { store.filter().await }).await
    }

    async fn turn_filter(&self, from: Filter, to: Filter) -> Result<Matched> {
        self.asked(move |store| async move { store.turn_filter(from, to).await }).await
    }

    async fn account_ids(&self, after: i64, limit: i64) -> Result<Vec<i64>> {
        self.asked(move |store| async move { store.account_ids(after, limit).await }).await
    }

    async fn accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<(i64, State)>> {
        self.asked(move |store| async move { store.accounts(after_user_id, limit).await }).await
    }

    fn transaction(&self, isolation: Isolation, until: Option<Instant>) -> Box<dyn Transaction> {
        self.behind(self.inner.transaction(isolation, until))
    }

    fn transaction_apart(&self, isolation: Isolation) -> Box<dyn Transaction> {
        self.behind(self.inner.transaction_apart(isolation))
    }

    fn settlement(&self) -> Box<dyn Transaction> {
        // Without leave: refused here, a known outcome would become an unknown one. There are no more of them than
        // commits that were lost, each for `--settle-timeout`, all through the pool.
        let asked = Asked::WithoutLeave;
        Box::new(CircuitTransaction { inner: self.inner.settlement(), breaker: Arc::clone(&self.breaker), asked })
    }

    fn pool(&self) -> PoolState {
        self.inner.pool()
    }

    fn work(&self) -> Work {
        self.inner.work()
    }

    // The lab's own questions are few.
    async fn lock_waits(&self) -> Result<LockWaits> {
        self.inner.lock_waits().await
    }

    async fn links(&self) -> Result<Option<u64>> {
        self.inner.links().await
    }

    async fn ping(&self) -> Result<()> {
        // Whoever asks whether it is back must be told how it is.
        let answer = self.inner.ping().await;
        if answer.is_ok() {
            self.breaker.seen_alive();
        }
        answer
    }
}

type Question<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A question that goes on in a task of its own when its asker goes away.
struct ToItsEnd<T: Send + 'static>(Option<Question<T>>);

impl<T: Send + 'static> Future for ToItsEnd<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let Some(question) = &mut self.0 else { return Poll::Pending };
        let answer = question.as_mut().poll(context);
        if answer.is_ready() {
            self.0 = None;
        }
        answer
    }
}

impl<T: Send + 'static> Drop for ToItsEnd<T> {
    fn drop(&mut self) {
        if let (Some(question), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(question);
        }
    }
}

/// What a transaction's statements were asked by.
enum Asked {
    /// There was none yet.
    Nothing,
    /// Leave that has not been told of yet.
    With(Leave),
    /// Nobody's leave.
    WithoutLeave,
    /// What came of it is told.
    Told,
}

struct CircuitTransaction {
    inner: Box<dyn Transaction>,
    breaker: Arc<Breaker>,
    asked: Asked,
}

impl CircuitTransaction {
    /// Before each statement: the first one needs leave.
    fn ask(&mut self) -> Result<&mut dyn Transaction> {
        if let Asked::Nothing = self.asked {
            self.asked = Asked::With(self.breaker.enter()?);
        }
        Ok(&mut *self.inner)
    }

    /// After each statement: an error is the end of it, whatever is still to be rolled back.
    fn answered<T>(&mut self, answer: Result<T>) -> Result<T> {
        match &answer {
            Ok(_) if matches!(self.asked, Asked::WithoutLeave) => self.breaker.seen_alive(),
            Ok(_) => {}
            Err(error) => {
                if let Asked::With(leave) = mem::replace(&mut self.asked, Asked::Told) {
                    tell(leave, Some(error));
                }
            }
        }
        answer
    }
}

/// A statement, asked for and answered.
macro_rules! statement {
    ($transaction:ident, $method:ident($($argument:expr),*)) => {{
        let answer = $transaction.ask()?.$method($($argument),*).await;
        $transaction.answered(answer)
    }};
}

#[async_trait]
impl Transaction for CircuitTransaction {
    async fn read(&mut self, user_id: i64, lock: RowLock) -> Result<Option<State>> {
        statement!(self, read(user_id, lock))
    }

    async fn write(&mut self, user_id: i64, balance: Money) -> Result<Matched> {
        statement!(self, write(user_id, balance))
    }

    async fn overtaken(&mut self, user_id: i64, version_read: i64) -> Result<Option<BlindWrite>> {
        statement!(self, overtaken(user_id, version_read))
    }

    async fn write_if_version(&mut self, user_id: i64, balance: Money, version: i64) -> Result<Matched> {
        statement!(self, write_if_version(user_id, balance, version))
    }

    async fn write_if_fence(&mut self, user_id: i64, balance: Money, token: i64) -> Result<Matched> {
        statement!(self, write_if_fence(user_id, balance, token))
    }

    async fn add_within(&mut self, user_id: i64, delta: Money, applicable: (Money, Money)) -> Result<Matched> {
        statement!(self, add_within(user_id, delta, applicable))
    }

    async fn begin_and_add(
        &mut self,
        user_id: i64,
        delta: Money,
        applicable: (Money, Money),
    ) -> Result<Option<(Matched, State)>> {
        statement!(self, begin_and_add(user_id, delta, applicable))
    }

    async fn append_and_commit(mut self: Box<Self>, entry: &NewEntry) -> Result<()> {
        self.ask()?;
        let Self { inner, asked, .. } = *self;
        ended(asked, inner.append_and_commit(entry).await)
    }

    async fn lock_many(&mut self, user_ids: &BTreeSet<i64>, if_locked: IfLocked) -> Result<BTreeMap<i64, State>> {
        statement!(self, lock_many(user_ids, if_locked))
    }

    async fn find_many(&mut self, requests: &BTreeMap<i64, Vec<Uuid>>) -> Result<Vec<Entry>> {
        statement!(self, find_many(requests))
    }

    async fn write_many(&mut self, entries: &[NewEntry], accounts: &[AccountWrite]) -> Result<()> {
        statement!(self, write_many(entries, accounts))
    }

    async fn insert_account(&mut self, user_id: i64, balance: Money) -> Result<()> {
        statement!(self, insert_account(user_id, balance))
    }

    async fn find(&mut self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        statement!(self, find(user_id, request_id))
    }

    async fn entries_before(&mut self, user_id: i64, before_version: i64, limit: i64) -> Result<Vec<Entry>> {
        statement!(self, entries_before(user_id, before_version, limit))
    }

    async fn append(&mut self, entry: &NewEntry) -> Result<()> {
        statement!(self, append(entry))
    }

    async fn keep_snapshot(&mut self, user_id: i64, state: State) -> Result<()> {
        statement!(self, keep_snapshot(user_id, state))
    }

    async fn filter(&mut self) -> Result<Filter> {
        statement!(self, filter())
    }

    async fn move_filter(&mut self, from: Filter, to: Filter) -> Result<Matched> {
        statement!(self, move_filter(from, to))
    }

    async fn outgoing(&mut self, key: Key) -> Result<Option<Outgoing>> {
        statement!(self, outgoing(key))
    }

    async fn end_outgoing(&mut self, ending: &Ending) -> Result<()> {
        statement!(self, end_outgoing(ending))
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { inner, asked, .. } = *self;
        ended(asked, inner.commit().await)
    }

    async fn rollback(self: Box<Self>) {
        let Self { inner, asked, .. } = *self;
        inner.rollback().await;
        let _ = ended(asked, Ok(()));
    }
}

/// Says what came of a whole transaction.
fn ended(asked: Asked, answer: Result<()>) -> Result<()> {
    if let Asked::With(leave) = asked {
        tell(leave, answer.as_ref().err());
    }
    answer
}
