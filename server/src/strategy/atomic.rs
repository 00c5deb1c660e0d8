//! `atomic`: no read at all; one UPDATE subtracts, checks the balance and moves the version on.
//!
//! ```text
//!   A: write balance - 10 if balance >= 10 (X) ─ commit
//!   B:      write: waits for X ....................... balance - 10 if balance >= 10 (X) ─ commit
//! ```
//!
//! It prevents every lost update, with any number of servers: what it computes from is read under the lock that it
//! writes with. It cannot express a rule that SQL cannot say in that one statement; what goes beyond arithmetic on the
//! row needs another strategy.

use async_trait::async_trait;

use super::{Conflict, Failure, Guarantee, Held, Operation, Row, Strategy, operation::Written};
use crate::{
    account::{Receipt, State},
    store::{Isolation, Matched, RowLock, Transaction},
    timeline::Phase,
};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "atomic",
    guarantee: Guarantee::Always,
    conflict: Conflict::Waits,
    summary: "one UPDATE subtracts and checks the balance; the row lock is held from there to the commit",
    build: |_| Ok(Box::new(Atomic)),
};

struct Atomic;

#[async_trait]
impl Strategy for Atomic {
    async fn attempt(&self, operation: &Operation, _: &dyn Held) -> Result<Receipt, Failure> {
        let mut transaction = operation.transaction(Isolation::ReadCommitted);
        let written = operation.phase(Phase::Write, write(operation, &mut *transaction)).await;
        operation.finish(transaction, written).await
    }
}

async fn write(operation: &Operation, transaction: &mut dyn Transaction) -> Result<Written, Failure> {
    let change = &operation.change;
    let matched = transaction.add_within(change.user_id, change.delta(), change.applicable()).await?;
    // Under our own X where it matched. Where it did not, this read only tells which rule refused.
    let State { balance, version } = operation.existing(transaction.read(change.user_id, RowLock::None).await?)?;
    match matched {
        Matched::Yes => operation.journal(transaction, version - 1, balance).await,
        Matched::No => Err(operation.unmatched(balance)),
    }
}
