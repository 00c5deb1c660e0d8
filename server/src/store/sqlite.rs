//! SQLite, the embedded store: one writer connection, a few readers, write-ahead log, `synchronous=FULL`.
//!
//! There is one writer at a time, so a transaction here is what FOR UPDATE, SERIALIZABLE and a conditional UPDATE are
//! elsewhere: whoever reads inside it reads alone. Only reads outside it (`none`, `optimistic`) can be stale.
//! It refuses in-memory databases: they have no second connection to read beside the writer.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use diesel::{
    Connection, ExpressionMethods, OptionalExtension, QueryDsl, RunQueryDsl, SqliteConnection,
    connection::SimpleConnection,
    result::{DatabaseErrorKind, Error as DieselError},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::timeout_at,
};
use uuid::Uuid;

use super::{
    AccountWrite, BlindWrite, Error, FencedRead, IfLocked, Isolation, LockWaits, Matched, PoolState, Result, RowLock,
    Store, Transaction, Work,
    meter::{LockedSince, Meter},
    schema::{Exact, Plus, Stored, accounts, entries},
    statements::{self, Kept},
};
use crate::{
    account::{Entry, Money, NewEntry, State},
    waiting::{Waiting, counted},
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");

/// Readers beside the writer. Reads are short and come from the page cache; more would only wait for the same cores.
const READERS: usize = 4;

/// How often a writer tries again while another process has the file locked; a try takes some microseconds.
const LOCKED_POLL: Duration = Duration::from_millis(2);

/// The embedded store.
pub struct SqliteStore {
    path: PathBuf,
    writer: Arc<Mutex<SqliteConnection>>,
    readers: Vec<Arc<Mutex<SqliteConnection>>>,
    next_reader: AtomicUsize,
    waiting: Arc<AtomicUsize>,
    meter: Arc<Meter>,
    lock_wait: Duration,
}

impl SqliteStore {
    /// Opens or creates the database file and brings its schema up to date. `lock_wait` is how long a connection waits
    /// for another *process* that writes the same file; within this one the writer is handed on in order.
    ///
    /// # Errors
    /// [`Error::Down`] when the file cannot be opened or migrated.
    pub async fn open(path: &Path, lock_wait: Duration) -> Result<Self> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let mut writer = connect(&path, lock_wait)?;
            writer
                .run_pending_migrations(MIGRATIONS)
                .map_err(|error| Error::Down(format!("cannot migrate {}: {error}", path.display())))?;
            writer
                .batch_execute("PRAGMA busy_timeout = 0")
                .map_err(|error| Error::Down(format!("cannot open {}: {error}", path.display())))?;
            let readers = (0..READERS).map(|_| connect(&path, lock_wait)).collect::<Result<Vec<_>>>()?;
            Ok(Self {
                path,
                writer: Arc::new(Mutex::new(writer)),
                readers: readers.into_iter().map(|reader| Arc::new(Mutex::new(reader))).collect(),
                next_reader: AtomicUsize::new(0),
                waiting: Arc::new(AtomicUsize::new(0)),
                meter: Arc::new(Meter::default()),
                lock_wait,
            })
        });
        opened.await.map_err(|error| Error::Unexpected(error.to_string()))?
    }

    fn begin_with_first_statement(&self, until: Option<Instant>) -> SqliteTransaction {
        SqliteTransaction {
            writer: Arc::clone(&self.writer),
            waiting: Arc::clone(&self.waiting),
            meter: Arc::clone(&self.meter),
            locked_since: LockedSince::default(),
            lock_wait: self.lock_wait,
            until,
            begun: None,
        }
    }

    /// Runs a read on a connection of its own.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut SqliteConnection) -> std::result::Result<T, DieselError> + Send + 'static,
    ) -> Result<T> {
        let turn = self.next_reader.fetch_add(1, Ordering::Relaxed) % self.readers.len();
        let reader = Arc::clone(&self.readers[turn]).lock_owned().await;
        self.meter.round_trips(1);
        blocking(reader, read).await.1
    }
}

fn connect(path: &Path, lock_wait: Duration) -> Result<SqliteConnection> {
    let open = |path: &Path| -> std::result::Result<SqliteConnection, Box<dyn std::error::Error>> {
        let mut connection = SqliteConnection::establish(&path.to_string_lossy())?;
        connection.batch_execute(&format!(
            "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
            lock_wait.as_millis()
        ))?;
        Ok(connection)
    };
    open(path).map_err(|error| {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
        let hint = directory.map_or_else(String::new, |d| format!("; the directory {} does not exist", d.display()));
        Error::Down(format!("cannot open {}: {error}{hint}", path.display()))
    })
}

/// Runs `work` on a blocking thread. The guard travels with it: a caller that goes away cannot free the connection
/// while a statement is still running on it.
async fn blocking<T: Send + 'static, G: DerefMut<Target = SqliteConnection> + Send + 'static>(
    mut connection: G,
    work: impl FnOnce(&mut SqliteConnection) -> std::result::Result<T, DieselError> + Send + 'static,
) -> (Option<G>, Result<T>) {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut connection).map_err(|error| classify(&error));
        (Some(connection), result)
    });
    done.await.unwrap_or_else(|error| (None, Err(Error::Unexpected(error.to_string()))))
}

/// What a Diesel error from SQLite means. The only place that looks at its text.
fn classify(error: &DieselError) -> Error {
    let text = error.to_string();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => Error::Duplicate(text),
        _ if says(&["locked", "busy"]) => Error::Contended(text),
        _ if says(&["disk is full", "readonly", "disk I/O error", "unable to open"]) => Error::Down(text),
        _ => Error::Unexpected(text),
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn read(&self, user_id: i64) -> Result<Option<State>> {
        let row = self.reading(move |c| statements::state_of(user_id).first(c).optional()).await?;
        Ok(row.map(statements::state))
    }

    async fn read_fenced(&self, user_id: i64, token: i64) -> Result<Option<FencedRead>> {
        let mut transaction = self.begin_with_first_statement(None);
        let read = transaction.run(move |c| {
            let claimed = statements::claim!(user_id, token).execute(c)?;
            let row = statements::fenced_state_of(user_id).first(c).optional()?;
            Ok(row.map(|row| statements::fenced_read(claimed, row)))
        });
        let read = read.await?;
        Box::new(transaction).commit().await.map_err(|error| Error::Lost(error.to_string()))?;
        Ok(read)
    }

    async fn find(&self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let id = request_id.as_bytes().to_vec();
        let row = self.reading(move |c| statements::entry_of(user_id, id).first(c).optional()).await?;
        row.map(statements::entry).transpose()
    }

    async fn entries(&self, user_id: i64, after_version: i64, limit: i64) -> Result<Vec<Entry>> {
        let rows = self.reading(move |c| statements::entries_after(user_id, after_version, limit).load(c)).await?;
        rows.into_iter().map(statements::entry).collect()
    }

    async fn accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<(i64, State)>> {
        let rows = self.reading(move |c| statements::accounts_after(after_user_id, limit).load(c)).await?;
        Ok(rows.into_iter().map(statements::account).collect())
    }

    fn transaction(&self, _: Isolation, until: Option<Instant>) -> Box<dyn Transaction> {
        Box::new(self.begin_with_first_statement(until))
    }

    fn settlement(&self) -> Box<dyn Transaction> {
        self.transaction(Isolation::ReadCommitted, None)
    }

    fn pool(&self) -> PoolState {
        let connections = self.readers.len() + 1;
        let all = self.readers.iter().chain([&self.writer]);
        PoolState {
            max: connections,
            open: connections,
            in_use: all.filter(|connection| connection.try_lock().is_err()).count(),
            waiting: self.waiting.load(Ordering::SeqCst),
        }
    }

    fn work(&self) -> Work {
        self.meter.work()
    }

    async fn lock_waits(&self) -> Result<LockWaits> {
        Ok(LockWaits { here: self.waiting.load(Ordering::SeqCst) as u64, in_database: 0 })
    }

    async fn links(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn ping(&self) -> Result<()> {
        if !self.path.exists() {
            return Err(Error::Down(format!("{} is gone", self.path.display())));
        }
        self.reading(|c| accounts::table.select(accounts::user_id).first::<i64>(c).optional()).await.map(drop)
    }
}

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

struct SqliteTransaction {
    writer: Arc<Mutex<SqliteConnection>>,
    waiting: Arc<AtomicUsize>,
    meter: Arc<Meter>,
    locked_since: LockedSince,
    lock_wait: Duration,
    until: Option<Instant>,
    begun: Option<Writer>,
}

impl SqliteTransaction {
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

    async fn run<T: Send + 'static>(
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
        let write = move |c: &mut SqliteConnection| {
            for entry in &entries {
                statements::append!(entry).execute(c)?;
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

    async fn append(&mut self, entry: &NewEntry) -> Result<()> {
        let entry = *entry;
        self.run(move |c| statements::append!(&entry).execute(c)).await.map(drop)
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
