//! The one domain error. Stores report [`crate::store::Error`]; the ledger turns what it cannot cure into this;
//! `rpc/status.rs` alone turns this into a gRPC status. A failure is logged once, where it is turned into a status.

use std::time::Duration;

use crate::{account::Refusal, history::Broken, limit::Rate};

/// Why a call did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request is malformed. Nothing was changed.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The rules refuse it. Nothing was changed.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Every attempt met another writer. Nothing was changed; a later try can succeed.
    #[error("gave up after {attempts} attempts: {reason}")]
    Contended {
        /// How many attempts were made.
        attempts: u32,
        /// What the last one met.
        reason: String,
    },
    /// The caller's deadline passed before the change was to be committed. This call changed nothing and will not; an
    /// earlier one under the same id may have.
    #[error("the deadline passed before the change was committed; it was dropped")]
    Expired,
    /// The strategy needs a server that is not configured. Nothing was changed.
    #[error("strategy {name} is not available: {reason}")]
    StrategyUnavailable {
        /// The strategy.
        name: &'static str,
        /// What is missing.
        reason: String,
    },
    /// More work than the bounds allow. Nothing was changed.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// More calls a second than are allowed. Nothing was changed.
    #[error("{of} takes {} a second, and {} at once after a silence; come back in {retry_after:?}", rate.per_second, rate.burst)]
    RateLimited {
        /// Whose calls were too many.
        of: RateOf,
        /// What is allowed.
        rate: Rate,
        /// When there will be room for one.
        retry_after: Duration,
    },
    /// The journal cannot be folded. Nothing was changed.
    #[error(
        "the journal of account {user_id} is broken: {broken}; somebody wrote to the database beside the service: restore \
         what is missing from a backup"
    )]
    JournalBroken {
        /// Whose.
        user_id: i64,
        /// What is wrong with it.
        broken: Broken,
    },
    /// A server that is needed cannot be reached, or was lost before anything was committed. Nothing was changed.
    #[error("{backend} is not reachable: {reason}")]
    BackendDown {
        /// Which one.
        backend: Backend,
        /// What it, or its driver, says.
        reason: String,
    },
    /// As many deductions wait in the queue as may. Nothing was accepted.
    #[error("the queue holds {limit} deductions, as many as may wait; come back in {retry_after:?}")]
    QueueFull {
        /// How many that is.
        limit: u32,
        /// When to come back.
        retry_after: Duration,
    },
    /// The server has no queue. Nothing was accepted.
    #[error("this server has no queue; start it with --amqp-url")]
    QueueUnavailable,
    /// No dead letter has that id. Nothing was changed.
    #[error("no dead letter has the message id `{0}`; `zbl-server dlq list` tells those there are")]
    DeadLetterNotFound(String),
    /// A server that is needed did not answer of late, and is not asked for a while. Nothing was changed.
    #[error("{backend} did not answer of late and is not asked now; come back in {retry_after:?}")]
    CircuitOpen {
        /// Which one.
        backend: Backend,
        /// When it may be asked again.
        retry_after: Duration,
    },
    /// The request may or may not have been applied; GetDeduction with `resolve` tells.
    #[error("the outcome is unknown: {reason}; ask GetDeduction with resolve=true")]
    OutcomeUnknown {
        /// What prevented knowing.
        reason: String,
        /// Which of the two ways it came about.
        cause: UnknownCause,
    },
    /// The server is shutting down and ends its streams. Nothing was changed.
    #[error("the server is shutting down")]
    Stopping,
    /// The message of a call is larger than any of the contract. It was not read.
    #[error("the message is larger than {most} bytes, the most that is read")]
    MessageTooLarge {
        /// The most, bytes.
        most: usize,
    },
    /// The message of a call is none of the contract. Nothing was changed.
    #[error("the message cannot be read: {0}")]
    Malformed(String),
    /// A token is asked for, and the call did not show it. Nothing was changed.
    #[error("the token is missing or wrong; send `authorization: Bearer TOKEN`")]
    Unauthenticated,
    /// The lab's calls are off here. Nothing was changed.
    #[error("{0}")]
    LabRefused(LabRefusal),
    /// Something that cannot happen did. The effect is unknown.
    #[error("bug: {0}")]
    Bug(String),
}

/// What a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateOf {
    /// All calls of accounts.
    Server,
    /// The changes of one account.
    Account,
}

impl RateOf {
    /// Its name in metrics and in QuotaFailure.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Account => "account",
        }
    }
}

impl std::fmt::Display for RateOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Server => "the server",
            Self::Account => "the account",
        })
    }
}

/// A server that the service needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Where accounts are kept.
    Database,
    /// Redis, for strategies that lock in it.
    LockServer,
    /// RabbitMQ, for deductions that are made later.
    Broker,
    /// The account service that the lab attacks: this one, through its own port.
    Service,
}

impl Backend {
    /// Its name in error metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::LockServer => "redis",
            Self::Broker => "rabbitmq",
            Self::Service => "service",
        }
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Database => "the database",
            Self::LockServer => "Redis",
            Self::Broker => "RabbitMQ",
            Self::Service => "the account service",
        })
    }
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownCause {
    /// The caller's deadline passed; the operation goes on.
    Deadline,
    /// The link to the database was lost at COMMIT and could not be had back in time.
    LinkLost,
    /// The lab crashed the operation.
    Crashed,
}

/// Why the lab does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabRefusal {
    /// The server listens on more than loopback and has no lab token.
    #[error("the lab is off: the server is bound beyond loopback and has no lab token; start it with --lab-token")]
    Disabled,
    /// A token is required and the call did not carry it.
    #[error("the lab token is missing or wrong; send metadata `authorization: Bearer TOKEN`")]
    Unauthenticated,
}

/// A malformed field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {description}")]
pub struct Invalid {
    /// The field's name in the request message.
    pub field: &'static str,
    /// Which of the reasons of the error table it is.
    pub reason: InvalidReason,
    /// What is wrong, and what would be right.
    pub description: String,
}

/// The reasons of the error table for malformed fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidReason {
    /// Not a positive decimal amount.
    Amount,
    /// Not a positive id.
    UserId,
    /// Not a UUID.
    RequestId,
    /// Not in the registry.
    UnknownStrategy,
    /// Not a token this service gave out, or a size below zero.
    Page,
    /// Not a version, or not a time.
    AsOf,
    /// Not a position this service gave out, or beyond the newest.
    Resume,
    /// A filter that selects what cannot be.
    Filter,
    /// Too short, or not a duration.
    Interval,
    /// Not a `grpc-timeout`.
    Timeout,
    /// Larger than the lab allows, or not an attack.
    Attack,
    /// Not a day, or none in the range.
    Day,
    /// Not a schedule, or a step that cannot be taken now.
    Schedule,
}
