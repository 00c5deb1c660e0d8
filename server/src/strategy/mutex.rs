//! `mutex`: the unprotected sequence under a lock of this process, one per account.
//!
//! ```text
//!   process 1, A: lock ─ read 100@1 ─ write 90@2 ─ unlock
//!   process 1, B:  wait ............................ lock ─ read 90@2 ─ write 80@3
//!   process 2, C:       lock ─ read 100@1 ──────────── write 90@3                    A is gone
//! ```
//!
//! It prevents lost updates among the operations of one process. It cannot see another process: a second instance, a
//! rolling restart or a hand-written UPDATE loses money again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex as Lock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Conflict, Failure, Guarantee, Operation, Row, Strategy, none};
use crate::{
    account::Receipt,
    timeline::{Phase, Waiting},
};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "mutex",
    guarantee: Guarantee::OneProcess,
    conflict: Conflict::Waits,
    summary: "an in-process lock per account around read, compute and write; blind to every other process",
    build: || Ok(Box::new(ProcessMutex::default())),
};

#[derive(Default)]
struct ProcessMutex {
    /// Accounts with an operation in flight; an entry goes with the last of them, so the map is as large as the work.
    locks: Lock<HashMap<i64, Arc<Mutex<()>>>>,
    waiting: AtomicUsize,
}

impl ProcessMutex {
    fn of(&self, user_id: i64) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(user_id).or_default())
    }

    async fn lock(&self, mutex: Arc<Mutex<()>>) -> Result<OwnedMutexGuard<()>, Failure> {
        match Arc::clone(&mutex).try_lock_owned() {
            Ok(guard) => Ok(guard),
            Err(_) => {
                let _counted = Waiting::begin(&self.waiting);
                Ok(mutex.lock_owned().await)
            }
        }
    }

    /// Drops the account's entry unless another operation holds or awaits it: two references are the map's and ours.
    fn forget(&self, user_id: i64, mutex: Arc<Mutex<()>>) {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&mutex) == 2 {
            locks.remove(&user_id);
        }
    }
}

#[async_trait]
impl Strategy for ProcessMutex {
    async fn attempt(&self, operation: &Operation<'_>) -> Result<Receipt, Failure> {
        let mutex = self.of(operation.change.user_id);
        let guard = operation.phase(Phase::LockWait, self.lock(Arc::clone(&mutex))).await?;
        let receipt = none::read_compute_write(operation).await;
        // Held to the end of the commit: released before it, the next reader would still see the old balance.
        drop(guard);
        self.forget(operation.change.user_id, mutex);
        receipt
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_map_forgets_an_account_with_its_last_operation() {
        let locks = ProcessMutex::default();
        let (first, second) = (locks.of(1), locks.of(1));
        let guard = locks.lock(Arc::clone(&first)).await;
        drop(guard);
        locks.forget(1, first);
        assert_eq!(locks.locks.lock().unwrap().len(), 1, "the second operation still needs it");
        locks.forget(1, second);
        assert!(locks.locks.lock().unwrap().is_empty());
    }
}
