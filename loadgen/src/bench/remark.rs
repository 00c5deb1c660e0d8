//! What one must know to read the figures of a bench, in sentences. It owns their wording; it changes no figure and no
//! verdict.

use zbl_client::Error;

use super::SeriesError;
use super::shared::MOST_UNSETTLED;
use crate::report::bench::Bench;

/// What happened that no figure tells.
pub(super) struct Noted {
    /// The first failure there was.
    pub(super) failure: Option<Error>,
    /// Whether the run was ended because too many outcomes were unknown.
    pub(super) halted: bool,
    /// Why the series, or its log, is not whole.
    pub(super) series: Option<SeriesError>,
}

/// The remarks on a result.
pub(super) fn remarks(bench: &Bench, noted: &Noted) -> Vec<String> {
    let mut remarks = Vec::new();
    if bench.requests > 0 && bench.acknowledged == 0 {
        remarks.push("no operation that counts was acknowledged: the figures are those of refusals".to_owned());
    }
    if let Some(schedule) = bench.schedule.filter(|schedule| schedule.dropped > 0) {
        let (dropped, due) = (schedule.dropped, schedule.dropped.saturating_add(schedule.sent));
        remarks.push(format!(
            "{dropped} of {due} operations were due and never sent, and are in no latency; \
             thresholds count them as later than any other"
        ));
    }
    if bench.unknown > 0 || bench.outage_retries > 0 {
        let (unknown, retries) = (bench.unknown, bench.outage_retries);
        let why =
            noted.failure.as_ref().map(|failure| format!("; the first failure was: {failure}")).unwrap_or_default();
        remarks.push(format!("outcomes unknown: {unknown}, calls repeated for an outage: {retries}{why}"));
    }
    if noted.halted {
        remarks.push(format!("more than {MOST_UNSETTLED} outcomes were unknown, so the run was ended early"));
    }
    remarks.extend(noted.series.as_ref().map(|failed| format!("the windows or their log are not whole: {failed}")));
    remarks
}
