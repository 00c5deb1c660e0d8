//! The caller's deadline (`grpc-timeout`). The transport would answer CANCELLED without a reason once it passes; this
//! answers DEADLINE_EXCEEDED with ours, a moment earlier, so that it still arrives.

use std::{future::Future, time::Duration};

use tonic::metadata::MetadataMap;

use crate::error::{Error, UnknownCause};

/// How much earlier than the caller we give up, at most: the way back, and the transport's own timer.
const MARGIN: Duration = Duration::from_millis(10);

/// Waits for `work` until the caller's deadline. The work itself, in its own task, goes on.
pub(super) async fn within<T>(
    metadata: &MetadataMap,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(timeout) = timeout(metadata) else { return work.await };
    let patience = timeout.saturating_sub(MARGIN.min(timeout / 10));
    match tokio::time::timeout(patience, work).await {
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
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "1S".parse().unwrap());
        let began = tokio::time::Instant::now();
        let result = within(&metadata, std::future::pending::<Result<(), Error>>()).await;
        assert!(matches!(result, Err(Error::OutcomeUnknown { cause: UnknownCause::Deadline, .. })), "{result:?}");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
