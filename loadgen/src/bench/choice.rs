//! What each operation is: its method, by the shares of the mix, and its account, by the distribution.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::SmallRng;

use super::distribution::Distribution;
use crate::report::bench::Method;

/// A choice among methods and accounts.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Each method with the sum of the shares up to and with its own.
    mix: Vec<(Method, u32)>,
    accounts: Distribution,
    random: SmallRng,
}

impl Choice {
    /// Of a mix that is not empty.
    pub(super) fn new(mix: &BTreeMap<Method, u32>, accounts: Distribution, random: SmallRng) -> Self {
        let summed = mix.iter().scan(0, |sum, (method, share)| {
            *sum += share;
            Some((*method, *sum))
        });
        Self { mix: summed.collect(), accounts, random }
    }

    /// The next operation's method and account.
    pub(super) fn draw(&mut self) -> (Method, u32) {
        let method = match self.mix[..] {
            [(only, _)] => only,
            [.., (last, sum)] => {
                let drawn = self.random.random_range(0..sum);
                self.mix.iter().find(|(_, up_to)| drawn < *up_to).map_or(last, |(method, _)| *method)
            }
            [] => Method::Health,
        };
        (method, self.accounts.draw(&mut self.random))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn methods_are_drawn_by_their_shares() {
        let mix = BTreeMap::from([(Method::Balance, 20), (Method::Deduct, 80)]);
        let random = SmallRng::seed_from_u64(1);
        let mut choice = Choice::new(&mix, Distribution::uniform(3).unwrap(), random);
        let drawn: Vec<_> = (0..10_000).map(|_| choice.draw()).collect();
        let deducts = drawn.iter().filter(|(method, _)| *method == Method::Deduct).count();
        assert!((7_800..8_200).contains(&deducts), "{deducts}");
        assert!(drawn.iter().all(|(method, account)| *method != Method::Health && *account < 3));
        assert!((0..3).all(|account| drawn.iter().any(|(_, drawn)| *drawn == account)));
    }
}
