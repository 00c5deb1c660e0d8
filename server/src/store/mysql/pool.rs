//! Connections to MySQL and MariaDB: how a session is set up, and why no caller can ever get another's answer.
//!
//! A query future that is dropped in mid-flight leaves its answer unread on the wire; the next user of that connection
//! would take it for its own. tonic drops handlers whenever a caller cancels, so this does happen. Here a connection is
//! *dirty* from the moment it is checked out until its user says that its work is known to be complete; the pool
//! discards what comes back dirty. Forgetting to say so costs a reconnect, never a wrong answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bb8::{ManageConnection, PooledConnection, RunError};
use diesel_async::{AsyncMysqlConnection, SimpleAsyncConnection};
use mysql_async::{Conn, Opts, OptsBuilder};
use tokio::sync::watch;

use super::super::{Error, Result};

/// One link to the database.
pub(super) struct Link {
    connection: AsyncMysqlConnection,
    generation: u64,
    dirty: bool,
}

/// Makes links and judges them.
pub(super) struct Connector {
    opts: Opts,
    session: String,
    connect_timeout: Duration,
    /// Raised whenever a link is found lost: after a restart of the database every older link is dead too, and is
    /// thrown away at check-out instead of failing one call each.
    generation: Arc<AtomicU64>,
    /// Why the last attempt to connect failed. bb8 keeps such failures from those who wait for a link.
    failure: watch::Sender<String>,
}

/// A pool of links.
#[derive(Clone)]
pub(super) struct Pool {
    links: bb8::Pool<Connector>,
    generation: Arc<AtomicU64>,
    failure: watch::Receiver<String>,
}

/// A link checked out for one piece of work.
pub(super) struct Lease {
    link: PooledConnection<'static, Connector>,
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

impl Connector {
    fn new(opts: Opts, limits: &Limits) -> Self {
        // Affected rows are matched rows, as Diesel expects. A socket found by the driver on its own would go around
        // whatever address the operator gave. Diesel caches statements; the driver's cache would be a second one.
        let opts = OptsBuilder::from_opts(opts)
            .client_found_rows(true)
            .prefer_socket(false)
            .stmt_cache_size(0)
            .tcp_nodelay(true)
            .into();
        // Everything a server's own configuration could change under us is pinned: isolation, the wait for locks, the
        // language of the messages that `classify` reads, and that out-of-range values are errors.
        let session = format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SET SESSION innodb_lock_wait_timeout = {}, lc_messages = 'en_US', \
             sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')",
            limits.lock_wait.as_secs().max(1)
        );
        let (generation, failure) = (Arc::default(), watch::Sender::default());
        Self { opts, session, connect_timeout: limits.pool_wait, generation, failure }
    }

    async fn establish(&self) -> Result<AsyncMysqlConnection> {
        let down = |error: &dyn std::fmt::Display| {
            let address = format!("{}:{}", self.opts.ip_or_hostname(), self.opts.tcp_port());
            let text = error.to_string();
            let hint = if text.contains("Unknown database") { "; create it first: CREATE DATABASE …" } else { "" };
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

impl ManageConnection for Connector {
    type Connection = Link;
    type Error = Error;

    async fn connect(&self) -> Result<Link> {
        let generation = self.generation.load(Ordering::Acquire);
        let established = tokio::time::timeout(self.connect_timeout, self.establish()).await;
        let connection = established
            .unwrap_or_else(|_| {
                Err(Error::Down(format!("the database did not answer within {:?}", self.connect_timeout)))
            })
            .inspect_err(|error| drop(self.failure.send_replace(error.to_string())))?;
        Ok(Link { connection, generation, dirty: false })
    }

    async fn is_valid(&self, link: &mut Link) -> Result<()> {
        if link.generation < self.generation.load(Ordering::Acquire) {
            return Err(Error::Lost("made before the database was last lost".to_owned()));
        }
        Ok(())
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.dirty
    }
}

impl Pool {
    /// A pool that connects when it is first needed.
    pub(super) fn new(opts: Opts, limits: &Limits) -> Self {
        let connector = Connector::new(opts, limits);
        let (generation, failure) = (Arc::clone(&connector.generation), connector.failure.subscribe());
        let links = bb8::Pool::builder()
            .max_size(limits.pool_size)
            .connection_timeout(limits.pool_wait)
            // No round trip: `is_valid` compares two numbers.
            .test_on_check_out(true)
            // Whoever waits is told of a failure at once; the next caller makes the next attempt.
            .retry_connection(false)
            .build_unchecked(connector);
        Self { links, generation, failure }
    }

    /// Checks a link out, dirty until [`Lease::done`].
    ///
    /// # Errors
    /// [`Error::Down`] when no connection can be made, [`Error::Exhausted`] when none comes free in time.
    pub(super) async fn lease(&self) -> Result<Lease> {
        let mut failure = self.failure.clone();
        failure.mark_unchanged();
        let get = self.links.get_owned();
        tokio::pin!(get);
        let link = loop {
            tokio::select! {
                link = &mut get => break link,
                Ok(()) = failure.changed() => {
                    // While others still have links one of them may come free; without any, waiting is in vain.
                    if self.links.state().connections == 0 {
                        return Err(Error::Down(failure.borrow().clone()));
                    }
                }
            }
        };
        let mut link = link.map_err(|error| match error {
            RunError::User(error) => error,
            RunError::TimedOut => Error::Exhausted("every database connection is in use".to_owned()),
        })?;
        link.dirty = true;
        Ok(Lease { link })
    }

    /// A connection outside the pool.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub(super) async fn dedicated(&self) -> Result<AsyncMysqlConnection> {
        Ok(self.links.dedicated_connection().await?.connection)
    }

    /// Notes that a link was found lost: those made before are not handed out again.
    pub(super) fn lost(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl Lease {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut AsyncMysqlConnection {
        &mut self.link.connection
    }

    /// Gives the link back: every answer has been read and no transaction is open.
    pub(super) fn done(mut self) {
        self.link.dirty = false;
    }
}
