//! `none`: read, compute, write, with nothing to keep two operations apart.
//!
//! ```text
//!   A: read 100@1 ─────────── write 90@2
//!   B:      read 100@1 ───────────────────── write 90@3     A's 10.00 are gone
//! ```
//!
//! It prevents nothing: B writes what it computed from version 1 over A's version 2 (a lost update, P4 in Berenson et
//! al., "A Critique of ANSI SQL Isolation Levels", 1995). What it cannot do is hide it: the database counts the version
//! and the journal keeps what each write had read.

use async_trait::async_trait;

use super::{Conflict, Failure, Guarantee, Held, Operation, Row, Strategy, operation::Written};
use crate::{
    account::{Receipt, State},
    store::{Isolation, Transaction},
    timeline::Phase,
};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "none",
    guarantee: Guarantee::LosesUpdates,
    conflict: Conflict::Overwrites,
    summary: "reads, computes and writes with no concurrency control; concurrent deductions overwrite each other",
    build: |_| Ok(Box::new(None)),
};

struct None;

#[async_trait]
impl Strategy for None {
    async fn attempt(&self, operation: &Operation, held: &dyn Held) -> Result<Receipt, Failure> {
        read_compute_write(operation, held).await
    }
}

/// The unprotected sequence, which is also right wherever something else lets one operation in at a time. Whether that
/// still holds is asked as late as can be: before the write, and when nothing is left but the commit.
pub(super) async fn read_compute_write(operation: &Operation, held: &dyn Held) -> Result<Receipt, Failure> {
    let seen = operation.read().await?;
    let mut transaction = operation.transaction(Isolation::ReadCommitted);
    let written = compute_and_write(operation, &mut *transaction, seen, held).await;
    operation.finish(transaction, written).await
}

async fn compute_and_write(
    operation: &Operation,
    transaction: &mut dyn Transaction,
    seen: State,
    held: &dyn Held,
) -> Result<Written, Failure> {
    let balance = operation.compute(seen).await?;
    held.check()?;
    let write = async {
        transaction.write(operation.change.user_id, balance).await?;
        let write = transaction.overtaken(operation.change.user_id, seen.version).await?;
        operation.journal_blind(transaction, seen, balance, operation.existing(write)?).await
    };
    let written = operation.phase(Phase::Write, write).await?;
    held.check()?;
    Ok(written)
}
