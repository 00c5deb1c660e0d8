//! The way to Redis: connected when it is first needed, bounded in time, and left alone for a moment after a failure, so
//! that a Redis that is slow or gone does not make every call wait for it. Knows no key and no script.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{
    Client, ErrorKind, IntoConnectionInfo, RedisResult, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};

use super::figures::Counters;

/// How long Redis is left alone after a failure. One call then tries again, and the others wait for what it finds out.
pub(super) const REST: Duration = Duration::from_millis(100);

/// How long a new connection may take to come about; whoever needs it waits only as long as its own limit.
const CONNECT: Duration = Duration::from_secs(2);

/// When a link that swallows what is sent is given up, and another is made.
#[cfg(target_os = "linux")]
const SILENCE: Duration = Duration::from_secs(5);

/// Who calls. A connection belongs to the thread that it was made on, and the committers have one of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// The callers' threads.
    Shared,
    /// The committers'.
    Apart,
}

/// A connection, once it was needed.
type Slot = Mutex<Option<ConnectionManager>>;

/// The way to one Redis server.
pub(super) struct Link {
    client: Client,
    shared: Slot,
    apart: Slot,
    /// How long a call may take, connecting included.
    pub(super) wait: Duration,
    health: Mutex<Health>,
    counters: Arc<Counters>,
}

/// What is known of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Up,
    /// It failed, and is left alone until then.
    Resting(Instant),
    /// It failed, and somebody is trying again.
    Probed,
}

/// One that tries again. Dropped without having found out, it lets another one try.
struct Probe<'a>(&'a Link);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        let mut health = self.0.health();
        if *health == Health::Probed {
            *health = Health::Resting(Instant::now());
        }
    }
}

impl Link {
    /// The way to the server at `url`; nothing is connected yet.
    ///
    /// # Errors
    /// The driver's, when it cannot read the URL.
    pub(super) fn new(url: &str, wait: Duration, counters: Arc<Counters>) -> RedisResult<Self> {
        // Each call is one small message that somebody waits for.
        let settings = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let settings = settings.set_user_timeout(SILENCE);
        let info = url.into_connection_info()?.set_tcp_settings(settings);
        Ok(Self {
            client: Client::open(info)?,
            shared: Slot::default(),
            apart: Slot::default(),
            wait,
            health: Mutex::new(Health::Up),
            counters,
        })
    }

    /// Makes a call within `limit`. `None`: it failed, or was not made because another had just failed; it may yet arrive.
    pub(super) async fn call<T, F>(
        &self,
        lane: Lane,
        operation: &'static str,
        limit: Duration,
        call: impl FnOnce(ConnectionManager) -> F,
    ) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Ok(_probe) = self.admit() else {
            self.counters.failed(operation);
            return None;
        };
        let answer = tokio::time::timeout(limit, async { call(self.connection(lane)?).await });
        let reason = match answer.await {
            Ok(Ok(value)) => {
                *self.health() = Health::Up;
                return Some(value);
            }
            Ok(Err(error)) => {
                // A fail-over can move the address and leave our link with what has become a replica.
                if matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)) {
                    *self.slot(lane) = None;
                }
                error.to_string()
            }
            Err(_) => format!("no answer within {limit:?}"),
        };
        *self.health() = Health::Resting(Instant::now() + REST);
        self.counters.failed(operation);
        tracing::debug!(operation, "Redis failed the cache: {reason}");
        None
    }

    /// Whether a call may be made now; after a failure, by one at a time.
    fn admit(&self) -> Result<Option<Probe<'_>>, ()> {
        let mut health = self.health();
        match *health {
            Health::Up => Ok(None),
            Health::Resting(until) if until <= Instant::now() => {
                *health = Health::Probed;
                Ok(Some(Probe(self)))
            }
            Health::Resting(_) | Health::Probed => Err(()),
        }
    }

    fn connection(&self, lane: Lane) -> RedisResult<ConnectionManager> {
        let mut slot = self.slot(lane);
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        // It tries again by itself only when it is called, and how often that is, is decided here.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(None);
        let connection = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(slot.insert(connection).clone())
    }

    fn slot(&self, lane: Lane) -> MutexGuard<'_, Option<ConnectionManager>> {
        let slot = match lane {
            Lane::Shared => &self.shared,
            Lane::Apart => &self.apart,
        };
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
