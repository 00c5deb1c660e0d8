//! MySQL and MariaDB, through diesel-async. Comments name the lock a statement takes: X and S are InnoDB's exclusive
//! and shared row locks. Error texts are read in `mysql/answer.rs`.

mod answer;
mod batch;
mod pool;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName, result::Error as DieselError, sql_types::Text,
};
use diesel_async::{AsyncMigrationHarness, AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use mysql_async::Opts;
use uuid::Uuid;

pub use self::pool::Limits;
use self::{
    answer::{Answer, answered, classify},
    pool::{Lease, Pool},
};
use super::{
    AccountWrite, BlindWrite, Error, IfLocked, Isolation, Matched, PoolState, Result, RowLock, Store, Transaction,
    schema::{Exact, Plus, Stored, accounts, entries},
    statements::{self, Kept},
};
use crate::account::{Entry, Money, NewEntry, State};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/mysql");

/// How long one of several servers that start together waits for another's migration, seconds.
const MIGRATION_LOCK_S: u32 = 60;

/// MySQL commits each CREATE by itself, so both can be.
const TABLES_TAKEN: &str = "; either the database is another application's (give the service one of its own), or a first \
                            start was interrupted (drop the empty tables named, and start again)";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavour {
    MariaDb,
    MySql,
}

/// A MySQL or MariaDB server.
pub struct MysqlStore {
    pool: Pool,
    flavour: Flavour,
    /// How long a statement may take.
    limit: Duration,
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
        Ok(Self { pool, flavour, limit: limits.lock_wait + limits.pool_wait })
    }

    /// Ends a read outside a transaction: its link goes back to the pool if its answer was read to the end.
    fn ended<T>(&self, lease: Lease, result: Answer<T>) -> Result<T> {
        match result.map_err(|error| classify(&error)) {
            Ok(value) => {
                lease.done();
                Ok(value)
            }
            Err(error) => {
                if matches!(error, Error::Lost(_)) {
                    self.pool.lost(&lease);
                }
                Err(error)
            }
        }
    }
}

/// Applies pending migrations, one server at a time.
async fn migrate(mut connection: AsyncMysqlConnection) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::Down(format!("cannot migrate the schema: {error}"));
    // Lock names are the whole server's, and short; ours is this database's. (MySQL 9 has no MD5 any more.)
    let name = "CONCAT('zbl.', LEFT(SHA2(DATABASE(), 256), 32))";
    let lock = format!("SELECT CAST(COALESCE(GET_LOCK({name}, {MIGRATION_LOCK_S}), 0) AS CHAR) AS value");
    if scalar(&mut connection, &lock).await? != "1" {
        return Err(failed(&format!("another server has been migrating for {MIGRATION_LOCK_S} s")));
    }
    let mut harness = AsyncMigrationHarness::new(connection);
    harness.run_pending_migrations(MIGRATIONS).map_err(|error| {
        let taken = error.to_string().contains("already exists");
        let hint = if taken { TABLES_TAKEN } else { "" };
        failed(&format!("{error}{hint}"))
    })?;
    // The lock goes with the connection.
    Ok(())
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
        let row = answered(self.limit, statements::state_of(user_id).first(lease.connection()?)).await.optional();
        Ok(self.ended(lease, row)?.map(statements::state))
    }

    async fn find(&self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let id = request_id.as_bytes().to_vec();
        let mut lease = self.pool.lease().await?;
        let row = answered(self.limit, statements::entry_of(user_id, id).first(lease.connection()?)).await.optional();
        self.ended(lease, row)?.map(statements::entry).transpose()
    }

    async fn entries(&self, user_id: i64, after_version: i64, limit: i64) -> Result<Vec<Entry>> {
        let mut lease = self.pool.lease().await?;
        let rows =
            answered(self.limit, statements::entries_after(user_id, after_version, limit).load(lease.connection()?))
                .await;
        self.ended(lease, rows)?.into_iter().map(statements::entry).collect()
    }

    fn transaction(&self, isolation: Isolation) -> Box<dyn Transaction> {
        Box::new(MysqlTransaction { pool: self.pool.clone(), isolation, limit: self.limit, lease: None })
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
        let row = answered(self.limit, diesel::sql_query(sql).get_result::<Scalar>(lease.connection()?)).await;
        self.ended(lease, row)?.value.parse().map_err(|error| Error::Unexpected(format!("lock waits: {error}")))
    }

    async fn ping(&self) -> Result<()> {
        let mut lease = self.pool.lease().await?;
        let answer = answered(self.limit, lease.connection()?.batch_execute("DO 0")).await;
        self.ended(lease, answer)
    }
}

struct MysqlTransaction {
    pool: Pool,
    isolation: Isolation,
    limit: Duration,
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
            let begun = answered(self.limit, lease.connection()?.batch_execute(begin)).await;
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
        }
        error
    }
}

#[async_trait]
impl Transaction for MysqlTransaction {
    async fn read(&mut self, user_id: i64, lock: RowLock) -> Result<Option<State>> {
        let state = statements::state_of(user_id);
        let limit = self.limit;
        let c = self.connection().await?;
        let row = match lock {
            // No lock under READ COMMITTED; S under SERIALIZABLE.
            RowLock::None => answered(limit, state.first(c)).await.optional(),
            // X.
            RowLock::Exclusive => answered(limit, state.for_update().first(c)).await.optional(),
        };
        row.map(|row| row.map(statements::state)).map_err(|error| self.failed(&error))
    }

    async fn write(&mut self, user_id: i64, balance: Money) -> Result<Matched> {
        let limit = self.limit;
        let c = self.connection().await?;
        // X.
        let rows = answered(limit, statements::write!(user_id, balance).execute(c)).await;
        rows.map(Matched::from_rows).map_err(|error| self.failed(&error))
    }

    async fn overtaken(&mut self, user_id: i64, version_read: i64) -> Result<Option<BlindWrite>> {
        let limit = self.limit;
        let c = self.connection().await?;
        // No lock of its own: we hold X on the account, so nobody can append to its journal until we end.
        let rows = answered(limit, statements::overtaken(user_id, version_read).load(c)).await;
        statements::blind_write(rows.map_err(|error| self.failed(&error))?)
    }

    async fn write_if_version(&mut self, user_id: i64, balance: Money, version: i64) -> Result<Matched> {
        let limit = self.limit;
        let c = self.connection().await?;
        // X.
        let rows = answered(limit, statements::write_if_version!(user_id, balance, version).execute(c)).await;
        rows.map(Matched::from_rows).map_err(|error| self.failed(&error))
    }

    async fn add_within(&mut self, user_id: i64, delta: Money, (least, most): (Money, Money)) -> Result<Matched> {
        let limit = self.limit;
        let c = self.connection().await?;
        // X.
        let rows = answered(limit, statements::add_within!(user_id, delta, least, most).execute(c)).await;
        rows.map(Matched::from_rows).map_err(|error| self.failed(&error))
    }

    async fn lock_many(&mut self, user_ids: &BTreeSet<i64>, if_locked: IfLocked) -> Result<BTreeMap<i64, State>> {
        let limit = self.limit;
        let c = self.connection().await?;
        // X on each row. One account, the usual case on a hot one, is a statement that stays prepared.
        let rows = match (user_ids.first(), user_ids.len(), if_locked) {
            (Some(&user_id), 1, IfLocked::Skip) => {
                let state = answered(limit, statements::state_of(user_id).for_update().skip_locked().load(c)).await;
                state.map(|rows| rows.into_iter().map(|(balance, version)| (user_id, balance, version)).collect())
            }
            (Some(&user_id), 1, IfLocked::Wait) => {
                let state = answered(limit, statements::state_of(user_id).for_update().load(c)).await;
                state.map(|rows| rows.into_iter().map(|(balance, version)| (user_id, balance, version)).collect())
            }
            _ => answered(limit, batch::states(user_ids, if_locked).load::<batch::StateRow>(c)).await,
        };
        let rows = rows.map_err(|error| self.failed(&error))?;
        Ok(rows
            .into_iter()
            .map(|(user_id, balance, version)| (user_id, statements::state((balance, version))))
            .collect())
    }

    async fn find_many(&mut self, requests: &BTreeMap<i64, Vec<Uuid>>) -> Result<Vec<Entry>> {
        let limit = self.limit;
        let c = self.connection().await?;
        let rows = answered(limit, batch::entries(requests).load::<statements::EntryRow>(c)).await;
        rows.map_err(|error| self.failed(&error))?.into_iter().map(statements::entry).collect()
    }

    async fn write_many(&mut self, entries: &[NewEntry], accounts: &[AccountWrite]) -> Result<()> {
        let limit = self.limit;
        let c = self.connection().await?;
        // X, held since the rows were locked.
        let done = answered(limit, c.batch_execute(&batch::writes(entries, accounts))).await;
        done.map_err(|error| self.failed(&error))
    }

    async fn insert_account(&mut self, user_id: i64, balance: Money) -> Result<()> {
        let row = statements::AccountRow::opened(user_id, balance);
        let limit = self.limit;
        let c = self.connection().await?;
        let done = answered(limit, diesel::insert_into(accounts::table).values(row).execute(c)).await;
        done.map(drop).map_err(|error| self.failed(&error))
    }

    async fn find(&mut self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let id = request_id.as_bytes().to_vec();
        let limit = self.limit;
        let c = self.connection().await?;
        let row = answered(limit, statements::entry_of(user_id, id).first(c)).await.optional();
        row.map_err(|error| self.failed(&error))?.map(statements::entry).transpose()
    }

    async fn append(&mut self, entry: &NewEntry) -> Result<()> {
        let limit = self.limit;
        let c = self.connection().await?;
        let done = answered(limit, statements::append!(entry).execute(c)).await;
        done.map(drop).map_err(|error| self.failed(&error))
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let limit = self.limit;
        let Some(lease) = &mut self.lease else { return Ok(()) };
        if let Err(error) = answered(limit, lease.connection()?.batch_execute("COMMIT")).await {
            return Err(match self.failed(&error) {
                // The engine says it rolled back (Galera raises its conflicts here).
                Error::Contended(text) => Error::Contended(text),
                other => Error::CommitLost(other.to_string()),
            });
        }
        if let Some(lease) = self.lease.take() {
            lease.done();
        }
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) {
        let Some(mut lease) = self.lease.take() else { return };
        if let Ok(connection) = lease.connection()
            && answered(self.limit, connection.batch_execute("ROLLBACK")).await.is_ok()
        {
            lease.done();
        }
    }
}
