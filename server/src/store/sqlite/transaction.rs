//! A transaction on the one writer connection, from its first statement to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, RunQueryDsl, SqliteConnection, connection::SimpleConnection,
    result::Error as DieselError,
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::timeout_at,
};
use uuid::Uuid;

use super::{blocking, chained};
use crate::{
    account::{Entry, Money, NewEntry, State},
    chain::Chaining,
    store::{
        AccountWrite, BlindWrite, Error, Filter, IfLocked, Matched, Result, RowLock, Transaction,
        meter::{LockedSince, Meter},
        outbox::{self, Ending, Key, Outgoing, text::OutgoingRow},
        reports::text::Dialect,
        schema::{Exact, Plus, Stored, account_filter, accounts, snapshots},
        statements::{self, Kept},
    },
    waiting::{Waiting, counted},
};

/// How often a writer tries again while another process has the file locked; a try takes some microseconds.
const LOCKED_POLL: Duration = Duration::from_millis(2);

/// The writer, for one transaction. Whatever way it ends, and on whichever thread, what was not committed is rolled back
/// before the writer is handed on: left open, it would keep other processes out as well.
struct Writer(OwnedMutexGuard<SqliteConnection>);

impl Deref for Writer {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.0
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It writes nothing, and where there is nothing to roll back it fails in a microsecond.
        let _ = self.0.batch_execute("ROLLBACK");
    }
}

/// A transaction that begins with its first statement.
pub(super) struct SqliteTransaction {
    writer: Arc<Mutex<SqliteConnection>>,
    waiting: Arc<AtomicUsize>,
    meter: Arc<Meter>,
    locked_since: LockedSince,
    lock_wait: Duration,
    chaining: Chaining,
    /// Until when its caller waits.
    until: Option<Instant>,
    begun: Option<Writer>,
}

impl SqliteTransaction {
    pub(super) fn new(
        writer: &Arc<Mutex<SqliteConnection>>,
        waiting: &Arc<AtomicUsize>,
        meter: &Arc<Meter>,
        lock_wait: Duration,
        chaining: Chaining,
        until: Option<Instant>,
    ) -> Self {
        Self {
            writer: Arc::clone(writer),
            waiting: Arc::clone(waiting),
            meter: Arc::clone(meter),
            locked_since: LockedSince::default(),
            lock_wait,
            chaining,
            until,
            begun: None,
        }
    }

    /// Takes the writer, in order of arrival, and begins. Whoever waits is counted, for the writer of this process as
    /// for another that has the file locked; SQLite's own waiting could not be counted, so the writer does without.
    async fn begin(&mut self) -> Result<Writer> {
        let turn = counted(&self.waiting, Arc::clone(&self.writer).lock_owned());
        let mut writer = Writer(match self.until {
            Some(until) => timeout_at(until.into(), turn)
                .await
                .map_err(|_| Error::Contended("others were writing for longer than the caller waits".to_owned()))?,
            None => turn.await,
        });
        let most = Instant::now() + self.lock_wait;
        let until = self.until.map_or(most, |until| until.min(most));
        let mut waiting = None;
        loop {
            let (back, begun) = blocking(writer, |c| c.batch_execute("BEGIN IMMEDIATE")).await;
            writer = back.ok_or_else(|| Error::Unexpected("the writer connection is gone".to_owned()))?;
            match begun {
                Err(Error::Contended(_)) if Instant::now() < until => {
                    waiting.get_or_insert_with(|| Waiting::begin(&self.waiting));
                    tokio::time::sleep(LOCKED_POLL).await;
                }
                begun => {
                    self.meter.round_trips(1);
                    self.locked_since.locked();
                    return begun.map(|()| writer);
                }
            }
        }
    }

    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut SqliteConnection) -> std::result::Result<T, DieselError> + Send + 'static,
    ) -> Result<T> {
        let writer = match self.begun.take() {
            Some(writer) => writer,
            None => self.begin().await?,
        };
        self.meter.round_trips(1);
        let (writer, result) = blocking(writer, work).await;
        self.begun = writer;
        result
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn read(&mut self, user_id: i64, _: RowLock) -> Result<Option<State>> {
        let row = self.run(move |c| statements::state_of(user_id).first(c).optional()).await?;
        Ok(row.map(statements::state))
    }

    async fn write(&mut self, user_id: i64, balance: Money) -> Result<Matched> {
        self.run(move |c| statements::write!(user_id, balance).execute(c)).await.map(Matched::from_rows)
    }

    async fn overtaken(&mut self, user_id: i64, version_read: i64) -> Result<Option<BlindWrite>> {
        let rows = self.run(move |c| statements::overtaken(user_id, version_read).load(c)).await?;
        statements::blind_write(rows)
    }

    async fn write_if_version(&mut self, user_id: i64, balance: Money, version: i64) -> Result<Matched> {
        let write = move |c: &mut _| statements::write_if_version!(user_id, balance, version).execute(c);
        self.run(write).await.map(Matched::from_rows)
    }

    async fn write_if_fence(&mut self, user_id: i64, balance: Money, token: i64) -> Result<Matched> {
        let write = move |c: &mut _| statements::write_if_fence!(user_id, balance, token).execute(c);
        self.run(write).await.map(Matched::from_rows)
    }

    async fn add_within(&mut self, user_id: i64, delta: Money, (least, most): (Money, Money)) -> Result<Matched> {
        let add = move |c: &mut _| statements::add_within!(user_id, delta, least, most).execute(c);
        self.run(add).await.map(Matched::from_rows)
    }

    async fn begin_and_add(
        &mut self,
        user_id: i64,
        delta: Money,
        (least, most): (Money, Money),
    ) -> Result<Option<(Matched, State)>> {
        let add = move |c: &mut _| {
            let rows = statements::add_within!(user_id, delta, least, most).execute(c)?;
            let row = statements::state_of(user_id).first(c).optional()?;
            Ok(row.map(|row| (Matched::from_rows(rows), statements::state(row))))
        };
        self.run(add).await
    }

    async fn append_and_commit(mut self: Box<Self>, entry: &NewEntry) -> Result<()> {
        match self.append(entry).await {
            Ok(()) => self.commit().await,
            Err(error) => {
                self.rollback().await;
                Err(error)
            }
        }
    }

    async fn lock_many(&mut self, user_ids: &BTreeSet<i64>, _: IfLocked) -> Result<BTreeMap<i64, State>> {
        let user_ids = user_ids.clone();
        let states = self.run(move |c| {
            let mut states = BTreeMap::new();
            for user_id in user_ids {
                if let Some(row) = statements::state_of(user_id).first(c).optional()? {
                    states.insert(user_id, statements::state(row));
                }
            }
            Ok(states)
        });
        states.await
    }

    async fn find_many(&mut self, requests: &BTreeMap<i64, Vec<Uuid>>) -> Result<Vec<Entry>> {
        let requests = requests.clone();
        let rows = self.run(move |c| {
            let mut rows = Vec::new();
            for (user_id, ids) in requests {
                for id in ids {
                    rows.extend(statements::entry_of(user_id, id.as_bytes().to_vec()).first(c).optional()?);
                }
            }
            Ok(rows)
        });
        rows.await?.into_iter().map(statements::entry).collect()
    }

    async fn write_many(&mut self, entries: &[NewEntry], accounts: &[AccountWrite]) -> Result<()> {
        let (entries, accounts) = (entries.to_vec(), accounts.to_vec());
        let chaining = self.chaining;
        let write = move |c: &mut SqliteConnection| {
            for entry in &entries {
                chained::append(c, entry, chaining)?;
            }
            for account in &accounts {
                statements::write_on!(account.user_id, account.balance, account.entries).execute(c)?;
            }
            Ok(())
        };
        self.run(write).await
    }

    async fn insert_account(&mut self, user_id: i64, balance: Money) -> Result<()> {
        let row = statements::AccountRow::opened(user_id, balance);
        self.run(move |c| diesel::insert_into(accounts::table).values(row).execute(c)).await.map(drop)
    }

    async fn find(&mut self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let id = request_id.as_bytes().to_vec();
        let row = self.run(move |c| statements::entry_of(user_id, id).first(c).optional()).await?;
        row.map(statements::entry).transpose()
    }

    async fn entries_before(&mut self, user_id: i64, before_version: i64, limit: i64) -> Result<Vec<Entry>> {
        let rows = self.run(move |c| statements::entries_before(user_id, before_version, limit).load(c)).await?;
        rows.into_iter().map(statements::entry).collect()
    }

    async fn append(&mut self, entry: &NewEntry) -> Result<()> {
        let (entry, chaining) = (*entry, self.chaining);
        self.run(move |c| chained::append(c, &entry, chaining)).await
    }

    async fn keep_snapshot(&mut self, user_id: i64, state: State) -> Result<()> {
        self.run(move |c| statements::keep_snapshot!(user_id, state).execute(c)).await.map(drop)
    }

    async fn filter(&mut self) -> Result<Filter> {
        Filter::from_row(self.run(|c| statements::filter().first(c)).await?)
    }

    async fn move_filter(&mut self, from: Filter, to: Filter) -> Result<Matched> {
        self.run(move |c| statements::move_filter!(from, to).execute(c)).await.map(Matched::from_rows)
    }

    async fn outgoing(&mut self, key: Key) -> Result<Option<Outgoing>> {
        let found: Vec<OutgoingRow> = self.run(move |c| Dialect::Sqlite.outgoing_locked(key).load(c)).await?;
        found.into_iter().next().map(outbox::text::outgoing).transpose()
    }

    async fn end_outgoing(&mut self, ending: &Ending) -> Result<()> {
        let statement = Dialect::Sqlite.end(ending);
        self.run(move |c| c.batch_execute(&statement)).await
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let Some(writer) = self.begun.take() else { return Ok(()) };
        self.meter.round_trips(1);
        // A COMMIT that fails (disk full, I/O error) may or may not have reached the log.
        let Err(error) = blocking(writer, |c| c.batch_execute("COMMIT")).await.1 else {
            self.meter.committed(&self.locked_since);
            return Ok(());
        };
        self.meter.rolled_back(&self.locked_since);
        Err(match error {
            Error::Contended(text) => Error::Contended(text),
            other => Error::CommitLost(other.to_string()),
        })
    }

    async fn rollback(mut self: Box<Self>) {
        if let Some(writer) = self.begun.take() {
            self.meter.round_trips(1);
            // Where it fails the drop of the writer tries it once more.
            let _ = blocking(writer, |c| c.batch_execute("ROLLBACK")).await;
            self.meter.rolled_back(&self.locked_since);
        }
    }
}
