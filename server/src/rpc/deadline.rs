//! The caller's deadline (`grpc-timeout`). The transport would answer CANCELLED without a reason once it passes; this
//! answers DEADLINE_EXCEEDED with ours, a moment earlier, so that it still arrives. Both count from the moment the head
//! of the call arrives: counted from the handler, which waits for the message, ours could come after the transport's.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tonic::{Extensions, Request, Status, metadata::MetadataMap};

use crate::error::{Error, UnknownCause};

/// How much earlier than the caller we give up, at most: the way back, and the transport's own timer.
const MARGIN: Duration = Duration::from_millis(50);

/// What a caller's deadline means for its call.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    timeout: Duration,
    answer_by: Instant,
}

/// Notes the deadline of a call whose head has just arrived, for [`within`] and [`answer_by`]. An interceptor in front of every service;
/// it turns nobody away.
pub(crate) fn note_deadline(mut call: Request<()>) -> Result<Request<()>, Status> {
    if let Some(timeout) = timeout(call.metadata())
        && let Some(answer_by) = Instant::now().checked_add(timeout.saturating_sub(MARGIN.min(timeout / 10)))
    {
        call.extensions_mut().insert(Deadline { timeout, answer_by });
    }
    Ok(call)
}

/// When the caller is to be answered, if its call carries a deadline.
pub(super) fn answer_by(extensions: &Extensions) -> Option<Instant> {
    extensions.get().map(|deadline: &Deadline| deadline.answer_by)
}

/// Waits for `work` until the deadline noted with the call. The work itself, in its own task, goes on.
pub(super) async fn within<T>(
    extensions: &Extensions,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(&Deadline { timeout, answer_by }) = extensions.get() else { return work.await };
    match tokio::time::timeout_at(answer_by, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::OutcomeUnknown {
            reason: format!("the deadline of {timeout:?} passed"),
            cause: UnknownCause::Deadline,
        }),
    }
}

/// The value of `grpc-timeout`: at most eight digits and a unit. What is malformed the transport ignores, and so do we.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        timeout(&metadata)
    }

    #[test]
    fn reads_every_unit_and_nothing_else() {
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("150m"), Some(Duration::from_millis(150)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for malformed in ["", "S", "1", "1x", "-1S", "123456789S", "1.5S"] {
            assert_eq!(read(malformed), None, "{malformed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_before_the_deadline_with_a_reason() {
        let mut call = Request::new(());
        call.metadata_mut().insert("grpc-timeout", "1S".parse().unwrap());
        let began = Instant::now();
        let call = note_deadline(call).unwrap();
        // The message comes late; the deadline does not move.
        tokio::time::advance(Duration::from_millis(500)).await;
        let result = within(call.extensions(), std::future::pending::<Result<(), Error>>()).await;
        assert!(matches!(result, Err(Error::OutcomeUnknown { cause: UnknownCause::Deadline, .. })), "{result:?}");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
