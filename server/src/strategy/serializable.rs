//! `serializable`: the unprotected sequence inside one SERIALIZABLE transaction, and the database finds the conflict.
//!
//! ```text
//!   A: read 100@1 (S) ─────────── write: wants X, waits for B's S
//!   B:      read 100@1 (S) ────────────── write: wants X, waits for A's S: deadlock, B rolled back ─ again
//! ```
//!
//! It prevents every anomaly, this one included, without the code saying which. What it cannot do is tell readers that
//! will write from those that won't: two that read alike deadlock where `FOR UPDATE` would have queued them, and
//! innocent transactions beside them are chosen as victims too. On SQLite a transaction is alone anyway.
//! Source: Berenson et al., 1995; InnoDB implements the level by two-phase locking of reads.

use async_trait::async_trait;

use super::{Conflict, Failure, Guarantee, Held, Operation, Row, Strategy, pessimistic};
use crate::{
    account::Receipt,
    store::{Isolation, RowLock},
};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "serializable",
    guarantee: Guarantee::Always,
    conflict: Conflict::Retries,
    summary: "one SERIALIZABLE transaction; the database aborts one of two that conflict, which is run again",
    build: |_| Ok(Box::new(Serializable)),
};

struct Serializable;

#[async_trait]
impl Strategy for Serializable {
    async fn attempt(&self, operation: &Operation, _: &dyn Held) -> Result<Receipt, Failure> {
        let mut transaction = operation.transaction(Isolation::Serializable);
        // The isolation level is the lock: S with the read.
        let written = pessimistic::read_and_write(operation, &mut *transaction, RowLock::None).await;
        operation.finish(transaction, written).await
    }
}
