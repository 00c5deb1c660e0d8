//! The soak: mixed work for as long as one likes, and whether anything changes on the way that should not. Several benches
//! run side by side, one for each strategy and one over `DeductStream`, on accounts of their own and each with its
//! verdict; beside them somebody watches the timeline, and the server's memory is looked at.
//!
//! It owns what is done side by side and what is looked at over time; measuring and judging are the bench's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use futures::future::try_join_all;
use tokio::sync::watch;
use zbl_client::{Client, Guarantee, HttpPort, Money, Retry, Start, Strategy, Timeline, TimelineItem};
use zbl_proto::v1::stream_timeline_response::Event;

use crate::attack::{AttackError, Stop};
use crate::bench::{self, BenchError, Length, PlanError, Progress, Transport};
use crate::report::bench::{Method, Pacing};

mod memory;
mod result;
#[cfg(test)]
mod tests;
mod text;

use memory::Memory;
pub use memory::{MetricsError, Sample, Trend};
pub use result::{Limits, Soak, Watched};
pub use text::text;

/// The strategy whose deductions go over the stream too: it is made for many at once.
const STREAMED: &str = "batched";

/// Shares of what is called: mostly changes, as they are what can be lost.
const MIX: [(Method, u32); 2] = [(Method::Deduct, 80), (Method::Balance, 20)];

/// Calls in flight of one work. A soak is no overload: what does not fit is a finding, and told as dropped.
const MAX_IN_FLIGHT: u32 = 1_000;

/// Before it counts: connections, prepared statements, the database's pages.
const WARMUP: Duration = Duration::from_secs(2);

/// How often memory is looked at over the whole, and at most.
const LOOKS: u32 = 240;
const LOOK_AT_MOST: Duration = Duration::from_millis(500);

/// What each deduction takes, and what each account begins with: a cent a millisecond for three years.
const AMOUNT: Money = Money::from_minor(1);
const OPENING: Money = Money::from_minor(100_000_000_000);

/// A soak to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers; at least one.
    pub clients: Vec<Client>,
    /// Where the first of them serves `/metrics`.
    pub metrics: HttpPort,
    /// The strategies; empty: every one that is available and promises never to overwrite.
    pub strategies: Vec<String>,
    /// Accounts of each work.
    pub accounts: u32,
    /// Operations per second, all works together.
    pub rate_per_s: f64,
    /// How long.
    pub length: Duration,
    /// How long a server that is away is waited for.
    pub outage: Duration,
    /// What the choice of accounts is made from.
    pub seed: u64,
    /// What may change on the way.
    pub limits: Limits,
}

/// Why a soak has no result.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// One of its works has none.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// There is nothing to do.
    #[error("the server has no strategy that is available and promises never to overwrite; name one with --strategy")]
    NoStrategy,
    /// Memory cannot be looked at.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Soaks. After a stop, what was begun is still settled and judged. `progress` is that of the first work.
///
/// # Errors
/// [`SoakError`] when there is nothing to tell.
pub async fn run(plan: &Plan, progress: &watch::Sender<Progress>, stop: &Stop) -> Result<Soak, SoakError> {
    let first = plan.clients.first().ok_or(PlanError::NoServer).map_err(BenchError::from)?;
    let listed = first.clone().with_retry(Retry::default()).strategies().await;
    let listed = listed.map_err(|error| BenchError::Setup(AttackError::setup(first.address(), error)))?;
    let works = plan.works(&listed.all)?;
    // Before anything is done: nobody wants to hear after hours that nothing was seen.
    let mut memory = Memory::of(plan.metrics.clone()).await?;
    let mut watched = Watched::default();
    let (began, others) = (SystemTime::now(), watch::Sender::default());
    let benches = works.iter().enumerate().map(|(number, work)| {
        let progress = if number == 0 { progress } else { &others };
        Box::pin(bench::run(work, None, progress, stop))
    });
    let every = (plan.length / LOOKS).max(LOOK_AT_MOST);
    let benches = tokio::select! {
        benches = try_join_all(benches) => benches?,
        never = memory.keep_looking(every, WARMUP + plan.length) => match never {},
        never = watch_timeline(first.timeline(None, Start::Now), &mut watched) => match never {},
    };
    Ok(Soak::new(plan.limits, began, benches, memory.into_samples(), watched))
}

impl Plan {
    /// One bench for each strategy, and one over the stream.
    fn works(&self, listed: &[Strategy]) -> Result<Vec<bench::Plan>, SoakError> {
        let is_safe = |strategy: &&Strategy| strategy.unavailable.is_none() && strategy.guarantee == Guarantee::Always;
        let strategies: Vec<String> = if self.strategies.is_empty() {
            listed.iter().filter(is_safe).map(|strategy| strategy.name.clone()).collect()
        } else {
            self.strategies.clone()
        };
        let unary = strategies.iter().map(|name| (name, Transport::Unary));
        let streamed = strategies.iter().filter(|name| *name == STREAMED).map(|name| (name, Transport::Stream));
        let works: Vec<_> = unary.chain(streamed).collect();
        if works.is_empty() {
            return Err(SoakError::NoStrategy);
        }
        let rate_per_s = self.rate_per_s / works.len() as f64;
        let plans = works.into_iter().map(|(strategy, transport)| self.work(strategy, transport, rate_per_s));
        plans.map(|plan| plan.check().map(|()| plan).map_err(|error| BenchError::from(error).into())).collect()
    }

    fn work(&self, strategy: &str, transport: Transport, rate_per_s: f64) -> bench::Plan {
        bench::Plan {
            clients: self.clients.clone(),
            connections: 1,
            mix: match transport {
                Transport::Unary => BTreeMap::from(MIX),
                Transport::Stream => BTreeMap::from([(Method::Deduct, 1)]),
            },
            transport,
            strategy: strategy.to_owned(),
            accounts: self.accounts,
            zipf: None,
            first_user: None,
            amount: AMOUNT,
            opening: OPENING,
            pacing: Pacing::Open { rate_per_s, max_in_flight: MAX_IN_FLIGHT },
            length: Length::Time(self.length),
            warmup: WARMUP,
            outage: self.outage,
            seed: self.seed,
            thresholds: Vec::new(),
        }
    }
}

/// Watches the timeline for as long as it is polled, and counts.
async fn watch_timeline(mut timeline: Timeline, watched: &mut Watched) -> Infallible {
    loop {
        match timeline.next().await {
            Ok(TimelineItem::Connected) => watched.connected += 1,
            Ok(TimelineItem::Disconnected { .. }) => {}
            Ok(TimelineItem::Event(event)) => match event.event {
                Some(Event::Gap(gap)) => {
                    let missed = gap.next_sequence.saturating_sub(gap.after_sequence).saturating_sub(1);
                    watched.missed += u64::try_from(missed).unwrap_or_default();
                }
                Some(Event::Heartbeat(_)) | None => {}
                Some(_) => watched.events += 1,
            },
            // A server that has no timeline for us has none later either.
            Err(_) => std::future::pending().await,
        }
    }
}
