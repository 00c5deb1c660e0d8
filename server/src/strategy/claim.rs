//! Who may still decide about a change that waits: the caller, by giving it up, or whoever begins it. Exactly one of
//! them succeeds, so a caller that gave up in time knows for certain that nothing was changed and nothing will be.

use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The claim on one change, shared by its caller and its operation. Once begun, a change runs to its end.
#[derive(Debug, Default)]
pub struct Claim(AtomicU8);

impl Claim {
    /// The operation is about to touch the account. False when the caller has withdrawn it: it must not.
    pub fn begin(&self) -> bool {
        match self.0.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(found) => found == BEGUN,
        }
    }

    /// The caller does not want it any more. True when it had not begun: now it never will.
    pub fn withdraw(&self) -> bool {
        match self.0.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(found) => found == WITHDRAWN,
        }
    }

    /// Whether the caller has given it up.
    pub fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::Acquire) == WITHDRAWN
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
        assert!(claim.withdraw() && !claim.begin() && claim.withdraw());
    }
}
