//! The reasons the service gives in `google.rpc.ErrorInfo`, and what each says about the balance. The server writes
//! them and the client reads them here, so the two cannot drift apart.

/// What a failed call did to the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing, and under this attempt nothing will.
    None,
    /// Perhaps nothing, perhaps everything: ask `GetDeduction` with `resolve`.
    Unknown,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The amount breaks the grammar, is zero, or is out of range.
    InvalidAmount,
    /// The user id is not a positive int64.
    InvalidUserId,
    /// The request id is not a UUID.
    InvalidRequestId,
    /// The page token was not made by this service, or the page size is negative.
    InvalidPage,
    /// The version or time that a balance is asked for as of is none, or has not come yet.
    InvalidAsOf,
    /// The position to resume a stream after was not given by this service, or lies beyond what there is.
    InvalidResume,
    /// The filter of a listing selects what cannot be.
    InvalidFilter,
    /// The attack asked for is larger than the lab allows, or not one.
    InvalidAttack,
    /// The schedule cannot be played, or the step not be taken now.
    InvalidSchedule,
    /// The interval is too short or not a duration.
    InvalidInterval,
    /// The day is none, or lies before the first of its range.
    InvalidDay,
    /// The `grpc-timeout` of the call is none.
    InvalidTimeout,
    /// The message is not one of the contract.
    MalformedMessage,
    /// The message is larger than any of the contract.
    MessageTooLarge,
    /// No strategy has that name.
    UnknownStrategy,
    /// The request id was used before with another payload, or settled as void: this call did not and cannot take effect.
    RequestIdReused,
    /// There is no such account.
    AccountNotFound,
    /// There is such an account already.
    AccountExists,
    /// The account holds less than the amount.
    InsufficientBalance,
    /// The balance would leave 64 bits of minor units.
    BalanceOverflow,
    /// What the journal comes to is less than zero, which no balance can be set to.
    RepairBelowZero,
    /// An entry of the journal is missing, or contradicts another.
    JournalBroken,
    /// Other operations on the same account won every attempt.
    Contended,
    /// The deadline passed while the call still waited for its turn.
    Expired,
    /// The strategy needs a server that is not configured.
    StrategyUnavailable,
    /// The service asks for a token that the call did not show.
    Unauthenticated,
    /// The lab is off: bound beyond loopback and no token set.
    LabDisabled,
    /// The lab wants a token that the call did not carry.
    LabUnauthenticated,
    /// The caller exceeds its rate.
    RateLimited,
    /// The service sheds load.
    Overloaded,
    /// The circuit breaker is open.
    CircuitOpen,
    /// The backend was down before anything was written.
    BackendDown,
    /// As many deductions wait in the queue as may.
    QueueFull,
    /// The server has no queue.
    QueueUnavailable,
    /// There is no such dead letter.
    DeadLetterNotFound,
    /// The server is shutting down and ends its streams.
    ShuttingDown,
    /// The deadline passed or the link broke while a commit was under way.
    OutcomeUnknown,
    /// A bug in the service.
    Bug,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 38] = [
        Self::InvalidAmount,
        Self::InvalidUserId,
        Self::InvalidRequestId,
        Self::InvalidPage,
        Self::InvalidAsOf,
        Self::InvalidResume,
        Self::InvalidFilter,
        Self::InvalidAttack,
        Self::InvalidSchedule,
        Self::InvalidInterval,
        Self::InvalidDay,
        Self::InvalidTimeout,
        Self::MalformedMessage,
        Self::MessageTooLarge,
        Self::UnknownStrategy,
        Self::RequestIdReused,
        Self::AccountNotFound,
        Self::AccountExists,
        Self::InsufficientBalance,
        Self::BalanceOverflow,
        Self::RepairBelowZero,
        Self::JournalBroken,
        Self::Contended,
        Self::Expired,
        Self::StrategyUnavailable,
        Self::Unauthenticated,
        Self::LabDisabled,
        Self::LabUnauthenticated,
        Self::RateLimited,
        Self::Overloaded,
        Self::CircuitOpen,
        Self::BackendDown,
        Self::QueueFull,
        Self::QueueUnavailable,
        Self::DeadLetterNotFound,
        Self::ShuttingDown,
        Self::OutcomeUnknown,
        Self::Bug,
    ];

    /// The reason as `ErrorInfo.reason` carries it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidAmount => "INVALID_AMOUNT",
            Self::InvalidUserId => "INVALID_USER_ID",
            Self::InvalidRequestId => "INVALID_REQUEST_ID",
            Self::InvalidPage => "INVALID_PAGE",
            Self::InvalidAsOf => "INVALID_AS_OF",
            Self::InvalidResume => "INVALID_RESUME",
            Self::InvalidFilter => "INVALID_FILTER",
            Self::InvalidAttack => "INVALID_ATTACK",
            Self::InvalidSchedule => "INVALID_SCHEDULE",
            Self::InvalidInterval => "INVALID_INTERVAL",
            Self::InvalidDay => "INVALID_DAY",
            Self::InvalidTimeout => "INVALID_TIMEOUT",
            Self::MalformedMessage => "MALFORMED_MESSAGE",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::UnknownStrategy => "UNKNOWN_STRATEGY",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::AccountNotFound => "ACCOUNT_NOT_FOUND",
            Self::AccountExists => "ACCOUNT_EXISTS",
            Self::InsufficientBalance => "INSUFFICIENT_BALANCE",
            Self::BalanceOverflow => "BALANCE_OVERFLOW",
            Self::RepairBelowZero => "REPAIR_BELOW_ZERO",
            Self::JournalBroken => "JOURNAL_BROKEN",
            Self::Contended => "CONTENDED",
            Self::Expired => "EXPIRED",
            Self::StrategyUnavailable => "STRATEGY_UNAVAILABLE",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::LabDisabled => "LAB_DISABLED",
            Self::LabUnauthenticated => "LAB_UNAUTHENTICATED",
            Self::RateLimited => "RATE_LIMITED",
            Self::Overloaded => "OVERLOADED",
            Self::CircuitOpen => "CIRCUIT_OPEN",
            Self::BackendDown => "BACKEND_DOWN",
            Self::QueueFull => "QUEUE_FULL",
            Self::QueueUnavailable => "QUEUE_UNAVAILABLE",
            Self::DeadLetterNotFound => "DEAD_LETTER_NOT_FOUND",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::Bug => "BUG",
        }
    }

    /// The reason of that name; `None` for one this version does not know, whose effect is then unknown.
    pub fn from_wire(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// What a call that failed for this reason did to the account.
    pub const fn effect(self) -> Effect {
        match self {
            Self::OutcomeUnknown | Self::Bug => Effect::Unknown,
            _ => Effect::None,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_wire(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::from_wire("INVENTED_LATER"), None);
    }
}
