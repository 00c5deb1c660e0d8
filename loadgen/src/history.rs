//! What the clients were told: every operation of a run with its outcome. It owns the one side of the evidence; the
//! journal is the other, and only the verdict compares them.

use uuid::Uuid;
use zbl_client::{Fate, Money, NotMade, Reason, Receipt};

/// An operation and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its request id.
    pub request_id: Uuid,
    /// The signed change it asked for; negative for a deduction.
    pub delta: Money,
    /// What the client was told.
    pub outcome: Outcome,
}

/// What a client knows about an operation at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Acknowledged(Acknowledgement),
    /// It was refused, without effect.
    Failed {
        /// The service's reason.
        reason: &'static str,
    },
    /// It may or may not have taken effect.
    Unknown,
    /// It was accepted, to be made later. What came of it is for the journal to say.
    Accepted,
    /// It was accepted, and the service knows nothing of it any more, or has voided it without a word why.
    Forgotten,
}

impl Outcome {
    /// What a client knows by what the service says.
    pub(crate) fn of(fate: &Fate) -> Self {
        match fate {
            Fate::Succeeded(receipt) => Self::Acknowledged(Acknowledgement::of(receipt)),
            Fate::Voided => Self::Failed { reason: VOIDED },
            Fate::Failed(NotMade { reason, .. }) => {
                Self::Failed { reason: Reason::from_wire(reason).map_or(FAILED, Reason::as_str) }
            }
            Fate::DeadLettered(_) => Self::Failed { reason: DEAD_LETTERED },
            Fate::Pending => Self::Accepted,
            Fate::NotFound => Self::Unknown,
        }
    }
}

/// The part of a receipt that must agree with the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The balance it left behind.
    pub balance: Money,
    /// Its version.
    pub version: i64,
    /// The version it had read.
    pub version_before: i64,
}

impl Acknowledgement {
    /// The acknowledgement a receipt gives.
    pub fn of(receipt: &Receipt) -> Self {
        Self { balance: receipt.balance, version: receipt.version, version_before: receipt.version_before }
    }
}

/// The reason of an operation whose outcome had been unknown and whose id was then voided.
pub const VOIDED: &str = "VOIDED";

/// The reason of an operation that was accepted and then laid aside.
pub const DEAD_LETTERED: &str = "DEAD_LETTERED";

/// The reason of an operation that was accepted and then refused for one that is not in this program's table.
pub const FAILED: &str = "FAILED";

/// Whether a call that ended for this reason was turned away: nothing was decided, and the same call may be taken later.
pub(crate) const fn is_turned_away(reason: Reason) -> bool {
    matches!(reason, Reason::Contended | Reason::Overloaded | Reason::RateLimited | Reason::QueueFull)
}
