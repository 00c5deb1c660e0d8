//! What is asked of the service: how many workers deduct how often how much. It owns the limits of a run and its request
//! ids, which follow from the seed; it refuses workloads whose sums money cannot hold.

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use uuid::{Builder, Uuid};
use zbl_client::Money;

/// More workers than this measure the client's scheduler, not the service.
pub const MAX_WORKERS: u32 = 10_000;

/// Ten million operations with their journal fit in a few GB; more do not belong in one run.
pub const MAX_OPERATIONS: u64 = 10_000_000;

/// A closed loop of equal deductions from one account.
#[derive(Clone, Debug)]
pub struct Workload {
    /// How many workers deduct at the same time.
    pub workers: u32,
    /// How many deductions each worker makes, one after another.
    pub deductions: u32,
    /// How much each deduction takes.
    pub amount: Money,
    /// The balance the account begins with.
    pub opening: Money,
    /// The strategy's name; empty means the server's default.
    pub strategy: String,
    /// The account to attack, which is reset to the opening balance; `None` opens a fresh one.
    pub user_id: Option<i64>,
    /// What the request ids are made from.
    pub seed: u64,
}

/// A workload that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// No or too many workers.
    #[error("workers must be between 1 and {MAX_WORKERS}")]
    Workers,
    /// No or too many operations.
    #[error("workers times deductions must be between 1 and {MAX_OPERATIONS}")]
    Operations,
    /// Nothing to deduct.
    #[error("the amount must be more than 0.00")]
    Amount,
    /// Sums that money cannot hold.
    #[error("opening, amount and the sum of all deductions must stay below 92233720368547758.07; use a smaller amount")]
    Sums,
    /// Not an account.
    #[error("the user must be a positive number")]
    User,
}

impl Workload {
    /// Whether the workload can be run.
    ///
    /// # Errors
    /// [`WorkloadError`] says what to change.
    pub fn check(&self) -> Result<(), WorkloadError> {
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            return Err(WorkloadError::Workers);
        }
        if !(1..=MAX_OPERATIONS).contains(&self.operations()) {
            return Err(WorkloadError::Operations);
        }
        if self.amount <= Money::ZERO {
            return Err(WorkloadError::Amount);
        }
        if self.user_id.is_some_and(|user_id| user_id <= 0) {
            return Err(WorkloadError::User);
        }
        let taken = i128::from(self.amount.minor()) * i128::from(self.operations());
        let fits = taken + i128::from(self.opening.minor()) <= i128::from(i64::MAX);
        if fits && self.opening >= Money::ZERO { Ok(()) } else { Err(WorkloadError::Sums) }
    }

    /// How many deductions are made in all.
    pub fn operations(&self) -> u64 {
        u64::from(self.workers) * u64::from(self.deductions)
    }

    /// How many of the deductions the opening balance can pay for: what a strategy that loses nothing sells.
    pub fn affordable(&self) -> u64 {
        let paid = self.opening.minor().checked_div(self.amount.minor()).unwrap_or(0);
        self.operations().min(u64::try_from(paid).unwrap_or(0))
    }

    /// The request ids of one worker. They follow from the seed and from the version the run begins at: the same seed on
    /// a fresh account gives the same ids, and on an account used before never a used one.
    pub fn request_ids(&self, worker: u32, first_version: i64) -> impl Iterator<Item = Uuid> + use<> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&first_version.to_le_bytes());
        seed[16..20].copy_from_slice(&worker.to_le_bytes());
        let mut random = StdRng::from_seed(seed);
        (0..self.deductions).map(move |_| {
            let mut bytes = [0; 16];
            random.fill_bytes(&mut bytes);
            Builder::from_random_bytes(bytes).into_uuid()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn workload() -> Workload {
        Workload {
            workers: 100,
            deductions: 10,
            amount: Money::from_minor(1_000),
            opening: Money::from_minor(100_000),
            strategy: String::new(),
            user_id: None,
            seed: 1,
        }
    }

    #[test]
    fn names_what_cannot_be_run() {
        let check = |change: fn(&mut Workload)| {
            let mut changed = workload();
            change(&mut changed);
            changed.check()
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|w| w.workers = 0), Err(WorkloadError::Workers));
        assert_eq!(check(|w| w.workers = MAX_WORKERS + 1), Err(WorkloadError::Workers));
        assert_eq!(check(|w| w.deductions = 0), Err(WorkloadError::Operations));
        assert_eq!(check(|w| w.deductions = u32::MAX), Err(WorkloadError::Operations));
        assert_eq!(check(|w| w.amount = Money::ZERO), Err(WorkloadError::Amount));
        assert_eq!(check(|w| w.amount = Money::from_minor(i64::MAX)), Err(WorkloadError::Sums));
        assert_eq!(check(|w| w.opening = Money::from_minor(-1)), Err(WorkloadError::Sums));
        assert_eq!(check(|w| w.user_id = Some(0)), Err(WorkloadError::User));
    }

    #[test]
    fn affords_what_the_balance_pays_for() {
        assert_eq!(workload().affordable(), 100);
        assert_eq!(Workload { opening: Money::from_minor(10_000_000), ..workload() }.affordable(), 1_000);
    }

    #[test]
    fn ids_repeat_with_the_seed_and_never_within_a_run() {
        let ids = |seed, version| -> Vec<Uuid> {
            let workload = Workload { seed, ..workload() };
            (0..workload.workers).flat_map(|worker| workload.request_ids(worker, version)).collect()
        };
        assert_eq!(ids(1, 1), ids(1, 1));
        let all: HashSet<Uuid> = [ids(1, 1), ids(2, 1), ids(1, 2)].concat().into_iter().collect();
        assert_eq!(all.len(), 3_000);
    }
}
