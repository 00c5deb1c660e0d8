//! `atomic_three_trips`: `atomic` in the fewest round trips that keep its outcome final.
//!
//! ```text
//!   A: (begin, write balance - 10 if balance >= 10 (X)) ─ look at it ─ (journal, commit)
//!   B:      (begin, write: waits for X ...............................................) ─ look at it ─ (journal, commit)
//! ```
//!
//! Between one hot account's transactions nothing happens but the messages that its lock holder exchanges with the
//! database; each one spared lets the next writer in sooner. It prevents what `atomic` prevents, in three trips for five.
//! It cannot go down to one, with the whole transaction in a single message: that message could still be on its way when
//! its caller's link breaks, take the lock only after its fate was looked up under that lock, and apply a change that was
//! already told to have had no effect.

use async_trait::async_trait;

use super::{Conflict, Failure, Guarantee, Held, Operation, Row, Strategy};
use crate::{
    account::{Receipt, State},
    store::{Isolation, Matched, Transaction},
    timeline::Phase,
};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "atomic_three_trips",
    guarantee: Guarantee::Always,
    conflict: Conflict::Waits,
    summary: "atomic with its statements sent together: three round trips where atomic takes five",
    build: |_| Ok(Box::new(AtomicThreeTrips)),
};

struct AtomicThreeTrips;

#[async_trait]
impl Strategy for AtomicThreeTrips {
    async fn attempt(&self, operation: &Operation, _: &dyn Held) -> Result<Receipt, Failure> {
        let mut transaction = operation.transaction(Isolation::ReadCommitted);
        let written = operation.phase(Phase::Write, write(operation, &mut *transaction)).await;
        operation.finish_with_journal(transaction, written).await
    }
}

async fn write(operation: &Operation, transaction: &mut dyn Transaction) -> Result<State, Failure> {
    let change = &operation.change;
    let added = transaction.begin_and_add(change.user_id, change.delta(), change.applicable()).await?;
    let (matched, state) = operation.existing(added)?;
    match matched {
        Matched::Yes => Ok(state),
        Matched::No => Err(operation.unmatched(state.balance)),
    }
}
