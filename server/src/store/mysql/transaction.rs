//! A transaction on one connection, from its first statement to its end. Comments name the lock a statement takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use async_trait::async_trait;
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, expression::SqlLiteral, result::Error as DieselError};
use diesel_async::{AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection, methods::LoadQuery};
use uuid::Uuid;

use super::{
    answer::{Answer, Wire, classify},
    chained::{self, EndRow, Ends},
    lock_many::{LockMany, StateRow},
    pool::{Lease, Pool},
    text,
};
use crate::{
    account::{Entry, Money, NewEntry, State},
    chain::{self, Chaining},
    store::{
        AccountWrite, BlindWrite, Error, Filter, IfLocked, Isolation, Matched, Result, RowLock, Transaction,
        meter::LockedSince,
        outbox::{self, Ending, Key, Outgoing},
        reports::text::Dialect,
        schema::{Exact, Plus, Stored, account_filter, accounts, entries, snapshots},
        statements::{self, Kept},
    },
};

/// A transaction that begins with its first statement.
pub(super) struct MysqlTransaction {
    pool: Pool,
    chaining: Chaining,
    isolation: Isolation,
    /// How long its caller waits.
    until: Option<Instant>,
    wire: Arc<Wire>,
    lease: Option<Lease>,
    locked_since: LockedSince,
}

impl MysqlTransaction {
    pub(super) fn new(
        pool: Pool,
        wire: Arc<Wire>,
        chaining: Chaining,
        isolation: Isolation,
        until: Option<Instant>,
    ) -> Self {
        Self { pool, chaining, isolation, until, wire, lease: None, locked_since: LockedSince::default() }
    }

    /// The transaction's connection; the first call begins.
    async fn connection(&mut self) -> Result<&mut AsyncMysqlConnection> {
        if self.lease.is_none() {
            let mut lease = self.pool.lease(self.until).await?;
            let begin = match self.isolation {
                Isolation::ReadCommitted => "BEGIN",
                Isolation::Serializable => "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; BEGIN",
                Isolation::Snapshot => "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION READ ONLY",
            };
            let begin = lease.beginning(begin);
            let begun = self.wire.answered(lease.connection()?.batch_execute(&begin)).await;
            self.lease = Some(lease);
            begun.map_err(|error| self.failed(&error))?;
        }
        match &mut self.lease {
            Some(lease) => lease.connection(),
            None => Err(Error::Unexpected("a transaction without a connection".to_owned())),
        }
    }

    /// What a failed statement means. A lost link is thrown away here: nothing more can be said on it.
    fn failed(&mut self, error: &DieselError) -> Error {
        let error = classify(error);
        if matches!(error, Error::Lost(_))
            && let Some(lease) = self.lease.take()
        {
            self.pool.lost(&lease);
            self.wire.meter.rolled_back(&self.locked_since);
        }
        error
    }

    /// Where the chains of accounts end that this transaction has locked, and the database's time: what comes next is
    /// chained here, because the database could not refer from one row of an INSERT to the one before it.
    async fn ends(&mut self, accounts: &[AccountWrite]) -> Result<(chain::Ends, String)> {
        let wire = Arc::clone(&self.wire);
        let user_ids = accounts.iter().map(|account| account.user_id).collect();
        let c = self.connection().await?;
        // No lock of its own: under X on the accounts nobody else can append. It must be a statement after the one that
        // locked them, which may have begun before the last of the others committed.
        let rows = wire.answered(Ends::new(&user_ids).load::<EndRow>(c)).await;
        chained::ends(rows.map_err(|error| self.failed(&error))?)
    }

    /// Loads rows by a statement that is made for the occasion.
    pub(super) async fn rows<ST, U: Send>(&mut self, query: SqlLiteral<ST>) -> Result<Vec<U>>
    where
        SqlLiteral<ST>: LoadQuery<'static, AsyncMysqlConnection, U> + 'static,
    {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        wire.answered_unprepared(query.load(c)).await.map_err(|error| self.failed(&error))
    }

    /// Runs statements that are made for the occasion, in one message.
    pub(super) async fn run(&mut self, statements: &str) -> Result<()> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        wire.answered(c.batch_execute(statements)).await.map_err(|error| self.failed(&error))
    }

    /// Runs one statement that is made for the occasion, and says how many rows it changed.
    pub(super) async fn change(&mut self, statement: &str) -> Result<usize> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        let done = wire.answered_unprepared(diesel::sql_query(statement).execute(c)).await;
        done.map_err(|error| self.failed(&error))
    }

    /// Gives the connection back after a COMMIT that was answered.
    fn committed(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.done();
        }
        self.wire.meter.committed(&self.locked_since);
    }

    /// What a statement that locks came to.
    fn locked<T>(&mut self, answer: Answer<T>) -> Result<T> {
        match answer {
            Ok(value) => {
                self.locked_since.locked();
                Ok(value)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }
}

#[async_trait]
impl Transaction for MysqlTransaction {
    async fn read(&mut self, user_id: i64, lock: RowLock) -> Result<Option<State>> {
        let state = statements::state_of(user_id);
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        let row = match lock {
            // No lock under READ COMMITTED; S under SERIALIZABLE.
            RowLock::None => wire.answered(state.first(c)).await.optional(),
            // X.
            RowLock::Exclusive => wire.answered(state.for_update().first(c)).await.optional(),
        };
        let locks = lock == RowLock::Exclusive || self.isolation == Isolation::Serializable;
        let row = if locks { self.locked(row)? } else { row.map_err(|error| self.failed(&error))? };
        Ok(row.map(statements::state))
    }

    async fn write(&mut self, user_id: i64, balance: Money) -> Result<Matched> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        // X.
        let rows = wire.answered(statements::write!(user_id, balance).execute(c)).await;
        self.locked(rows).map(Matched::from_rows)
    }

    async fn overtaken(&mut self, user_id: i64, version_read: i64) -> Result<Option<BlindWrite>> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        // No lock of its own: we hold X on the account, so nobody can append to its journal until we end.
        let rows = wire.answered(statements::overtaken(user_id, version_read).load(c)).await;
        statements::blind_write(rows.map_err(|error| self.failed(&error))?)
    }

    async fn write_if_version(&mut self, user_id: i64, balance: Money, version: i64) -> Result<Matched> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        // X.
        let rows = wire.answered(statements::write_if_version!(user_id, balance, version).execute(c)).await;
        self.locked(rows).map(Matched::from_rows)
    }

    async fn write_if_fence(&mut self, user_id: i64, balance: Money, token: i64) -> Result<Matched> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        // X.
        let rows = wire.answered(statements::write_if_fence!(user_id, balance, token).execute(c)).await;
        self.locked(rows).map(Matched::from_rows)
    }

    async fn add_within(&mut self, user_id: i64, delta: Money, (least, most): (Money, Money)) -> Result<Matched> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        // X.
        let rows = wire.answered(statements::add_within!(user_id, delta, least, most).execute(c)).await;
        self.locked(rows).map(Matched::from_rows)
    }

    async fn begin_and_add(
        &mut self,
        user_id: i64,
        delta: Money,
        applicable: (Money, Money),
    ) -> Result<Option<(Matched, State)>> {
        if self.lease.is_some() {
            return Err(Error::Unexpected("the transaction has begun already".to_owned()));
        }
        let wire = Arc::clone(&self.wire);
        let lease = self.lease.insert(self.pool.lease(self.until).await?);
        let add = text::begin_and_add(user_id, delta, applicable);
        let add = lease.beginning(&add).into_owned();
        let c = lease.connection()?;
        // X.
        let begun = wire.answered(c.batch_execute(&add)).await;
        self.locked(begun)?;
        let c = self.connection().await?;
        let row = wire.answered(text::state_and_added(user_id).first::<text::AddedRow>(c)).await.optional();
        let added = |(balance, version, added)| {
            let matched = if added == 0 { Matched::No } else { Matched::Yes };
            (matched, statements::state((balance, version)))
        };
        self.locked(row).map(|row| row.map(added))
    }

    async fn append_and_commit(mut self: Box<Self>, entry: &NewEntry) -> Result<()> {
        let wire = Arc::clone(&self.wire);
        let append = text::append(entry, self.chaining) + "; COMMIT";
        let c = self.connection().await?;
        let Err(error) = wire.answered(c.batch_execute(&append)).await else {
            self.committed();
            return Ok(());
        };
        match self.failed(&error) {
            error @ Error::Lost(_) => Err(Error::CommitLost(error.to_string())),
            // The engine's own words where it is the COMMIT that failed; what became of it is not known.
            error if error.to_string().contains("during COMMIT") => Err(Error::CommitLost(error.to_string())),
            // The INSERT was turned away, and what stands behind it was not looked at.
            error => {
                self.rollback().await;
                Err(error)
            }
        }
    }

    async fn lock_many(&mut self, user_ids: &BTreeSet<i64>, if_locked: IfLocked) -> Result<BTreeMap<i64, State>> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        // X on each row.
        let rows = wire.answered(LockMany::new(user_ids, if_locked).load::<StateRow>(c)).await;
        Ok(self
            .locked(rows)?
            .into_iter()
            .map(|(user_id, balance, version)| (user_id, statements::state((balance, version))))
            .collect())
    }

    async fn find_many(&mut self, requests: &BTreeMap<i64, Vec<Uuid>>) -> Result<Vec<Entry>> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        let rows = wire.answered_unprepared(text::entries(requests).load::<statements::EntryRow>(c)).await;
        rows.map_err(|error| self.failed(&error))?.into_iter().map(statements::entry).collect()
    }

    async fn write_many(&mut self, entries: &[NewEntry], accounts: &[AccountWrite]) -> Result<()> {
        let wire = Arc::clone(&self.wire);
        let append = match self.chaining {
            Chaining::Off => text::append_all(entries),
            Chaining::On => {
                let (mut ends, now) = self.ends(accounts).await?;
                text::append_all_chained(entries, &mut ends, &now)
            }
        };
        let c = self.connection().await?;
        // X, held since the rows were locked.
        let done = wire.answered(c.batch_execute(&(append + &text::set_balances(accounts)))).await;
        done.map_err(|error| self.failed(&error))
    }

    async fn insert_account(&mut self, user_id: i64, balance: Money) -> Result<()> {
        let row = statements::AccountRow::opened(user_id, balance);
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        let done = wire.answered(diesel::insert_into(accounts::table).values(row).execute(c)).await;
        self.locked(done).map(drop)
    }

    async fn find(&mut self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let id = request_id.as_bytes().to_vec();
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        let row = wire.answered(statements::entry_of(user_id, id).first(c)).await.optional();
        row.map_err(|error| self.failed(&error))?.map(statements::entry).transpose()
    }

    async fn entries_before(&mut self, user_id: i64, before_version: i64, limit: i64) -> Result<Vec<Entry>> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        let page = statements::entries_before(user_id, before_version, limit);
        let rows = wire.answered(page.load::<statements::EntryRow>(c)).await;
        rows.map_err(|error| self.failed(&error))?.into_iter().map(statements::entry).collect()
    }

    async fn append(&mut self, entry: &NewEntry) -> Result<()> {
        let wire = Arc::clone(&self.wire);
        let chaining = self.chaining;
        let c = self.connection().await?;
        let done = match chaining {
            Chaining::Off => wire.answered(statements::append!(entry).execute(c)).await.map(drop),
            Chaining::On => wire.answered(c.batch_execute(&text::append(entry, chaining))).await,
        };
        done.map_err(|error| self.failed(&error))
    }

    async fn keep_snapshot(&mut self, user_id: i64, state: State) -> Result<()> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        let done = wire.answered(statements::keep_snapshot!(user_id, state).execute(c)).await;
        done.map(drop).map_err(|error| self.failed(&error))
    }

    async fn filter(&mut self) -> Result<Filter> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        // S: openings go on side by side, and whoever turns the filter waits for them.
        let row = wire.answered(text::FilterShared.get_result(c)).await;
        Filter::from_row(self.locked(row)?)
    }

    async fn move_filter(&mut self, from: Filter, to: Filter) -> Result<Matched> {
        let wire = Arc::clone(&self.wire);
        let c = self.connection().await?;
        // X.
        let rows = wire.answered(statements::move_filter!(from, to).execute(c)).await;
        self.locked(rows).map(Matched::from_rows)
    }

    async fn outgoing(&mut self, key: Key) -> Result<Option<Outgoing>> {
        // X.
        let found = self.rows(Dialect::Mysql.outgoing_locked(key)).await?;
        found.into_iter().next().map(outbox::text::outgoing).transpose()
    }

    async fn end_outgoing(&mut self, ending: &Ending) -> Result<()> {
        // X.
        self.run(&Dialect::Mysql.end(ending)).await
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let wire = Arc::clone(&self.wire);
        let Some(lease) = &mut self.lease else { return Ok(()) };
        if let Err(error) = wire.answered(lease.connection()?.batch_execute("COMMIT")).await {
            return Err(match self.failed(&error) {
                // The engine says it rolled back (Galera raises its conflicts here).
                Error::Contended(text) => Error::Contended(text),
                other => Error::CommitLost(other.to_string()),
            });
        }
        self.committed();
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) {
        let Some(mut lease) = self.lease.take() else { return };
        if let Ok(connection) = lease.connection()
            && self.wire.answered(connection.batch_execute("ROLLBACK")).await.is_ok()
        {
            lease.done();
        }
        self.wire.meter.rolled_back(&self.locked_since);
    }
}

impl Drop for MysqlTransaction {
    /// Left without an end: the connection is closed, and the transaction goes with it.
    fn drop(&mut self) {
        if self.lease.take().is_some() {
            self.wire.meter.rolled_back(&self.locked_since);
        }
    }
}
