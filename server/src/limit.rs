//! How much the service takes on: calls at a time, calls a second, and changes a second of one account. What is too much
//! is refused before anything is touched, and never queued: under overload a queue only makes everybody late.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};
use moka::future::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, RateOf};

/// The most accounts whose rate is remembered, about 200 bytes each. Beyond it the least used are forgotten, and may burst
/// once more.
const ACCOUNTS_MOST: u64 = 1 << 16;

/// What the limit of calls at a time is called in metrics.
const ROOM: &str = "concurrency";

/// The most streams that watch or follow a journal. Each is fed every event as it comes; one that keeps up with a busy server
/// costs it a fifth of a core.
const WATCHERS_MOST: usize = 64;

/// The most streams of health and reflection, some 7 kB each: they ask for no token. A balancer watches each server by one.
const STRANGERS_MOST: usize = 256;

/// So many a second for ever, and so many at once after a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What is refilled each second.
    pub per_second: NonZeroU32,
    /// What there is when nothing has been taken for long.
    pub burst: NonZeroU32,
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Calls at a time.
    pub max_concurrent: u32,
    /// Calls a second; `None`: any number.
    pub rate: Option<Rate>,
    /// Changes a second of one account; `None`: any number.
    pub account_rate: Option<Rate>,
}

/// What is left of it.
pub struct Limits {
    bounds: Bounds,
    calls: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    rate: Option<Bucket>,
    accounts: Option<Accounts>,
    refused_for_room: AtomicU64,
}

/// Room for one call, or one stream, until dropped.
pub struct Room(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// How the limits are used right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What is allowed.
    pub bounds: Bounds,
    /// Calls under way.
    pub concurrent: u32,
    /// What the bucket of all calls held when a call last took from it; `None` where there is none.
    pub tokens: Option<u32>,
    /// What was refused since the server was started.
    pub refused: Refusals,
}

/// Calls refused, by the limit that refused them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// No room for another call.
    pub room: u64,
    /// Too many calls a second.
    pub rate: u64,
    /// Too many changes a second of one account.
    pub account_rate: u64,
}

impl Limits {
    /// Nothing is used up yet.
    pub fn new(bounds: Bounds) -> Self {
        // Told as none from the start: of a counter that appears with its first refusal nobody sees that it has grown.
        for limit in [ROOM, RateOf::Server.name(), RateOf::Account.name()] {
            refusals(limit).increment(0);
        }
        Self {
            bounds,
            calls: Arc::new(Semaphore::new(bounds.max_concurrent as usize)),
            watchers: Arc::new(Semaphore::new(WATCHERS_MOST)),
            strangers: Arc::new(Semaphore::new(STRANGERS_MOST)),
            rate: bounds.rate.map(|rate| Bucket::new(RateOf::Server, rate, Arc::default())),
            accounts: bounds.account_rate.map(Accounts::new),
            refused_for_room: AtomicU64::new(0),
        }
    }

    /// Room for a call, if there is any.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub fn enter(&self) -> Result<Room, Error> {
        Arc::clone(&self.calls).try_acquire_owned().map(Room).map_err(|_| {
            refused(ROOM, &self.refused_for_room);
            let most = self.bounds.max_concurrent;
            Error::Overloaded(format!("{most} calls are under way already (--max-concurrent)"))
        })
    }

    /// Room for a stream that watches, if there is any.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub fn watch(&self) -> Result<Room, Error> {
        let room = Arc::clone(&self.watchers).try_acquire_owned().map(Room);
        room.map_err(|_| Error::Overloaded(format!("{WATCHERS_MOST} streams are watching already")))
    }

    /// Room for a stream of health or reflection, if there is any.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub fn watch_from_outside(&self) -> Result<Room, Error> {
        let room = Arc::clone(&self.strangers).try_acquire_owned().map(Room);
        room.map_err(|_| {
            Error::Overloaded(format!("{STRANGERS_MOST} streams of health or reflection are open already"))
        })
    }

    /// Takes a token of the bucket of all calls.
    ///
    /// # Errors
    /// [`Error::RateLimited`].
    pub fn call(&self) -> Result<(), Error> {
        self.rate.as_ref().map_or(Ok(()), Bucket::take)
    }

    /// Takes a token of an account's bucket.
    ///
    /// # Errors
    /// [`Error::RateLimited`].
    pub async fn change_of(&self, user_id: i64) -> Result<(), Error> {
        match &self.accounts {
            Some(accounts) => accounts.take(user_id).await,
            None => Ok(()),
        }
    }

    /// How they are used.
    pub fn fill(&self) -> Fill {
        let free = u32::try_from(self.calls.available_permits()).unwrap_or(u32::MAX);
        let count = |refused: &AtomicU64| refused.load(Ordering::Relaxed);
        Fill {
            bounds: self.bounds,
            concurrent: self.bounds.max_concurrent.saturating_sub(free),
            tokens: self.rate.as_ref().map(|bucket| bucket.left.load(Ordering::Relaxed)),
            refused: Refusals {
                room: count(&self.refused_for_room),
                rate: self.rate.as_ref().map_or(0, |bucket| count(&bucket.refused)),
                account_rate: self.accounts.as_ref().map_or(0, |accounts| count(&accounts.refused)),
            },
        }
    }
}

/// A token bucket.
struct Bucket {
    of: RateOf,
    rate: Rate,
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>,
    left: AtomicU32,
    /// Shared by the buckets of all accounts.
    refused: Arc<AtomicU64>,
}

impl Bucket {
    fn new(of: RateOf, rate: Rate, refused: Arc<AtomicU64>) -> Self {
        let limiter = RateLimiter::direct(Quota::per_second(rate.per_second).allow_burst(rate.burst));
        Self { of, rate, limiter: limiter.with_middleware(), left: AtomicU32::new(rate.burst.get()), refused }
    }

    fn take(&self) -> Result<(), Error> {
        match self.limiter.check() {
            Ok(snapshot) => {
                self.left.store(snapshot.remaining_burst_capacity(), Ordering::Relaxed);
                Ok(())
            }
            Err(not_until) => {
                self.left.store(0, Ordering::Relaxed);
                refused(self.of.name(), &self.refused);
                let retry_after = not_until.wait_time_from(DefaultClock::default().now());
                Err(Error::RateLimited { of: self.of, rate: self.rate, retry_after })
            }
        }
    }
}

/// A bucket for each account that was changed of late.
struct Accounts {
    rate: Rate,
    buckets: Cache<i64, Arc<Bucket>>,
    refused: Arc<AtomicU64>,
}

impl Accounts {
    fn new(rate: Rate) -> Self {
        // Untouched for so long a bucket is full again: forgetting it changes nothing.
        let refilled = Duration::from_secs(u64::from(rate.burst.get().div_ceil(rate.per_second.get())));
        let buckets = Cache::builder().max_capacity(ACCOUNTS_MOST).time_to_idle(refilled).build();
        Self { rate, buckets, refused: Arc::default() }
    }

    async fn take(&self, user_id: i64) -> Result<(), Error> {
        let new = async { Arc::new(Bucket::new(RateOf::Account, self.rate, Arc::clone(&self.refused))) };
        self.buckets.get_with(user_id, new).await.take()
    }
}

fn refused(limit: &'static str, count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
    refusals(limit).increment(1);
}

fn refusals(limit: &'static str) -> metrics::Counter {
    metrics::counter!("limiter_refused_total", "limit" => limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refilled so slowly that no test sees it.
    const RATE: Option<Rate> =
        Some(Rate { per_second: NonZeroU32::new(1).unwrap(), burst: NonZeroU32::new(3).unwrap() });

    fn limits(rate: Option<Rate>, account_rate: Option<Rate>) -> Limits {
        Limits::new(Bounds { max_concurrent: 2, rate, account_rate })
    }

    #[test]
    fn a_burst_passes_and_the_next_is_told_when_to_come() {
        let limits = limits(RATE, None);
        assert!((0..3).all(|_| limits.call().is_ok()));
        assert_eq!(limits.fill().tokens, Some(0));
        let Err(Error::RateLimited { of: RateOf::Server, retry_after, .. }) = limits.call() else { panic!("a fourth") };
        assert_eq!(limits.fill().refused, Refusals { rate: 1, ..Refusals::default() });
        assert!(!retry_after.is_zero() && retry_after <= Duration::from_secs(1), "{retry_after:?}");
    }

    #[tokio::test]
    async fn accounts_do_not_pay_for_each_other() {
        let limits = limits(None, RATE);
        for _ in 0..3 {
            limits.change_of(1).await.unwrap();
        }
        assert!(matches!(limits.change_of(1).await, Err(Error::RateLimited { of: RateOf::Account, .. })));
        limits.change_of(2).await.unwrap();
        limits.call().unwrap();
        assert_eq!(limits.fill().refused, Refusals { account_rate: 1, ..Refusals::default() });
    }

    #[tokio::test]
    async fn the_accounts_remembered_are_bounded() {
        let limits = limits(None, RATE);
        for user_id in 0..2 * ACCOUNTS_MOST.cast_signed() {
            limits.change_of(user_id).await.unwrap();
        }
        let buckets = &limits.accounts.as_ref().unwrap().buckets;
        buckets.run_pending_tasks().await;
        assert!(buckets.entry_count() <= ACCOUNTS_MOST, "{}", buckets.entry_count());
    }

    #[test]
    fn room_comes_back() {
        let limits = limits(None, None);
        let room = (limits.enter().unwrap(), limits.enter().unwrap());
        assert!(matches!(limits.enter(), Err(Error::Overloaded(_))));
        let Fill { concurrent, refused, .. } = limits.fill();
        assert_eq!((concurrent, refused.room), (2, 1));
        drop(room);
        limits.enter().unwrap();
    }
}
