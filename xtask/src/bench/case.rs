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

/// A strategy that the server has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Strategy {
    pub(crate) name: String,
    pub(crate) guarantee: Guarantee,
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
}

/// A strategy by its name.
pub(crate) fn find<'a>(strategies: &'a [Strategy], name: &str) -> Option<&'a Strategy> {
    strategies.iter().find(|strategy| strategy.name == name)
}

/// The cases that need nothing but a server, in the order of a round.
pub(crate) fn cases(strategies: &[Strategy], tools: &[Tool]) -> Vec<Case> {
    let each = strategies.iter().flat_map(|strategy| {
        let (hot, uniform) = (Case::Hot(strategy.clone()), Case::Spread(strategy.clone(), UNIFORM));
        if strategy.name != BATCHED {
            return vec![hot, uniform];
        }
        // What is held against each other is measured one right after the other.
        let [watched, streamed, many_calls] =
            [Case::Watched, Case::Streamed, Case::Many].map(|case| case(strategy.clone()));
        let [few, many] = [FEW, MANY].map(|accounts| Case::Spread(strategy.clone(), accounts));
        vec![hot, watched, streamed, many_calls, uniform, few, many]
    });
    let foreign = tools.iter().copied().map(Case::Foreign);
    [Case::Health].into_iter().chain(foreign).chain(each).collect()
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

/// Accounts of its own for each case that spreads, so that no journal grows by another's deductions.
pub(crate) fn seeds(cases: &[Case]) -> BTreeMap<Case, Accounts> {
    let mut first = FIRST_ACCOUNT;
    let spreading = cases.iter().filter_map(|case| {
        let Case::Spread(_, count) = case else { return None };
        let accounts = Accounts { first, count: *count };
        first += i64::from(*count);
        Some((case.clone(), accounts))
    });
    spreading.collect()
}

impl Case {
    /// The strategy it is about; `None` where nothing is deducted.
    pub(crate) fn strategy(&self) -> Option<&Strategy> {
        match self {
            Self::Health | Self::Foreign(_) => None,
            Self::Hot(strategy) | Self::Streamed(strategy) | Self::Many(strategy) | Self::Watched(strategy) => {
                Some(strategy)
            }
            Self::Spread(strategy, _) | Self::HalfPeak(strategy, _) => Some(strategy),
        }
    }

    /// What `loadgen bench` is told, apart from where the server is and for how long: the accounts of a case that
    /// spreads, the calls per second of one whose rate is fixed.
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
        match self.strategy() {
            None => add("--method", "health".into()),
            Some(strategy) => add("--strategy", strategy.name.clone()),
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

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Health => f.write_str("health check"),
            Self::Foreign(tool) => write!(f, "health check by {tool}"),
            Self::Hot(strategy) => write!(f, "hot {}", strategy.name),
            Self::Streamed(strategy) => write!(f, "hot {} by DeductStream", strategy.name),
            Self::Many(strategy) => write!(f, "hot {} with {STREAMED} in flight", strategy.name),
            Self::Watched(strategy) => write!(f, "hot {} watched", strategy.name),
            Self::Spread(strategy, UNIFORM) => write!(f, "uniform {}", strategy.name),
            Self::Spread(strategy, accounts) => write!(f, "{} over {accounts} accounts", strategy.name),
            Self::HalfPeak(strategy, peak) => write!(f, "hot {} at half the peak of {peak}", strategy.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strategy(name: &str, guarantee: Guarantee) -> Strategy {
        Strategy { name: name.into(), guarantee }
    }

    fn strategies() -> Vec<Strategy> {
        vec![
            strategy("none", Guarantee::LosesUpdates),
            strategy(ATOMIC, Guarantee::Always),
            strategy("novel", Guarantee::Always),
            strategy(BATCHED, Guarantee::Always),
        ]
    }

    #[test]
    fn every_strategy_of_the_server_is_measured_hot_and_uniform() {
        let cases = cases(&strategies(), &[Tool::H2load]);
        for strategy in strategies() {
            assert!(cases.contains(&Case::Hot(strategy.clone())), "{strategy:?}");
            assert!(cases.contains(&Case::Spread(strategy.clone(), UNIFORM)), "{strategy:?}");
        }
        let titles: Vec<String> = cases.iter().map(Case::to_string).collect();
        for title in ["health check", "health check by h2load", "hot novel", "batched over 1000000 accounts"] {
            assert!(titles.contains(&title.to_owned()), "{title}: {titles:?}");
        }
    }

    #[test]
    fn without_the_strategies_that_the_aims_name_the_others_are_measured_all_the_same() {
        let others = [strategy("novel", Guarantee::Always)];
        assert_eq!(cases(&others, &[]).len(), 3);
        assert_eq!(half_peak_cases(&others), []);
        assert_eq!(half_peak_cases(&strategies()).len(), 4);
    }

    #[test]
    fn no_two_cases_share_accounts() {
        let seeds = seeds(&cases(&strategies(), &[]));
        assert_eq!(seeds.len(), strategies().len() + 2);
        let mut ranges: Vec<Accounts> = seeds.into_values().collect();
        ranges.sort();
        for pair in ranges.windows(2) {
            assert!(pair[0].first + i64::from(pair[0].count) <= pair[1].first, "{pair:?}");
        }
    }

    #[test]
    fn loadgen_is_asked_for_what_the_case_says() {
        let asked = |case: Case, accounts, rate| case.arguments(accounts, rate).join(" ");
        let (none, batched) = (strategy("none", Guarantee::LosesUpdates), strategy(BATCHED, Guarantee::Always));
        let accounts = Some(Accounts { first: 7, count: UNIFORM });
        for (asked, expected) in [
            (asked(Case::Health, None, None), "--connections 4 --concurrency 256 --method health"),
            (
                asked(Case::Hot(none.clone()), None, None),
                "--connections 4 --concurrency 256 --strategy none --opening 100000000.00",
            ),
            (
                asked(Case::Spread(none, UNIFORM), accounts, None),
                "--connections 4 --concurrency 256 --strategy none --accounts 10000 --from-user 7 --expect any",
            ),
            (
                asked(Case::Streamed(batched.clone()), None, None),
                "--connections 4 --concurrency 2048 --strategy batched --opening 100000000.00 --stream",
            ),
            (
                asked(Case::Many(batched.clone()), None, None),
                "--connections 4 --concurrency 2048 --strategy batched --opening 100000000.00",
            ),
            (
                asked(Case::HalfPeak(batched, ATOMIC.into()), None, Some(717.4)),
                "--connections 4 --rate 717 --max-in-flight 1000 --strategy batched --opening 100000000.00",
            ),
        ] {
            assert_eq!(asked, expected);
        }
    }
}
