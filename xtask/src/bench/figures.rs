//! Figures of repeated measurements: medians with their extremes, and ratios taken round by round. Pure.

use serde::Serialize;

/// The median of several measurements, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without a measurement, or with one that is no number.
    pub(crate) fn of(measurements: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = measurements.into_iter().collect();
        if sorted.is_empty() || !sorted.iter().all(|value| value.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let (last, half) = (sorted.len() - 1, sorted.len() / 2);
        // Of an even number the two in the middle share the place.
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { median, min: sorted[0], max: sorted[last] })
    }

    /// What was measured in each round over what was measured in the same round: a machine that grows slower in the
    /// course of a run slows both, and their ratio stays.
    pub(crate) fn of_ratios(over: &[f64], under: &[f64]) -> Option<Self> {
        Self::of(over.iter().zip(under).map(|(over, under)| over / under))
    }
}

/// What a figure should come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    pub(crate) fn is_reached(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle_whatever_the_order() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 10.0]), Some(Spread { median: 3.0, min: 1.0, max: 10.0 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 10.0]), Some(Spread { median: 3.0, min: 1.0, max: 10.0 }));
        assert_eq!(spread(&[5.0]), Some(Spread { median: 5.0, min: 5.0, max: 5.0 }));
        assert_eq!((spread(&[]), spread(&[1.0, f64::NAN])), (None, None));
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        // Every round is slower than the one before; the ratio is 2 in each.
        let ratio = Spread::of_ratios(&[200.0, 100.0, 40.0], &[100.0, 50.0, 20.0]);
        assert_eq!(ratio, Some(Spread { median: 2.0, min: 2.0, max: 2.0 }));
        assert_eq!((Spread::of_ratios(&[1.0], &[0.0]), Spread::of_ratios(&[], &[1.0])), (None, None));
    }

    #[test]
    fn an_aim_is_reached_on_its_own_side_of_the_mark() {
        assert!(Aim::AtLeast(9.0).is_reached(9.0) && !Aim::AtLeast(9.0).is_reached(8.99));
        assert!(Aim::AtMost(1.0).is_reached(1.0) && !Aim::AtMost(1.0).is_reached(1.01));
    }
}
