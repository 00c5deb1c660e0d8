//! SQLite, the embedded store: one writer connection, a few readers, write-ahead log, `synchronous=FULL`.
//!
//! There is one writer at a time, so a transaction here is what FOR UPDATE, SERIALIZABLE and a conditional UPDATE are
//! elsewhere: whoever reads inside it reads alone. Only reads outside it (`none`, `optimistic`) can be stale.
//! It refuses in-memory databases: they have no second connection to read beside the writer.

mod chained;
mod outbox;
mod reports;
mod transaction;

use std::{
    ops::DerefMut,
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
use tokio::sync::Mutex;
use uuid::Uuid;

use self::transaction::SqliteTransaction;
use super::{
    Error, FencedRead, Filter, Isolation, LockWaits, PoolState, Result, Selection, Store, Transaction, Work,
    meter::Meter,
    outbox::{Key, Outgoing},
    schema::accounts,
    statements::{self, Kept},
};
use crate::{
    account::{Entry, State},
    chain::{Chaining, Record},
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");

/// Readers beside the writer. Reads are short and come from the page cache; more would only wait for the same cores.
const READERS: usize = 4;

/// The embedded store.
pub struct SqliteStore {
    path: PathBuf,
    writer: Arc<Mutex<SqliteConnection>>,
    readers: Vec<Arc<Mutex<SqliteConnection>>>,
    next_reader: AtomicUsize,
    waiting: Arc<AtomicUsize>,
    meter: Arc<Meter>,
    lock_wait: Duration,
    chaining: Chaining,
}

impl SqliteStore {
    /// Opens or creates the database file and brings its schema up to date. `lock_wait` is how long a connection waits
    /// for another *process* that writes the same file; within this one the writer is handed on in order. What it
    /// journals gets digests or not, as `chaining` says.
    ///
    /// # Errors
    /// [`Error::Down`] when the file cannot be opened or migrated.
    pub async fn open(path: &Path, lock_wait: Duration, chaining: Chaining) -> Result<Self> {
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
                chaining,
            })
        });
        opened.await.map_err(|error| Error::Unexpected(error.to_string()))?
    }

    fn begin_with_first_statement(&self, until: Option<Instant>) -> SqliteTransaction {
        SqliteTransaction::new(&self.writer, &self.waiting, &self.meter, self.lock_wait, self.chaining, until)
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

    async fn read_fenced(&self, user_id: i64, token: i64, until: Option<Instant>) -> Result<Option<FencedRead>> {
        let mut transaction = self.begin_with_first_statement(until);
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

    async fn outgoing(&self, key: Key) -> Result<Option<Outgoing>> {
        self.outgoing_row(key).await
    }

    async fn entries(&self, user_id: i64, after_version: i64, limit: i64) -> Result<Vec<Entry>> {
        let rows = self.reading(move |c| statements::entries_after(user_id, after_version, limit).load(c)).await?;
        rows.into_iter().map(statements::entry).collect()
    }

    async fn select(&self, selection: Selection) -> Result<Vec<Entry>> {
        let rows = self.reading(move |c| statements::selected!(diesel::sqlite::Sqlite, selection).load(c)).await?;
        rows.into_iter().map(statements::entry).collect()
    }

    async fn entries_of_accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<Entry>> {
        let rows = self.reading(move |c| statements::entries_of_accounts(after_user_id, limit).load(c)).await?;
        rows.into_iter().map(statements::entry).collect()
    }

    async fn records(&self, after: (i64, i64), limit: i64) -> Result<Vec<Record>> {
        let rows = self.reading(move |c| chained::Records { after, limit }.load(c)).await?;
        rows.into_iter().map(statements::record).collect()
    }

    async fn snapshot(&self, user_id: i64) -> Result<State> {
        let row = self.reading(move |c| statements::newest_snapshot(user_id).first(c).optional()).await?;
        Ok(row.map_or(State::NONE, statements::state))
    }

    async fn keyspace(&self) -> Result<String> {
        self.reading(|c| statements::keyspace().first(c)).await
    }

    async fn filter(&self) -> Result<Filter> {
        Filter::from_row(self.reading(|c| statements::filter().first(c)).await?)
    }

    async fn account_ids(&self, after: i64, limit: i64) -> Result<Vec<i64>> {
        self.reading(move |c| statements::account_ids(after, limit).load(c)).await
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
