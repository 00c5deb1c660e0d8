//! Accounts that were written while Redis could not be told. What it still holds of them is older, so they are told as
//! soon as it answers again. Bounded: what does not fit is only bounded by the life of a balance, and counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::figures::Counters;

/// The most accounts that are remembered: a Redis that is gone for long is told of these; by then, most of what it held
/// has run out anyway.
const MOST: usize = 100_000;

/// The most that are told at once.
const AT_ONCE: usize = 500;

/// Accounts, each with the version that Redis has to know of.
pub(super) struct Owed {
    versions: Mutex<BTreeMap<i64, i64>>,
    some: Notify,
    counters: Arc<Counters>,
}

impl Owed {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { versions: Mutex::default(), some: Notify::new(), counters }
    }

    /// Remembers that accounts have, or may get, these versions.
    pub(super) fn remember(&self, versions: impl IntoIterator<Item = (i64, i64)>) {
        let mut owed = self.lock();
        for (user_id, version) in versions {
            if owed.len() >= MOST && !owed.contains_key(&user_id) {
                self.counters.forgotten();
                continue;
            }
            let newest = owed.entry(user_id).or_insert(version);
            *newest = version.max(*newest);
        }
        self.counters.owed(owed.len());
        drop(owed);
        self.some.notify_one();
    }

    /// Whether Redis may hold something older of an account than was written here.
    pub(super) fn contains(&self, user_id: i64) -> bool {
        self.lock().contains_key(&user_id)
    }

    /// Some of them, when there are any.
    pub(super) async fn some(&self) -> BTreeMap<i64, i64> {
        loop {
            let some: BTreeMap<i64, i64> =
                self.lock().iter().take(AT_ONCE).map(|(id, version)| (*id, *version)).collect();
            if !some.is_empty() {
                return some;
            }
            self.some.notified().await;
        }
    }

    /// Redis was told; what has been written meanwhile is still owed.
    pub(super) fn told(&self, versions: &BTreeMap<i64, i64>) {
        let mut owed = self.lock();
        owed.retain(|user_id, version| versions.get(user_id).is_none_or(|told| told < version));
        self.counters.owed(owed.len());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, i64>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
