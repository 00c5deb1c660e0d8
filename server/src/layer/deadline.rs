//! When a call is to be answered. The transport has a timer for `grpc-timeout` too, outside of every layer, and answers
//! CANCELLED without a reason once it passes. Ours counts from the same moment, that of the head, and ends a little
//! earlier: the handlers answer DEADLINE_EXCEEDED with ours (`rpc/deadline.rs`), and hand on what remains.

use std::time::Duration;

use http::{HeaderMap, Request};
use tokio::time::Instant;
use tonic::{Extensions, Status, body::Body};

use super::Surround;
use crate::{
    error::{Invalid, InvalidReason},
    rpc::status,
};

/// How much earlier than the caller we give up, at most: the way back, and the transport's own timer.
const MARGIN: Duration = Duration::from_millis(50);

/// Where a caller says how long it waits.
const FIELD: &str = "grpc-timeout";

/// What a message may take once the head of its call is there. Until then the call keeps its room, and heads are cheap to
/// send.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(5);

/// Notes the deadline of each call.
#[derive(Clone)]
pub(super) struct Deadlines {
    /// The longest that a call may go on, whatever its caller says.
    pub(super) most: Duration,
}

/// How long a call may go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// What there was at first.
    pub(crate) timeout: Duration,
    /// When the call is to be answered.
    pub(crate) answer_by: Instant,
    /// The same for a stream, which may go on for as long as its caller says.
    stream_until: Option<Instant>,
    most: Duration,
}

impl Deadline {
    /// Of a call that arrives now, whose caller waits for `asked`, or for ever.
    pub(crate) fn new(asked: Option<Duration>, most: Duration) -> Self {
        let now = Instant::now();
        let before = |timeout: Duration| now.checked_add(timeout.saturating_sub(MARGIN.min(timeout / 10)));
        let timeout = asked.map_or(most, |asked| asked.min(most));
        Self { timeout, answer_by: before(timeout).unwrap_or(now), stream_until: asked.and_then(before), most }
    }

    /// That of a call which came through the layers, or was given one.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// When the message of this call, whose head is there now, has to be there.
    pub(crate) fn message_by(self) -> Instant {
        self.answer_by.min(Instant::now() + MESSAGE_PATIENCE)
    }

    /// When an item of this call's stream, read now, is to be answered.
    pub(crate) fn of_item(self) -> Instant {
        let own = Self::new(None, self.most).answer_by;
        self.stream_until.map_or(own, |until| until.min(own))
    }
}

impl Surround for Deadlines {
    type Kept = ();

    fn before(&self, call: &mut Request<Body>) -> Result<(), Status> {
        let asked = timeout(call.headers()).map_err(|error| status(&error.into()))?;
        let deadline = Deadline::new(asked, self.most);
        call.extensions_mut().insert(deadline);
        Ok(())
    }
}

/// The value of `grpc-timeout`: at most eight digits and a unit. The transport ignores what is malformed, and would let
/// a caller wait for ever who believes to have said how long; so it is refused, as by grpc-go.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Invalid> {
    let Some(value) = headers.get(FIELD) else { return Ok(None) };
    value.to_str().ok().and_then(duration).map(Some).ok_or_else(|| Invalid {
        field: FIELD,
        reason: InvalidReason::Timeout,
        description: "it is not one to eight digits and a unit of H, M, S, m, u or n".to_owned(),
    })
}

fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
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

    const MOST: Duration = Duration::from_secs(60);

    fn read(text: &'static str) -> Result<Option<Duration>, Invalid> {
        timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
    }

    #[test]
    fn reads_every_unit_and_nothing_else() {
        assert_eq!(timeout(&HeaderMap::new()), Ok(None));
        assert_eq!(read("2S"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(read("150m"), Ok(Some(Duration::from_millis(150))));
        assert_eq!(read("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3600))));
        for malformed in ["", "S", "1", "1x", "-1S", "123456789S", "1.5S"] {
            assert_eq!(read(malformed).unwrap_err().reason, InvalidReason::Timeout, "{malformed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_wait_less_than_the_most_but_not_more() {
        let left = |asked| Deadline::new(asked, MOST).answer_by - Instant::now();
        assert_eq!(left(Some(Duration::from_secs(1))), Duration::from_millis(950));
        assert_eq!(left(Some(Duration::from_millis(100))), Duration::from_millis(90));
        for asked in [None, Some(MOST * 2), Some(Duration::MAX)] {
            assert_eq!(left(asked), MOST - MARGIN, "{asked:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_item_of_a_stream_has_its_own_time_within_the_callers() {
        let (open, short) = (Deadline::new(None, MOST), Deadline::new(Some(MOST + MARGIN), MOST));
        tokio::time::advance(MOST * 2 / 3).await;
        assert_eq!(open.of_item() - Instant::now(), MOST - MARGIN);
        assert_eq!(short.of_item() - Instant::now(), MOST / 3);
    }
}
