//! The result of a run, for machines (`result.schema.json` next to this crate is the published form) and for people
//! ([`text`], [`table`]). It owns what is shown and refuses to judge anew.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;
use zbl_client::{Guarantee, Money, Reason};

use crate::history::is_turned_away;
use crate::recorder::Latency;
use crate::verdict::{Judgement, LostUpdate, Tally, Verdict, Write};
use crate::workload::Workload;

pub mod advice;
pub mod bench;
mod cost;
pub(crate) mod decimal;
pub(crate) mod promise;
mod queued;
mod table;
#[cfg(test)]
mod tests;
mod text;

pub use cost::{Cost, Work};
pub use queued::{Accepting, Queued};
pub use table::table;
pub(crate) use table::{aligned, plain};
pub(crate) use text::short;
pub use text::{text, witness};

/// The version of the published form; it grows when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// What a run was and how it went, besides its judgement.
#[derive(Clone, Debug)]
pub struct Run {
    /// The strategy's name.
    pub strategy: String,
    /// What it promises.
    pub guarantee: Guarantee,
    /// A strategy of the same server that loses nothing.
    pub cure: Option<String>,
    /// What the server stores accounts in.
    pub store: String,
    /// How many servers were attacked.
    pub servers: usize,
    /// The account.
    pub user_id: i64,
    /// Whether operations were left undone.
    pub interrupted: bool,
    /// Latencies of answered operations, their repetitions included.
    pub latency: Latency,
    /// Transactions the server ran for acknowledged operations.
    pub attempts: u64,
    /// Calls cancelled by their caller while they were under way.
    pub cancelled: u64,
    /// Calls repeated because they were turned away, by contention or for load.
    pub contended_retries: u32,
    /// Calls repeated because the server or its backend was away.
    pub outage_retries: u32,
    /// From the first operation's beginning to the last one's end; where they were accepted first, to the last decision.
    pub elapsed: Duration,
    /// How they were accepted, where they were.
    pub accepting: Option<Accepting>,
    /// What an acknowledged deduction cost; `None` when the server does not tell.
    pub cost: Option<Cost>,
}

/// The result of a run. Amounts are decimal strings.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The strategy's name.
    pub strategy: String,
    /// What it promises.
    #[serde(serialize_with = "promise::serialize")]
    pub guarantee: Guarantee,
    /// What the server stores accounts in.
    pub store: String,
    /// How many servers were attacked.
    pub servers: usize,
    /// The verdict.
    pub verdict: Verdict,
    /// Why the run cannot be called clean, besides losses.
    #[serde(serialize_with = "displayed")]
    pub doubts: Vec<crate::verdict::Doubt>,
    /// The account.
    pub user_id: i64,
    /// How many workers deducted at the same time.
    pub workers: u32,
    /// How many deductions each was to make.
    pub deductions: u32,
    /// How much each deduction takes.
    #[serde(with = "decimal")]
    pub amount: Money,
    /// The balance at the beginning.
    #[serde(with = "decimal")]
    pub opening: Money,
    /// How many deductions the opening balance could pay for.
    pub affordable: u64,
    /// What was acknowledged.
    pub acknowledged: Taken,
    /// Operations without effect, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Operations whose outcome is unknown.
    pub unknown: u64,
    /// The balance at the end.
    #[serde(rename = "final", with = "decimal")]
    pub last: Money,
    /// The acknowledged money that is gone.
    #[serde(with = "decimal")]
    pub lost: Money,
    /// The part of it that no pair explains.
    #[serde(with = "decimal")]
    pub unattributed: Money,
    /// The final balance minus what the journal adds up to.
    #[serde(with = "decimal")]
    pub difference: Money,
    /// Journal entries that repeat a request id.
    pub doubled: u64,
    /// Acknowledged requests that the journal does not hold.
    pub missing: Vec<Uuid>,
    /// Acknowledged requests whose receipt differs from the journal.
    pub differing: Vec<Uuid>,
    /// Versions whose balance is not what was read plus the change.
    pub miscalculated: Vec<i64>,
    /// Who lost what to whom.
    pub lost_updates: Vec<Pair>,
    /// Answered operations (acknowledged or refused; neither turned away, nor voided, nor lost to an outage) per second.
    pub throughput_per_s: f64,
    /// Latencies of operations with a known outcome, in microseconds, repetitions included; where they were accepted first,
    /// until that.
    pub latency_us: Latency,
    /// Transactions the server ran for acknowledged operations.
    pub attempts: u64,
    /// Calls cancelled by their caller while they were under way.
    pub cancelled: u64,
    /// Calls repeated because they were turned away, by contention or for load.
    pub contended_retries: u32,
    /// Calls repeated because the server or its backend was away.
    pub outage_retries: u32,
    /// What the request ids were made from.
    pub seed: u64,
    /// How long the operations took, in milliseconds.
    pub duration_ms: u64,
    /// Whether operations were left undone, by a stop or because the server stayed away.
    pub interrupted: bool,
    /// A strategy of the same server that loses nothing.
    pub cure: Option<String>,
    /// What an acknowledged deduction cost; absent when the server does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// How accepted deductions came to their end; absent where each was made while its caller waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<Queued>,
}

/// A count of operations and the money they took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// How many.
    pub count: u64,
    /// How much.
    #[serde(with = "decimal")]
    pub amount: Money,
}

/// One lost update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The write that is gone.
    pub victim: Side,
    /// The write that went over it.
    pub overwriter: Side,
    /// What is gone: positive for a lost deduction, negative for a lost deposit.
    #[serde(with = "decimal")]
    pub amount: Money,
}

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The request that made it.
    pub request_id: Uuid,
    /// The version it had read.
    pub version_before: i64,
    /// The balance it had read.
    #[serde(with = "decimal")]
    pub balance_before: Money,
    /// The version it wrote.
    pub version: i64,
    /// The balance it left behind.
    #[serde(with = "decimal")]
    pub balance_after: Money,
}

/// Several runs, as `compare` and the server's `demo` write them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Comparison<'a> {
    /// The runs, in the order they were made.
    pub runs: &'a [Report],
}

impl Report {
    /// Puts a result together.
    pub fn new(workload: &Workload, run: Run, judgement: Judgement, last: Money) -> Self {
        let decided = judgement.failed.iter().filter(|(reason, _)| is_decision(reason)).map(|(_, count)| count);
        let answered = judgement.acknowledged.count + decided.sum::<u64>();
        let queued = run.accepting.map(|accepting| Queued::new(&accepting, &judgement));
        Self {
            schema_version: SCHEMA_VERSION,
            strategy: run.strategy,
            guarantee: run.guarantee,
            store: run.store,
            servers: run.servers,
            verdict: judgement.verdict,
            doubts: judgement.doubts,
            user_id: run.user_id,
            workers: workload.workers,
            deductions: workload.deductions,
            amount: workload.amount,
            opening: workload.opening,
            affordable: workload.affordable(),
            acknowledged: taken(judgement.acknowledged),
            failed: judgement.failed,
            unknown: judgement.unknown,
            last,
            lost: judgement.lost,
            unattributed: judgement.unattributed,
            difference: judgement.difference,
            doubled: judgement.doubled,
            missing: judgement.missing,
            differing: judgement.differing,
            miscalculated: judgement.miscalculated,
            lost_updates: judgement.lost_updates.iter().map(pair).collect(),
            throughput_per_s: per_second(answered, run.elapsed),
            latency_us: run.latency,
            attempts: run.attempts,
            cancelled: run.cancelled,
            contended_retries: run.contended_retries,
            outage_retries: run.outage_retries,
            seed: workload.seed,
            duration_ms: u64::try_from(run.elapsed.as_millis()).unwrap_or(u64::MAX),
            interrupted: run.interrupted,
            cure: run.cure,
            cost: run.cost,
            queued,
        }
    }

    /// Operations that were turned away by contention, after every repetition.
    pub fn contended(&self) -> u64 {
        self.failed.get(Reason::Contended.as_str()).copied().unwrap_or(0)
    }

    /// Operations that were refused for other reasons.
    pub fn refused(&self) -> u64 {
        self.failed.values().sum::<u64>() - self.contended()
    }

    /// Says so when contention, load shedding or rate limits kept the strategy from selling what the balance could pay
    /// for: losing nothing by doing nothing is no success.
    pub fn contention_note(&self) -> Option<String> {
        let reason = |name: &str| Reason::from_wire(name).is_some_and(is_turned_away);
        let turned_away: Vec<_> = self.failed.iter().filter(|(name, _)| reason(name)).collect();
        let (sold, affordable) = (self.acknowledged.count, self.affordable);
        (!turned_away.is_empty() && sold < affordable).then(|| {
            let operations = counted(turned_away.iter().map(|(_, count)| *count).sum(), "operation");
            let reasons: Vec<_> = turned_away.iter().map(|(name, count)| format!("{name} {count}")).collect();
            format!(
                "{}: turned {operations} away ({}); it sold {sold} of the {affordable} the balance could pay for",
                self.strategy,
                reasons.join(", ")
            )
        })
    }

    /// Says how far the promise reaches that holds within one process only, and what a loss beyond that counts as.
    pub fn scope_note(&self) -> Option<String> {
        let beyond = match self.servers {
            0 | 1 => "with several it loses money".to_owned(),
            servers => format!("{servers} were attacked here, so that a loss counts as expected"),
        };
        let promise = || format!("{}: its promise is for one server process; {beyond}", self.strategy);
        (self.guarantee == Guarantee::OneProcess).then(promise)
    }

    /// The transactions the server ran per acknowledged operation; `None` when there is none.
    pub fn attempts_per_acknowledged(&self) -> Option<f64> {
        (self.acknowledged.count > 0).then(|| self.attempts as f64 / self.acknowledged.count as f64)
    }
}

/// Whether the service decided an operation that ended for this reason, rather than turn it away, be down or void its id.
pub(crate) fn is_decision(name: &str) -> bool {
    let undecided = |reason| {
        is_turned_away(reason) || matches!(reason, Reason::BackendDown | Reason::CircuitOpen | Reason::ShuttingDown)
    };
    Reason::from_wire(name).is_some_and(|reason| !undecided(reason))
}

/// Things per second, to a tenth; 0 when no time has passed.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

/// A number of things, in the singular where it is one.
fn counted(count: u64, thing: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{ending}")
}

fn taken(tally: Tally) -> Taken {
    Taken { count: tally.count, amount: tally.amount }
}

pub(crate) fn pair(lost: &LostUpdate) -> Pair {
    Pair { victim: side(&lost.victim), overwriter: side(&lost.overwriter), amount: lost.amount }
}

fn side(write: &Write) -> Side {
    Side {
        request_id: write.request_id,
        version_before: write.read.version,
        balance_before: write.read.balance,
        version: write.wrote.version,
        balance_after: write.wrote.balance,
    }
}

fn displayed<S: Serializer>(items: &[impl Display], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(ToString::to_string))
}
