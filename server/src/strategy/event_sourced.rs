//! `event_sourced`: the journal alone is the truth. Decide on what its events fold to, and append the next one at the
//! expected version; the row of the account is a projection of the stream, brought up to date in the same transaction.
//!
//! ```text
//!   A: snapshot 100@100, events 101…@103 ─ append 104 ─ project 104 ─ commit, and every hundredth time a snapshot
//!   B:      the same, folded to @103 ──── append 104: waits, then the key is taken ─ again: fold to @104 ─ append 105
//! ```
//!
//! It prevents every lost update, with any number of servers: the primary key of the journal lets one event have a
//! version. Beside strategies that lock the account's row first it can meet them in a deadlock (it appends before it
//! touches that row); the database then ends one of the two, which is tried anew. A hot account wastes work as with
//! `optimistic`, and each attempt costs a fold as well: of [`SNAPSHOT_EVERY`] events at most, as long as it alone writes,
//! else of what was written since its last turn.
//! Source: Greg Young, "CQRS Documents", 2010 (event store with expected version, rolling snapshots).

use async_trait::async_trait;

use super::{Conflict, Failure, Guarantee, Held, Operation, Row, Strategy, operation::Written};
use crate::{
    account::{Money, Receipt, State},
    history::Fold,
    store::{Error, Isolation, Matched, Transaction},
    timeline::Phase,
};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "event_sourced",
    guarantee: Guarantee::Always,
    conflict: Conflict::Retries,
    summary: "folds the journal from its last snapshot and appends at the expected version; the balance is a projection",
    build: |_| Ok(Box::new(EventSourced)),
};

/// How far apart snapshots are: folding as many events costs about as much as a round trip.
const SNAPSHOT_EVERY: i64 = 100;

/// Events read at a time.
const PAGE: i64 = 1000;

/// The most events folded without a snapshot of how far that came: where others have written a great many, whoever is cut
/// off on the way has not worked for nothing.
const FOLDED_MOST: i64 = 10 * PAGE;

struct EventSourced;

#[async_trait]
impl Strategy for EventSourced {
    async fn attempt(&self, operation: &Operation, _: &dyn Held) -> Result<Receipt, Failure> {
        let seen = operation.phase(Phase::Read, folded(operation)).await?;
        let mut transaction = operation.transaction(Isolation::ReadCommitted);
        let written = compute_and_append(operation, &mut *transaction, seen).await;
        match operation.finish(transaction, written).await {
            Err(Failure::Overtaken(why)) if is_journaled(operation).await? => {
                Err(Failure::Store(Error::Duplicate(why.to_owned())))
            }
            ended => ended,
        }
    }
}

/// Whether the request was applied before, as far as one can see without a lock.
async fn is_journaled(operation: &Operation) -> Result<bool, Failure> {
    let change = &operation.change;
    Ok(operation.bench().store.find(change.user_id, change.request_id).await?.is_some())
}

/// What the account's events come to.
async fn folded(operation: &Operation) -> Result<State, Failure> {
    let (store, user_id) = (&operation.bench().store, operation.change.user_id);
    let snapshot = store.snapshot(user_id).await?;
    let mut fold = Fold::from(snapshot);
    // With the event that the snapshot was made of, which has the last word: a snapshot is believed only where it agrees.
    let mut events = store.entries(user_id, snapshot.version.max(1) - 1, PAGE).await?;
    let mut is_full = events.len() as i64 == PAGE;
    if snapshot.version > 0 {
        let made_of = events.first().map(|event| State { balance: event.balance_after, version: event.version });
        if made_of == Some(snapshot) {
            events.remove(0);
        } else {
            tracing::warn!(user_id, version = snapshot.version, "a snapshot contradicts the journal and is left aside");
            fold = Fold::from(State::NONE);
            events = store.entries(user_id, 0, PAGE).await?;
            is_full = events.len() as i64 == PAGE;
        }
    }
    let mut kept = fold.state().version;
    loop {
        for event in &events {
            fold.and(event).map_err(Failure::JournalBroken)?;
        }
        let state = fold.state();
        if !is_full {
            return operation.existing((state.version > 0).then_some(state));
        }
        if state.version - kept >= FOLDED_MOST {
            keep(operation, state).await?;
            kept = state.version;
            // What is folded from here on need not be remembered against what came before.
            fold = Fold::from(state);
        }
        events = store.entries(user_id, state.version, PAGE).await?;
        is_full = events.len() as i64 == PAGE;
    }
}

/// Keeps a snapshot of how far a fold came.
async fn keep(operation: &Operation, state: State) -> Result<(), Failure> {
    if operation.is_withdrawn() {
        return Err(Failure::Withdrawn);
    }
    let mut transaction = operation.transaction(Isolation::ReadCommitted);
    match transaction.keep_snapshot(operation.change.user_id, state).await {
        // Somebody else has folded as far.
        Err(Error::Duplicate(_)) => transaction.rollback().await,
        Err(error) => return Err(error.into()),
        // Whether a snapshot is there makes no difference to what is true.
        Ok(()) => transaction.commit().await.map_err(|error| Error::Lost(error.to_string()))?,
    }
    Ok(())
}

async fn compute_and_append(
    operation: &Operation,
    transaction: &mut dyn Transaction,
    seen: State,
) -> Result<Written, Failure> {
    let balance = operation.compute(seen).await?;
    operation.phase(Phase::Write, append_and_project(operation, transaction, seen.version, balance)).await
}

async fn append_and_project(
    operation: &Operation,
    transaction: &mut dyn Transaction,
    version: i64,
    balance: Money,
) -> Result<Written, Failure> {
    let user_id = operation.change.user_id;
    // Whoever has appended at this version and not committed yet is waited for (X on the new key). It can also be the
    // request's own key that is taken: that is looked at when this transaction has ended.
    let written = operation.journal(transaction, version, balance).await.map_err(|failure| match failure {
        Failure::Store(Error::Duplicate(_)) => {
            Failure::Overtaken("the version, or the request, is in the journal already")
        }
        failure => failure,
    })?;
    match transaction.write_if_version(user_id, balance, version).await? {
        Matched::Yes => {}
        Matched::No => return Err(Failure::Overtaken("the projection is ahead of the events that were read")),
    }
    let left = State { balance, version: version + 1 };
    if left.version % SNAPSHOT_EVERY == 0 {
        transaction.keep_snapshot(user_id, left).await?;
    }
    Ok(written)
}
