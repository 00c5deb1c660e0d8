//! Who may still decide about a change: its caller, by giving it up, or whoever carries it out. One atomic step decides, so
//! a caller that gave up in time knows for certain that nothing was changed and nothing will be.
//!
//! A caller that goes away gives up only what has not begun: work that was started is seldom worth throwing away. One whose
//! deadline passes has no use for it, and gives it up until the commit is about to be sent; how long that is, is handed
//! down to whatever waits for a lock on its behalf.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Instant,
};

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const COMMITTING: u8 = 2;
const WITHDRAWN: u8 = 3;

/// The claim on one change, shared by its caller and its operation.
#[derive(Debug, Default)]
pub struct Claim {
    state: AtomicU8,
    until: Option<Instant>,
}

impl Claim {
    /// For a caller who waits until then, or for ever.
    pub fn until(until: Option<Instant>) -> Self {
        Self { state: AtomicU8::new(WAITING), until }
    }

    /// Until when the caller waits.
    pub const fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// The operation is about to touch the account. False when the caller has given it up: it must not.
    pub fn begin(&self) -> bool {
        self.step(&[WAITING], BEGUN) || matches!(self.state.load(Ordering::Acquire), BEGUN | COMMITTING)
    }

    /// The operation is about to commit, and from here on runs to its end. False when the caller has given it up.
    pub fn commit(&self) -> bool {
        self.step(&[BEGUN, WAITING], COMMITTING) || self.state.load(Ordering::Acquire) == COMMITTING
    }

    /// What was about to commit has failed without an effect, and is to be tried anew.
    pub fn reopen(&self) {
        self.step(&[COMMITTING], BEGUN);
    }

    /// The caller goes away. True when the change had not begun: now it never will.
    pub fn withdraw(&self) -> bool {
        self.step(&[WAITING], WITHDRAWN) || self.is_withdrawn()
    }

    /// The caller's time is over. True when the change was not about to be committed: now it never will.
    pub fn expire(&self) -> bool {
        self.step(&[BEGUN, WAITING], WITHDRAWN) || self.is_withdrawn()
    }

    /// Whether the caller has given it up.
    pub fn is_withdrawn(&self) -> bool {
        self.state.load(Ordering::Acquire) == WITHDRAWN
    }

    /// Moves on from one of the states in `from`.
    fn step(&self, from: &[u8], to: u8) -> bool {
        let step = |state: u8| from.contains(&state).then_some(to);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_first_decides() {
        let claim = Claim::default();
        assert!(claim.begin() && !claim.withdraw() && claim.begin());
        let claim = Claim::default();
        assert!(claim.withdraw() && !claim.begin() && !claim.commit() && claim.withdraw());
    }

    #[test]
    fn a_deadline_counts_until_the_commit() {
        let claim = Claim::default();
        assert!(claim.begin() && claim.expire() && !claim.commit() && !claim.begin());
        let claim = Claim::default();
        assert!(claim.begin() && claim.commit() && !claim.expire() && !claim.withdraw() && claim.commit());
        claim.reopen();
        assert!(claim.expire(), "what failed can be given up before it is tried again");
        claim.reopen();
        assert!(!claim.begin(), "what was given up stays so");
    }
}
