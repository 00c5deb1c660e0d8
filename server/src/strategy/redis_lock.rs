//! `redis_lock`: the unprotected sequence under a lock in Redis, one per account, held by a lease.
//!
//! ```text
//!   server 1, A: lock ─ read 100@1 ─ write 90@2 ─ unlock
//!   server 2, B:  wait .............................. lock ─ read 90@2 ─ write 80@3
//! ```
//!
//! It keeps any number of servers apart, for as long as no holder outlives its lease. A lease is a promise about time,
//! and a server cannot promise to be on time:
//!
//! ```text
//!   server 1, A: lock ─ read 100@1 ─ (the lease holds) ─ paused .................. commit 90@3     B's change is gone
//!   server 2, B:                       the lease runs out: lock ─ read 100@1 ─ commit 90@2
//! ```
//!
//! The lease is renewed at a third of its length, and an attempt whose renewal failed does not write: it looks before the
//! write and again when nothing is left but the commit. What cannot be closed is the moment after that last look, in
//! which a process can be stopped, or its COMMIT be on its way, for any length of time. Where the outcome of a lost COMMIT
//! stays unknown (OUTCOME_UNKNOWN), the lock is not given back but left to run out, while that commit may still happen. Nor does the lock outlive its
//! Redis: restarted empty, or failed over to a replica that had not heard of it, it is free for the next. `loadgen
//! lockdeath` shows each of these; `redis_lock_fenced` closes them in the database.

use async_trait::async_trait;

use super::{
    Conflict, Failure, Guarantee, Guard, Held, Operation, Row, Strategy,
    lease::{self, GuardedLock},
    none,
};
use crate::account::Receipt;

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "redis_lock",
    guarantee: Guarantee::WhileLeaseHolds,
    conflict: Conflict::Waits,
    summary: "a lock in Redis per account, leased and renewed; whoever is paused beyond its lease overwrites",
    build: |bench| Ok(Box::new(RedisLock(bench.locks.single()?))),
};

struct RedisLock(GuardedLock);

#[async_trait]
impl Strategy for RedisLock {
    async fn attempt(&self, operation: &Operation, held: &dyn Held) -> Result<Receipt, Failure> {
        none::read_compute_write(operation, held).await
    }

    async fn guard<'a>(&'a self, operation: &Operation) -> Result<Guard<'a>, Failure> {
        lease::acquire(&self.0, operation).await
    }
}
