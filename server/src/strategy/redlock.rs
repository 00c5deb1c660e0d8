//! `redlock`: the unprotected sequence under a lock that a majority of independent Redis servers grants.
//!
//! ```text
//!   server 1, A: lock 1 2 3 4 5 ─ read 100@1 ─ write 90@2 ─ unlock everywhere
//!   server 2, B:   has no majority: wait ........................... lock ─ read 90@2 ─ write 80@3
//! ```
//!
//! Beside `redis_lock` it survives the loss of a minority of its servers. It promises no more than that one does: while
//! the lease holds. A paused holder overwrites as before, and what the majority rests on is time as well: where the clock
//! of one server jumps, or one forgets its keys in a restart, two holders can each have a majority.
//! Source: "Distributed Locks with Redis", redis.io; and what is wrong with it: Kleppmann, "How to do distributed
//! locking", 2016: a lock that must be right needs a fencing token that the storage checks, and then one server does.

use async_trait::async_trait;

use super::{
    Conflict, Failure, Guarantee, Guard, Held, Operation, Row, Strategy,
    lease::{self, GuardedLock},
    none,
};
use crate::account::Receipt;

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "redlock",
    guarantee: Guarantee::WhileLeaseHolds,
    conflict: Conflict::Waits,
    summary: "a lock that most of several Redis servers grant; survives some of them, not a pause nor a jumping clock",
    build: |bench| Ok(Box::new(Redlock(bench.locks.redlock()?))),
};

struct Redlock(GuardedLock);

#[async_trait]
impl Strategy for Redlock {
    async fn attempt(&self, operation: &Operation, held: &dyn Held) -> Result<Receipt, Failure> {
        none::read_compute_write(operation, held).await
    }

    async fn guard<'a>(&'a self, operation: &Operation) -> Result<Guard<'a>, Failure> {
        lease::acquire(&self.0, operation).await
    }
}
