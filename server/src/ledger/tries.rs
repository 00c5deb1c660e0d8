//! The repetitions of the ledger's own transactions (settling, opening, resetting), bounded in number and time.

use std::time::Instant;

use super::{backend, backoff};
use crate::{
    error::{Error, UnknownCause},
    store::{self, Isolation, Store, Transaction},
};

/// The most tries that meet other writers or lost links; each may wait for a row lock, so that they span several lock
/// wait timeouts.
const MOST: u32 = 8;

/// How often a transaction was tried, and whether one of its commits may have happened unseen.
pub(super) struct Tries {
    made: u32,
    trying: Trying,
    until: Instant,
    commit_lost: Option<String>,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trying {
    /// Something new.
    Anew,
    /// To learn what became of a commit whose answer was lost.
    ToSettle,
}

impl Tries {
    /// Tries until then.
    pub(super) const fn until(trying: Trying, until: Instant) -> Self {
        Self { made: 0, trying, until, commit_lost: None }
    }

    /// The transaction of the next try.
    pub(super) fn transaction(&self, store: &dyn Store) -> Box<dyn Transaction> {
        match self.trying {
            Trying::Anew => store.transaction(Isolation::ReadCommitted, None),
            Trying::ToSettle => store.settlement(),
        }
    }

    /// After a failed try: returns when the next one may be made.
    ///
    /// # Errors
    /// What the call ends in when there may be none. Once a commit was lost that is [`Error::OutcomeUnknown`], whatever
    /// failed afterwards: only a try that looks under the row lock can tell.
    pub(super) async fn after(&mut self, failure: store::Error) -> Result<(), Error> {
        use store::Error as Store;
        self.made += 1;
        let transient = matches!(failure, Store::Contended(_) | Store::Duplicate(_) | Store::Lost(_));
        if let Store::CommitLost(reason) = &failure {
            self.commit_lost = Some(reason.clone());
            self.trying = Trying::ToSettle;
        }
        let in_time = Instant::now() < self.until;
        if in_time && (self.commit_lost.is_some() || transient && self.made < MOST) {
            tokio::time::sleep(backoff(self.made)).await;
            return Ok(());
        }
        Err(match self.commit_lost.take() {
            Some(lost) => {
                Error::OutcomeUnknown { reason: format!("{lost}; then: {failure}"), cause: UnknownCause::LinkLost }
            }
            None => backend(failure),
        })
    }
}
