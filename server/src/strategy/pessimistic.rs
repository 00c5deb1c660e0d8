//! `pessimistic`: lock the row when reading it (SELECT … FOR UPDATE), keep it to the end.
//!
//! ```text
//!   A: read 100@1 (X) ─ write 90@2 ─ commit
//!   B:    read: waits for X ................ 90@2 (X) ─ write 80@3 ─ commit
//! ```
//!
//! It prevents every lost update, with any number of servers: nobody reads to write while another does. It cannot
//! overlap the work on one account: whoever holds the lock makes all others wait, a slow holder most of all.
//! Source: two-phase locking, Eswaran et al., 1976.

use async_trait::async_trait;

use super::{Conflict, Failure, Guarantee, Held, Operation, Row, Strategy, operation::Written};
use crate::{
    account::Receipt,
    store::{Isolation, RowLock, Transaction},
    timeline::Phase,
};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "pessimistic",
    guarantee: Guarantee::Always,
    conflict: Conflict::Waits,
    summary: "locks the row when reading it (SELECT … FOR UPDATE) until the commit; others wait",
    build: |_| Ok(Box::new(Pessimistic)),
};

struct Pessimistic;

#[async_trait]
impl Strategy for Pessimistic {
    async fn attempt(&self, operation: &Operation, _: &dyn Held) -> Result<Receipt, Failure> {
        let mut transaction = operation.transaction(Isolation::ReadCommitted);
        let written = read_and_write(operation, &mut *transaction, RowLock::Exclusive).await;
        operation.finish(transaction, written).await
    }
}

/// Reads under a lock that lasts to the end of the transaction, then writes over exactly what was read.
pub(super) async fn read_and_write(
    operation: &Operation,
    transaction: &mut dyn Transaction,
    lock: RowLock,
) -> Result<Written, Failure> {
    let user_id = operation.change.user_id;
    let read = async { operation.existing(transaction.read(user_id, lock).await?) };
    let seen = operation.phase(Phase::Read, read).await?;
    let balance = operation.compute(seen).await?;
    let write = async {
        transaction.write(user_id, balance).await?;
        operation.journal(transaction, seen.version, balance).await
    };
    operation.phase(Phase::Write, write).await
}
