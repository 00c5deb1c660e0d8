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
fn counted() -> Option<&'static PrometheusHandle> {
    let begin = || {
        let times = Matcher::Suffix("_seconds".to_owned());
        let recorder =
            PrometheusBuilder::new().set_buckets_for_metric(times, &TIMES).map(|builder| builder.install_recorder());
        match recorder {
            Ok(Ok(handle)) => Some(handle),
            Ok(Err(error)) | Err(error) => {
                tracing::warn!("nothing will be counted for /metrics: {error}");
                None
            }
        }
    };
    COUNTED.get_or_init(begin).as_ref()
}

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
