//! An account's journal as a stream of events, and what it folds to. Pure: it is given the events and says what they come
//! to, or where they contradict each other.
//!
//! An event's parent is the version that its operation had read (`version_before`). Mostly that is the event before it.
//! Where an unsafe strategy overwrote others it is an older one, and what lies between is lost: so the fold follows the
//! parents, and comes to what the newest event left behind, whoever wrote it.

pub mod as_of;
pub mod losses;
pub mod path;

use std::collections::HashMap;

use crate::account::{Entry, Money, State};

/// Why a stream cannot be folded: the database holds something that no operation of ours writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A version is missing.
    #[error("version {missing} is missing from the journal")]
    Gap {
        /// The version.
        missing: i64,
    },
    /// An event does not leave behind what it should, given what its operation had read.
    #[error("version {version} leaves {left} behind and should leave {right}")]
    Contradiction {
        /// The event's version.
        version: i64,
        /// What it says.
        left: Money,
        /// What its parent and its change come to; the largest balance where they come to more.
        right: Money,
    },
    /// An event does not go back to the account's opening.
    #[error("version {version} says that it had read version {parent}, and so does not lead back to the opening")]
    Unrooted {
        /// The event's version.
        version: i64,
        /// What it says it had read.
        parent: i64,
    },
    /// The changes come to more, or less, than any amount.
    #[error("the changes add up to more than amounts can be")]
    Overflow,
}

/// A fold under way.
#[derive(Clone, Debug)]
pub struct Fold {
    state: State,
    /// What each version left behind, from where the fold began: the parents that an event can have within it.
    left: HashMap<i64, Money>,
}

impl Fold {
    /// Begins where an account stood once; at version 0 with nothing in it, before its first event.
    pub fn from(state: State) -> Self {
        Self { state, left: HashMap::from([(state.version, state.balance)]) }
    }

    /// Goes on with the next event.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn and(&mut self, event: &Entry) -> Result<(), Broken> {
        let Entry { version, balance_after, .. } = *event;
        if version != self.state.version + 1 {
            return Err(Broken::Gap { missing: self.state.version + 1 });
        }
        // A parent older than where the fold began cannot be looked at. Its child says what was left all the same.
        let parent = self.left.get(&event.version_before).filter(|_| !event.kind.begins_anew());
        if let Some(parent) = parent {
            let right = parent.checked_add(event.delta).unwrap_or(crate::account::MAX_BALANCE);
            if right != balance_after {
                return Err(Broken::Contradiction { version, left: balance_after, right });
            }
        }
        self.state = State { balance: balance_after, version };
        self.left.insert(version, balance_after);
        Ok(())
    }

    /// What it has come to.
    pub const fn state(&self) -> State {
        self.state
    }
}
