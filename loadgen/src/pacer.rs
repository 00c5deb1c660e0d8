//! When an operation is due. Latency counts from there, not from when the client got round to sending: a client that
//! waits for a slow answer must not forget the time it kept the next operation waiting.

use std::time::Duration;

use tokio::time::Instant;

/// A way to pace operations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Pacer {
    /// The next operation is due the moment there is room for it.
    #[default]
    ClosedLoop,
    /// Each operation is due at a time fixed in advance, whatever became of those before it.
    OpenLoop(Timetable),
}

/// The times of an open loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timetable {
    /// When the first operation is due.
    pub first: Instant,
    /// Operations per second, more than 0.
    pub rate_per_s: f64,
}

/// What becomes of an operation that is due while too many are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is not due yet.
    Wait,
    /// It is counted as dropped: waiting would shift the schedule, and hide what a slow server does to it.
    Drop,
}

/// Thirty years: what is due later is never due, and clocks reach that far.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Timetable {
    /// When the operation with this number, from 0, is due. Always counted from the first one, so that rounding does not
    /// add up.
    pub fn at(&self, number: u64) -> Instant {
        let after = Duration::try_from_secs_f64(number as f64 / self.rate_per_s).unwrap_or(NEVER);
        self.first + after.min(NEVER)
    }
}

impl Pacer {
    /// When the operation with this number, from 0, is due, given since when there is room for it.
    pub fn due(&self, number: u64, room_since: Instant) -> Instant {
        match self {
            Self::ClosedLoop => room_since,
            Self::OpenLoop(timetable) => timetable.at(number),
        }
    }

    /// What becomes of an operation that is due while too many are in flight.
    pub const fn when_full(&self) -> WhenFull {
        match self {
            Self::ClosedLoop => WhenFull::Wait,
            Self::OpenLoop(_) => WhenFull::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_keeps_its_times_whatever_happens() {
        let first = Instant::now();
        let pacer = Pacer::OpenLoop(Timetable { first, rate_per_s: 3.0 });
        for (number, expected) in [(0, 0.0), (1, 1.0 / 3.0), (3, 1.0), (3_000_000, 1e6)] {
            let due = pacer.due(number, first + Duration::from_secs(7));
            assert!((due.duration_since(first).as_secs_f64() - expected).abs() < 1e-6, "{number}");
        }
        assert_eq!(Pacer::ClosedLoop.due(9, first), first);
    }

    #[test]
    fn what_is_due_beyond_all_time_is_never_due() {
        let first = Instant::now();
        for rate_per_s in [1e-20, f64::MIN_POSITIVE, 1e-9] {
            assert_eq!(Timetable { first, rate_per_s }.at(1), first + NEVER);
        }
    }
}
