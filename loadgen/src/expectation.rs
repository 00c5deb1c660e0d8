//! What a verdict ought to be: what the user says, or else what the strategy promises.

use zbl_client::Guarantee;

use crate::verdict::Verdict;

/// The verdict that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// CLEAN.
    Clean,
    /// LOST.
    Lost,
    /// CLEAN or LOST.
    Any,
}

/// A verdict held against the expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// It is the one expected.
    AsExpected,
    /// It is the opposite.
    NotAsExpected,
    /// It could not be reached.
    Inconclusive,
}

impl Expectation {
    /// What a strategy's guarantee promises when `instances` servers write.
    pub fn of(guarantee: Guarantee, instances: usize) -> Self {
        match guarantee {
            Guarantee::LosesUpdates => Self::Lost,
            Guarantee::OneProcess if instances > 1 => Self::Any,
            Guarantee::OneProcess | Guarantee::WhileLeaseHolds | Guarantee::Always | Guarantee::Unspecified => {
                Self::Clean
            }
        }
    }

    /// Whether `verdict` meets the expectation. An inconclusive one meets none.
    pub fn conclude(self, verdict: Verdict) -> Conclusion {
        match (self, verdict) {
            (_, Verdict::Inconclusive) => Conclusion::Inconclusive,
            (Self::Any, _) | (Self::Clean, Verdict::Clean) | (Self::Lost, Verdict::Lost) => Conclusion::AsExpected,
            (Self::Clean, Verdict::Lost) | (Self::Lost, Verdict::Clean) => Conclusion::NotAsExpected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_guarantee() {
        assert_eq!(Expectation::of(Guarantee::LosesUpdates, 1), Expectation::Lost);
        assert_eq!(Expectation::of(Guarantee::OneProcess, 1), Expectation::Clean);
        assert_eq!(Expectation::of(Guarantee::OneProcess, 2), Expectation::Any);
        assert_eq!(Expectation::of(Guarantee::Always, 2), Expectation::Clean);
        assert_eq!(Expectation::of(Guarantee::Unspecified, 1), Expectation::Clean);
    }

    #[test]
    fn inconclusive_meets_nothing() {
        for expectation in [Expectation::Clean, Expectation::Lost, Expectation::Any] {
            assert_eq!(expectation.conclude(Verdict::Inconclusive), Conclusion::Inconclusive);
        }
        assert_eq!(Expectation::Any.conclude(Verdict::Lost), Conclusion::AsExpected);
        assert_eq!(Expectation::Clean.conclude(Verdict::Lost), Conclusion::NotAsExpected);
        assert_eq!(Expectation::Lost.conclude(Verdict::Clean), Conclusion::NotAsExpected);
    }
}
