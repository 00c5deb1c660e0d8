//! How many traces are recorded.

use std::{fmt, str::FromStr};

use rand::Rng;

/// A share of all traces, from 0 (none) to 1 (all).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// Every trace.
    pub const ALL: Self = Self(1.0);

    /// One in a hundred.
    pub const HUNDREDTH: Self = Self(0.01);

    /// Whether the next one is among them.
    pub(crate) fn draw(self) -> bool {
        rand::rng().random_bool(self.0)
    }
}

impl FromStr for Ratio {
    /// What is wrong with the text, and what would be right.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or_else(|| format!("`{text}` is not a ratio from 0 (none) to 1 (all), such as 0.01"))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_from_none_to_all() {
        for (text, shown) in [("0", "0"), ("1", "1"), ("0.01", "0.01"), ("1e-3", "0.001")] {
            assert_eq!(text.parse::<Ratio>().unwrap().to_string(), shown);
        }
        for wrong in ["", "-0.1", "1.1", "NaN", "inf", "1%"] {
            assert!(wrong.parse::<Ratio>().unwrap_err().contains("from 0 (none) to 1 (all)"), "{wrong}");
        }
    }

    #[test]
    fn the_share_is_kept() {
        let drawn = |ratio: Ratio| (0..10_000).filter(|_| ratio.draw()).count();
        assert_eq!((drawn(Ratio(0.0)), drawn(Ratio::ALL)), (0, 10_000));
        // Fifteen standard deviations to either side.
        assert!((3_000..7_000).contains(&drawn(Ratio(0.5))));
    }
}
