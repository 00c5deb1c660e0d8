//! `redis_lock_fenced`: a lock in Redis whose lease comes with a fencing token, which the database checks.
//!
//! ```text
//!   A: lock, token 33 ─ claim 33, read 100@1 ─ paused beyond its lease ........ write, if 33 is the newest claim: it is not
//!   B:                    the lease runs out: lock, token 34 ─ claim 34, read 100@1 ─ write 90@2
//! ```
//!
//! The lock only spares writers from meeting; it is the token that keeps them apart. It is claimed in the account's row
//! *when reading*, and the write demands that it still is the newest claim. Checked only at the write it would lose money:
//! B (34) reads, A (33) writes, B (34) writes over it, and no check has seen an older token after a newer one. Claimed
//! when reading, the write of A finds 34 in the row; and whatever A wrote before B's claim, B reads.
//!
//! So no writer that takes part ever overwrites another, whatever becomes of leases, clocks or Redis. That is all a fence
//! can do: writers that take no token know nothing of it. Under its row lock the write therefore reads the version it got,
//! and where one of them has come in between, it is rolled back and starts again. A Redis that has lost its memory hands out tokens that the row has seen: then its counter
//! is raised to the row's, and the attempt starts again.
//! Source: fencing tokens, Kleppmann, "How to do distributed locking", 2016.

use async_trait::async_trait;

use super::{
    Conflict, Failure, Guarantee, Guard, Held, Operation, Row, Strategy,
    lease::{self, GuardedLock},
    operation::Written,
};
use crate::{
    account::{Receipt, State},
    store::{self, FencedRead, Isolation, Matched, Transaction},
    timeline::Phase,
};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "redis_lock_fenced",
    guarantee: Guarantee::Always,
    conflict: Conflict::Waits,
    summary: "a lock in Redis whose growing token is claimed in the row when reading and demanded when writing",
    build: |bench| Ok(Box::new(RedisLockFenced(bench.locks.single()?))),
};

struct RedisLockFenced(GuardedLock);

#[async_trait]
impl Strategy for RedisLockFenced {
    // The lease is not asked for again: while nobody has claimed a newer token, the write is as good as it ever was.
    async fn attempt(&self, operation: &Operation, held: &dyn Held) -> Result<Receipt, Failure> {
        let without = || store::Error::Unexpected("the lock came without a fencing token".to_owned());
        let token = held.token().ok_or_else(without)?;
        let seen = operation.phase(Phase::Read, self.claim_and_read(operation, token)).await?;
        let mut transaction = operation.transaction(Isolation::ReadCommitted);
        let written = compute_and_write(operation, &mut *transaction, seen, token).await;
        operation.finish(transaction, written).await
    }

    async fn guard<'a>(&'a self, operation: &Operation) -> Result<Guard<'a>, Failure> {
        lease::acquire(&self.0, operation).await
    }
}

impl RedisLockFenced {
    async fn claim_and_read(&self, operation: &Operation, token: i64) -> Result<State, Failure> {
        let read = operation.bench().store.read_fenced(operation.change.user_id, token, operation.deadline()).await?;
        let FencedRead { claimed, fence, state } = operation.existing(read)?;
        if claimed == Matched::No {
            // Somebody newer was here before us, or Redis counts anew: then this lifts it above what the row has seen.
            self.0.lock.raise_token(fence).await.map_err(lease::failure)?;
            return Err(Failure::Fenced("the account was claimed for a token that is as new"));
        }
        if fence != token {
            return Err(Failure::Fenced("a newer token was claimed before the read"));
        }
        Ok(state)
    }
}

async fn compute_and_write(
    operation: &Operation,
    transaction: &mut dyn Transaction,
    seen: State,
    token: i64,
) -> Result<Written, Failure> {
    let balance = operation.compute(seen).await?;
    let write = async {
        let user_id = operation.change.user_id;
        if transaction.write_if_fence(user_id, balance, token).await? == Matched::No {
            return Err(Failure::Fenced("a newer token was claimed before the write"));
        }
        let write = operation.existing(transaction.overtaken(user_id, seen.version).await?)?;
        if write.version != seen.version + 1 {
            return Err(Failure::Overtaken("a writer that takes no fencing token came in between"));
        }
        operation.journal(transaction, seen.version, balance).await
    };
    operation.phase(Phase::Write, write).await
}
