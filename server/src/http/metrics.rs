//! `/metrics`: what this process counts and measures, in the text that Prometheus reads. Names and labels are given where
//! something is counted; how times are sorted into buckets is decided here, once for all of them.

use std::{sync::OnceLock, time::Duration};

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};

/// The edges of the buckets of every time, seconds: from what a lock in Redis takes to what nobody waits for any more,
/// each two to two and a half times the one before.
const TIMES: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
];

/// Measured values are gathered until then; more often costs, and seldomer lets them pile up where nobody reads them.
const GATHERED_EVERY: Duration = Duration::from_secs(5);

/// What has been counted since the process began: one for the process, however many servers run in it.
static COUNTED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Begins to count, if nobody has. What is counted before that is lost.
pub fn begin_to_count() {
    counted();
}

fn counted() -> Option<&'static PrometheusHandle> {
    let begin = || {
        let times = Matcher::Suffix("_seconds".to_owned());
        let recorder =
            PrometheusBuilder::new().set_buckets_for_metric(times, &TIMES).map(|builder| builder.install_recorder());
        match recorder {
            Ok(Ok(handle)) => {
                describe();
                Some(handle)
            }
            Ok(Err(error)) | Err(error) => {
                tracing::warn!("nothing will be counted for /metrics: {error}");
                None
            }
        }
    };
    COUNTED.get_or_init(begin).as_ref()
}

/// What each metric means, for whoever meets it in a query.
fn describe() {
    #[cfg(target_os = "linux")]
    metrics_process::Collector::default().describe();
    for &(name, meaning) in COUNTERS {
        metrics::describe_counter!(name, meaning);
    }
    for &(name, meaning) in GAUGES {
        metrics::describe_gauge!(name, meaning);
    }
    for &(name, meaning) in HISTOGRAMS {
        metrics::describe_histogram!(name, meaning);
    }
}

const COUNTERS: &[(&str, &str)] = &[
    ("batched_changes_total", "Changes committed together with others, or as a batch of one."),
    ("batches_total", "Batches committed."),
    ("breaker_refused_total", "Calls answered CIRCUIT_OPEN."),
    ("breaker_transitions_total", "Changes of a breaker's position."),
    ("cache_failures_total", "Calls to the cache in Redis that failed, or were not made because one had just failed."),
    ("cache_filtered_total", "Reads that the filter answered: there is no such account."),
    (
        "cache_forgotten_total",
        "Accounts that were written, could not be told to the cache, and are no longer remembered.",
    ),
    ("cache_queries_spared_total", "Misses that shared another's query."),
    ("cache_requests_total", "Reads of balances, by how they were answered."),
    ("change_attempts_total", "Attempts at changes, those that failed included."),
    ("changes_acknowledged_total", "Changes acknowledged, repeats among them."),
    (
        "connections_refused_total",
        "Connections closed before they were served: there were too many, or their handshake failed.",
    ),
    ("db_commits_total", "Transactions committed."),
    ("db_rollbacks_total", "Transactions rolled back."),
    ("db_round_trips_total", "Messages sent to the database and answered."),
    ("deduct_attempts_total", "Transactions run for deductions that were acknowledged or gave up, by strategy."),
    ("deduct_requests_total", "Deductions answered, by what came of them (OK or the reason) and strategy."),
    ("grpc_server_handled_total", "Calls that came to their end, by code."),
    ("grpc_server_started_total", "Calls that arrived."),
    ("limiter_refused_total", "Calls refused because there were too many, by limit."),
    ("projector_entries_total", "Journal entries folded into the reports, those of a rebuild included."),
    ("projector_failures_total", "Times that the projector could not go on."),
    ("outbox_relayed_total", "Deductions that were recorded and that the relay has sent, because their calls had not."),
    ("queue_acceptances_total", "Calls of DeductAsync answered, by what came of them."),
    ("races_total", "Commits that overwrote another change."),
    ("reconciliation_entries_total", "Journal entries read to compare journal and balances."),
    ("reconciliation_failures_total", "Ticks in which journal and balances could not be compared."),
    ("reconciliation_rounds_total", "Times that every account was compared."),
    ("redis_lock_leases_lost_total", "Leases that ended while they were held."),
    ("timeline_events_total", "Events recorded in the timeline."),
    ("trace_spans_total", "Spans sent by OTLP, by whether the collector accepted them."),
    ("worker_dead_letters_total", "Deductions of the queue, and messages that are none, laid aside, by reason."),
    (
        "worker_decided_total",
        "Deductions of the queue decided: journaled, now or by an earlier delivery, or failed because the rules refuse them.",
    ),
    ("worker_deliveries_total", "Messages taken from the queue."),
    ("worker_redeliveries_total", "Those of them that had been taken before and not answered for."),
    ("worker_retries_total", "Deductions of the queue put away to be tried again later."),
];

const GAUGES: &[(&str, &str)] = &[
    ("balance_loss_accounts", "Accounts whose balance is off their journal."),
    (
        "balance_loss_amount",
        "Money gone, in units of the currency: by how much balances are off their journals since the last OPEN or RESET.",
    ),
    ("batch_largest_changes", "The most changes of a batch so far."),
    ("batch_waiting_changes", "Changes that wait for a batch."),
    ("breaker_position", "What a breaker lets through: 0 everything (closed), 1 probes (half open), 2 nothing (open)."),
    ("build_info", "Always 1; the version and the store are its labels."),
    ("cache_owed_accounts", "Accounts that were written and are still to be told to the cache."),
    ("changes_in_flight", "Changes running or waiting."),
    ("connections", "Connections open, by port."),
    ("db_pool_connections", "Database connections: the most there may be, open, in use."),
    ("db_pool_waiting", "Callers waiting for a database connection."),
    ("limiter_calls", "Calls of accounts under way."),
    ("limiter_calls_max", "The most there may be; more are answered OVERLOADED."),
    ("limiter_tokens", "Calls left of the rate when one was last counted."),
    ("projector_lag_entries", "Journal entries that the reports lack, at most."),
    ("projector_lag_seconds", "How old the oldest journal entry is that the reports lack."),
    ("queue_connected", "Whether this process is connected to RabbitMQ: 1 or 0."),
    ("queue_deductions", "Deductions of the queue: ready for a worker, waiting to be tried again, laid aside (dead)."),
    ("queue_oldest_seconds", "How old the oldest deduction is that was accepted and not decided."),
    (
        "reconciliation_last_success_timestamp_seconds",
        "When journal and balances were last compared without a failure, as Unix time.",
    ),
    ("timeline_events_retained", "Events in the timeline's ring."),
    ("worker_held_deductions", "Deductions of the queue in hand that wait for the database."),
    ("worker_in_hand_deductions", "Deductions of the queue that this process has taken and not answered for."),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    ("deduct_duration_seconds", "How long deductions took, as their callers see it."),
    ("grpc_server_handling_seconds", "How long calls took, from their head to the last of their answer."),
    (
        "lock_wait_duration_seconds",
        "How long changes waited for what their strategy keeps outside the database: a mutex, a batch, a lock in Redis.",
    ),
    ("queue_wait_seconds", "How long deductions waited in the queue before they were taken for the first time."),
    ("redis_lock_hold_duration_seconds", "How long leases of a lock in Redis were held."),
    ("redis_lock_wait_duration_seconds", "How long callers waited for a lock in Redis."),
];

/// Counts, and keeps what is measured from piling up, for as long as it is polled.
pub async fn count() {
    let Some(counted) = counted() else { return std::future::pending().await };
    let mut turns = interval(GATHERED_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        counted.run_upkeep();
    }
}

/// The answer to `GET /metrics`.
pub(super) async fn metrics() -> Response {
    let text = counted().map(PrometheusHandle::render).unwrap_or_default();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
