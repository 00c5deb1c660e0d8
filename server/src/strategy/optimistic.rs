//! `optimistic`: read without a lock, write only if the version still is what was read (compare and set).
//!
//! ```text
//!   A: read 100@1 ─────────── write 90@2 if @1: 1 row
//!   B:      read 100@1 ───────────────────── write 90 if @1: 0 rows ─ again: read 90@2 ─ write 80@3 if @2
//! ```
//!
//! It prevents every lost update, with any number of servers: the check and the write are one statement, and the
//! version never goes back. It cannot make progress for all at once: of many writers of one account one succeeds per
//! round and the rest try again, so a hot account wastes work and may answer CONTENDED.
//! Source: Kung and Robinson, "On Optimistic Methods for Concurrency Control", 1981.

use async_trait::async_trait;

use super::{Conflict, Failure, Guarantee, Held, Operation, Row, Strategy, operation::Written};
use crate::{
    account::{Receipt, State},
    store::{Isolation, Matched, Transaction},
    timeline::Phase,
};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "optimistic",
    guarantee: Guarantee::Always,
    conflict: Conflict::Retries,
    summary: "reads without a lock and writes only if the version is unchanged; the loser reads again",
    build: |_| Ok(Box::new(Optimistic)),
};

struct Optimistic;

#[async_trait]
impl Strategy for Optimistic {
    async fn attempt(&self, operation: &Operation, _: &dyn Held) -> Result<Receipt, Failure> {
        let seen = operation.read().await?;
        let mut transaction = operation.transaction(Isolation::ReadCommitted);
        let written = compute_and_write(operation, &mut *transaction, seen).await;
        operation.finish(transaction, written).await
    }
}

async fn compute_and_write(
    operation: &Operation,
    transaction: &mut dyn Transaction,
    seen: State,
) -> Result<Written, Failure> {
    let balance = operation.compute(seen).await?;
    let write = async {
        match transaction.write_if_version(operation.change.user_id, balance, seen.version).await? {
            Matched::Yes => operation.journal(transaction, seen.version, balance).await,
            Matched::No => Err(Failure::Overtaken("the version read was no longer the newest")),
        }
    };
    operation.phase(Phase::Write, write).await
}
