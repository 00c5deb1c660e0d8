//! `mutex`: the unprotected sequence under a lock of this process, one per account.
//!
//! ```text
//!   process 1, A: lock ─ read 100@1 ─ write 90@2 ─ unlock
//!   process 1, B:  wait ............................ lock ─ read 90@2 ─ write 80@3
//!   process 2, C:       lock ─ read 100@1 ──────────── write 90@3                    A is gone
//! ```
//!
//! It prevents lost updates among the operations of one process. It cannot see another process: a second instance, a
//! rolling restart or a hand-written UPDATE loses money again. Nor can it hold for ever: where the outcome of a lost
//! COMMIT stays unknown (OUTCOME_UNKNOWN), the lock is given up while that commit may still happen.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex as Lock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Conflict, Failure, Guarantee, Guard, Held, Operation, Row, Strategy, none};
use crate::{account::Receipt, timeline::Phase, waiting::counted};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "mutex",
    guarantee: Guarantee::OneProcess,
    conflict: Conflict::Waits,
    summary: "an in-process lock per account around read, compute and write; blind to every other process",
    build: |_| Ok(Box::new(ProcessMutex::default())),
};

#[derive(Default)]
struct ProcessMutex {
    /// Accounts with an operation in flight; an entry goes with the last of them, so the map is as large as the work.
    locks: Lock<HashMap<i64, Arc<Mutex<()>>>>,
    waiting: Arc<AtomicUsize>,
}

/// One operation's share in the lock of its account.
struct Share<'a> {
    all: &'a ProcessMutex,
    user_id: i64,
    mutex: Arc<Mutex<()>>,
}

impl ProcessMutex {
    fn share(&self, user_id: i64) -> Share<'_> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Share { all: self, user_id, mutex: Arc::clone(locks.entry(user_id).or_default()) }
    }
}

impl Share<'_> {
    async fn lock(&self) -> Result<OwnedMutexGuard<()>, Failure> {
        Ok(counted(&self.all.waiting, Arc::clone(&self.mutex).lock_owned()).await)
    }
}

impl Drop for Share<'_> {
    /// Drops the account's entry unless another operation shares it: two references are the map's and ours.
    fn drop(&mut self) {
        let mut locks = self.all.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.mutex) == 2 {
            locks.remove(&self.user_id);
        }
    }
}

/// The lock, and after it the share: fields are dropped in their order.
struct Locked<'a> {
    _guard: OwnedMutexGuard<()>,
    _share: Share<'a>,
}

impl Held for Locked<'_> {}

#[async_trait]
impl Strategy for ProcessMutex {
    async fn attempt(&self, operation: &Operation, held: &dyn Held) -> Result<Receipt, Failure> {
        none::read_compute_write(operation, held).await
    }

    async fn guard<'a>(&'a self, operation: &Operation) -> Result<Guard<'a>, Failure> {
        let share = self.share(operation.change.user_id);
        let guard = operation.phase(Phase::LockWait, share.lock()).await?;
        Ok(Box::new(Locked { _guard: guard, _share: share }))
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
        let all = ProcessMutex::default();
        let (first, second) = (all.share(1), all.share(1));
        drop(first.lock().await);
        drop(first);
        assert_eq!(all.locks.lock().unwrap().len(), 1, "the second operation still needs it");
        drop(second);
        assert!(all.locks.lock().unwrap().is_empty());
    }
}
