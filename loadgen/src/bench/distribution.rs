//! Which account an operation takes: each alike, or a few much more often than the rest, as customers do. It owns the
//! choice and refuses to remember anything: what it draws follows from the random numbers alone.

use rand::Rng;
use rand::distr::{Distribution as _, Uniform};
use rand_distr::Zipf;

/// More accounts than this would measure how they are opened.
pub const MAX_ACCOUNTS: u32 = 1_000_000;

/// From here on nearly every operation takes the first account, for which `--accounts 1` is the plainer way.
pub const MAX_EXPONENT: f64 = 10.0;

/// A choice among accounts, which are numbered from 0.
#[derive(Clone, Copy, Debug)]
pub struct Distribution(Shape);

#[derive(Clone, Copy, Debug)]
enum Shape {
    Uniform(Uniform<u32>),
    Zipf(Zipf<f64>),
}

/// A distribution that cannot be drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DistributionError {
    /// No or too many accounts.
    #[error("accounts must be between 1 and {MAX_ACCOUNTS}")]
    Accounts,
    /// Not an exponent.
    #[error(
        "the Zipf exponent must be between 0 (all accounts alike) and {MAX_EXPONENT}; 0.99 and 1.1 are usual for customers"
    )]
    Exponent,
}

impl Distribution {
    /// Takes each of `accounts` as often as any other.
    ///
    /// # Errors
    /// [`DistributionError::Accounts`].
    pub fn uniform(accounts: u32) -> Result<Self, DistributionError> {
        let uniform = Uniform::new(0, checked(accounts)?).map_err(|_| DistributionError::Accounts)?;
        Ok(Self(Shape::Uniform(uniform)))
    }

    /// Takes account number `k` with a probability proportional to `1 / (k + 1)^exponent`: the hottest is account 0, the
    /// next hottest 1, and so on.
    ///
    /// # Errors
    /// [`DistributionError`] says what to change.
    pub fn zipf(accounts: u32, exponent: f64) -> Result<Self, DistributionError> {
        let accounts = checked(accounts)?;
        if !(0.0..=MAX_EXPONENT).contains(&exponent) {
            return Err(DistributionError::Exponent);
        }
        let zipf = Zipf::new(f64::from(accounts), exponent).map_err(|_| DistributionError::Exponent)?;
        Ok(Self(Shape::Zipf(zipf)))
    }

    /// The account of the next operation.
    pub fn draw(&self, random: &mut impl Rng) -> u32 {
        match &self.0 {
            Shape::Uniform(uniform) => uniform.sample(random),
            // Ranks are whole numbers from 1 to the number of accounts; the cast is exact.
            Shape::Zipf(zipf) => (zipf.sample(random) as u32).saturating_sub(1),
        }
    }
}

fn checked(accounts: u32) -> Result<u32, DistributionError> {
    (1..=MAX_ACCOUNTS).contains(&accounts).then_some(accounts).ok_or(DistributionError::Accounts)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const DRAWS: u32 = 100_000;

    /// How often each account is drawn. The seed is fixed, so a test here never fails by chance.
    fn drawn(distribution: &Distribution, accounts: usize) -> Vec<f64> {
        let mut random = SmallRng::seed_from_u64(1);
        let mut counts = vec![0.0; accounts];
        for _ in 0..DRAWS {
            counts[distribution.draw(&mut random) as usize] += 1.0;
        }
        counts
    }

    fn close(seen: f64, expected: f64) -> bool {
        (seen / expected - 1.0).abs() < 0.05
    }

    #[test]
    fn uniform_takes_each_alike() {
        let counts = drawn(&Distribution::uniform(10).unwrap(), 10);
        assert!(counts.iter().all(|count| close(*count, f64::from(DRAWS) / 10.0)), "{counts:?}");
    }

    #[test]
    fn zipf_takes_the_first_most_and_falls_with_the_exponent() {
        for exponent in [0.0_f64, 0.5, 1.0, 2.0] {
            let counts = drawn(&Distribution::zipf(100, exponent).unwrap(), 100);
            let weights: f64 = (1..=100).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for rank in [1_u8, 2, 4] {
                let expected = f64::from(DRAWS) * f64::from(rank).powf(-exponent) / weights;
                let seen = counts[usize::from(rank) - 1];
                assert!(close(seen, expected) || expected < 2_000.0, "s {exponent}, rank {rank}: {seen} of {expected}");
            }
        }
    }

    #[test]
    fn one_account_and_the_last_account_can_be_drawn() {
        for one in [Distribution::uniform(1), Distribution::zipf(1, 1.0), Distribution::zipf(1, MAX_EXPONENT)] {
            assert!((drawn(&one.unwrap(), 1)[0] - f64::from(DRAWS)).abs() < 0.5);
        }
        assert!(drawn(&Distribution::uniform(3).unwrap(), 3)[2] > 0.0);
        assert!(drawn(&Distribution::zipf(3, 1.0).unwrap(), 3)[2] > 0.0);
        drawn(&Distribution::zipf(MAX_ACCOUNTS, 0.99).unwrap(), MAX_ACCOUNTS as usize);
    }

    #[test]
    fn what_cannot_be_drawn_from_is_refused() {
        use DistributionError::{Accounts, Exponent};
        for accounts in [0, MAX_ACCOUNTS + 1] {
            assert_eq!(Distribution::uniform(accounts).unwrap_err(), Accounts);
            assert_eq!(Distribution::zipf(accounts, 1.0).unwrap_err(), Accounts);
        }
        for exponent in [-0.1, MAX_EXPONENT + 0.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Distribution::zipf(10, exponent).unwrap_err(), Exponent);
        }
    }
}
