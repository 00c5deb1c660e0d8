//! Which ids have no account at all, known without asking the database: a Bloom filter in Redis that all servers share.
//! It answers "no" for good only where that is certain, and so can never hide an account.
//!
//! Where the certainty comes from: not from Redis, which may lose or turn back anything, but from one row of the database,
//! `account_filter (build, state)`, that every opening reads under a shared lock in its own transaction.
//!
//! ```text
//!          opening: nothing      adds its id, or turns it off     adds its id, or revokes and waits     waits
//!    ┌──────► OFF ─────────────────► BUILDING ────────────────────────► SOUND ───────────────────────► REVOKED ─┐
//!    │         ▲ a builder, new build   │  all ids are in it              believed by readers                    │
//!    │         └────────────────────────┘                                                                       │
//!    └──────────────────────── whoever saw it revoked for longer than anybody believes ◄────────────────────────┘
//! ```
//!
//! - An opening adds its id to the filter that counts *before* it commits, and holds the row (S) until then: nobody can
//!   make another filter count meanwhile (X). Where Redis does not confirm it, or this server has none, the opening revokes
//!   the filter in its own transaction, and is acknowledged only when nobody can believe in it any more.
//! - A reader believes a "no" only where it has seen `SOUND`, of the very build it asked, by a query that began less than
//!   [`BELIEF`] ago. Whoever revoked waits that long. So does whoever opens while it is revoked: an id that was added to no
//!   filter must not meet a reader who still believes in the old one. Only then `OFF`, and from there the next build.
//! - A build has a random number, which is part of its key: two builders can never fill one key, and an old filter can
//!   never become the one that counts again.
//! - A builder makes the row `BUILDING` (X, so it waits for the openings in flight, which its scan then sees), adds every id
//!   there is, and makes it `SOUND` only where it still is its own `BUILDING`: an opening that could not add its id has
//!   turned that off.
//! - The header of the filter names the Redis process that it was built in. One that was started again, restored or
//!   promoted is another, and neither confirms an addition nor denies an id. Eviction takes header and bits together.
//! - The memory of "somebody looked, and there was none" (for those that the filter mistakes for accounts) belongs to a
//!   build too and is believed by the same rule; an opening that is admitted forbids it in the same step.
//!
//! What it refuses: to know of accounts that are inserted around the service (the migration says what to do then), or by
//! servers older than the row: they are to be gone before any is given a Redis.

pub(super) mod build;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::shelf::Shelf;
use crate::store::{self, Filter, FilterState, Isolation, Matched, Store, Transaction};

/// How long a look at the row is believed: one cheap query in this time, where ids without an account are asked for.
pub(super) const BELIEF: Duration = Duration::from_secs(1);

/// How long an opening that could not be added waits: longer than anybody believes, by clocks that run a little apart.
const DISBELIEF: Duration = Duration::from_millis(1200);

/// Where an id's bits are: two halves of a mix of it, from which the scripts compute as many as they need (Kirsch and
/// Mitzenmacher, "Less Hashing, Same Performance", 2006).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashes {
    pub(super) first: u32,
    pub(super) second: u32,
}

impl Hashes {
    pub(super) fn of(user_id: i64) -> Self {
        // SplitMix64's finish: every bit of the id moves half of the result.
        let mut mixed = user_id.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // Odd, so that it has no divisor in common with sizes that are powers of two.
        Self { first: (mixed >> 32) as u32, second: mixed as u32 | 1 }
    }
}

/// What this server has seen of the row.
pub(super) struct Believed {
    store: Arc<dyn Store>,
    seen: Mutex<Option<Seen>>,
    /// One asks at a time, for all.
    asking: tokio::sync::Mutex<()>,
    /// A filter that can be believed is wanted.
    wanted: Notify,
}

#[derive(Clone, Copy)]
struct Seen {
    /// When the query began.
    asked: Instant,
    filter: Filter,
}

impl Believed {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, seen: Mutex::default(), asking: tokio::sync::Mutex::default(), wanted: Notify::new() }
    }

    /// The filter to ask by: the last that was seen to be sound. Before its "no" is told, see [`Self::is_sound`].
    pub(super) fn candidate(&self) -> Option<i64> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map(|seen| seen.filter).filter(|filter| filter.state == FilterState::Sound).map(|filter| filter.build)
    }

    /// Whether what that filter does not contain has no account, now.
    pub(super) async fn is_sound(&self, build: i64) -> bool {
        self.lately().await == Some(Filter { build, state: FilterState::Sound })
    }

    /// The row, as it was less than [`BELIEF`] ago; `None` where the database does not tell in time.
    pub(super) async fn lately(&self) -> Option<Filter> {
        if let Some(filter) = self.young() {
            return Some(filter);
        }
        let _turn = self.asking.lock().await;
        if let Some(filter) = self.young() {
            return Some(filter);
        }
        let asked = Instant::now();
        let filter = self.store.filter().await.ok()?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen { asked, filter });
        // The answer may have taken longer than it is worth.
        self.young()
    }

    fn young(&self) -> Option<Filter> {
        let seen = (*self.seen.lock().unwrap_or_else(PoisonError::into_inner))?;
        (seen.asked.elapsed() < BELIEF).then_some(seen.filter)
    }

    /// Forgets what was seen: it has changed.
    fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Has a filter built or looked after.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }
}

/// What an opening still has to do when it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Nothing: whoever believes in a filter finds the account in it.
    Known,
    /// Wait until nobody believes in this filter any more, which does not contain the account.
    Doubted(Filter),
}

impl Admission {
    /// What is left to do after both.
    pub fn and(self, later: Self) -> Self {
        if later == Self::Known { self } else { later }
    }
}

/// Sees to it, before an opening commits, that no filter will hide the account.
pub(super) async fn admit(
    shelf: Option<&Shelf>,
    transaction: &mut dyn Transaction,
    user_id: i64,
) -> store::Result<Admission> {
    let filter = transaction.filter().await?;
    match filter.state {
        FilterState::Off => return Ok(Admission::Known),
        FilterState::Revoked => return Ok(Admission::Doubted(filter)),
        FilterState::Building | FilterState::Sound => {}
    }
    if let Some(shelf) = shelf
        && shelf.admit(user_id, filter.build).await == Some(true)
    {
        return Ok(Admission::Known);
    }
    let (state, admission) = match filter.state {
        FilterState::Sound => (FilterState::Revoked, Admission::Doubted(filter.turned(FilterState::Revoked))),
        // Nobody believes in it yet, and now nobody will.
        _ => (FilterState::Off, Admission::Known),
    };
    // We hold the row, so it is what we read.
    match transaction.move_filter(filter, filter.turned(state)).await? {
        Matched::Yes => Ok(admission),
        Matched::No => Err(store::Error::Contended("the filter of accounts was turned meanwhile".to_owned())),
    }
}

/// Whether an account that is there may still be denied.
pub(super) async fn doubt(transaction: &mut dyn Transaction) -> store::Result<Admission> {
    let filter = transaction.filter().await?;
    Ok(if filter.state == FilterState::Revoked { Admission::Doubted(filter) } else { Admission::Known })
}

/// After an opening was committed: returns when it may be acknowledged.
pub(super) async fn settle(store: &dyn Store, admission: Admission) {
    let Admission::Doubted(revoked) = admission else { return };
    tokio::time::sleep(DISBELIEF).await;
    // Others may have done so already; a builder would, too.
    let _ = turn(store, revoked, revoked.turned(FilterState::Off)).await;
}

/// Turns the filter in a transaction of its own, where it still is what was read.
async fn turn(store: &dyn Store, from: Filter, to: Filter) -> Option<Filter> {
    let mut transaction = store.transaction(Isolation::ReadCommitted, None);
    match transaction.move_filter(from, to).await {
        Ok(Matched::Yes) => transaction.commit().await.ok().map(|()| to),
        _ => {
            transaction.rollback().await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ids_have_nothing_in_common() {
        let hashes: std::collections::BTreeSet<_> = (1..10_000).map(|id| Hashes::of(id).first).collect();
        assert!(hashes.len() > 9_990, "{} of 9999 differ", hashes.len());
        assert!((1..1000).all(|id| Hashes::of(id).second % 2 == 1));
    }
}
