//! When to try again, and how long to wait before it: exponential pauses with jitter, always bounded. It refuses to
//! decide what may be repeated; that is [`crate::Error::is_transient`]'s.

use std::time::Duration;

/// Pauses that double up to a longest one, each shortened at random by up to half so that clients which failed together
/// do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with `first` and never exceeds `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// How often a call whose outcome is unknown, or whose server is away, is repeated under the same request id.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The most calls made, the first included; at least one is always made.
    pub tries: u32,
    /// The pause before the second call.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Retry {
    /// One call, for callers with a loop of their own.
    pub const NEVER: Self = Self { tries: 1, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };

    /// A fresh sequence of pauses.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.first_pause, self.longest_pause)
    }
}

/// Five calls within about a second and a half: enough for a lost connection, not for an outage, which is the caller's
/// decision to sit out.
impl Default for Retry {
    fn default() -> Self {
        Self { tries: 5, first_pause: Duration::from_millis(100), longest_pause: Duration::from_secs(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_longest_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(35));
        for expected in [10, 20, 35, 35] {
            let pause = backoff.pause();
            let longest = Duration::from_millis(expected);
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(10));
    }
}
