//! How deductions that were accepted, to be made later, came to their end. The states they ended in are counted by the report
//! itself: `acknowledged` is what succeeded, `failed` what did not, by reason.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{counted, per_second};
use crate::verdict::Judgement;

/// How deductions were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepting {
    /// How many were.
    pub accepted: u64,
    /// From the first operation's beginning to the last acceptance.
    pub lasted: Duration,
    /// From then to the last decision.
    pub draining: Duration,
}

/// How accepted deductions came to their end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    /// How many were accepted.
    pub accepted: u64,
    /// How many of a second, while they were.
    pub accepted_per_s: f64,
    /// How long that took, in milliseconds.
    pub accepting_ms: u64,
    /// How long it took from then until the last was decided, in milliseconds.
    pub drain_ms: u64,
    /// Those that were not decided when the time was over.
    pub undecided: u64,
    /// Those of which neither service nor journal knows anything.
    pub forgotten: Vec<Uuid>,
}

impl Queued {
    pub(super) fn new(accepting: &Accepting, judgement: &Judgement) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            accepted: accepting.accepted,
            accepted_per_s: per_second(accepting.accepted, accepting.lasted),
            accepting_ms: millis(accepting.lasted),
            drain_ms: millis(accepting.draining),
            undecided: judgement.undecided,
            forgotten: judgement.forgotten.clone(),
        }
    }
}

impl fmt::Display for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
        let accepted = counted(self.accepted, "deduction");
        write!(
            f,
            "{accepted} in {:.2} s ({:.0}/s), decided {:.2} s after the last",
            seconds(self.accepting_ms),
            self.accepted_per_s,
            seconds(self.drain_ms)
        )?;
        if self.undecided > 0 { write!(f, "; {} not decided", self.undecided) } else { Ok(()) }
    }
}
