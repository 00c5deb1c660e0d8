//! When an operation is due. Latency counts from there, not from when the client got round to sending: a client that
//! waits for a slow answer must not forget the time it kept the next operation waiting.

use std::time::Instant;

/// A way to pace operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacer {
    /// Each worker's next operation is due the moment its last one ended.
    #[default]
    ClosedLoop,
}

impl Pacer {
    /// When the next operation of a worker is due, given when its last one ended.
    pub fn due(self, last_ended: Instant) -> Instant {
        match self {
            Self::ClosedLoop => last_ended,
        }
    }
}
