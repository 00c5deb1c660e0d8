//! MySQL and MariaDB, through diesel-async. Comments name the lock a statement takes: X and S are InnoDB's exclusive
//! and shared row locks. Error texts are read in `mysql/answer.rs`.

mod answer;
mod chained;
mod lock_many;
mod outbox;
mod pool;
mod reports;
mod text;
mod transaction;

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName, sql_types::Text};
use diesel_async::{AsyncMigrationHarness, AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use mysql_async::Opts;
use uuid::Uuid;

pub use self::pool::Limits;
use self::{
    answer::{Answer, Wire, classify},
    pool::{Lease, Pool},
    transaction::MysqlTransaction,
};
use super::{
    APART, Error, FencedRead, Filter, Isolation, LockWaits, Matched, PoolState, Result, Selection, Store, Transaction,
    Work,
    meter::LockedSince,
    outbox::{Key, Outgoing},
    schema::{account_filter, accounts},
    statements::{self, Kept},
};
use crate::{
    account::{Entry, State},
    chain::{Chaining, Record},
};

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
    /// Connections of those who run apart.
    apart: Pool,
    database: String,
    flavour: Flavour,
    wire: Arc<Wire>,
    chaining: Chaining,
}

#[derive(QueryableByName)]
struct Scalar {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct EngineStatus {
    #[diesel(sql_type = Text, column_name = "Status")]
    status: String,
}

/// Counts the locks of a database that are waited for now, in the text of InnoDB's status. What is told of the latest
/// deadlock, further up, is past.
fn waits_in(status: &str, database: &str) -> u64 {
    let ours = format!(" of table `{database}`.");
    let ours_with_lock = format!("TABLE LOCK table `{database}`.");
    let now = status.split("\nTRANSACTIONS\n").nth(1).unwrap_or_default();
    let waits = |line: &&str| line.ends_with(" waiting") && (line.contains(&ours) || line.contains(&ours_with_lock));
    now.lines().filter(waits).count() as u64
}

async fn scalar(connection: &mut AsyncMysqlConnection, sql: &str) -> Result<String> {
    let row: Scalar = diesel::sql_query(sql).get_result(connection).await.map_err(|error| classify(&error))?;
    Ok(row.value)
}

impl MysqlStore {
    /// Connects, and brings the schema up to date under a lock that servers starting together share. What it journals gets
    /// digests or not, as `chaining` says.
    ///
    /// # Errors
    /// [`Error::Down`] when the URL is malformed, the database cannot be reached or its schema cannot be migrated.
    pub async fn open(url: &str, limits: &Limits, chaining: Chaining) -> Result<Self> {
        let opts = Opts::from_url(url).map_err(|error| Error::Down(format!("database URL: {error}")))?;
        let database = opts.db_name().unwrap_or_default().to_owned();
        let pool = Pool::new(opts.clone(), limits)?;
        let apart = Pool::new(opts, &Limits { pool_size: APART as u32, ..*limits })?;
        let mut connection = pool.dedicated().await?;
        let version = scalar(&mut connection, "SELECT VERSION() AS value").await?;
        let flavour = if version.contains("MariaDB") { Flavour::MariaDb } else { Flavour::MySql };
        migrate(connection).await?;
        let wire = Arc::new(Wire::new(limits.lock_wait + limits.pool_wait));
        Ok(Self { pool, apart, database, flavour, wire, chaining })
    }

    async fn count(&self, sql: &str) -> Result<u64> {
        let mut lease = self.pool.lease(None).await?;
        let row = self.wire.answered(diesel::sql_query(sql).get_result::<Scalar>(lease.connection()?)).await;
        self.ended(lease, row)?.value.parse().map_err(|error| Error::Unexpected(format!("{sql}: {error}")))
    }

    /// The transactions that wait for a lock in our database, as MariaDB's engine tells it: the one place where it says
    /// for what. `None` without the privilege to ask (PROCESS).
    async fn waits_in_status(&self) -> Result<Option<u64>> {
        let mut lease = self.pool.lease(None).await?;
        let asked = diesel::sql_query("SHOW ENGINE INNODB STATUS").get_result::<EngineStatus>(lease.connection()?);
        match self.wire.answered(asked).await {
            Err(error) if error.to_string().contains("Access denied") => {
                lease.done();
                Ok(None)
            }
            status => Ok(Some(waits_in(&self.ended(lease, status)?.status, &self.database))),
        }
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
    // A table is changed when the transactions that use it have ended: a backup takes its time.
    let patience = format!("SET SESSION lock_wait_timeout = {MIGRATION_LOCK_S}");
    connection.batch_execute(&patience).await.map_err(|error| failed(&error))?;
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
        let mut lease = self.pool.lease(None).await?;
        let row = self.wire.answered(statements::state_of(user_id).first(lease.connection()?)).await.optional();
        Ok(self.ended(lease, row)?.map(statements::state))
    }

    async fn read_fenced(&self, user_id: i64, token: i64, until: Option<Instant>) -> Result<Option<FencedRead>> {
        let mut lease = self.pool.lease(until).await?;
        if let Some(in_time) = lease.in_time() {
            let set = self.wire.answered(lease.connection()?.batch_execute(&in_time)).await;
            set.map_err(|error| classify(&error))?;
        }
        // X, released at once: each of the two is a transaction.
        let claimed = self.wire.answered(statements::claim!(user_id, token).execute(lease.connection()?)).await;
        let claimed = match claimed {
            Ok(rows) => rows,
            error => return self.ended(lease, error).map(|_| None),
        };
        self.wire.meter.committed(&LockedSince::default());
        let row = self.wire.answered(statements::fenced_state_of(user_id).first(lease.connection()?)).await.optional();
        Ok(self.ended(lease, row)?.map(|row| statements::fenced_read(claimed, row)))
    }

    async fn find(&self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let id = request_id.as_bytes().to_vec();
        let mut lease = self.pool.lease(None).await?;
        let row = self.wire.answered(statements::entry_of(user_id, id).first(lease.connection()?)).await.optional();
        self.ended(lease, row)?.map(statements::entry).transpose()
    }

    async fn outgoing(&self, key: Key) -> Result<Option<Outgoing>> {
        Ok(self.outgoing_rows(&[key]).await?.into_iter().next())
    }

    async fn entries(&self, user_id: i64, after_version: i64, limit: i64) -> Result<Vec<Entry>> {
        let mut lease = self.pool.lease(None).await?;
        let rows = self
            .wire
            .answered(statements::entries_after(user_id, after_version, limit).load(lease.connection()?))
            .await;
        self.ended(lease, rows)?.into_iter().map(statements::entry).collect()
    }

    async fn select(&self, selection: Selection) -> Result<Vec<Entry>> {
        let mut lease = self.pool.lease(None).await?;
        let page = statements::selected!(diesel::mysql::Mysql, selection);
        let rows = self.wire.answered(page.load(lease.connection()?)).await;
        self.ended(lease, rows)?.into_iter().map(statements::entry).collect()
    }

    async fn entries_of_accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<Entry>> {
        let mut lease = self.pool.lease(None).await?;
        let page = statements::entries_of_accounts(after_user_id, limit);
        let rows = self.wire.answered(page.load(lease.connection()?)).await;
        self.ended(lease, rows)?.into_iter().map(statements::entry).collect()
    }

    async fn records(&self, after: (i64, i64), limit: i64) -> Result<Vec<Record>> {
        let mut lease = self.pool.lease(None).await?;
        let rows = self.wire.answered(chained::Records::new(after, limit).load(lease.connection()?)).await;
        self.ended(lease, rows)?.into_iter().map(statements::record).collect()
    }

    async fn snapshot(&self, user_id: i64) -> Result<State> {
        let mut lease = self.pool.lease(None).await?;
        let row = self.wire.answered(statements::newest_snapshot(user_id).first(lease.connection()?)).await.optional();
        Ok(self.ended(lease, row)?.map_or(State::NONE, statements::state))
    }

    async fn keyspace(&self) -> Result<String> {
        let mut lease = self.pool.lease(None).await?;
        let row = self.wire.answered(statements::keyspace().first(lease.connection()?)).await;
        self.ended(lease, row)
    }

    async fn filter(&self) -> Result<Filter> {
        let mut lease = self.pool.lease(None).await?;
        let row = self.wire.answered(statements::filter().first(lease.connection()?)).await;
        Filter::from_row(self.ended(lease, row)?)
    }

    async fn turn_filter(&self, from: Filter, to: Filter) -> Result<Matched> {
        let mut lease = self.pool.lease(None).await?;
        let briefly = self.wire.answered(lease.connection()?.batch_execute(text::WAIT_BRIEFLY)).await;
        briefly.map_err(|error| classify(&error))?;
        // X, released at once: it is a transaction.
        let rows = self.wire.answered(statements::move_filter!(from, to).execute(lease.connection()?)).await;
        if rows.is_ok() {
            self.wire.meter.committed(&LockedSince::default());
        }
        // A link that may still wait only briefly is not given back.
        let as_before = self.wire.answered(lease.connection()?.batch_execute(text::WAIT_AS_BEFORE)).await;
        self.ended(lease, as_before)?;
        rows.map(Matched::from_rows).map_err(|error| classify(&error))
    }

    async fn account_ids(&self, after: i64, limit: i64) -> Result<Vec<i64>> {
        let mut lease = self.pool.lease(None).await?;
        let rows = self.wire.answered(statements::account_ids(after, limit).load(lease.connection()?)).await;
        self.ended(lease, rows)
    }

    async fn accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<(i64, State)>> {
        let mut lease = self.pool.lease(None).await?;
        let rows = self.wire.answered(statements::accounts_after(after_user_id, limit).load(lease.connection()?)).await;
        Ok(self.ended(lease, rows)?.into_iter().map(statements::account).collect())
    }

    fn transaction(&self, isolation: Isolation, until: Option<Instant>) -> Box<dyn Transaction> {
        Box::new(MysqlTransaction::new(self.pool.clone(), Arc::clone(&self.wire), self.chaining, isolation, until))
    }

    fn transaction_apart(&self, isolation: Isolation) -> Box<dyn Transaction> {
        Box::new(MysqlTransaction::new(self.apart.clone(), Arc::clone(&self.wire), self.chaining, isolation, None))
    }

    fn settlement(&self) -> Box<dyn Transaction> {
        self.transaction(Isolation::ReadCommitted, None)
    }

    fn pool(&self) -> PoolState {
        let (pool, apart) = (self.pool.state(), self.apart.state());
        PoolState {
            max: pool.max + apart.max,
            open: pool.open + apart.open,
            in_use: pool.in_use + apart.in_use,
            waiting: pool.waiting + apart.waiting,
        }
    }

    fn work(&self) -> Work {
        self.wire.meter.work()
    }

    async fn lock_waits(&self) -> Result<LockWaits> {
        // All of these are live; information_schema.innodb_trx is cached and would hide short waits. A transaction waits
        // for one lock at a time.
        if self.flavour == Flavour::MariaDb
            && let Some(in_database) = self.waits_in_status().await?
        {
            return Ok(LockWaits { here: 0, in_database });
        }
        let sql = match self.flavour {
            // The whole server's, and whoever has been granted its lock counts until it runs again.
            Flavour::MariaDb => {
                "SELECT VARIABLE_VALUE AS value FROM information_schema.GLOBAL_STATUS \
                 WHERE VARIABLE_NAME = 'INNODB_ROW_LOCK_CURRENT_WAITS'"
            }
            Flavour::MySql => {
                "SELECT CAST(COUNT(*) AS CHAR) AS value FROM performance_schema.data_locks \
                 WHERE LOCK_STATUS = 'WAITING' AND OBJECT_SCHEMA = DATABASE()"
            }
        };
        Ok(LockWaits { here: 0, in_database: self.count(sql).await? })
    }

    async fn links(&self) -> Result<Option<u64>> {
        let sql = match self.flavour {
            Flavour::MariaDb => {
                "SELECT CAST(COUNT(*) AS CHAR) AS value FROM information_schema.PROCESSLIST WHERE DB = DATABASE()"
            }
            // MySQL's PROCESSLIST shows what each link runs, and fails where that has bytes that are no text, as ids have.
            Flavour::MySql => {
                "SELECT CAST(COUNT(*) AS CHAR) AS value FROM performance_schema.threads \
                 WHERE PROCESSLIST_DB = DATABASE() AND TYPE = 'FOREGROUND'"
            }
        };
        self.count(sql).await.map(Some)
    }

    async fn ping(&self) -> Result<()> {
        let mut lease = self.pool.lease(None).await?;
        let answer = self.wire.answered(lease.connection()?.batch_execute("DO 0")).await;
        self.ended(lease, answer)
    }
}
