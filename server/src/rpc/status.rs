//! From the domain's errors to gRPC statuses: one table, exhaustive. Every status carries `google.rpc.ErrorInfo`, whose
//! reason alone tells the effect; BadRequest, RetryInfo and QuotaFailure where they help.

use std::{collections::HashMap, time::Duration};

use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt};
use zbl_proto::{ERROR_DOMAIN, Reason};

use crate::{
    account::Refusal,
    error::{Error, Invalid, InvalidReason, LabRefusal, UnknownCause},
};

/// When to come back after contention: a few hot transactions later.
const RETRY_CONTENDED: Duration = Duration::from_millis(20);

/// When to come back after overload: long enough for a queue of work to drain.
const RETRY_OVERLOADED: Duration = Duration::from_millis(200);

/// The largest message that is read, bytes: no call of the contract needs a tenth of it.
pub(crate) const MESSAGE_MOST: usize = 64 * 1024;

/// Logs a failure, as loudly as an operator should know of it: once, where it is answered.
pub(super) fn log(error: &Error) {
    let reason = code_and_reason(error).1.as_str();
    match error {
        Error::Bug(_) | Error::JournalBroken { .. } => tracing::error!(reason, "{error}"),
        Error::BackendDown { .. } | Error::OutcomeUnknown { cause: UnknownCause::LinkLost, .. } => {
            tracing::warn!(reason, "{error}");
        }
        _ => tracing::debug!(reason, "{error}"),
    }
}

/// The status of an error, which is logged with it.
pub(crate) fn status(error: &Error) -> Status {
    log(error);
    let (code, reason) = code_and_reason(error);
    let reason = reason.as_str();
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata(error));
    match error {
        Error::Invalid(Invalid { field, description, .. }) => {
            details.add_bad_request_violation(*field, description);
        }
        Error::Contended { .. } => {
            details.set_retry_info(Some(RETRY_CONTENDED));
        }
        Error::Overloaded(description) => {
            details.set_retry_info(Some(RETRY_OVERLOADED));
            details.add_quota_failure_violation("server", description);
        }
        Error::CircuitOpen { retry_after, .. } => {
            details.set_retry_info(Some(*retry_after));
        }
        Error::QueueFull { retry_after, .. } => {
            details.set_retry_info(Some(*retry_after));
            details.add_quota_failure_violation("queue", told(error));
        }
        Error::RateLimited { of, retry_after, .. } => {
            details.set_retry_info(Some(*retry_after));
            details.add_quota_failure_violation(of.name(), told(error));
        }
        _ => {}
    }
    Status::with_error_details_and_metadata(code, told(error), details, headers(error))
}

/// What the transport says of a message that it cannot read, before any handler has seen it, with a reason: a status
/// without one would say nothing of its effect, and there was none.
pub(crate) fn named(refusal: Status) -> Status {
    match refusal.code() {
        Code::OutOfRange => status(&Error::MessageTooLarge { most: MESSAGE_MOST }),
        Code::Internal => status(&Error::Malformed(refusal.message().to_owned())),
        _ => refusal,
    }
}

/// What HTTP says of limits and of tokens, for whoever reads no details.
fn headers(error: &Error) -> MetadataMap {
    let mut headers = MetadataMap::new();
    if matches!(error, Error::Unauthenticated | Error::LabRefused(LabRefusal::Unauthenticated)) {
        headers.insert("www-authenticate", MetadataValue::from_static("Bearer"));
    }
    if let Error::RateLimited { rate, retry_after, .. } = error {
        // Whole seconds, rounded up: whoever waits so long is let in.
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        headers.insert("ratelimit-limit", rate.per_second.get().into());
        headers.insert("ratelimit-remaining", 0.into());
        headers.insert("ratelimit-reset", seconds.into());
        headers.insert("retry-after", seconds.into());
    }
    headers
}

/// What the caller is told in words. A backend's own words name hosts, users and statements: they stay in the log.
pub(super) fn told(error: &Error) -> String {
    match error {
        Error::BackendDown { backend, .. } => format!("{backend} is not reachable; nothing was changed"),
        Error::Bug(_) => "internal error; the server's log says more".to_owned(),
        Error::OutcomeUnknown { cause: UnknownCause::LinkLost, .. } => {
            "the link to the database was lost at commit; ask GetDeduction with resolve=true".to_owned()
        }
        error => error.to_string(),
    }
}

/// The reason alone.
pub(crate) const fn reason(error: &Error) -> Reason {
    code_and_reason(error).1
}

pub(super) const fn code_and_reason(error: &Error) -> (Code, Reason) {
    match error {
        Error::Invalid(Invalid { reason, .. }) => (
            Code::InvalidArgument,
            match reason {
                InvalidReason::Amount => Reason::InvalidAmount,
                InvalidReason::UserId => Reason::InvalidUserId,
                InvalidReason::RequestId => Reason::InvalidRequestId,
                InvalidReason::UnknownStrategy => Reason::UnknownStrategy,
                InvalidReason::Page => Reason::InvalidPage,
                InvalidReason::AsOf => Reason::InvalidAsOf,
                InvalidReason::Resume => Reason::InvalidResume,
                InvalidReason::Filter => Reason::InvalidFilter,
                InvalidReason::Interval => Reason::InvalidInterval,
                InvalidReason::Attack => Reason::InvalidAttack,
                InvalidReason::Schedule => Reason::InvalidSchedule,
                InvalidReason::Day => Reason::InvalidDay,
                InvalidReason::Timeout => Reason::InvalidTimeout,
            },
        ),
        Error::Refused(refusal) => match refusal {
            Refusal::NotYetReached { .. } => (Code::OutOfRange, Reason::InvalidAsOf),
            Refusal::RepairBelowZero { .. } => (Code::FailedPrecondition, Reason::RepairBelowZero),
            Refusal::AccountNotFound { .. } | Refusal::NotYetOpened { .. } => (Code::NotFound, Reason::AccountNotFound),
            Refusal::AccountExists { .. } => (Code::AlreadyExists, Reason::AccountExists),
            Refusal::InsufficientBalance { .. } => (Code::FailedPrecondition, Reason::InsufficientBalance),
            Refusal::BalanceOverflow { .. } => (Code::FailedPrecondition, Reason::BalanceOverflow),
            Refusal::RequestIdReused { .. } => (Code::InvalidArgument, Reason::RequestIdReused),
        },
        Error::Contended { .. } => (Code::Aborted, Reason::Contended),
        Error::Expired => (Code::DeadlineExceeded, Reason::Expired),
        Error::StrategyUnavailable { .. } => (Code::FailedPrecondition, Reason::StrategyUnavailable),
        Error::Overloaded(_) => (Code::ResourceExhausted, Reason::Overloaded),
        Error::RateLimited { .. } => (Code::ResourceExhausted, Reason::RateLimited),
        Error::CircuitOpen { .. } => (Code::Unavailable, Reason::CircuitOpen),
        Error::BackendDown { .. } => (Code::Unavailable, Reason::BackendDown),
        Error::QueueFull { .. } => (Code::ResourceExhausted, Reason::QueueFull),
        Error::QueueUnavailable => (Code::FailedPrecondition, Reason::QueueUnavailable),
        Error::DeadLetterNotFound(_) => (Code::NotFound, Reason::DeadLetterNotFound),
        Error::JournalBroken { .. } => (Code::DataLoss, Reason::JournalBroken),
        Error::MessageTooLarge { .. } => (Code::ResourceExhausted, Reason::MessageTooLarge),
        Error::Malformed(_) => (Code::InvalidArgument, Reason::MalformedMessage),
        Error::Unauthenticated => (Code::Unauthenticated, Reason::Unauthenticated),
        Error::Stopping => (Code::Unavailable, Reason::ShuttingDown),
        Error::OutcomeUnknown { cause: UnknownCause::Deadline, .. } => (Code::DeadlineExceeded, Reason::OutcomeUnknown),
        Error::OutcomeUnknown { cause: UnknownCause::LinkLost | UnknownCause::Crashed, .. } => {
            (Code::Unknown, Reason::OutcomeUnknown)
        }
        Error::LabRefused(LabRefusal::Disabled) => (Code::PermissionDenied, Reason::LabDisabled),
        Error::LabRefused(LabRefusal::Unauthenticated) => (Code::Unauthenticated, Reason::LabUnauthenticated),
        Error::Bug(_) => (Code::Internal, Reason::Bug),
    }
}

/// The values a program would otherwise have to read out of the message.
fn metadata(error: &Error) -> HashMap<String, String> {
    let pairs: Vec<(&str, String)> = match error {
        Error::Invalid(invalid) => vec![("field", invalid.field.to_owned())],
        Error::Refused(refusal) => match refusal {
            Refusal::AccountNotFound { user_id } | Refusal::AccountExists { user_id } => {
                vec![("user_id", user_id.to_string())]
            }
            Refusal::NotYetOpened { user_id, opened_at } => {
                vec![("user_id", user_id.to_string()), ("opened_at", format!("{}Z", opened_at.format("%FT%T%.f")))]
            }
            Refusal::NotYetReached { user_id, newest, .. } => {
                vec![("user_id", user_id.to_string()), ("newest_version", newest.to_string())]
            }
            Refusal::RepairBelowZero { user_id, expected } => {
                vec![("user_id", user_id.to_string()), ("expected_balance", expected.to_string())]
            }
            Refusal::InsufficientBalance { balance, amount } | Refusal::BalanceOverflow { balance, amount } => {
                vec![("balance", balance.to_string()), ("amount", amount.to_string())]
            }
            Refusal::RequestIdReused { request_id, found } => {
                let journaled = format!("{} {}", found.kind.name(), found.delta);
                vec![("request_id", request_id.to_string()), ("journaled", journaled)]
            }
        },
        Error::BackendDown { backend, .. } | Error::CircuitOpen { backend, .. } => {
            vec![("backend", backend.name().to_owned())]
        }
        Error::Contended { attempts, .. } => vec![("attempts", attempts.to_string())],
        Error::RateLimited { of, .. } => vec![("limit", of.name().to_owned())],
        Error::JournalBroken { user_id, .. } => vec![("user_id", user_id.to_string())],
        Error::MessageTooLarge { most } => vec![("most_bytes", most.to_string())],
        Error::StrategyUnavailable { name, .. } => vec![("strategy", (*name).to_owned())],
        Error::QueueFull { limit, .. } => vec![("limit", limit.to_string())],
        Error::DeadLetterNotFound(message_id) => vec![("message_id", message_id.clone())],
        Error::Expired
        | Error::QueueUnavailable
        | Error::Overloaded(_)
        | Error::Stopping
        | Error::Malformed(_)
        | Error::Unauthenticated
        | Error::OutcomeUnknown { .. }
        | Error::LabRefused(_)
        | Error::Bug(_) => Vec::new(),
    };
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
