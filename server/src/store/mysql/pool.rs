//! Connections to MySQL and MariaDB: how a session is set up, and why no caller can ever get another's answer.
//!
//! A query future that is dropped in mid-flight leaves its answer unread on the wire; the next user of that connection
//! would take it for its own. tonic drops handlers whenever a caller cancels, so this does happen. Here a connection is
//! *dirty* from the moment it is checked out until its user says that its work is known to be complete; the pool
//! discards what comes back dirty. Forgetting to say so costs a reconnect, never a wrong answer.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, Manager, Metrics, Object, PoolError, RecycleError, RecycleResult, TimeoutType, Timeouts},
};
use diesel_async::{AsyncMysqlConnection, SimpleAsyncConnection};
use mysql_async::{Conn, Opts, OptsBuilder};

use super::super::{Error, PoolState, Result};

/// A silent link is asked whether it is still there this often: a host that died says nothing.
const KEEP_ALIVE_MS: u32 = 30_000;

/// One link to the database.
pub(super) struct Link {
    connection: AsyncMysqlConnection,
    generation: u64,
    dirty: bool,
    /// How long it waits for a row lock, seconds.
    lock_wait_s: u64,
}

/// Makes links and judges them.
pub(super) struct Connector {
    opts: Opts,
    session: String,
    lock_wait_s: u64,
    /// Raised whenever a link is found lost: after a restart of the database every older link is dead too, and is
    /// thrown away at check-out instead of failing one call each.
    generation: AtomicU64,
}

/// A pool of links.
#[derive(Clone)]
pub(super) struct Pool {
    links: managed::Pool<Connector>,
    wait: Duration,
    lock_wait_s: u64,
}

/// A link checked out for one piece of work.
pub(super) struct Lease {
    /// Empty only while being dropped.
    link: Option<Object<Connector>>,
    /// How long its user wants to wait for a row lock, seconds.
    lock_wait_s: u64,
}

/// The bounds of a pool and its sessions.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most links at a time.
    pub pool_size: u32,
    /// How long a caller waits for a free link, and a new link for the database's greeting.
    pub pool_wait: Duration,
    /// How long a statement waits for a row lock; the database counts whole seconds.
    pub lock_wait: Duration,
}

impl Limits {
    fn lock_wait_s(&self) -> u64 {
        self.lock_wait.as_secs().max(1)
    }
}

impl Connector {
    fn new(opts: Opts, limits: &Limits) -> Self {
        // Affected rows are matched rows, as Diesel expects. A socket found by the driver on its own would go around
        // whatever address the operator gave. Diesel caches statements; the driver's cache would be a second one.
        let opts = OptsBuilder::from_opts(opts)
            .client_found_rows(true)
            .prefer_socket(false)
            .stmt_cache_size(0)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEP_ALIVE_MS))
            .into();
        // What a server's own configuration could change under us is pinned: isolation, the wait for row locks and for
        // metadata locks (a year by default), when transactions end, the language of the messages that `classify` reads,
        // and that out-of-range values are errors.
        let lock_wait_s = limits.lock_wait_s();
        let session = format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SET SESSION innodb_lock_wait_timeout = {0}, lock_wait_timeout = {0}, autocommit = 1, \
             completion_type = 'NO_CHAIN', lc_messages = 'en_US', \
             sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
            lock_wait_s
        );
        Self { opts, session, lock_wait_s, generation: AtomicU64::default() }
    }

    async fn establish(&self) -> Result<AsyncMysqlConnection> {
        let down = |error: &dyn std::fmt::Display| {
            let address = format!("{}:{}", self.opts.ip_or_hostname(), self.opts.tcp_port());
            // The driver says this twice over.
            let text = error.to_string().replace("Input/output error: ", "");
            let hint =
                if text.contains("Unknown database") { "; create it, or name another in --database-url" } else { "" };
            Error::Down(format!("no connection to {address}: {text}{hint}"))
        };
        let link = Conn::new(self.opts.clone()).await.map_err(|error| down(&error))?;
        let mut connection = AsyncMysqlConnection::try_from(link).await.map_err(|error| down(&error))?;
        connection.batch_execute(&self.session).await.map_err(|error| down(&error))?;
        // Only newer MariaDB has it. Off makes both engines read alike: we say in each statement what it locks.
        let _ = connection.batch_execute("SET SESSION innodb_snapshot_isolation = OFF").await;
        Ok(connection)
    }
}

impl Manager for Connector {
    type Type = Link;
    type Error = Error;

    async fn create(&self) -> Result<Link> {
        // Before connecting: a loss noticed meanwhile makes this link an old one too, which costs a reconnect at worst.
        let generation = self.generation.load(Ordering::Acquire);
        Ok(Link { connection: self.establish().await?, generation, dirty: false, lock_wait_s: self.lock_wait_s })
    }

    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<Error> {
        if link.dirty {
            return Err(RecycleError::message("its last user did not finish"));
        }
        if link.generation < self.generation.load(Ordering::Acquire) {
            return Err(RecycleError::message("made before the database was last lost"));
        }
        Ok(())
    }
}

impl Pool {
    /// A pool that connects when it is first needed.
    ///
    /// # Errors
    /// [`Error::Unexpected`]: the pool refuses its bounds.
    pub(super) fn new(opts: Opts, limits: &Limits) -> Result<Self> {
        let links = managed::Pool::builder(Connector::new(opts, limits))
            .max_size(limits.pool_size as usize)
            .wait_timeout(Some(limits.pool_wait))
            .create_timeout(Some(limits.pool_wait))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Unexpected(error.to_string()))?;
        Ok(Self { links, wait: limits.pool_wait, lock_wait_s: limits.lock_wait_s() })
    }

    /// Checks a link out, dirty until [`Lease::done`], for someone who waits until then.
    ///
    /// # Errors
    /// [`Error::Down`] when no connection can be made, [`Error::Exhausted`] when none comes free in time.
    pub(super) async fn lease(&self, until: Option<Instant>) -> Result<Lease> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = left.map_or(self.wait, |left| left.min(self.wait));
        let timeouts = Timeouts { wait: Some(wait), ..self.links.timeouts() };
        let mut link = self.links.timeout_get(&timeouts).await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => {
                Error::Exhausted(format!("every database connection was in use for {wait:?}"))
            }
            PoolError::Timeout(_) => Error::Down(format!("the database did not answer within {:?}", self.wait)),
            other => Error::Unexpected(other.to_string()),
        })?;
        link.dirty = true;
        // The database counts whole seconds; a last one that has begun is waited for.
        let left_s = left.map_or(u64::MAX, |left| left.as_secs() + 1);
        Ok(Lease { link: Some(link), lock_wait_s: left_s.min(self.lock_wait_s) })
    }

    /// A connection outside the pool.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub(super) async fn dedicated(&self) -> Result<AsyncMysqlConnection> {
        let established = tokio::time::timeout(self.wait, self.links.manager().establish()).await;
        established.unwrap_or_else(|_| Err(Error::Down(format!("the database did not answer within {:?}", self.wait))))
    }

    /// How the links are used.
    pub(super) fn state(&self) -> PoolState {
        let status = self.links.status();
        let in_use = status.size.saturating_sub(status.available);
        PoolState { max: status.max_size, open: status.size, in_use, waiting: status.waiting }
    }

    /// Throws away a link that was found lost, and with it those that were made before: they are not handed out again.
    pub(super) fn lost(&self, lease: &Lease) {
        if let Some(link) = &lease.link {
            self.links.manager().generation.fetch_max(link.generation + 1, Ordering::AcqRel);
        }
    }
}

impl Lease {
    /// The connection.
    ///
    /// # Errors
    /// None in practice: a lease has its link until it is dropped.
    pub(super) fn connection(&mut self) -> Result<&mut AsyncMysqlConnection> {
        self.link.as_mut().map(|link| &mut link.connection).ok_or_else(|| Error::Unexpected("no link".to_owned()))
    }

    /// What it takes that this link waits for locks no longer than its user does; nothing where it is set so already.
    pub(super) fn in_time(&mut self) -> Option<String> {
        let link = self.link.as_mut().filter(|link| link.lock_wait_s != self.lock_wait_s)?;
        link.lock_wait_s = self.lock_wait_s;
        Some(format!("SET SESSION innodb_lock_wait_timeout = {}", self.lock_wait_s))
    }

    /// The statement that begins, with [`Self::in_time`]: riding along it costs no round trip.
    pub(super) fn beginning<'a>(&mut self, begin: &'a str) -> Cow<'a, str> {
        self.in_time().map_or(begin.into(), |in_time| format!("{in_time}; {begin}").into())
    }

    /// Gives the link back: every answer has been read and no transaction is open.
    pub(super) fn done(mut self) {
        if let Some(link) = &mut self.link {
            link.dirty = false;
        }
    }
}

impl Drop for Lease {
    /// A link that is still dirty is closed here and not only when it would next be checked out: until then its
    /// transaction would keep its locks.
    fn drop(&mut self) {
        if let Some(link) = self.link.take_if(|link| link.dirty) {
            drop(Object::take(link));
        }
    }
}
