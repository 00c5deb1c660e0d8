//! What a bench must reach: `p99<20ms`, `throughput>10000`, `failed<1%`, `deduct.p50<=5ms`. It owns the grammar and the
//! comparison; it refuses to let pass what was not measured.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::report::bench::{Bench, Checked, Method, MethodFigures, Pacing};
use crate::report::{is_decision, per_second};

/// Longer than any threshold that means something; a bound for what is parsed and shown again.
const MAX_LENGTH: usize = 64;

const EXAMPLES: &str = "such as p99<20ms, throughput>10000, failed<1%, unknown==0 or deduct.p50<=5ms";

/// A bound for one figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// As it was given, without blanks.
    expression: String,
    method: Option<Method>,
    figure: Figure,
    relation: Relation,
    limit: f64,
    unit: Unit,
}

/// Why a text is no threshold, or none that this bench can be held against.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// Too long to be one.
    #[error("a threshold has at most {MAX_LENGTH} characters, {EXAMPLES}")]
    Length,
    /// No relation in it.
    #[error("{0:?} compares nothing; give FIGURE, one of < <= > >= == and a LIMIT, {EXAMPLES}")]
    Relation(String),
    /// No such method.
    #[error("{0:?} is no method; before the point it is one of health, balance, deduct")]
    Method(String),
    /// No such figure.
    #[error("{0:?} is no figure; name one of {names}", names = Figure::NAMES)]
    Figure(String),
    /// A figure that methods do not have.
    #[error("{0} is known for the whole run only; leave out what stands before the point")]
    WholeRun(String),
    /// A limit that does not fit the figure.
    #[error("{limit:?} is no limit for {figure}; {fix}")]
    Limit {
        /// The figure.
        figure: String,
        /// What was given.
        limit: String,
        /// What to give.
        fix: &'static str,
    },
    /// A method that is not called.
    #[error("{0} is not called by this bench; leave the threshold out, or add the method to --mix")]
    NotCalled(Method),
    /// A figure of the open loop.
    #[error("{0} needs a schedule; give --rate, or leave the threshold out")]
    NoSchedule(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    P50,
    P90,
    P99,
    P999,
    Max,
    Throughput,
    Acknowledged,
    Failed,
    Unknown,
    Late,
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
}

/// What the limit is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Micros,
    PerSecond,
    Count,
    Percent,
}

impl Figure {
    const NAMES: &str = "p50, p90, p99, p999, max, throughput, acknowledged, failed, unknown, late, dropped";

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "p50" => Self::P50,
            "p90" => Self::P90,
            "p99" => Self::P99,
            "p999" => Self::P999,
            "max" => Self::Max,
            "throughput" => Self::Throughput,
            "acknowledged" => Self::Acknowledged,
            "failed" => Self::Failed,
            "unknown" => Self::Unknown,
            "late" => Self::Late,
            "dropped" => Self::Dropped,
            _ => return None,
        })
    }

    const fn needs_schedule(self) -> bool {
        matches!(self, Self::Late | Self::Dropped)
    }
}

impl Relation {
    /// Splits at the relation; the two-character ones are tried first, as they begin like the others.
    fn split(text: &str) -> Option<(&str, Self, &str)> {
        let signs =
            [("<=", Self::AtMost), (">=", Self::AtLeast), ("==", Self::Equal), ("<", Self::Less), (">", Self::Greater)];
        signs.into_iter().find_map(|(sign, relation)| {
            let (figure, limit) = text.split_once(sign)?;
            Some((figure, relation, limit))
        })
    }

    const fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
            Self::Equal => ordering.is_eq(),
        }
    }
}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_LENGTH {
            return Err(ThresholdError::Length);
        }
        let expression: String = text.split_whitespace().collect();
        let Some((name, relation, limit)) = Relation::split(&expression) else {
            return Err(ThresholdError::Relation(text.to_owned()));
        };
        let (method, name) = match name.split_once('.') {
            Some((method, name)) => {
                let method = method.parse().map_err(|_| ThresholdError::Method(method.to_owned()))?;
                (Some(method), name)
            }
            None => (None, name),
        };
        let figure = Figure::named(name).ok_or_else(|| ThresholdError::Figure(name.to_owned()))?;
        if method.is_some() && figure.needs_schedule() {
            return Err(ThresholdError::WholeRun(name.to_owned()));
        }
        let (limit, unit) = bound(figure, limit).map_err(|fix| ThresholdError::Limit {
            figure: name.to_owned(),
            limit: limit.to_owned(),
            fix,
        })?;
        Ok(Self { method, figure, relation, limit, unit, expression })
    }
}

/// A limit in the unit its figure has, or what to give instead.
fn bound(figure: Figure, text: &str) -> Result<(f64, Unit), &'static str> {
    let (fix, units): (_, &[(&str, f64, Unit)]) = match figure {
        Figure::P50 | Figure::P90 | Figure::P99 | Figure::P999 | Figure::Max => (
            "give a number with its unit, us, ms or s",
            // Longest first: `ms` ends in `s`.
            &[
                ("us", 1.0, Unit::Micros),
                ("µs", 1.0, Unit::Micros),
                ("ms", 1e3, Unit::Micros),
                ("s", 1e6, Unit::Micros),
            ],
        ),
        Figure::Throughput => {
            ("give operations per second as a number", &[("/s", 1.0, Unit::PerSecond), ("", 1.0, Unit::PerSecond)])
        }
        Figure::Acknowledged => (
            "give operations per second with /s, a number of operations, or a share with %",
            &[("/s", 1.0, Unit::PerSecond), ("%", 1.0, Unit::Percent), ("", 1.0, Unit::Count)],
        ),
        Figure::Failed | Figure::Unknown | Figure::Late | Figure::Dropped => {
            ("give a number of operations, or a share with %", &[("%", 1.0, Unit::Percent), ("", 1.0, Unit::Count)])
        }
    };
    let (number, scale, unit) =
        units.iter().find_map(|(suffix, scale, unit)| Some((text.strip_suffix(suffix)?, scale, unit))).ok_or(fix)?;
    // Rust's own grammar would take `inf`, `nan`, signs and exponents as well.
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = plain.then(|| number.parse().ok()).flatten().ok_or(fix)?;
    Ok((value * scale, *unit))
}

impl Threshold {
    /// Whether a bench of these methods, paced this way, measures the figure: asked before it begins.
    ///
    /// # Errors
    /// [`ThresholdError::NotCalled`] or [`ThresholdError::NoSchedule`].
    pub fn fits(&self, methods: impl IntoIterator<Item = Method>, pacing: &Pacing) -> Result<(), ThresholdError> {
        if let Some(method) = self.method
            && !methods.into_iter().any(|called| called == method)
        {
            return Err(ThresholdError::NotCalled(method));
        }
        if self.figure.needs_schedule() && matches!(pacing, Pacing::Closed { .. }) {
            return Err(ThresholdError::NoSchedule(self.expression.clone()));
        }
        Ok(())
    }

    /// Holds the threshold against a result. What was not measured does not pass.
    pub fn check(&self, bench: &Bench) -> Checked {
        let measured = self.measured(bench);
        Checked {
            expression: self.expression.clone(),
            value: measured.map_or_else(|| "not measured".to_owned(), |value| self.unit.show(value)),
            passed: measured.is_some_and(|value| self.relation.holds(value.total_cmp(&self.limit))),
        }
    }

    /// The figure in the unit of the limit; `None` where there is nothing it could be taken from.
    fn measured(&self, bench: &Bench) -> Option<f64> {
        let figures = match self.method {
            Some(method) => *bench.methods.get(&method)?,
            None => MethodFigures {
                requests: bench.requests,
                acknowledged: bench.acknowledged,
                failed: bench.failures(),
                unknown: bench.unknown,
                throughput_per_s: bench.throughput_per_s,
                latency_us: bench.latency_us,
            },
        };
        let latency = |quantile| self.latency(bench, &figures, quantile);
        let of_requests = |count| self.counted(count, figures.requests);
        match self.figure {
            Figure::P50 => latency(0.5),
            Figure::P90 => latency(0.9),
            Figure::P99 => latency(0.99),
            Figure::P999 => latency(0.999),
            Figure::Max => latency(1.0),
            Figure::Acknowledged if self.unit == Unit::PerSecond => {
                let per_second = per_second(figures.acknowledged, Duration::from_millis(bench.duration_ms));
                (figures.requests > 0).then_some(per_second)
            }
            Figure::Acknowledged => of_requests(figures.acknowledged),
            Figure::Throughput => (figures.requests > 0).then_some(figures.throughput_per_s),
            Figure::Failed => of_requests(figures.failed),
            Figure::Unknown => of_requests(figures.unknown),
            Figure::Late => bench.schedule.and_then(|schedule| self.counted(schedule.late, schedule.sent)),
            Figure::Dropped => bench
                .schedule
                .and_then(|schedule| self.counted(schedule.dropped, schedule.sent.saturating_add(schedule.dropped))),
        }
    }

    /// What this share of the operations took at most. Those that were dropped or are unknown took longer than any other:
    /// to leave them out would reward a server for the calls it never answered. `None` when the share includes one.
    fn latency(&self, bench: &Bench, figures: &MethodFigures, quantile: f64) -> Option<f64> {
        let alone = bench.methods.len() <= 1 || self.method.is_none();
        let decided = |(reason, count): (&String, &u64)| if is_decision(reason) { *count } else { 0 };
        let refused = if alone { bench.failed.iter().map(decided).sum() } else { 0 };
        let timed = figures.acknowledged.saturating_add(refused);
        let dropped = bench.schedule.map_or(0, |schedule| schedule.dropped);
        let never = figures.unknown.saturating_add(share(dropped, figures.requests, bench.requests));
        let latency = &figures.latency_us;
        let told =
            [(0.5, latency.p50), (0.9, latency.p90), (0.99, latency.p99), (0.999, latency.p999), (1.0, latency.max)];
        if timed == 0 {
            return None;
        }
        if never == 0 {
            return told.iter().find(|(known, _)| *known >= quantile).map(|(_, micros)| *micros as f64);
        }
        let among_timed = quantile * (timed.saturating_add(never)) as f64 / timed as f64;
        let curve = if alone { &bench.spectrum[..] } else { &told[..] };
        curve.iter().find(|(known, _)| *known >= among_timed).map(|(_, micros)| *micros as f64)
    }

    /// A count, or its share where the limit is one; `None` when there is nothing to have a share of.
    fn counted(&self, count: u64, of: u64) -> Option<f64> {
        (of > 0).then(|| if self.unit == Unit::Percent { count as f64 * 100.0 / of as f64 } else { count as f64 })
    }
}

/// The part of the dropped operations that would have been a method's, rounded up: what is dropped is never drawn.
fn share(dropped: u64, requests: u64, of: u64) -> u64 {
    let share = (u128::from(dropped) * u128::from(requests)).div_ceil(u128::from(of.max(1)));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// As it was given, without blanks.
impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.expression)
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            // To the microsecond, as the comparison is made: a p99 of 20.04 ms must not read as the 20.0 ms it fails.
            Self::Micros => format!("{}ms", value / 1e3),
            Self::PerSecond => format!("{value}/s"),
            Self::Count => format!("{value}"),
            Self::Percent if value > 0.0 && value < 0.01 => "<0.01%".to_owned(),
            Self::Percent => format!("{value:.2}%"),
        }
    }
}

#[cfg(test)]
mod tests;
