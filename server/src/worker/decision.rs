//! What follows when a deduction of the queue could not be made: one table over every error. It looks at the error alone; how often
//! there was one is for whoever asks.

use crate::error::{Backend, Error, UnknownCause};

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The rules refuse it, and that is the answer.
    Fail,
    /// The database cannot be asked, which is no fault of the deduction: it waits in hand, and no attempt is counted.
    Hold,
    /// It may be made later.
    Later,
    /// Nothing will change by itself: somebody has to look at it.
    LayAside,
}

impl Decision {
    pub(super) const fn on(error: &Error) -> Self {
        match error {
            Error::Refused(_) => Self::Fail,
            Error::BackendDown { backend: Backend::Database, .. }
            | Error::CircuitOpen { backend: Backend::Database, .. }
            | Error::OutcomeUnknown { cause: UnknownCause::LinkLost, .. } => Self::Hold,
            Error::BackendDown { backend: Backend::LockServer | Backend::Broker | Backend::Service, .. }
            | Error::CircuitOpen { backend: Backend::LockServer | Backend::Broker | Backend::Service, .. }
            | Error::OutcomeUnknown { cause: UnknownCause::Deadline | UnknownCause::Crashed, .. }
            | Error::Contended { .. }
            | Error::Expired
            | Error::Overloaded(_)
            | Error::RateLimited { .. }
            // Another worker may have the server that it needs, or this one after its next start.
            | Error::StrategyUnavailable { .. }
            | Error::QueueFull { .. }
            | Error::QueueUnavailable
            | Error::Stopping
            // Mostly something that the database says and nobody has foreseen, such as that it is read-only.
            | Error::Bug(_) => Self::Later,
            Error::Invalid(_)
            | Error::JournalBroken { .. }
            | Error::MessageTooLarge { .. }
            | Error::Malformed(_)
            | Error::DeadLetterNotFound(_)
            | Error::Unauthenticated
            | Error::LabRefused(_) => Self::LayAside,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        account::{Money, Refusal},
        error::{Invalid, InvalidReason},
        history::Broken,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn down(backend: Backend) -> Error {
        Error::BackendDown { backend, reason: String::new() }
    }

    fn unknown(cause: UnknownCause) -> Error {
        Error::OutcomeUnknown { reason: String::new(), cause }
    }

    #[test]
    fn what_the_rules_refuse_is_final() {
        let [balance, amount] = [Money::ZERO, Money::from_minor(1)];
        for refusal in [
            Refusal::InsufficientBalance { balance, amount },
            Refusal::BalanceOverflow { balance, amount },
            Refusal::AccountNotFound { user_id: 1 },
        ] {
            assert_eq!(Decision::on(&refusal.into()), Decision::Fail);
        }
    }

    #[test]
    fn a_database_that_is_away_is_waited_for() {
        let refused = Error::CircuitOpen { backend: Backend::Database, retry_after: SECOND };
        for error in [down(Backend::Database), refused, unknown(UnknownCause::LinkLost)] {
            assert_eq!(Decision::on(&error), Decision::Hold, "{error}");
        }
    }

    #[test]
    fn what_passes_is_tried_again_and_counted() {
        for error in [
            down(Backend::LockServer),
            Error::CircuitOpen { backend: Backend::LockServer, retry_after: SECOND },
            unknown(UnknownCause::Crashed),
            Error::Contended { attempts: 3, reason: String::new() },
            Error::Overloaded(String::new()),
            Error::StrategyUnavailable { name: "redlock", reason: String::new() },
            Error::Bug(String::new()),
        ] {
            assert_eq!(Decision::on(&error), Decision::Later, "{error}");
        }
    }

    #[test]
    fn what_nobody_can_make_is_laid_aside() {
        let unknown = Invalid { field: "strategy", reason: InvalidReason::UnknownStrategy, description: String::new() };
        let broken = Error::JournalBroken { user_id: 1, broken: Broken::Overflow };
        for error in [Error::from(unknown), broken] {
            assert_eq!(Decision::on(&error), Decision::LayAside, "{error}");
        }
    }
}
