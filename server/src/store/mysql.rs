//! MySQL and MariaDB, through diesel-async. Comments name the lock a statement takes: X and S are InnoDB's exclusive
//! and shared row locks. It owns the only reading of these databases' error texts (`classify`).

mod batch;
mod pool;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName,
    result::{DatabaseErrorKind, Error as DieselError},
    sql_types::Text,
};
use diesel_async::{AsyncMigrationHarness, AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use mysql_async::Opts;
use uuid::Uuid;

pub use self::pool::Limits;
use self::pool::{Lease, Pool};
use super::{
    AccountWrite, BlindWrite, Error, IfLocked, Isolation, Matched, PoolState, Result, RowLock, Store, Transaction,
    schema::{Exact, Plus, Stored, accounts, entries},
    statements::{self, Kept},
};
use crate::account::{Entry, Money, NewEntry, State};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/mysql");

/// How long one of several servers that start together waits for another's migration, seconds.
const MIGRATION_LOCK_S: u32 = 60;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavour {
    MariaDb,
    MySql,
}

/// A MySQL or MariaDB server.
pub struct MysqlStore {
    pool: Pool,
    flavour: Flavour,
}

#[derive(QueryableByName)]
struct Scalar {
    #[diesel(sql_type = Text)]
    value: String,
}

async fn scalar(connection: &mut AsyncMysqlConnection, sql: &str) -> Result<String> {
    let row: Scalar = diesel::sql_query(sql).get_result(connection).await.map_err(|error| classify(&error))?;
    Ok(row.value)
}

impl MysqlStore {
    /// Connects, and brings the schema up to date under a lock that servers starting together share.
    ///
    /// # Errors
    /// [`Error::Down`] when the URL is malformed, the database cannot be reached or its schema cannot be migrated.
    pub async fn open(url: &str, limits: &Limits) -> Result<Self> {
        let opts = Opts::from_url(url).map_err(|error| Error::Down(format!("database URL: {error}")))?;
        let pool = Pool::new(opts, limits)?;
        let mut connection = pool.dedicated().await?;
        let version = scalar(&mut connection, "SELECT VERSION() AS value").await?;
        let flavour = if version.contains("MariaDB") { Flavour::MariaDb } else { Flavour::MySql };
        migrate(connection).await?;
        Ok(Self { pool, flavour })
    }

    /// Ends a read outside a transaction: its link goes back to the pool unless it was lost.
    fn ended<T>(&self, lease: Lease, result: std::result::Result<T, DieselError>) -> Result<T> {
        match result.map_err(|error| classify(&error)) {
            Err(Error::Lost(reason)) => {
                self.pool.lost();
                Err(Error::Lost(reason))
            }
            result => {
                lease.done();
                result
            }
        }
    }
}

/// Applies pending migrations, one server at a time.
async fn migrate(mut connection: AsyncMysqlConnection) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::Down(format!("cannot migrate the schema: {error}"));
    let lock = format!("SELECT CAST(COALESCE(GET_LOCK('zbl_migrations', {MIGRATION_LOCK_S}), 0) AS CHAR) AS value");
    if scalar(&mut connection, &lock).await? != "1" {
        return Err(failed(&format!("another server has been migrating for {MIGRATION_LOCK_S} s")));
    }
    let mut harness = AsyncMigrationHarness::new(connection);
    harness.run_pending_migrations(MIGRATIONS).map_err(|error| {
        let taken = error.to_string().contains("already exists");
        let hint = if taken { "; these tables are not ours: give the service a database of its own" } else { "" };
        failed(&format!("{error}{hint}"))
    })?;
    // The lock goes with the connection.
    Ok(())
}

/// What a Diesel error from MySQL or MariaDB means. Diesel tells deadlock (1213), lock wait timeout (1205) and snapshot
/// conflict (1020) only by their text, and an I/O error only by its driver's; sessions pin the language of both.
fn classify(error: &DieselError) -> Error {
    const CONTENDED: [&str; 4] = [
        "Deadlock found",
        "Lock wait timeout",
        "Record has changed since last read",
        // KILL QUERY, or a time limit of the server's.
        "Query execution was interrupted",
    ];
    const LOST: [&str; 6] = [
        "Input/output error",
        "Driver error",
        "Server shutdown in progress",
        "Connection was killed",
        "The client was disconnected",
        "Normal shutdown",
    ];
    let text = error.to_string();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => Error::Duplicate(text),
        _ if says(&CONTENDED) => Error::Contended(text),
        _ if says(&LOST) => Error::Lost(text),
        _ => Error::Unexpected(text),
    }
}

#[async_trait]
impl Store for MysqlStore {
    fn name(&self) -> &'static str {
        match self.flavour {
            Flavour::MariaDb => "mariadb",
            Flavour::MySql => "mysql",
        }
    }

    async fn read(&self, user_id: i64) -> Result<Option<State>> {
        let mut lease = self.pool.lease().await?;
        let row = statements::state_of(user_id).first(lease.connection()?).await.optional();
        Ok(self.ended(lease, row)?.map(statements::state))
    }

    async fn find(&self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let id = request_id.as_bytes().to_vec();
        let mut lease = self.pool.lease().await?;
        let row = statements::entry_of(user_id, id).first(lease.connection()?).await.optional();
        self.ended(lease, row)?.map(statements::entry).transpose()
    }

    async fn entries(&self, user_id: i64, after_version: i64, limit: i64) -> Result<Vec<Entry>> {
        let mut lease = self.pool.lease().await?;
        let rows = statements::entries_after(user_id, after_version, limit).load(lease.connection()?).await;
        self.ended(lease, rows)?.into_iter().map(statements::entry).collect()
    }

    fn transaction(&self, isolation: Isolation) -> Box<dyn Transaction> {
        Box::new(MysqlTransaction { pool: self.pool.clone(), isolation, lease: None })
    }

    fn pool(&self) -> PoolState {
        self.pool.state()
    }

    async fn lock_waits(&self) -> Result<u64> {
        // Both are live; information_schema.innodb_trx is cached and would hide short waits. A transaction waits for one
        // lock at a time. MariaDB tells only the whole server's waits, MySQL those of our database.
        let sql = match self.flavour {
            Flavour::MariaDb => {
                "SELECT VARIABLE_VALUE AS value FROM information_schema.GLOBAL_STATUS \
                 WHERE VARIABLE_NAME = 'INNODB_ROW_LOCK_CURRENT_WAITS'"
            }
            Flavour::MySql => {
                "SELECT CAST(COUNT(*) AS CHAR) AS value FROM performance_schema.data_locks \
                 WHERE LOCK_STATUS = 'WAITING' AND OBJECT_SCHEMA = DATABASE()"
            }
        };
        let mut lease = self.pool.lease().await?;
        let row = diesel::sql_query(sql).get_result::<Scalar>(lease.connection()?).await;
        self.ended(lease, row)?.value.parse().map_err(|error| Error::Unexpected(format!("lock waits: {error}")))
    }

    async fn ping(&self) -> Result<()> {
        let mut lease = self.pool.lease().await?;
        let answer = lease.connection()?.batch_execute("DO 0").await;
        self.ended(lease, answer)
    }
}

struct MysqlTransaction {
    pool: Pool,
    isolation: Isolation,
    lease: Option<Lease>,
}

impl MysqlTransaction {
    /// The transaction's connection; the first call begins.
    async fn connection(&mut self) -> Result<&mut AsyncMysqlConnection> {
        if self.lease.is_none() {
            let mut lease = self.pool.lease().await?;
            let begin = match self.isolation {
                Isolation::ReadCommitted => "BEGIN",
                Isolation::Serializable => "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; BEGIN",
            };
            let begun = lease.connection()?.batch_execute(begin).await;
            begun.map_err(|error| self.failed(&error))?;
            self.lease = Some(lease);
        }
        match &mut self.lease {
            Some(lease) => lease.connection(),
            None => Err(Error::Unexpected("a transaction without a connection".to_owned())),
        }
    }

    fn failed(&self, error: &DieselError) -> Error {
        let error = classify(error);
        if matches!(error, Error::Lost(_)) {
            self.pool.lost();
        }
        error
    }
}

#[async_trait]
impl Transaction for MysqlTransaction {
    async fn read(&mut self, user_id: i64, lock: RowLock) -> Result<Option<State>> {
        let state = statements::state_of(user_id);
        let c = self.connection().await?;
        let row = match lock {
            // No lock under READ COMMITTED; S under SERIALIZABLE.
            RowLock::None => state.first(c).await.optional(),
            // X.
            RowLock::Exclusive => state.for_update().first(c).await.optional(),
        };
        row.map(|row| row.map(statements::state)).map_err(|error| self.failed(&error))
    }

    async fn write(&mut self, user_id: i64, balance: Money) -> Result<Matched> {
        let c = self.connection().await?;
        // X.
        let rows = statements::write!(user_id, balance).execute(c).await;
        rows.map(Matched::from_rows).map_err(|error| self.failed(&error))
    }

    async fn overtaken(&mut self, user_id: i64, version_read: i64) -> Result<Option<BlindWrite>> {
        let c = self.connection().await?;
        // No lock of its own: we hold X on the account, so nobody can append to its journal until we end.
        let rows = statements::overtaken(user_id, version_read).load(c).await;
        statements::blind_write(rows.map_err(|error| self.failed(&error))?)
    }

    async fn write_if_version(&mut self, user_id: i64, balance: Money, version: i64) -> Result<Matched> {
        let c = self.connection().await?;
        // X.
        let rows = statements::write_if_version!(user_id, balance, version).execute(c).await;
        rows.map(Matched::from_rows).map_err(|error| self.failed(&error))
    }

    async fn add_within(&mut self, user_id: i64, delta: Money, (least, most): (Money, Money)) -> Result<Matched> {
        let c = self.connection().await?;
        // X.
        let rows = statements::add_within!(user_id, delta, least, most).execute(c).await;
        rows.map(Matched::from_rows).map_err(|error| self.failed(&error))
    }

    async fn lock_many(&mut self, user_ids: &BTreeSet<i64>, if_locked: IfLocked) -> Result<BTreeMap<i64, State>> {
        let c = self.connection().await?;
        // X on each row. One account, the usual case on a hot one, is a statement that stays prepared.
        let rows = match (user_ids.first(), user_ids.len(), if_locked) {
            (Some(&user_id), 1, IfLocked::Skip) => {
                let state = statements::state_of(user_id).for_update().skip_locked().load(c).await;
                state.map(|rows| rows.into_iter().map(|(balance, version)| (user_id, balance, version)).collect())
            }
            (Some(&user_id), 1, IfLocked::Wait) => {
                let state = statements::state_of(user_id).for_update().load(c).await;
                state.map(|rows| rows.into_iter().map(|(balance, version)| (user_id, balance, version)).collect())
            }
            _ => batch::states(user_ids, if_locked).load::<batch::StateRow>(c).await,
        };
        let rows = rows.map_err(|error| self.failed(&error))?;
        Ok(rows
            .into_iter()
            .map(|(user_id, balance, version)| (user_id, statements::state((balance, version))))
            .collect())
    }

    async fn find_many(&mut self, requests: &BTreeMap<i64, Vec<Uuid>>) -> Result<Vec<Entry>> {
        let c = self.connection().await?;
        let rows = batch::entries(requests).load::<statements::EntryRow>(c).await;
        rows.map_err(|error| self.failed(&error))?.into_iter().map(statements::entry).collect()
    }

    async fn write_many(&mut self, entries: &[NewEntry], accounts: &[AccountWrite]) -> Result<()> {
        let c = self.connection().await?;
        // X, held since the rows were locked.
        let done = c.batch_execute(&batch::writes(entries, accounts)).await;
        done.map_err(|error| self.failed(&error))
    }

    async fn insert_account(&mut self, user_id: i64, balance: Money) -> Result<()> {
        let row = statements::AccountRow::opened(user_id, balance);
        let c = self.connection().await?;
        let done = diesel::insert_into(accounts::table).values(row).execute(c).await;
        done.map(drop).map_err(|error| self.failed(&error))
    }

    async fn find(&mut self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let id = request_id.as_bytes().to_vec();
        let c = self.connection().await?;
        let row = statements::entry_of(user_id, id).first(c).await.optional();
        row.map_err(|error| self.failed(&error))?.map(statements::entry).transpose()
    }

    async fn append(&mut self, entry: &NewEntry) -> Result<()> {
        let c = self.connection().await?;
        let done = statements::append!(entry).execute(c).await;
        done.map(drop).map_err(|error| self.failed(&error))
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let Some(mut lease) = self.lease.take() else { return Ok(()) };
        match lease.connection()?.batch_execute("COMMIT").await {
            Ok(()) => {
                lease.done();
                Ok(())
            }
            Err(error) => match self.failed(&error) {
                // The engine says it rolled back (Galera raises its conflicts here).
                Error::Contended(text) => Err(Error::Contended(text)),
                other => Err(Error::CommitLost(other.to_string())),
            },
        }
    }

    async fn rollback(mut self: Box<Self>) {
        if let Some(mut lease) = self.lease.take()
            && let Ok(connection) = lease.connection()
            && connection.batch_execute("ROLLBACK").await.is_ok()
        {
            lease.done();
        }
    }
}
