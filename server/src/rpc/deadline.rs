//! Keeping to a call's deadline, which `layer/deadline.rs` noted when its head arrived. The work itself goes on: it runs in
//! a task of its own.

use std::future::Future;

use tokio::time::Instant;
use tonic::Extensions;

use crate::{
    error::{Error, UnknownCause},
    layer::Deadline,
};

/// When the caller is to be answered, if the call came with a deadline.
pub(super) fn answer_by(extensions: &Extensions) -> Option<Instant> {
    Deadline::of(extensions).map(|deadline| deadline.answer_by)
}

/// Waits for `work` until the call's deadline.
pub(super) async fn within<T>(
    extensions: &Extensions,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(Deadline { timeout, answer_by, .. }) = Deadline::of(extensions) else { return work.await };
    match tokio::time::timeout_at(answer_by, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::OutcomeUnknown {
            reason: format!("the deadline of {timeout:?} passed"),
            cause: UnknownCause::Deadline,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_before_the_deadline_with_a_reason() {
        let mut extensions = Extensions::new();
        extensions.insert(Deadline::new(Some(Duration::from_secs(1)), Duration::from_secs(60)));
        let began = Instant::now();
        // The message comes late; the deadline does not move.
        tokio::time::advance(Duration::from_millis(500)).await;
        let result = within(&extensions, std::future::pending::<Result<(), Error>>()).await;
        assert!(matches!(result, Err(Error::OutcomeUnknown { cause: UnknownCause::Deadline, .. })), "{result:?}");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
