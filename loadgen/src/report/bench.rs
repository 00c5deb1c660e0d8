//! The result of a bench, for machines (`bench.schema.json` next to this crate is the published form). It owns the
//! figures and refuses to judge or to measure: the engine fills it in, everything that is shown is made from it alone.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};
use zbl_client::{Guarantee, Money};

use super::{Cost, Pair, Taken, decimal, promise};
use crate::recorder::Latency;
use crate::verdict::Verdict;

mod diff;
mod exhibit;
mod hlog;
mod html;
mod noise;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod text;

pub use diff::{Form, comparison};
pub use exhibit::{Exhibit, Figures, ReadError, read};
pub use hlog::HistogramLog;
pub use html::page;
pub use text::text;

/// The version of the published form; it grows when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// The result of a bench. Amounts are decimal strings; unknown fields are passed over on reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// [`SCHEMA_VERSION`]; another one is refused on reading.
    #[serde(deserialize_with = "known_version")]
    pub schema_version: u32,
    /// What kind of result it is.
    pub kind: Kind,
    /// The method that was called; `None` for a mix.
    pub method: Option<Method>,
    /// The methods that were called with their shares; `None` when it was one.
    pub mix: Option<BTreeMap<Method, u32>>,
    /// Whether deductions went over `DeductStream`.
    pub stream: bool,
    /// The strategy's name; `None` when nothing was deducted.
    pub strategy: Option<String>,
    /// What it promises; `None` when nothing was deducted.
    #[serde(with = "promise::optional")]
    pub guarantee: Option<Guarantee>,
    /// What the server stores accounts in.
    pub store: String,
    /// How many servers were measured.
    pub servers: usize,
    /// Over how many accounts the operations were spread.
    pub accounts: u32,
    /// The id of the first of the accounts, which follow one another: `--from-user` takes it; `None` when there were none.
    pub first_user: Option<i64>,
    /// The exponent of the Zipf distribution over the accounts; `None` for a uniform one.
    pub zipf: Option<f64>,
    /// How much each deduction takes; `None` when nothing was deducted.
    #[serde(with = "decimal::optional")]
    pub amount: Option<Money>,
    /// The balance each account began with; `None` when the accounts were there before.
    #[serde(with = "decimal::optional")]
    pub opening: Option<Money>,
    /// What the choice of accounts and methods was made from; request ids and fresh accounts are always new.
    pub seed: u64,
    /// When operations were sent.
    pub pacing: Pacing,
    /// Connections per server.
    pub connections: u32,
    /// How long operations were sent before they counted, in milliseconds.
    pub warmup_ms: u64,
    /// When the operations that count began, in milliseconds since the Unix epoch.
    pub began_unix_ms: u64,
    /// How long the operations that count took, in milliseconds.
    pub duration_ms: u64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Operations that count: acknowledged, failed or unknown.
    pub requests: u64,
    /// Operations that were answered as asked.
    pub acknowledged: u64,
    /// Operations without effect, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Operations whose outcome was unknown when they ended.
    pub unknown: u64,
    /// Answered operations (acknowledged or refused; neither turned away nor lost to an outage) per second.
    pub throughput_per_s: f64,
    /// Acknowledged operations per second.
    pub acknowledged_per_s: f64,
    /// Latencies of answered operations, in microseconds; in an open loop from the intended start.
    pub latency_us: Latency,
    /// Each method's part.
    pub methods: BTreeMap<Method, MethodFigures>,
    /// Latencies from the sending, in microseconds; `None` in a closed loop, which has no other.
    pub observed_latency_us: Option<Latency>,
    /// How well the schedule was kept; `None` in a closed loop, which has none.
    pub schedule: Option<Schedule>,
    /// The run in windows, in their order.
    pub series: Vec<Window>,
    /// The percentile curve: quantile (0 to 1) and latency in microseconds, both ascending.
    pub spectrum: Vec<(f64, u64)>,
    /// Transactions the server ran for acknowledged deductions.
    pub attempts: u64,
    /// Calls repeated because the server or its backend was away.
    pub outage_retries: u64,
    /// What an acknowledged deduction cost; `None` when the server does not tell, and for a mix, whose other calls' work
    /// it does not tell apart.
    pub cost: Option<Cost>,
    /// What one must know to read the figures, in sentences.
    #[serde(default)]
    pub remarks: Vec<String>,
    /// What to choose for this workload; `None` when the figures do not say.
    pub advice: Option<String>,
    /// The thresholds that were asked for.
    pub thresholds: Vec<Checked>,
    /// The judgement; `None` when nothing was deducted.
    pub verdict: Option<BenchVerdict>,
}

/// The kind of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// That of `loadgen bench`.
    #[default]
    Bench,
}

/// A method that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The health check, which does nothing: the ceiling of the same server.
    Health,
    /// `GetBalance`.
    Balance,
    /// `Deduct`, or `DeductStream`.
    Deduct,
}

/// A name that is no [`Method`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no method {0:?}; it is one of health, balance, deduct")]
pub struct UnknownMethod(pub String);

/// When operations are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub enum Pacing {
    /// Each caller sends its next operation when its last one has ended.
    Closed {
        /// Callers in all.
        concurrency: u32,
    },
    /// Each operation is due at a time fixed in advance, whether or not the last ones have ended.
    Open {
        /// Operations per second.
        rate_per_s: f64,
        /// The most operations in flight; what was due beyond it was dropped.
        max_in_flight: u32,
    },
}

/// What one method contributed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodFigures {
    /// Operations that count.
    pub requests: u64,
    /// Those answered as asked.
    pub acknowledged: u64,
    /// Those without effect.
    pub failed: u64,
    /// Those whose outcome was unknown when they ended.
    pub unknown: u64,
    /// Answered operations per second.
    pub throughput_per_s: f64,
    /// Latencies of answered operations, in microseconds.
    pub latency_us: Latency,
}

/// How well the schedule of an open loop was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Operations sent.
    pub sent: u64,
    /// Those sent more than a millisecond after they were due.
    pub late: u64,
    /// Operations that were due and never sent, because too many were in flight.
    pub dropped: u64,
    /// How long after they were due operations were sent, in microseconds.
    pub lag_us: Latency,
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When it began, in milliseconds since the operations that count began.
    pub at_ms: u64,
    /// How long it was, in milliseconds.
    pub length_ms: u64,
    /// Operations acknowledged in it.
    pub acknowledged: u64,
    /// Operations that failed in it.
    pub failed: u64,
    /// Half of its operations took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 % of its operations took no longer, in microseconds.
    pub p99_us: u64,
    /// The longest of its operations, in microseconds.
    pub max_us: u64,
}

/// A threshold held against the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The threshold as it was asked for.
    pub expression: String,
    /// What was measured, with its unit.
    pub value: String,
    /// Whether it holds.
    pub passed: bool,
}

/// The judgement of a bench over all accounts it touched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchVerdict {
    /// The verdict.
    pub verdict: Verdict,
    /// How many accounts were checked.
    pub accounts_checked: u64,
    /// What was acknowledged, warm-up and settled outcomes included.
    pub acknowledged: Taken,
    /// How many acknowledged deductions are lost.
    pub lost_updates_count: u64,
    /// The acknowledged money that is gone.
    #[serde(with = "decimal")]
    pub lost: Money,
    /// The part of it that no lost update explains.
    #[serde(with = "decimal")]
    pub unattributed: Money,
    /// The final balances minus what the journals add up to.
    #[serde(with = "decimal")]
    pub difference: Money,
    /// What does not hold besides lost updates, and why the run cannot be called clean.
    pub doubts: Vec<String>,
    /// The first lost updates, as witnesses.
    pub lost_updates: Vec<LostOn>,
}

/// A lost update and the account it happened on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LostOn {
    /// The account.
    pub user_id: i64,
    /// Who lost what to whom.
    #[serde(flatten)]
    pub pair: Pair,
}

impl Method {
    /// Every method, in the order they are shown.
    pub const ALL: [Self; 3] = [Self::Health, Self::Balance, Self::Deduct];

    /// Its name on the command line and in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Balance => "balance",
            Self::Deduct => "deduct",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|method| method.name() == name).ok_or_else(|| UnknownMethod(name.to_owned()))
    }
}

impl Bench {
    /// How many operations failed, whatever the reason.
    pub fn failures(&self) -> u64 {
        self.failed.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The windows without those that the end of the run cut short: in such a one the calls run dry.
    pub fn whole_windows(&self) -> impl Iterator<Item = &Window> {
        let longest = self.series.iter().map(|window| window.length_ms).max().unwrap_or(0);
        self.series.iter().filter(move |window| window.length_ms == longest)
    }

    /// What was called, in words: the method, or the methods with their shares.
    pub fn calls(&self) -> String {
        let shares = self.mix.iter().flatten().map(|(method, share)| format!("{method}={share}"));
        self.method.map_or_else(|| shares.collect::<Vec<_>>().join(","), |method| method.to_string())
    }

    /// The same, without what would move a terminal's cursor or begin a line of its own: a result that was read may hold any
    /// text.
    #[must_use]
    pub fn printable(mut self) -> Self {
        let texts = [&mut self.store]
            .into_iter()
            .chain(&mut self.strategy)
            .chain(&mut self.advice)
            .chain(&mut self.remarks)
            .chain(self.thresholds.iter_mut().flat_map(|checked| [&mut checked.expression, &mut checked.value]))
            .chain(self.verdict.iter_mut().flat_map(|judged| &mut judged.doubts));
        texts.for_each(|text| *text = printable(text));
        self.failed = self.failed.into_iter().map(|(reason, count)| (printable(&reason), count)).collect();
        self
    }

    /// What it says something about: the strategy, or where nothing was deducted the calls.
    pub fn subject(&self) -> String {
        self.strategy.clone().unwrap_or_else(|| self.calls())
    }
}

impl Window {
    /// Operations acknowledged per second.
    pub fn acknowledged_per_s(&self) -> f64 {
        self.per_s(self.acknowledged)
    }

    /// Operations failed per second.
    pub fn failed_per_s(&self) -> f64 {
        self.per_s(self.failed)
    }

    fn per_s(&self, count: u64) -> f64 {
        count as f64 * 1e3 / self.length_ms.max(1) as f64
    }
}

/// A text without control characters.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

fn known_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        SCHEMA_VERSION => Ok(SCHEMA_VERSION),
        other => Err(de::Error::custom(format_args!(
            "schema_version {other} is not the {SCHEMA_VERSION} that this loadgen reads; \
             read it with the loadgen that wrote it, or measure again"
        ))),
    }
}
