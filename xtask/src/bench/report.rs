//! What the measurements say: medians with their extremes for every case, and the ratios that the aims speak of. It owns
//! the reasoning from samples to figures; nothing in it is measured, and no figure in it is written down beforehand.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    case::{ATOMIC, BATCHED, CONCURRENCY, Cache, Case, FEW, MANY, PESSIMISTIC, RedisPart, STREAMED, Strategy, UNIFORM},
    database::Description,
    effort::Effort,
    figures::{Aim, Spread},
    machine::Machine,
    sample::{Metric, Sample},
    tools::Tool,
};

/// The version of the published form; it grows when a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema_version: u32,
    kind: &'static str,
    pub(crate) machine: Machine,
    pub(crate) effort: Effort,
    pub(crate) databases: Vec<Measured>,
    /// What needs no database.
    pub(crate) pure: Vec<Goal>,
    /// What was not measured, and why.
    pub(crate) left_out: BTreeMap<String, String>,
    /// What failed, by database and case. A report with failures is not published.
    pub(crate) failures: BTreeMap<String, String>,
    pub(crate) took_s: u64,
}

/// What was measured on one database.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) database: Description,
    /// Product and version of the Redis servers that stood beside it.
    pub(crate) redis: String,
    pub(crate) ratios: Vec<Goal>,
    pub(crate) cases: Vec<Figures>,
}

/// A case's figures over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) case: String,
    pub(crate) figures: BTreeMap<Metric, Spread>,
}

/// A figure that something was aimed at, or that puts such a one into perspective.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    pub(crate) name: String,
    /// `None` where it, or a part of it, was not measured.
    pub(crate) figure: Option<Spread>,
    /// `None` where nothing was aimed at.
    pub(crate) aim: Option<Aim>,
    /// Whether the median reaches the aim.
    pub(crate) reached: Option<bool>,
}

/// The samples of each case, one for each round.
pub(crate) type Samples = BTreeMap<Case, Vec<Sample>>;

impl Report {
    pub(crate) fn new(machine: Machine, effort: Effort, databases: Vec<Measured>, pure: Vec<Goal>) -> Self {
        let (left_out, failures) = Default::default();
        Self {
            schema_version: SCHEMA_VERSION,
            kind: "performance",
            machine,
            effort,
            databases,
            pure,
            left_out,
            failures,
            took_s: 0,
        }
    }
}

impl Goal {
    pub(crate) fn new(name: &str, figure: Option<Spread>, aim: Option<Aim>) -> Self {
        let reached = aim.zip(figure).map(|(aim, figure)| aim.is_reached(figure.median));
        Self { name: name.to_owned(), figure, aim, reached }
    }
}

impl Measured {
    /// `order` is that of the cases in the report.
    pub(crate) fn new(database: Description, redis: String, order: &[Case], samples: &Samples) -> Self {
        let figures = |case: &Case| {
            let samples = samples.get(case)?;
            Some(Figures { case: case.to_string(), figures: spreads(samples) })
        };
        let cases = order.iter().filter_map(figures).collect();
        let ratios = ratios(samples, &database).into_iter().chain(redis_ratios(samples)).collect();
        Self { ratios, cases, database, redis }
    }
}

/// The median of one figure over the rounds.
pub(crate) fn median(samples: &[Sample], metric: Metric) -> Option<f64> {
    Spread::of(values(samples, metric)).map(|spread| spread.median)
}

fn values(samples: &[Sample], metric: Metric) -> Vec<f64> {
    samples.iter().filter_map(|sample| sample.get(&metric).copied()).collect()
}

/// Every figure that each round has.
fn spreads(samples: &[Sample]) -> BTreeMap<Metric, Spread> {
    let metrics = samples.first().into_iter().flat_map(BTreeMap::keys);
    metrics.filter_map(|metric| Some((*metric, Spread::of(values(samples, *metric))?))).collect()
}

/// The ratios in the order of the aims, then those that put them into perspective.
fn ratios(samples: &Samples, database: &Description) -> Vec<Goal> {
    let hot = |name: &str| named(samples, name, |case| matches!(case, Case::Hot(_)));
    let streamed = named(samples, BATCHED, |case| matches!(case, Case::Streamed(_)));
    let many = named(samples, BATCHED, |case| matches!(case, Case::Many(_)));
    let watched = named(samples, BATCHED, |case| matches!(case, Case::Watched(_)));
    let spread = |name: &str, count| named(samples, name, |case| matches!(case, Case::Spread(_, n) if *n == count));
    let half = |name, of: &str| named(samples, name, |case| matches!(case, Case::HalfPeak(_, peak) if peak == of));
    let health = samples.contains_key(&Case::Health).then_some(&Case::Health);
    let foreign = |tool| samples.get_key_value(&Case::Foreign(tool)).map(|(case, _)| case);
    let hot_rival = rival(samples, |case| matches!(case, Case::Hot(_)));
    let uniform_rival = rival(samples, |case| matches!(case, Case::Spread(_, UNIFORM)));
    let beside_rival = |rival: Option<&Case>| {
        let name = rival.and_then(Case::strategy).map_or("none measured", |strategy| &strategy.name);
        format!("batched ÷ best rival ({name})")
    };
    let hot_aim = if database.is_mariadb() { 9.0 } else { 50.0 };

    let rate = |name: &str, over, under, aim| ratio(samples, name, Metric::RatePerS, (over, under), aim);
    let p99 = |name: &str, over, under, aim| ratio(samples, name, Metric::P99Ms, (over, under), aim);
    vec![
        rate("hot: batched ÷ pessimistic", hot(BATCHED), hot(PESSIMISTIC), Some(Aim::AtLeast(hot_aim))),
        rate("hot: batched ÷ no-op ceiling", hot(BATCHED), health, Some(Aim::AtLeast(0.70))),
        rate("uniform: batched ÷ atomic", spread(BATCHED, UNIFORM), spread(ATOMIC, UNIFORM), Some(Aim::AtLeast(3.0))),
        rate(
            &format!("hot: DeductStream ÷ unary batched, {STREAMED} in flight each"),
            streamed,
            many,
            Some(Aim::AtLeast(2.0)),
        ),
        rate(
            &format!("hot: DeductStream ({STREAMED} in flight) ÷ pessimistic ({CONCURRENCY})"),
            streamed,
            hot(PESSIMISTIC),
            Some(Aim::AtLeast(18.0)),
        ),
        p99(
            "p99 at half the peak of batched: batched ÷ atomic",
            half(BATCHED, BATCHED),
            half(ATOMIC, BATCHED),
            Some(Aim::AtMost(1.0)),
        ),
        rate("hot: batched watched ÷ not watched", watched, hot(BATCHED), Some(Aim::AtLeast(0.97))),
        rate("batched: 10⁶ accounts ÷ 10³", spread(BATCHED, MANY), spread(BATCHED, FEW), Some(Aim::AtLeast(0.8))),
        rate("no-op: loadgen ÷ h2load", health, foreign(Tool::H2load), Some(Aim::AtLeast(0.8))),
        rate(&format!("hot: unary batched, {STREAMED} in flight ÷ {CONCURRENCY}"), many, hot(BATCHED), None),
        rate(&format!("hot: {}", beside_rival(hot_rival)), hot(BATCHED), hot_rival, None),
        rate(&format!("uniform: {}", beside_rival(uniform_rival)), spread(BATCHED, UNIFORM), uniform_rival, None),
        p99("p99 at half the peak of atomic: batched ÷ atomic", half(BATCHED, ATOMIC), half(ATOMIC, ATOMIC), None),
        rate("no-op: loadgen ÷ ghz", health, foreign(Tool::Ghz), None),
    ]
}

/// What Redis is worth to who reads, and what it costs who writes. Nothing is aimed at.
fn redis_ratios(samples: &Samples) -> Vec<Goal> {
    let is_told = |case: &Case| case.strategy().is_some_and(|strategy| strategy.redis == RedisPart::Told);
    let told = |kind: fn(&Case) -> bool| samples.keys().find(|case| kind(case) && is_told(case));
    let cached = |title: &str, metric, accounts| {
        let read = |cache| samples.get_key_value(&Case::Balance(cache, accounts)).map(|(case, _)| case);
        ratio(samples, &format!("{title}: cache on ÷ off"), metric, (read(Cache::On), read(Cache::Off)), None)
    };
    let price = |title: &str, kind: fn(&Case) -> bool| {
        let pair = (told(kind), named(samples, BATCHED, kind));
        ratio(samples, &format!("{title}: batched with Redis ÷ without"), Metric::RatePerS, pair, None)
    };
    vec![
        cached("hot balance", Metric::RatePerS, 1),
        cached("p99, hot balance", Metric::P99Ms, 1),
        cached(&format!("balance over {FEW} accounts"), Metric::RatePerS, FEW),
        cached(&format!("p99, balance over {FEW} accounts"), Metric::P99Ms, FEW),
        price("hot", |case| matches!(case, Case::Hot(_))),
        price("uniform", |case| matches!(case, Case::Spread(_, UNIFORM))),
    ]
}

/// The case of a kind with a strategy, if it was measured; without Redis where that is possible.
fn named<'a>(samples: &'a Samples, name: &str, kind: impl Fn(&Case) -> bool) -> Option<&'a Case> {
    let is_named = |strategy: &Strategy| strategy.name == name && strategy.redis != RedisPart::Told;
    samples.keys().find(|case| kind(case) && case.strategy().is_some_and(is_named))
}

/// The fastest case of a kind whose strategy is as safe as `batched`, and another.
fn rival(samples: &Samples, kind: impl Fn(&Case) -> bool) -> Option<&Case> {
    let is_rival = |strategy: &Strategy| strategy.is_safe() && strategy.name != BATCHED;
    let rivals = samples.iter().filter(|(case, _)| kind(case) && case.strategy().is_some_and(is_rival));
    let rated = rivals.filter_map(|(case, samples)| Some((case, median(samples, Metric::RatePerS)?)));
    rated.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(case, _)| case)
}

fn ratio(
    samples: &Samples,
    name: &str,
    metric: Metric,
    (over, under): (Option<&Case>, Option<&Case>),
    aim: Option<Aim>,
) -> Goal {
    let values = |case: &Case| samples.get(case).map(|samples| values(samples, metric));
    let pair = over.and_then(values).zip(under.and_then(values));
    Goal::new(name, pair.and_then(|(over, under)| Spread::of_ratios(&over, &under)), aim)
}

#[cfg(test)]
pub(crate) mod tests;
