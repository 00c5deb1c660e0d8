//! What the strategies that lock in Redis share: the locks, and what a lease is to an attempt. The lock itself, its
//! renewal and its limits are `zbl-lock`'s.

use std::sync::Arc;

use async_trait::async_trait;
use zbl_lock::{Error as LockError, Lease, Lock, Owner};

use super::{Failure, Guard, Held, Operation, operation::Observed};
use crate::{
    breaker::{Breaker, Refused},
    store,
    timeline::Phase,
};

/// The name of the lock on one Redis.
pub const SINGLE: &str = "redis_lock";

/// The name of the lock on several.
pub const REDLOCK: &str = "redlock";

/// The locks that are configured.
#[derive(Clone, Default)]
pub struct Locks {
    /// On one Redis.
    pub single: Option<GuardedLock>,
    /// On several that know nothing of each other.
    pub redlock: Option<GuardedLock>,
}

/// A lock, taken only where its servers answer: the one place where a breaker stands before Redis.
#[derive(Clone)]
pub struct GuardedLock {
    /// The lock.
    pub lock: Lock,
    /// What keeps callers from waiting for servers that are down.
    pub breaker: Arc<Breaker>,
}

impl GuardedLock {
    async fn acquire(&self, key: &str, owner: &Owner) -> Result<Lease, Failure> {
        let leave =
            self.breaker.enter().map_err(|Refused { retry_after }| Failure::LockServerNotAsked { retry_after })?;
        let acquired = self.lock.acquire(key, owner).await;
        match &acquired {
            Err(LockError::Down(_)) => leave.failed(),
            Ok(_) | Err(LockError::Busy { asked: true, .. } | LockError::Lost(_)) => leave.succeeded(),
            // Redis was not asked: that others of this process wait as well says nothing of it.
            Err(_) => drop(leave),
        }
        acquired.map_err(failure)
    }
}

impl Locks {
    /// The lock on one Redis, or what is missing.
    pub(super) fn single(&self) -> Result<GuardedLock, String> {
        self.single.clone().ok_or_else(|| "it locks in Redis; start the server with --redis-url".to_owned())
    }

    /// The lock on several, or what is missing.
    pub(super) fn redlock(&self) -> Result<GuardedLock, String> {
        let missing = || "it locks in several Redis servers; start the server with --redlock-urls".to_owned();
        self.redlock.clone().ok_or_else(missing)
    }

    /// Each of them, with the name it has in metrics and status: that of the first strategy that takes it.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Lock)> {
        [(SINGLE, &self.single), (REDLOCK, &self.redlock)]
            .into_iter()
            .filter_map(|(name, lock)| Some((name, &lock.as_ref()?.lock)))
    }

    /// How many operations of this process are kept out by somebody else right now, for the lab.
    ///
    /// # Errors
    /// [`Failure::LockServerDown`].
    pub async fn waiting(&self) -> Result<usize, Failure> {
        let mut waiting = 0;
        for (_, lock) in self.named() {
            waiting += lock.blocked().await.map_err(failure)?;
        }
        Ok(waiting)
    }
}

/// A lease, held for an operation.
struct Leased(Lease);

impl Observed for Lease {}

#[async_trait]
impl Held for Leased {
    fn check(&self) -> Result<(), Failure> {
        self.0.check().map_err(|lost| Failure::LeaseLost(lost.to_string()))
    }

    fn token(&self) -> Option<i64> {
        self.0.token()
    }

    async fn release(self: Box<Self>) {
        // What could not be given back runs out by itself; the change has its outcome by now.
        if let Err(error) = self.0.release().await {
            tracing::debug!("a lock was not given back: {error}");
        }
    }
}

/// Waits for the lock of the operation's account. Two calls under one request id are two owners.
pub(super) async fn acquire(lock: &GuardedLock, operation: &Operation) -> Result<Guard<'static>, Failure> {
    let (key, owner) = (operation.change.user_id.to_string(), Owner::new(operation.change.request_id));
    let lease = operation.phase(Phase::LockWait, lock.acquire(&key, &owner)).await?;
    Ok(Box::new(Leased(lease)))
}

/// What a lock's error is to an attempt.
pub(super) fn failure(error: LockError) -> Failure {
    match error {
        LockError::Down(reason) | LockError::Token(reason) => Failure::LockServerDown(reason),
        LockError::Lost(lost) => Failure::LeaseLost(lost.to_string()),
        error @ (LockError::Busy { .. } | LockError::Crowded { .. }) => Failure::LockHeld(error.to_string()),
        error => Failure::Store(store::Error::Unexpected(error.to_string())),
    }
}
