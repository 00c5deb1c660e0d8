//! What is measured: the cases, and how `loadgen bench` is asked for each. Pure.

use std::{collections::BTreeMap, fmt};

use zbl_client::Guarantee;

use super::{database::Accounts, tools::Tool};

/// Calls in flight in all, the same for every case but those named after more: so many that a commit of some milliseconds is shared by a hundred,
/// and what bounds the fastest is the processor and not the wait for the disk.
pub(crate) const CONCURRENCY: u32 = 256;
/// Connections they share.
pub(crate) const CONNECTIONS: u32 = 4;
/// Deductions in flight by stream: those who use it have many at once. The server works on 1024 items of one stream.
pub(crate) const STREAMED: u32 = 2048;
/// The most calls in flight of an open loop: what the slower strategy cannot take of the faster one's rate waits or is
/// dropped, and settling what waited must not take minutes.
pub(crate) const OPEN_LOOP_MOST: u32 = 1000;
/// The accounts of the uniform cases.
pub(crate) const UNIFORM: u32 = 10_000;
/// The accounts of the cases that tell whether their number matters.
pub(crate) const FEW: u32 = 1_000;
pub(crate) const MANY: u32 = 1_000_000;
/// What each account begins with: no case can spend it, so nothing is measured of refusals.
pub(crate) const OPENING: &str = "100000000.00";

/// The lowest id of the accounts that are seeded, clear of those that people use.
const FIRST_ACCOUNT: i64 = 1_000_000_000;

/// The strategies that the aims name.
pub(crate) const BATCHED: &str = "batched";
pub(crate) const PESSIMISTIC: &str = "pessimistic";
pub(crate) const ATOMIC: &str = "atomic";

/// A strategy that a server has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Strategy {
    pub(crate) name: String,
    pub(crate) guarantee: Guarantee,
    pub(crate) redis: RedisPart,
}

/// What Redis has to do with a strategy where it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RedisPart {
    /// Nothing: the server has none.
    Absent,
    /// The cache in it is told of every commit.
    Told,
    /// The strategy locks in it; the cache is told as well.
    Locks,
}

/// Where balances are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cache {
    /// In the database, by the server without Redis.
    Off,
    /// In Redis, by the other.
    On,
}

impl Strategy {
    /// Whether it never overwrites another change, with any number of servers.
    pub(crate) fn is_safe(&self) -> bool {
        self.guarantee == Guarantee::Always
    }
}

/// One thing to measure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    /// The health check: what the server and its transport can do when there is nothing to do.
    Health,
    /// The same by another's tool.
    Foreign(Tool),
    /// Deductions from one account.
    Hot(Strategy),
    /// The same over DeductStream, with more of them in flight.
    Streamed(Strategy),
    /// The same with as many in flight as over DeductStream, and a call for each: what the stream is held against.
    Many(Strategy),
    /// The same while somebody watches the timeline.
    Watched(Strategy),
    /// Deductions spread evenly over so many accounts.
    Spread(Strategy, u32),
    /// Deductions from one account at a fixed rate: half of what the named strategy reached there.
    HalfPeak(Strategy, String),
    /// Nothing but reads of the balances of so many accounts.
    Balance(Cache, u32),
}

/// A strategy by its name, without Redis where that is possible.
pub(crate) fn find<'a>(strategies: &'a [Strategy], name: &str) -> Option<&'a Strategy> {
    strategies.iter().find(|strategy| strategy.name == name && strategy.redis != RedisPart::Told)
}

/// The strategies that are measured, of those that the server without Redis has and of those that the other has: all of
/// the first, what cannot do without Redis, and `batched` on both, which tells what Redis costs who could do without.
pub(crate) fn chosen(without: Vec<Strategy>, with: Vec<Strategy>) -> Vec<Strategy> {
    let there = with.into_iter().filter_map(|strategy| match find(&without, &strategy.name) {
        None => Some(Strategy { redis: RedisPart::Locks, ..strategy }),
        Some(_) => (strategy.name == BATCHED).then_some(Strategy { redis: RedisPart::Told, ..strategy }),
    });
    let there: Vec<Strategy> = there.collect();
    without.into_iter().chain(there).collect()
}

/// The cases that need nothing but a server, in the order of a round.
pub(crate) fn cases(strategies: &[Strategy], tools: &[Tool]) -> Vec<Case> {
    let told = |case: fn(Strategy) -> Case| {
        strategies.iter().find(|strategy| strategy.redis == RedisPart::Told).cloned().map(case)
    };
    let each = strategies.iter().filter(|strategy| strategy.redis != RedisPart::Told).flat_map(|strategy| {
        let (hot, uniform) = (Case::Hot(strategy.clone()), Case::Spread(strategy.clone(), UNIFORM));
        if strategy.name != BATCHED {
            return vec![hot, uniform];
        }
        // What is held against each other is measured one right after the other.
        let [watched, streamed, many_calls] =
            [Case::Watched, Case::Streamed, Case::Many].map(|case| case(strategy.clone()));
        let [few, many] = [FEW, MANY].map(|accounts| Case::Spread(strategy.clone(), accounts));
        let (hot_told, uniform_told) = (told(Case::Hot), told(|strategy| Case::Spread(strategy, UNIFORM)));
        let hot = [Some(watched), Some(hot), hot_told, Some(streamed), Some(many_calls)];
        let spread = [Some(few), Some(many), Some(uniform), uniform_told];
        hot.into_iter().chain(spread).flatten().collect()
    });
    let foreign = tools.iter().copied().map(Case::Foreign);
    let balances =
        [1, FEW].into_iter().flat_map(|accounts| [Cache::Off, Cache::On].map(|cache| Case::Balance(cache, accounts)));
    [Case::Health].into_iter().chain(foreign).chain(each).chain(balances).collect()
}

/// The cases whose rate follows from what the others reached: both strategies at half of either's peak.
pub(crate) fn half_peak_cases(strategies: &[Strategy]) -> Vec<Case> {
    let pair = [BATCHED, ATOMIC].map(|name| find(strategies, name));
    let [Some(batched), Some(atomic)] = pair else { return Vec::new() };
    [BATCHED, ATOMIC]
        .into_iter()
        .flat_map(|peak| [batched, atomic].map(|strategy| Case::HalfPeak(strategy.clone(), peak.into())))
        .collect()
}

/// Accounts of its own for each case that spreads or reads, so that no journal grows by another's deductions.
pub(crate) fn seeds<'a>(cases: impl IntoIterator<Item = &'a Case>) -> BTreeMap<Case, Accounts> {
    let mut first = FIRST_ACCOUNT;
    let seeded = cases.into_iter().filter_map(|case| {
        let (Case::Spread(_, count) | Case::Balance(_, count)) = case else { return None };
        let accounts = Accounts { first, count: *count };
        first += i64::from(*count);
        Some((case.clone(), accounts))
    });
    seeded.collect()
}

impl Case {
    /// The strategy it is about; `None` where nothing is deducted.
    pub(crate) fn strategy(&self) -> Option<&Strategy> {
        match self {
            Self::Health | Self::Foreign(_) | Self::Balance(..) => None,
            Self::Hot(strategy) | Self::Streamed(strategy) | Self::Many(strategy) | Self::Watched(strategy) => {
                Some(strategy)
            }
            Self::Spread(strategy, _) | Self::HalfPeak(strategy, _) => Some(strategy),
        }
    }

    /// Whether it is measured on the server with Redis, and not on the one without.
    pub(crate) fn is_with_redis(&self) -> bool {
        match self {
            Self::Balance(cache, _) => *cache == Cache::On,
            _ => self.strategy().is_some_and(|strategy| strategy.redis != RedisPart::Absent),
        }
    }

    /// What `loadgen bench` is told, apart from where the server is and for how long: the accounts of a case that
    /// has its own, the calls per second of one whose rate is fixed.
    pub(crate) fn arguments(&self, accounts: Option<Accounts>, rate: Option<f64>) -> Vec<String> {
        let mut arguments = vec!["--connections".to_owned(), CONNECTIONS.to_string()];
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        match (self, rate) {
            (_, Some(rate)) => {
                add("--rate", format!("{rate:.0}"));
                add("--max-in-flight", OPEN_LOOP_MOST.to_string());
            }
            (Self::Streamed(_) | Self::Many(_), None) => add("--concurrency", STREAMED.to_string()),
            (_, None) => add("--concurrency", CONCURRENCY.to_string()),
        }
        match (self, self.strategy()) {
            (_, Some(strategy)) => add("--strategy", strategy.name.clone()),
            (Self::Balance(..), None) => add("--mix", "balance=100".into()),
            (_, None) => add("--method", "health".into()),
        }
        if let Some(accounts) = accounts {
            add("--accounts", accounts.count.to_string());
            add("--from-user", accounts.first.to_string());
            // On one account a strategy without a guard loses at once; on many it may be lucky.
            if self.strategy().is_some_and(|strategy| strategy.guarantee == Guarantee::LosesUpdates) {
                add("--expect", "any".into());
            }
        } else if self.strategy().is_some() {
            add("--opening", OPENING.into());
        }
        if let Self::Streamed(_) = self {
            arguments.push("--stream".into());
        }
        arguments
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.redis == RedisPart::Told { f.write_str(" with Redis") } else { Ok(()) }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Health => f.write_str("health check"),
            Self::Foreign(tool) => write!(f, "health check by {tool}"),
            Self::Hot(strategy) => write!(f, "hot {strategy}"),
            Self::Streamed(strategy) => write!(f, "hot {strategy} by DeductStream"),
            Self::Many(strategy) => write!(f, "hot {strategy} with {STREAMED} in flight"),
            Self::Watched(strategy) => write!(f, "hot {strategy} watched"),
            Self::Spread(strategy, UNIFORM) => write!(f, "uniform {strategy}"),
            Self::Spread(strategy, accounts) => write!(f, "{strategy} over {accounts} accounts"),
            Self::HalfPeak(strategy, peak) => write!(f, "hot {strategy} at half the peak of {peak}"),
            Self::Balance(cache, 1) => write!(f, "hot balance, cache {cache}"),
            Self::Balance(cache, accounts) => write!(f, "balance over {accounts} accounts, cache {cache}"),
        }
    }
}

#[cfg(test)]
mod tests;
