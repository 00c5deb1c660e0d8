//! What is read off the parts of the service when somebody asks for `/metrics`. What happens is counted where it happens;
//! this is what *is*, and what its parts have counted for themselves already.

use metrics::{counter, gauge};

use crate::{
    breaker::Figures,
    ledger::{Done, Ledger},
    limit::{Fill, Limits},
    store::{PoolState, Work},
    strategy::Batches,
    worker::Hands,
};

/// Reads everything anew.
pub(super) fn read(ledger: &Ledger, limits: &Limits, hands: Option<&Hands>) {
    let bench = ledger.bench();
    gauge!("build_info", "version" => env!("CARGO_PKG_VERSION"), "store" => bench.store.name()).set(1.0);
    pool(bench.store.pool());
    // The process as everybody's dashboards know it: memory, processor time, file descriptors.
    #[cfg(target_os = "linux")]
    metrics_process::Collector::default().collect();

    for breaker in &bench.breakers {
        let Figures { name, position, .. } = breaker.figures();
        gauge!("breaker_position", "breaker" => name).set(f64::from(position as u8));
    }

    let Work { round_trips, commits, rollbacks, .. } = bench.store.work();
    counter!("db_round_trips_total").absolute(round_trips);
    counter!("db_commits_total").absolute(commits);
    counter!("db_rollbacks_total").absolute(rollbacks);

    let Done { acknowledged, attempts } = ledger.done();
    counter!("changes_acknowledged_total").absolute(acknowledged);
    counter!("change_attempts_total").absolute(attempts);
    gauge!("changes_in_flight").set(ledger.in_flight() as f64);

    let Batches { batches, changes, largest, waiting, .. } = ledger.batches();
    counter!("batches_total").absolute(batches);
    counter!("batched_changes_total").absolute(changes);
    gauge!("batch_largest_changes").set(largest as f64);
    gauge!("batch_waiting_changes").set(waiting as f64);

    if let Some(hands) = hands {
        gauge!("worker_in_hand_deductions").set(hands.in_hand() as f64);
        gauge!("worker_held_deductions").set(hands.held() as f64);
    }

    let Fill { bounds, concurrent, tokens, .. } = limits.fill();
    gauge!("limiter_calls").set(f64::from(concurrent));
    gauge!("limiter_calls_max").set(f64::from(bounds.max_concurrent));
    if let Some(tokens) = tokens {
        gauge!("limiter_tokens").set(f64::from(tokens));
    }

    let (newest, first) = (bench.timeline.newest(), bench.timeline.first_held());
    counter!("timeline_events_total").absolute(newest);
    gauge!("timeline_events_retained").set(newest.saturating_sub(first) as f64);
}

fn pool(PoolState { max, open, in_use, waiting }: PoolState) {
    for (state, connections) in [("max", max), ("open", open), ("in_use", in_use)] {
        gauge!("db_pool_connections", "state" => state).set(connections as f64);
    }
    gauge!("db_pool_waiting").set(waiting as f64);
}
