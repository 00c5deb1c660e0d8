//! What an acknowledged deduction costs the database. It owns how that follows from what the servers count, and refuses
//! to guess where their counting was cut.

use std::fmt;
use std::iter::Sum;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What stands above columns of costs.
pub(super) const CAPTION: &str = "per acknowledged deduction, with the work for those refused";

/// The columns of a table of costs; the first is for what they are of.
pub(super) const COLUMNS: [&str; 5] = ["", "round trips", "commits", "lock held µs", "attempts"];

/// What an acknowledged deduction cost, on average. The work for refused deductions is in it: servers count it together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Statements sent to the database and waited for.
    pub round_trips: f64,
    /// Transactions committed.
    pub commits: f64,
    /// How long row locks were held, in microseconds.
    pub lock_held_us: f64,
    /// Attempts, those that failed included.
    pub attempts: f64,
}

/// The work a server has done since it was started; it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Statements sent to the database and answered.
    pub round_trips: u64,
    /// Transactions committed.
    pub commits: u64,
    /// How long row locks were held, added up over transactions.
    pub locks_held: Duration,
    /// Attempts at changes, those that failed included.
    pub attempts: u64,
    /// Changes acknowledged.
    pub acknowledged: u64,
}

impl Cost {
    /// What each change between two readings cost. The servers' own count of changes divides the work, so that it is right
    /// whoever else deducted meanwhile. `None` when nothing was acknowledged, or when a count went back: a server was
    /// started anew between the readings, and what it had counted is gone.
    pub fn between(before: &Work, after: &Work) -> Option<Self> {
        let acknowledged = after.acknowledged.checked_sub(before.acknowledged).filter(|count| *count > 0)? as f64;
        let each = |after: u64, before: u64| Some(rounded(after.checked_sub(before)? as f64 / acknowledged));
        let locks_held = after.locks_held.checked_sub(before.locks_held)?;
        Some(Self {
            round_trips: each(after.round_trips, before.round_trips)?,
            commits: each(after.commits, before.commits)?,
            lock_held_us: rounded(locks_held.as_secs_f64() * 1e6 / acknowledged),
            attempts: each(after.attempts, before.attempts)?,
        })
    }
}

/// A row of a table with [`COLUMNS`].
pub(super) fn row(of: &str, cost: Option<Cost>) -> [String; 5] {
    let figure = |of: fn(&Cost) -> f64| cost.map_or_else(|| "-".to_owned(), |cost| figure(of(&cost)));
    [
        of.to_owned(),
        figure(|cost| cost.round_trips),
        figure(|cost| cost.commits),
        figure(|cost| cost.lock_held_us),
        figure(|cost| cost.attempts),
    ]
}

/// In words, as texts of results show it.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round_trips, commits, lock_held_us, attempts } = *self;
        write!(
            f,
            "{} round trips, {} commits, {} attempts, locks held {} µs {CAPTION}",
            figure(round_trips),
            figure(commits),
            figure(attempts),
            figure(lock_held_us)
        )
    }
}

/// A figure with about three digits, so that both 0.0123 commits and 12345 µs are readable.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 || value == 0.0 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

/// The work of several servers together.
impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(servers: I) -> Self {
        servers.fold(Self::default(), |sum, server| Self {
            round_trips: sum.round_trips.saturating_add(server.round_trips),
            commits: sum.commits.saturating_add(server.commits),
            locks_held: sum.locks_held.saturating_add(server.locks_held),
            attempts: sum.attempts.saturating_add(server.attempts),
            acknowledged: sum.acknowledged.saturating_add(server.acknowledged),
        })
    }
}

/// To four decimals: a commit shared by a thousand deductions still shows.
fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(scale: u64) -> Work {
        Work {
            round_trips: 5 * scale,
            commits: scale,
            locks_held: Duration::from_micros(300 * scale),
            attempts: 2 * scale,
            acknowledged: scale,
        }
    }

    #[test]
    fn work_between_readings_is_divided_by_what_was_acknowledged() {
        let cost = Cost { round_trips: 5.0, commits: 1.0, lock_held_us: 300.0, attempts: 2.0 };
        assert_eq!(Cost::between(&work(10), &work(110)), Some(cost));
        let batched = Work { commits: 11, ..work(110) };
        assert_eq!(Cost::between(&work(10), &batched), Some(Cost { commits: 0.01, ..cost }));
    }

    #[test]
    fn a_restart_and_idleness_cost_nothing_that_can_be_told() {
        assert_eq!(Cost::between(&work(10), &work(10)), None);
        assert_eq!(Cost::between(&work(10), &work(9)), None);
        assert_eq!(Cost::between(&work(10), &Work { commits: 9, ..work(11) }), None);
        assert_eq!(Cost::between(&work(10), &Work { locks_held: Duration::ZERO, ..work(11) }), None);
    }

    #[test]
    fn servers_work_together() {
        assert_eq!([work(1), work(2), work(7)].into_iter().sum::<Work>(), work(10));
    }
}
