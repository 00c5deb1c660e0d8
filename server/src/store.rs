//! What the ledger and the strategies ask of a database: the statements they are made of and nothing more. Each store
//! speaks its own SQL dialect behind these traits; Diesel, connections and error texts stay inside. No rule about money
//! lives here, and no retry: a store says precisely what happened.

mod circuit;
mod filter;
mod meter;
pub mod mysql;
pub mod outbox;
pub mod reports;
mod schema;
mod selection;
pub mod sqlite;
mod statements;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use uuid::Uuid;

use self::outbox::{Ending, Key, Outgoing};
pub use self::{
    circuit::Circuit,
    filter::{Filter, FilterState},
    meter::Work,
    selection::{Criteria, Order, Selection},
};
use crate::{
    account::{Entry, Money, NewEntry, State},
    chain::Record,
};

/// How a transaction is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// Reads lock what they read (S) until the transaction ends.
    Serializable,
    /// It only reads, and everything as of its first statement.
    Snapshot,
}

/// The lock a read takes on the account row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLock {
    /// None, beyond what the isolation level takes.
    None,
    /// X: other writers and locking readers wait until the transaction ends.
    Exclusive,
}

/// What a lock on several rows does about those that another transaction holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfLocked {
    /// Leaves them out. What is left out is locked, or not there.
    Skip,
    /// Waits for them, up to the lock wait timeout.
    Wait,
}

/// What one account has come to in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountWrite {
    /// The account.
    pub user_id: i64,
    /// Its balance after the batch, minor units.
    pub balance: Money,
    /// How many entries the batch journals for it: its version moves on by so many.
    pub entries: i64,
}

/// Whether a guarded write found the row as it demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// The row was written.
    Yes,
    /// No such row, or not as demanded; nothing was written.
    No,
}

impl Matched {
    const fn from_rows(rows: usize) -> Self {
        if rows == 0 { Self::No } else { Self::Yes }
    }
}

/// What a reader finds who claims an account for its fencing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FencedRead {
    /// Whether the token was newer than any before, so that from now on nobody writes under an older one.
    pub claimed: Matched,
    /// The newest token claimed by now; it can have grown since the claim.
    pub fence: i64,
    /// Balance and version.
    pub state: State,
}

/// An entry that a write has just cut off: it came after what the write had read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overtaken {
    /// Its request id.
    pub request_id: Uuid,
    /// Its version.
    pub version: i64,
    /// Its signed change, minor units.
    pub delta: Money,
    /// The balance it left behind, minor units.
    pub balance_after: Money,
    /// The version it had read.
    pub version_before: i64,
}

/// What a blind write finds out about itself, under its own row lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlindWrite {
    /// The version the database gave it.
    pub version: i64,
    /// The newest of the entries between the version read and its own, newest first, at most [`OVERTAKEN_LIMIT`].
    pub overtaken: Vec<Overtaken>,
}

/// The most overtaken entries a blind write reads back: it bounds the work of one write; a race that cuts off more is
/// told with what is omitted.
pub const OVERTAKEN_LIMIT: usize = 16;

/// How many may run apart, each with a connection of its own: as many as fsyncs usefully overlap.
pub const APART: usize = 4;

/// Why a store did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Deadlock, lock wait timeout, snapshot conflict or busy: the transaction is to be rolled back and can be retried.
    #[error("{0}")]
    Contended(String),
    /// A unique key is taken: the request id, or the account id.
    #[error("duplicate key: {0}")]
    Duplicate(String),
    /// The link broke before COMMIT was sent: the transaction cannot commit any more.
    #[error("link lost: {0}")]
    Lost(String),
    /// The link broke at COMMIT: committed or not, nobody knows without looking under the row lock.
    #[error("link lost at commit: {0}")]
    CommitLost(String),
    /// No connection could be made.
    #[error("{0}")]
    Down(String),
    /// Every connection was in use for longer than the pool waits.
    #[error("{0}")]
    Exhausted(String),
    /// Not asked: of late it did not answer.
    #[error("the circuit breaker is open; it is asked again in {retry_after:?}")]
    NotAsked {
        /// When it may be asked again.
        retry_after: Duration,
    },
    /// Anything else: a statement the database refuses for a reason we did not foresee.
    #[error("{0}")]
    Unexpected(String),
}

/// How a store's connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// The most there may be.
    pub max: usize,
    /// Those that are open.
    pub open: usize,
    /// Those in use.
    pub in_use: usize,
    /// Callers waiting for one.
    pub waiting: usize,
}

/// How many wait for a lock right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockWaits {
    /// Operations of this process, for a lock that is kept in it.
    pub here: u64,
    /// Transactions in the database, whoever's they are.
    pub in_database: u64,
}

/// The result of a store's call.
pub type Result<T> = std::result::Result<T, Error>;

/// A database of accounts and their journal.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Which database it is: `sqlite`, `mariadb` or `mysql`.
    fn name(&self) -> &'static str;

    /// Reads balance and version without a lock, in a transaction of its own. `None`: no such account.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn read(&self, user_id: i64) -> Result<Option<State>>;

    /// Claims the account for a fencing token, where no newer one has claimed it, and then reads: two statements, each
    /// in a transaction of its own, because a claim whose transaction stayed open would be a row lock. It waits as a
    /// [`Self::transaction`] does. `None`: no such account.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`; the claim may have been made.
    async fn read_fenced(&self, user_id: i64, token: i64, until: Option<Instant>) -> Result<Option<FencedRead>>;

    /// The entry journaled under a request id, without a lock: absence proves nothing.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn find(&self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>>;

    /// What the table of the outbox says of a deduction, without a lock.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn outgoing(&self, key: Key) -> Result<Option<Outgoing>>;

    /// At most `limit` entries after a version, in order.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn entries(&self, user_id: i64, after_version: i64, limit: i64) -> Result<Vec<Entry>>;

    /// Entries of one account, chosen by the database.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn select(&self, selection: Selection) -> Result<Vec<Entry>>;

    /// At most `limit` entries before a version, newest first.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn entries_before(&self, user_id: i64, before_version: i64, limit: i64) -> Result<Vec<Entry>> {
        let (versions, order) = (1..=before_version - 1, Order::NewestFirst);
        self.select(Selection { user_id, versions, criteria: Criteria::default(), order, limit }).await
    }

    /// At most `limit` entries of all accounts, in order of account and version, after one.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn journal(&self, after: (i64, i64), limit: i64) -> Result<Vec<Entry>> {
        let (user_id, version) = after;
        let mut page = self.entries(user_id, version, limit).await?;
        if (page.len() as i64) < limit {
            page.extend(self.entries_of_accounts(user_id, limit - page.len() as i64).await?);
        }
        Ok(page)
    }

    /// At most `limit` entries of the accounts whose ids come after one, in order of account and version.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn entries_of_accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<Entry>>;

    /// At most `limit` entries of all accounts as they are held, in order of account and version, after one.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn records(&self, after: (i64, i64), limit: i64) -> Result<Vec<Record>>;

    /// Where the account stood when that was last noted; before its first event where it never was.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn snapshot(&self, user_id: i64) -> Result<State>;

    /// At most `limit` accounts whose ids come after one, in order, without a lock.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<(i64, State)>>;

    /// What tells this database from every other one that may share a cache.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn keyspace(&self) -> Result<String>;

    /// What can be believed of the filter of accounts, without a lock.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn filter(&self) -> Result<Filter>;

    /// [`Transaction::move_filter`] in a transaction of its own, which waits for its lock only briefly: openings, which
    /// share the row, queue behind whoever waits to have it alone.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate`; after `Lost` and `CommitLost` it may have been done.
    async fn turn_filter(&self, from: Filter, to: Filter) -> Result<Matched> {
        let mut transaction = self.transaction(Isolation::ReadCommitted, None);
        let matched = transaction.move_filter(from, to).await?;
        transaction.commit().await.map(|()| matched)
    }

    /// At most `limit` ids of accounts after one, in order.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn account_ids(&self, after: i64, limit: i64) -> Result<Vec<i64>>;

    /// A transaction that begins with its first statement, so that an operation held before that statement holds
    /// neither a connection nor a lock. It waits for a connection, and for locks, no longer than `until` (as finely as the
    /// database counts), nor longer than the store waits anyway.
    fn transaction(&self, isolation: Isolation, until: Option<Instant>) -> Box<dyn Transaction>;

    /// The same on one of the [`APART`] connections kept for those who run apart from everybody else, on a thread of their own: a
    /// connection belongs to the thread that it was made on.
    fn transaction_apart(&self, isolation: Isolation) -> Box<dyn Transaction> {
        self.transaction(isolation, None)
    }

    /// A transaction to learn what became of a commit whose answer was lost: asked for whatever state the database seems
    /// to be in, because nothing else can tell.
    fn settlement(&self) -> Box<dyn Transaction>;

    /// How its connections are used right now.
    fn pool(&self) -> PoolState;

    /// What it has been made to do since it was opened.
    fn work(&self) -> Work;

    /// How many transactions wait for a lock right now, for the lab: "blocked" is read here, never guessed from time.
    /// Whoever has been granted its lock no longer counts, even before it goes on.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn lock_waits(&self) -> Result<LockWaits>;

    /// How many links of ours the database has, for the lab: one that was dropped is gone, and its transaction rolled
    /// back, when the database no longer counts it. `None` where there are no links.
    ///
    /// # Errors
    /// Any [`Error`] but `Duplicate` and `CommitLost`.
    async fn links(&self) -> Result<Option<u64>>;

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Down`], [`Error::Lost`] or [`Error::Exhausted`].
    async fn ping(&self) -> Result<()>;
}

/// A transaction. Dropped without an end, it is rolled back by the loss of its connection.
#[async_trait]
pub trait Transaction: Send {
    /// Reads balance and version. `None`: no such account.
    async fn read(&mut self, user_id: i64, lock: RowLock) -> Result<Option<State>>;

    /// Sets the balance whatever it was; the database moves the version on. Takes X.
    async fn write(&mut self, user_id: i64, balance: Money) -> Result<Matched>;

    /// After [`Self::write`], under its lock: the version it got, and the entries since the version that was read.
    /// `None`: no such account.
    async fn overtaken(&mut self, user_id: i64, version_read: i64) -> Result<Option<BlindWrite>>;

    /// Sets the balance where the version still is what was read, and moves it on. Takes X.
    async fn write_if_version(&mut self, user_id: i64, balance: Money, version: i64) -> Result<Matched>;

    /// Sets the balance where no newer fencing token has claimed the account since `token` did, and moves the version on.
    /// Takes X.
    async fn write_if_fence(&mut self, user_id: i64, balance: Money, token: i64) -> Result<Matched>;

    /// Adds `delta` where the balance lies within `applicable` (both ends included), and moves the version on. Takes X.
    async fn add_within(&mut self, user_id: i64, delta: Money, applicable: (Money, Money)) -> Result<Matched>;

    /// [`Self::add_within`] together with the beginning of the transaction, and what the account then holds, in the
    /// fewest round trips. `None`: no such account.
    async fn begin_and_add(
        &mut self,
        user_id: i64,
        delta: Money,
        applicable: (Money, Money),
    ) -> Result<Option<(Matched, State)>>;

    /// [`Self::append`] and [`Self::commit`] in one round trip. The account must be locked already: an append that took
    /// the lock itself could arrive after its outcome was looked up, and then nothing would be final.
    async fn append_and_commit(self: Box<Self>, entry: &NewEntry) -> Result<()>;

    /// Locks (X) and reads accounts, in order of id, so that two batches never wait for each other in a circle.
    async fn lock_many(&mut self, user_ids: &BTreeSet<i64>, if_locked: IfLocked) -> Result<BTreeMap<i64, State>>;

    /// The entries journaled under request ids, given by account; final where their accounts are locked.
    async fn find_many(&mut self, requests: &BTreeMap<i64, Vec<Uuid>>) -> Result<Vec<Entry>>;

    /// Appends to the journals of accounts that this transaction has locked, and sets their balances; the database
    /// moves their versions on.
    async fn write_many(&mut self, entries: &[NewEntry], accounts: &[AccountWrite]) -> Result<()>;

    /// Inserts an account at version 1.
    async fn insert_account(&mut self, user_id: i64, balance: Money) -> Result<()>;

    /// The entry journaled under a request id; final where the account row is locked by this transaction.
    async fn find(&mut self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>>;

    /// At most `limit` entries before a version, newest first; all of them, where the account is locked.
    async fn entries_before(&mut self, user_id: i64, before_version: i64, limit: i64) -> Result<Vec<Entry>>;

    /// Appends to the journal.
    async fn append(&mut self, entry: &NewEntry) -> Result<()>;

    /// Notes where the account stands at a version, from which its journal can be folded.
    async fn keep_snapshot(&mut self, user_id: i64, state: State) -> Result<()>;

    /// What can be believed of the filter of accounts. It stays so until the transaction ends (S).
    async fn filter(&mut self) -> Result<Filter>;

    /// Says what can be believed of the filter of accounts, where it still is what was read (X).
    async fn move_filter(&mut self, from: Filter, to: Filter) -> Result<Matched>;

    /// What the table of the outbox says of a deduction (X on its row).
    async fn outgoing(&mut self, key: Key) -> Result<Option<Outgoing>>;

    /// Says there how a deduction ended (X on its row). What FAILED stays as it is.
    async fn end_outgoing(&mut self, ending: &Ending) -> Result<()>;

    /// Commits. An error other than [`Error::CommitLost`] means it did not.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Rolls back and gives the connection back; where that fails the connection is thrown away, which rolls back too.
    async fn rollback(self: Box<Self>);
}
