//! Whether two runs differ by more than their own seconds do: the Mann–Whitney U test on their windows. It asks for ranks
//! alone, so that a stalled second counts as one slow window and not as its size.
//!
//! Windows of one run follow each other and are more alike than independent ones would be, which makes the test see
//! differences too readily; hence the strict level. What varies from run to run no test within one run each can see.

use super::{Bench, Window};

/// Fewer windows on either side cannot tell anything at this level, whatever they hold.
pub(super) const MIN_WINDOWS: usize = 8;

/// The level the test is made at, in words.
pub(super) const LEVEL: &str = "1 % level";

/// The normal quantile of that level, two-sided.
const CRITICAL_Z: f64 = 2.576;

/// What the test finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Windows of the same two runs, dealt anew, would differ as much.
    WithinNoise,
    /// They would not.
    BeyondNoise,
    /// Too short to be told.
    TooFewWindows,
}

/// Acknowledged operations per second, window by window.
pub(super) fn rates(bench: &Bench) -> Vec<f64> {
    bench.whole_windows().map(Window::acknowledged_per_s).collect()
}

/// The p99 of each window, in microseconds; of one in which nothing was decided there is none.
pub(super) fn tails(bench: &Bench) -> Vec<f64> {
    bench.whole_windows().filter(|window| window.max_us > 0).map(|window| window.p99_us as f64).collect()
}

/// Compares two samples.
pub(super) fn difference(one: &[f64], other: &[f64]) -> Difference {
    if one.len().min(other.len()) < MIN_WINDOWS {
        return Difference::TooFewWindows;
    }
    let (rank_sum, ties) = ranked(one, other);
    let (n1, n2) = (one.len() as f64, other.len() as f64);
    let n = n1 + n2;
    let u = rank_sum - n1 * (n1 + 1.0) / 2.0;
    // With the correction for ties; zero when all windows are alike.
    let variance = n1 * n2 / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    let distance = ((u - n1 * n2 / 2.0).abs() - 0.5).max(0.0);
    if distance > CRITICAL_Z * variance.sqrt() { Difference::BeyondNoise } else { Difference::WithinNoise }
}

/// The sum of the ranks of `one` among both, equal values sharing their ranks' mean, and the sum of t³ − t over every
/// group of t equal values.
fn ranked(one: &[f64], other: &[f64]) -> (f64, f64) {
    let tagged = |sample: &[f64], share: f64| sample.iter().map(|value| (*value, share)).collect::<Vec<_>>();
    let mut all = [tagged(one, 1.0), tagged(other, 0.0)].concat();
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut ties, mut before) = (0.0, 0.0, 0.0);
    for group in all.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let size = group.len() as f64;
        let rank = before + (size + 1.0) / 2.0;
        rank_sum += rank * group.iter().map(|(_, share)| share).sum::<f64>();
        ties += size.powi(3) - size;
        before += size;
    }
    (rank_sum, ties)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{closed, window};
    use super::*;

    fn from(first: u32, count: u32) -> Vec<f64> {
        (first..first + count).map(f64::from).collect()
    }

    #[test]
    fn ranks_and_ties_are_those_of_the_textbook() {
        // Values 1 2 2 3, ranks 1 2.5 2.5 4.
        assert_eq!(ranked(&[2.0, 1.0], &[3.0, 2.0]), (3.5, 6.0));
        assert_eq!(ranked(&[5.0; 2], &[5.0]), (4.0, 24.0));
    }

    #[test]
    fn apart_is_beyond_the_noise_and_interleaved_is_within() {
        assert_eq!(difference(&from(0, 8), &from(100, 8)), Difference::BeyondNoise);
        assert_eq!(difference(&from(100, 8), &from(0, 8)), Difference::BeyondNoise);
        let (even, odd): (Vec<f64>, Vec<f64>) = from(0, 40).into_iter().partition(|value| (value / 2.0).fract() == 0.0);
        assert_eq!(difference(&even, &odd), Difference::WithinNoise);
        assert_eq!(difference(&[7.0; 20], &[7.0; 20]), Difference::WithinNoise);
        // One stalled second does not make another run of it.
        let mut stalled = from(0, 20);
        stalled[3] = -1e9;
        assert_eq!(difference(&from(0, 20), &stalled), Difference::WithinNoise);
    }

    #[test]
    fn the_level_is_where_the_tables_put_it() {
        // For 10 and 10 the table's critical U is 16 (1 %, two-sided); shifts by 3 and 4 give 21 and 15.
        let shifted =
            |by: u32| difference(&from(0, 10), &from(by, 10).iter().map(|value| value + 0.5).collect::<Vec<_>>());
        let first_beyond = (0..10).find(|by| shifted(*by) == Difference::BeyondNoise);
        assert_eq!(first_beyond, Some(4));
    }

    #[test]
    fn few_windows_tell_nothing_and_cut_ones_are_left_out() {
        assert_eq!(difference(&from(0, 7), &from(100, 20)), Difference::TooFewWindows);
        let mut series: Vec<Window> = (0..8).map(|second| window(second, 100)).collect();
        // What was in flight at the end comes in; the calls run dry.
        series.push(Window { length_ms: 900, acknowledged: 1, ..window(8, 0) });
        let bench = Bench { series, ..closed() };
        assert_eq!(rates(&bench), [100.0; 8]);
        assert_eq!(tails(&bench).len(), 8);
        let mut stalled = bench.clone();
        stalled.series[3] = Window { p50_us: 0, p99_us: 0, max_us: 0, ..window(3, 0) };
        assert_eq!((rates(&stalled).len(), tails(&stalled).len()), (8, 7));
        assert!(rates(&Bench { series: vec![], ..closed() }).is_empty());
    }
}
