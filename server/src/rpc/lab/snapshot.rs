//! The status of the server, taken at once from the parts that know it.

use zbl_lock::{Figures, Lock};
use zbl_proto::v1;

use super::{Changes, Lab, Premises, convert};
use crate::{
    account::Money,
    breaker::{self, Breaker, Position},
    cache,
    depth::Depth,
    ledger::Done,
    limit::{Fill, Refusals},
    projector::Progress,
    queue::Depths,
    reconcile::Finding,
    store::Work,
    strategy::Batches,
    worker::Hands,
};

impl Lab {
    /// What the server is doing now.
    pub(super) fn snapshot(&self) -> v1::ServerStatus {
        let Premises { ledger, instance, started, limits, finding, progress, depth, hands, .. } = &self.premises;
        let trace_url = self.premises.trace_url.as_ref();
        let bench = ledger.bench();
        v1::ServerStatus {
            instance: instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: started.elapsed().try_into().ok(),
            store: bench.store.name().to_owned(),
            strategies: ledger.strategies().map(convert::strategy_message).collect(),
            default_strategy: ledger.default_strategy().name.to_owned(),
            pool: Some(convert::pool(bench.store.pool())),
            timeline: Some(convert::timeline_status(&bench.timeline)),
            work: Some(work(bench.store.work(), ledger.done())),
            batches: Some(batches(ledger.batches())),
            leases: bench.locks.named().flat_map(|(name, lock)| leases(name, lock)).collect(),
            locks: bench.locks.named().map(|(name, lock)| lock_status(name, lock)).collect(),
            cache: ledger.cache().reads().then(|| cache(ledger.cache().figures())),
            in_flight: ledger.in_flight().try_into().unwrap_or(i64::MAX),
            breakers: bench.breakers.iter().map(|breaker| breaker_status(breaker)).collect(),
            limits: Some(limit_status(limits.fill())),
            reconciliation: finding.as_ref().map(|finding| reconciliation(*finding.borrow())),
            projection: progress.as_ref().and_then(|progress| projection(&progress.borrow())),
            queue: depth.as_ref().and_then(|depth| queue(*depth.borrow(), hands.as_ref())),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            changes: Some(change_status(&self.premises.changes)),
            trace_url: trace_url.map(ToString::to_string).unwrap_or_default(),
        }
    }
}

fn change_status(changes: &Changes) -> v1::ChangeStatus {
    let [succeeded, refused, failed] = changes.outcomes().map(signed);
    let latency = changes.latency().map(|(up_to, count)| v1::LatencyBucket {
        up_to: up_to.and_then(|up_to| up_to.try_into().ok()),
        count: signed(count),
    });
    v1::ChangeStatus { succeeded, refused, failed, latency: latency.collect() }
}

fn work(work: Work, done: Done) -> v1::WorkStatus {
    v1::WorkStatus {
        round_trips: signed(work.round_trips),
        commits: signed(work.commits),
        rollbacks: signed(work.rollbacks),
        locks_held: work.locks_held.try_into().ok(),
        acknowledged: signed(done.acknowledged),
        attempts: signed(done.attempts),
    }
}

fn batches(batches: Batches) -> v1::BatchStatus {
    v1::BatchStatus {
        batches: signed(batches.batches),
        changes: signed(batches.changes),
        largest: signed(batches.largest),
        queued: batches.queued.try_into().ok(),
        waiting: signed(batches.waiting),
    }
}

fn leases(name: &str, lock: &Lock) -> impl Iterator<Item = v1::Lease> {
    let lock_name = name.to_owned();
    lock.leases().into_iter().map(move |holding| v1::Lease {
        lock: lock_name.clone(),
        key: holding.key,
        holder: holding.holder.unwrap_or_default(),
        ttl: holding.ttl.and_then(|ttl| ttl.try_into().ok()),
        waiters: signed(holding.waiters as u64),
    })
}

fn lock_status(name: &str, lock: &Lock) -> v1::LockStatus {
    let Figures { acquired, busy, down, lost, waited, held } = lock.figures();
    v1::LockStatus {
        lock: name.to_owned(),
        acquired: signed(acquired),
        busy: signed(busy),
        down: signed(down),
        lost: signed(lost),
        waited: waited.try_into().ok(),
        held: held.try_into().ok(),
    }
}

fn cache(figures: cache::Figures) -> v1::CacheStatus {
    let cache::Figures { hits, misses, bypasses, filtered, spared, failures, owed, forgotten } = figures;
    let asked = hits + misses + bypasses;
    v1::CacheStatus {
        hits: signed(hits),
        misses: signed(misses),
        bypasses: signed(bypasses),
        hit_ratio: if asked == 0 { 0.0 } else { hits as f64 / asked as f64 },
        filtered: signed(filtered),
        spared: signed(spared),
        failures: signed(failures),
        owed: signed(owed),
        forgotten: signed(forgotten),
    }
}

fn breaker_status(breaker: &Breaker) -> v1::BreakerStatus {
    let breaker::Figures { name, position, failed, succeeded, retry_after, refused } = breaker.figures();
    let is_open = position == Position::Open;
    let position = match position {
        Position::Closed => v1::BreakerPosition::Closed,
        Position::HalfOpen => v1::BreakerPosition::HalfOpen,
        Position::Open => v1::BreakerPosition::Open,
    };
    v1::BreakerStatus {
        server: name.to_owned(),
        position: position.into(),
        failed: signed(failed),
        succeeded: signed(succeeded),
        retry_after: is_open.then(|| retry_after.try_into().ok()).flatten(),
        refused: signed(refused),
    }
}

fn limit_status(fill: Fill) -> v1::LimitStatus {
    let Fill { bounds, concurrent, tokens, refused: Refusals { room, rate, account_rate } } = fill;
    v1::LimitStatus {
        calls: concurrent.into(),
        calls_max: bounds.max_concurrent.into(),
        rate: bounds.rate.map_or(0, |rate| rate.per_second.get().into()),
        burst: bounds.rate.map_or(0, |rate| rate.burst.get().into()),
        tokens: tokens.unwrap_or(0).into(),
        account_rate: bounds.account_rate.map_or(0, |rate| rate.per_second.get().into()),
        refused_for_room: signed(room),
        refused_by_rate: signed(rate),
        refused_by_account_rate: signed(account_rate),
    }
}

fn reconciliation(Finding { loss, accounts, rounds }: Finding) -> v1::ReconciliationStatus {
    let loss = Money::from_minor(i64::try_from(loss).unwrap_or(i64::MAX));
    v1::ReconciliationStatus { loss: loss.to_string(), accounts: signed(accounts), rounds: signed(rounds) }
}

/// Nothing before RabbitMQ was asked for the first time.
fn queue(Depth { connected, depths, oldest }: Depth, hands: Option<&Hands>) -> Option<v1::QueueStatus> {
    let Depths { ready, retrying, dead } = depths?;
    Some(v1::QueueStatus {
        connected,
        ready: signed(ready),
        retrying: signed(retrying),
        dead: signed(dead),
        oldest: oldest.try_into().ok(),
        working: hands.is_some(),
        in_hand: hands.map_or(0, |hands| hands.in_hand().try_into().unwrap_or(i64::MAX)),
    })
}

fn projection(progress: &Progress) -> Option<v1::ProjectionStatus> {
    let Progress { active, building, .. } = progress;
    active.map(|active| v1::ProjectionStatus {
        generation: active.generation,
        position: active.seq,
        entries: active.totals.entries,
        behind: progress.lag_entries(),
        lag: progress.lag().try_into().ok(),
        building_generation: building.map_or(0, |building| building.generation),
        building_entries: building.map_or(0, |building| building.totals.entries),
    })
}

/// Counts that would take centuries to leave an i64.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
