//! A failed call, and what it means for the money. The effect is judged by the reason in our `google.rpc.ErrorInfo`
//! alone: codes are shared with proxies, libraries and the network, and a status without our details proves nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::iter;
use std::time::Duration;

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;
use zbl_proto::{ERROR_DOMAIN, Effect, Reason};

use crate::paint::printable;
use crate::remedy::remedy;

/// Why a call failed.
#[derive(Clone, Debug)]
pub struct Error {
    code: Code,
    message: String,
    reason: Option<Reason>,
    metadata: BTreeMap<String, String>,
    retry_delay: Option<Duration>,
    effect: Effect,
    /// What the two sides show or speak does not fit: nothing becomes of it until somebody changes that.
    misfit: bool,
}

impl Error {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The service's reason; `None` when the status did not come from the service, or names a reason this client does
    /// not know.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// The metadata of the service's `ErrorInfo`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// How long the service asks to wait before the call is repeated.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.retry_delay
    }

    /// What the call did to the account. Unknown also when the reason says "none" but an earlier try of the same call
    /// ended unknown: that try may yet commit.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Whether the cause lies in the connection, the server's life or its backend's, so that the same call may succeed
    /// later. Refusals and contention are answers, not outages, and a certificate is not accepted the second time either.
    pub fn is_transient(&self) -> bool {
        let Some(reason) = self.reason else {
            let away = matches!(
                self.code,
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal
            );
            return away && !self.misfit;
        };
        // Without a wildcard, so that whoever adds a reason decides.
        match reason {
            Reason::BackendDown | Reason::CircuitOpen | Reason::ShuttingDown | Reason::OutcomeUnknown => true,
            Reason::InvalidAmount
            | Reason::InvalidUserId
            | Reason::InvalidRequestId
            | Reason::InvalidPage
            | Reason::InvalidAsOf
            | Reason::InvalidResume
            | Reason::InvalidFilter
            | Reason::InvalidAttack
            | Reason::InvalidSchedule
            | Reason::InvalidInterval
            | Reason::InvalidDay
            | Reason::InvalidTimeout
            | Reason::MalformedMessage
            | Reason::MessageTooLarge
            | Reason::UnknownStrategy
            | Reason::RequestIdReused
            | Reason::AccountNotFound
            | Reason::AccountExists
            | Reason::InsufficientBalance
            | Reason::BalanceOverflow
            | Reason::RepairBelowZero
            | Reason::JournalBroken
            | Reason::Contended
            | Reason::Expired
            | Reason::StrategyUnavailable
            | Reason::Unauthenticated
            | Reason::LabDisabled
            | Reason::LabUnauthenticated
            | Reason::RateLimited
            | Reason::Overloaded
            | Reason::QueueFull
            | Reason::QueueUnavailable
            | Reason::DeadLetterNotFound
            | Reason::Bug => false,
        }
    }

    /// An answer that breaks the contract; whatever it was meant to say is unknown.
    pub fn broken_answer(what: impl fmt::Display) -> Self {
        Self::from_status(&Status::data_loss(format!("the server's answer breaks the contract: {what}")))
    }

    /// A request that was accepted to be made later, and is not decided.
    pub(crate) fn undecided(request_id: Uuid) -> Self {
        Self::from_status(&Status::failed_precondition(format!(
            "{request_id} was accepted by DeductAsync and is not decided yet; watch it instead of resolving it"
        )))
    }

    /// A request that was waited for in vain.
    pub(crate) fn not_decided_within(request_id: Uuid, within: Duration) -> Self {
        Self::from_status(&Status::deadline_exceeded(format!(
            "{request_id} is not decided within {within:?}; ask again"
        )))
    }

    /// No answer within the client's deadline.
    pub fn no_answer_within(deadline: Duration) -> Self {
        Self::from_status(&Status::deadline_exceeded(format!("no answer within {deadline:?}")))
    }

    /// What the trailers of a call say, for callers with a transport of their own.
    ///
    /// # Errors
    /// The error they tell, or that they tell nothing.
    pub fn check_trailers(trailers: &HeaderMap) -> Result<(), Self> {
        match Status::from_header_map(trailers) {
            Some(status) if status.code() == Code::Ok => Ok(()),
            Some(status) => Err(Self::from_status(&status)),
            None => Err(Self::from_status(&Status::unknown("the answer has no grpc-status"))),
        }
    }

    /// A connection that is lost or cannot be made; what its calls did is unknown.
    pub fn lost(why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self::from_status(&Status::unavailable(&why)).caused_by(&why)
    }

    pub(crate) fn from_status(status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
        let reason = info.as_ref().and_then(|info| Reason::from_wire(&info.reason));
        let error = Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason,
            metadata: info.map(|info| info.metadata.into_iter().collect()).unwrap_or_default(),
            retry_delay: status.get_details_retry_info().and_then(|info| info.retry_delay),
            effect: reason.map_or(Effect::Unknown, Reason::effect),
            misfit: false,
        };
        // Only what happened on this side has a source; what a server says is its own affair.
        let root = iter::successors(std::error::Error::source(status), |error| (*error).source()).last();
        match root {
            Some(root) => error.caused_by(&root.to_string()),
            None => error,
        }
    }

    /// The same with what lies at its root, as "transport error" alone says nothing, and with what helps against it.
    fn caused_by(mut self, root: &str) -> Self {
        if !self.message.contains(root) {
            self.message = format!("{}: {root}", self.message);
        }
        if let Some(remedy) = remedy(root) {
            self.message = format!("{}; {remedy}", self.message);
            self.misfit = true;
        }
        self
    }

    /// The error of one item of a stream.
    pub(crate) fn of_item(code: Code, message: String, reason: Option<Reason>) -> Self {
        let effect = reason.map_or(Effect::Unknown, Reason::effect);
        Self { code, message, reason, metadata: BTreeMap::new(), retry_delay: None, effect, misfit: false }
    }

    /// The same error after an earlier try of the same call ended with effect `before`.
    pub(crate) fn after(self, before: Effect) -> Self {
        match before {
            Effect::None => self,
            Effect::Unknown => Self { effect: Effect::Unknown, ..self },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = printable(&self.message);
        match self.reason {
            Some(reason) => write!(f, "{reason}: {message}"),
            None => write!(f, "{:?}: {message}", self.code),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str, domain: &str) -> Status {
        let metadata = HashMap::from([("balance".to_owned(), "5.00".to_owned())]);
        let mut details = ErrorDetails::with_error_info(reason, domain, metadata);
        details.set_retry_info(Some(Duration::from_millis(40)));
        Status::with_error_details(code, "no", details)
    }

    #[test]
    fn reads_the_details() {
        let error = Error::from_status(&status(Code::Aborted, "CONTENDED", ERROR_DOMAIN));
        assert_eq!(error.reason(), Some(Reason::Contended));
        assert_eq!(error.effect(), Effect::None);
        assert_eq!(error.retry_delay(), Some(Duration::from_millis(40)));
        assert_eq!(error.metadata()["balance"], "5.00");
        assert!(!error.is_transient());
        assert_eq!(error.to_string(), "CONTENDED: no");
    }

    #[test]
    fn trusts_no_code_no_foreign_domain_and_no_unknown_reason() {
        for status in [
            Status::failed_precondition("no"),
            Status::unavailable("connection refused"),
            status(Code::FailedPrecondition, "INSUFFICIENT_BALANCE", "elsewhere.example"),
            status(Code::FailedPrecondition, "INVENTED_LATER", ERROR_DOMAIN),
        ] {
            let error = Error::from_status(&status);
            assert_eq!((error.reason(), error.effect()), (None, Effect::Unknown), "{status:?}");
        }
    }

    #[test]
    fn trailers_tell_what_the_status_would() {
        let trailers =
            |status: &'static str| HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
        Error::check_trailers(&trailers("0")).unwrap();
        assert_eq!(Error::check_trailers(&trailers("12")).unwrap_err().code(), Code::Unimplemented);
        assert_eq!(Error::check_trailers(&trailers("nonsense")).unwrap_err().code(), Code::Unknown);
        assert!(Error::check_trailers(&HeaderMap::new()).unwrap_err().message().contains("no grpc-status"));
        let contended = status(Code::Aborted, "CONTENDED", ERROR_DOMAIN).into_http::<()>();
        let error = Error::check_trailers(contended.headers()).unwrap_err();
        assert_eq!((error.reason(), error.effect()), (Some(Reason::Contended), Effect::None));
        assert!(Error::lost("cut").is_transient());
    }

    #[test]
    fn what_helps_is_told_of_this_side_alone() {
        let unknown = "invalid peer certificate: UnknownIssuer";
        let ours = Error::lost(unknown);
        assert!(ours.message().contains("give --ca-cert FILE") && !ours.is_transient(), "{ours}");
        // The server's own trouble, such as with its database.
        let theirs = Error::from_status(&Status::unavailable(unknown));
        assert!(theirs.message() == unknown && theirs.is_transient(), "{theirs}");
    }

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        let error = Error::from_status(&Status::unavailable("gone\x1b[2J\r\nerror: none"));
        assert_eq!(error.to_string(), "Unavailable: gone\u{fffd}[2J\u{fffd}\u{fffd}error: none");
    }

    #[test]
    fn only_outages_are_transient() {
        let transient = |code, reason| Error::from_status(&status(code, reason, ERROR_DOMAIN)).is_transient();
        assert!(transient(Code::Unavailable, "BACKEND_DOWN"));
        assert!(transient(Code::DeadlineExceeded, "OUTCOME_UNKNOWN"));
        assert!(transient(Code::Unavailable, "SHUTTING_DOWN"));
        assert!(!transient(Code::ResourceExhausted, "OVERLOADED"));
        assert!(!transient(Code::Internal, "BUG"));
        assert!(Error::from_status(&Status::unavailable("refused")).is_transient());
        assert!(!Error::from_status(&Status::unimplemented("no lab")).is_transient());
    }
}
