//! What a bench is to do. It owns the limits of a run and refuses what cannot be carried out.

use std::collections::BTreeMap;
use std::time::Duration;

use zbl_client::{Client, Money};

use super::distribution::{Distribution, DistributionError, MAX_ACCOUNTS};
use super::threshold::{Threshold, ThresholdError};
use crate::report::bench::{Method, Pacing};

/// The most calls in flight: each takes about a kilobyte in this process, and far more in the server.
pub const MAX_IN_FLIGHT: u32 = 100_000;

/// The highest rate: what no machine reaches, and what a microsecond's clock can still tell apart.
pub const MAX_RATE_PER_S: f64 = 1_000_000.0;

/// The lowest rate: an operation in a quarter of an hour. A run lasts a day at most, and below this it would send none.
pub const MIN_RATE_PER_S: f64 = 0.001;

/// The greatest seed: JSON's numbers are exact up to it, and a result is to name the seed it came from.
pub const MAX_SEED: u64 = (1 << 53) - 1;

/// The highest share in a mix.
pub const MAX_SHARE: u32 = 1_000_000;

/// A bench to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers, as `http://HOST:PORT` or `HOST:PORT`, one client each; at least one.
    pub clients: Vec<Client>,
    /// Connections per server.
    pub connections: u16,
    /// The methods called, with their shares.
    pub mix: BTreeMap<Method, u32>,
    /// What deductions travel in.
    pub transport: Transport,
    /// The strategy's name; empty means the server's default.
    pub strategy: String,
    /// How many accounts are used.
    pub accounts: u32,
    /// The exponent of the Zipf distribution over the accounts; `None` for a uniform one.
    pub zipf: Option<f64>,
    /// The first of the accounts, which are there already; `None` opens fresh ones.
    pub first_user: Option<i64>,
    /// How much each deduction takes.
    pub amount: Money,
    /// The balance each fresh account begins with.
    pub opening: Money,
    /// When operations are sent.
    pub pacing: Pacing,
    /// When it ends.
    pub length: Length,
    /// How long operations are sent before they count.
    pub warmup: Duration,
    /// How long a server that is away is waited for.
    pub outage: Duration,
    /// What the choice of accounts and methods is made from. Request ids and the ids of fresh accounts are always new.
    pub seed: u64,
    /// What must be reached.
    pub thresholds: Vec<Threshold>,
}

/// What deductions travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A call of its own for each.
    Unary,
    /// One `DeductStream` per connection.
    Stream,
}

/// When a bench ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// After this time.
    Time(Duration),
    /// After this many operations.
    Requests(u64),
}

/// A plan that cannot be carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// No server was named.
    #[error("there is no server to measure; name one with --addr HOST:PORT")]
    NoServer,
    /// Nothing to send on.
    #[error("there must be at least one connection")]
    Connections,
    /// Nothing to call.
    #[error("the mix must name one of health, balance and deduct with a share between 1 and {MAX_SHARE}")]
    Mix,
    /// A stream carries deductions only.
    #[error("--stream carries deductions alone; leave out --mix, or use --method deduct")]
    Stream,
    /// Accounts that cannot be drawn from.
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    /// Not accounts.
    #[error("the accounts from --from-user on must be positive numbers")]
    Users,
    /// Nothing to deduct, or sums that money cannot hold.
    #[error("the amount must be more than 0.00, and the opening balance not negative")]
    Amount,
    /// No or too many calls in flight.
    #[error("calls in flight must be between 1 and {MAX_IN_FLIGHT}")]
    InFlight,
    /// No rate.
    #[error("the rate must be between {MIN_RATE_PER_S} and {MAX_RATE_PER_S} operations per second")]
    Rate,
    /// A seed that results cannot name.
    #[error("the seed must be at most {MAX_SEED}")]
    Seed,
    /// Something is asked for that would change nothing.
    #[error("{flag} changes nothing where {why}; leave it out")]
    Idle {
        /// The flag.
        flag: &'static str,
        /// What makes it so.
        why: &'static str,
    },
    /// Nothing to do.
    #[error("the number of requests must be more than 0")]
    Requests,
    /// A threshold for something that is not measured.
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
}

impl Plan {
    /// Whether the plan can be carried out.
    ///
    /// # Errors
    /// [`PlanError`] says what to change.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.clients.is_empty() {
            return Err(PlanError::NoServer);
        }
        if self.connections == 0 {
            return Err(PlanError::Connections);
        }
        if self.mix.is_empty() || !self.mix.values().all(|share| (1..=MAX_SHARE).contains(share)) {
            return Err(PlanError::Mix);
        }
        if self.transport == Transport::Stream && self.mix.keys().any(|method| *method != Method::Deduct) {
            return Err(PlanError::Stream);
        }
        self.distribution()?;
        if self.first_user.is_some_and(|first| first <= 0 || first.checked_add(i64::from(MAX_ACCOUNTS)).is_none()) {
            return Err(PlanError::Users);
        }
        if self.amount <= Money::ZERO || self.opening < Money::ZERO {
            return Err(PlanError::Amount);
        }
        if !(1..=MAX_IN_FLIGHT).contains(&self.most_in_flight()) {
            return Err(PlanError::InFlight);
        }
        let in_range = |rate_per_s: f64| (MIN_RATE_PER_S..=MAX_RATE_PER_S).contains(&rate_per_s);
        if matches!(self.pacing, Pacing::Open { rate_per_s, .. } if !in_range(rate_per_s)) {
            return Err(PlanError::Rate);
        }
        if self.length == Length::Requests(0) {
            return Err(PlanError::Requests);
        }
        if self.seed > MAX_SEED {
            return Err(PlanError::Seed);
        }
        self.check_use()?;
        self.thresholds.iter().try_for_each(|threshold| threshold.fits(self.mix.keys().copied(), &self.pacing))?;
        Ok(())
    }

    /// Whether all that is asked for has a use: who gives a flag believes that it has.
    fn check_use(&self) -> Result<(), PlanError> {
        let (undeducted, unused) = (!self.deducts(), !self.uses_accounts());
        let (nothing_deducted, no_accounts) = ("nothing is deducted", "no account is used");
        let idle = [
            (undeducted && !self.strategy.is_empty(), "--strategy", nothing_deducted),
            (unused && self.accounts > 1, "--accounts", no_accounts),
            (unused && self.zipf.is_some(), "--zipf", no_accounts),
            (unused && self.first_user.is_some(), "--from-user", no_accounts),
        ];
        idle.into_iter().find(|(idle, ..)| *idle).map_or(Ok(()), |(_, flag, why)| Err(PlanError::Idle { flag, why }))
    }

    /// Whether money is moved, so that there is something to judge.
    pub fn deducts(&self) -> bool {
        self.mix.contains_key(&Method::Deduct)
    }

    /// Whether accounts are needed at all.
    pub fn uses_accounts(&self) -> bool {
        self.mix.keys().any(|method| *method != Method::Health)
    }

    /// Connections in all; not more than there are operations to send on them.
    pub(super) fn lanes(&self) -> u16 {
        let servers = u16::try_from(self.clients.len()).unwrap_or(u16::MAX);
        let wanted = self.connections.saturating_mul(servers);
        u16::try_from(self.most_in_flight()).map_or(wanted, |most| most.min(wanted))
    }

    /// The most operations in flight on all connections together.
    pub(super) const fn most_in_flight(&self) -> u32 {
        match self.pacing {
            Pacing::Closed { concurrency } => concurrency,
            Pacing::Open { max_in_flight, .. } => max_in_flight,
        }
    }

    /// How accounts are chosen.
    pub(super) fn distribution(&self) -> Result<Distribution, DistributionError> {
        match self.zipf {
            None => Distribution::uniform(self.accounts),
            Some(exponent) => Distribution::zipf(self.accounts, exponent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            clients: vec![Client::connect_lazy("127.0.0.1:50051").unwrap()],
            connections: 4,
            mix: BTreeMap::from([(Method::Deduct, 1)]),
            transport: Transport::Unary,
            strategy: String::new(),
            accounts: 1,
            zipf: None,
            first_user: None,
            amount: Money::from_minor(1),
            opening: Money::ZERO,
            pacing: Pacing::Closed { concurrency: 64 },
            length: Length::Requests(1),
            warmup: Duration::ZERO,
            outage: Duration::ZERO,
            seed: 1,
            thresholds: Vec::new(),
        }
    }

    const fn open(rate_per_s: f64) -> Pacing {
        Pacing::Open { rate_per_s, max_in_flight: 1 }
    }

    #[tokio::test]
    async fn names_what_cannot_be_carried_out() {
        let check = |change: fn(&mut Plan)| {
            let mut plan = plan();
            change(&mut plan);
            plan.check()
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|plan| plan.pacing = open(MAX_RATE_PER_S)), Ok(()));
        assert_eq!(check(|plan| plan.pacing = open(MIN_RATE_PER_S)), Ok(()));
        for (change, expected) in [
            ((|plan| plan.clients.clear()) as fn(&mut Plan), PlanError::NoServer),
            (|plan| plan.connections = 0, PlanError::Connections),
            (|plan| plan.mix.clear(), PlanError::Mix),
            (|plan| plan.mix = BTreeMap::from([(Method::Deduct, 0)]), PlanError::Mix),
            (|plan| plan.accounts = 0, PlanError::Distribution(DistributionError::Accounts)),
            (|plan| plan.zipf = Some(-1.0), PlanError::Distribution(DistributionError::Exponent)),
            (|plan| plan.first_user = Some(0), PlanError::Users),
            (|plan| plan.first_user = Some(i64::MAX), PlanError::Users),
            (|plan| plan.amount = Money::ZERO, PlanError::Amount),
            (|plan| plan.opening = Money::from_minor(-1), PlanError::Amount),
            (|plan| plan.pacing = Pacing::Closed { concurrency: 0 }, PlanError::InFlight),
            (|plan| plan.pacing = Pacing::Closed { concurrency: MAX_IN_FLIGHT + 1 }, PlanError::InFlight),
            (|plan| plan.pacing = open(0.0), PlanError::Rate),
            (|plan| plan.pacing = open(1e-20), PlanError::Rate),
            (|plan| plan.pacing = open(f64::NAN), PlanError::Rate),
            (|plan| plan.length = Length::Requests(0), PlanError::Requests),
            (|plan| plan.seed = MAX_SEED + 1, PlanError::Seed),
        ] {
            assert_eq!(check(change), Err(expected));
        }
        let streamed = Plan { transport: Transport::Stream, mix: BTreeMap::from([(Method::Health, 1)]), ..plan() };
        assert_eq!(streamed.check(), Err(PlanError::Stream));
        for (change, named) in [
            ((|plan| plan.strategy = "batched".to_owned()) as fn(&mut Plan), "--strategy"),
            (|plan| plan.accounts = 2, "--accounts"),
            (|plan| plan.zipf = Some(1.0), "--zipf"),
            (|plan| plan.first_user = Some(1), "--from-user"),
        ] {
            let mut health = Plan { mix: BTreeMap::from([(Method::Health, 1)]), ..plan() };
            assert_eq!(health.check(), Ok(()));
            change(&mut health);
            assert!(matches!(health.check(), Err(PlanError::Idle { flag, .. }) if flag == named), "{named}");
        }
        let late = Plan { thresholds: vec!["late==0".parse().unwrap()], ..plan() };
        assert!(matches!(late.check(), Err(PlanError::Threshold(ThresholdError::NoSchedule(_)))));
    }

    #[tokio::test]
    async fn no_connection_is_made_that_nothing_could_be_sent_on() {
        let mut plan = plan();
        assert_eq!(plan.lanes(), 4);
        plan.clients.push(plan.clients[0].clone());
        assert_eq!(plan.lanes(), 8);
        plan.pacing = Pacing::Closed { concurrency: 3 };
        assert_eq!(plan.lanes(), 3);
    }
}
