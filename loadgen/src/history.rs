//! What the clients were told: every operation of a run with its outcome. It owns the one side of the evidence; the
//! journal is the other, and only the verdict compares them.

use uuid::Uuid;
use zbl_client::{Money, Reason, Receipt};

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

/// Whether a call that ended for this reason was turned away: nothing was decided, and the same call may be taken later.
pub(crate) const fn is_turned_away(reason: Reason) -> bool {
    matches!(reason, Reason::Contended | Reason::Overloaded | Reason::RateLimited)
}
