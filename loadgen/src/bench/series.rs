//! The run second by second. Connections hand over what they measured when a second is over; once all of them have, it is
//! folded to a few figures, and its histograms to a line of the histogram log when one is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::time::Duration;

use hdrhistogram::{AdditionError, CreationError};

use super::sheet::Part;
use crate::recorder::Recorder;
use crate::report::bench::{HistogramLog, Method, Window};

/// An hour of seconds; a longer run has longer windows.
const MOST_WINDOWS: usize = 3_600;

/// The least length of a window.
const SECOND: Duration = Duration::from_secs(1);

/// The windows of a run.
pub(super) struct Series {
    /// For each connection, the second it is in; `None` once it has ended.
    positions: Vec<Option<u64>>,
    /// Seconds that some connection is still in.
    open: BTreeMap<u64, Part>,
    /// The first second that is not folded.
    next: u64,
    windows: Vec<Window>,
    /// Seconds in a window.
    seconds: u64,
    log: Option<HistogramLog<BufWriter<File>>>,
    failed: Option<SeriesError>,
}

/// Why the series could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// The histograms could not be made.
    #[error(transparent)]
    Creation(#[from] CreationError),
    /// The histograms do not fit together.
    #[error("latencies cannot be merged: {0:?}")]
    Addition(AdditionError),
    /// The histogram log could not be written.
    #[error("cannot write the histogram log: {0}; name another file with --hlog")]
    Log(#[from] io::Error),
}

impl From<AdditionError> for SeriesError {
    fn from(error: AdditionError) -> Self {
        Self::Addition(error)
    }
}

impl Series {
    pub(super) fn new(connections: usize, log: Option<HistogramLog<BufWriter<File>>>) -> Self {
        let positions = vec![Some(0); connections];
        Self { positions, open: BTreeMap::new(), next: 0, windows: Vec::new(), seconds: 1, log, failed: None }
    }

    /// A connection is through with the second it was in and has come to `second`, or to its end. What goes wrong is told
    /// in the end.
    pub(super) fn advance(&mut self, connection: usize, part: &Part, second: Option<u64>) {
        if let Err(error) = self.take(connection, part, second) {
            self.failed.get_or_insert(error);
        }
    }

    fn take(&mut self, connection: usize, part: &Part, second: Option<u64>) -> Result<(), SeriesError> {
        let Some(position) = self.positions.get_mut(connection) else { return Ok(()) };
        if let Some(left) = std::mem::replace(position, second) {
            match self.open.get_mut(&left) {
                Some(open) => open.merge(part)?,
                None => {
                    self.open.insert(left, part.clone());
                }
            }
        }
        let reached = self.positions.iter().flatten().min().copied();
        let reached = reached.unwrap_or_else(|| self.open.keys().next_back().map_or(self.next, |last| last + 1));
        for second in self.next..reached {
            let part = self.open.remove(&second);
            self.fold(second, part)?;
        }
        self.next = self.next.max(reached);
        Ok(())
    }

    fn fold(&mut self, second: u64, part: Option<Part>) -> Result<(), SeriesError> {
        let at = SECOND * u32::try_from(second).unwrap_or(u32::MAX);
        let mut all = Recorder::new()?;
        let (mut acknowledged, mut failed) = (0, 0);
        if let Some(part) = part {
            (acknowledged, failed) = (part.acknowledged, part.failed);
            for (method, latencies) in Method::ALL.into_iter().zip(&part.latencies).filter(|(_, part)| !part.is_empty())
            {
                all.merge(latencies)?;
                let written = self.log.as_mut().map(|log| log.interval(method, at, SECOND, latencies.histogram()));
                if let Some(Err(error)) = written {
                    self.failed.get_or_insert(error.into());
                    self.log = None;
                }
            }
        }
        let latency = all.latency();
        self.append(Window {
            at_ms: second * 1_000,
            length_ms: 1_000,
            acknowledged,
            failed,
            p50_us: latency.p50,
            p99_us: latency.p99,
            max_us: latency.max,
        });
        Ok(())
    }

    fn append(&mut self, window: Window) {
        match self.windows.last_mut() {
            Some(last) if last.length_ms < self.seconds * 1_000 => *last = joined(last, &window),
            _ => self.windows.push(window),
        }
        if self.windows.len() > MOST_WINDOWS {
            self.windows =
                self.windows.chunks(2).map(|pair| pair[1..].iter().fold(pair[0], |a, b| joined(&a, b))).collect();
            self.seconds *= 2;
        }
    }

    /// The windows of a run that lasted this long, and what went wrong first: it makes neither the windows so far nor the
    /// run worth less.
    pub(super) fn finish(mut self, elapsed: Duration) -> (Vec<Window>, Option<SeriesError>) {
        if let Some(Err(error)) = self.log.take().map(HistogramLog::finish) {
            self.failed.get_or_insert(error.into());
        }
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let mut windows = self.windows;
        // Connections may wait for their last answers beyond the last operation that counts.
        windows.retain(|window| window.at_ms < elapsed || window.acknowledged + window.failed > 0);
        if let Some(last) = windows.last_mut() {
            // The last operation ended within it; a length of nothing would make an infinite rate.
            last.length_ms = elapsed.saturating_sub(last.at_ms).clamp(1, last.length_ms);
        }
        (windows, self.failed)
    }
}

/// Two windows in a row as one. Percentiles cannot be joined without their histograms: the median is weighted, and the
/// 99th percentile is the greater one, which it does not exceed.
fn joined(first: &Window, second: &Window) -> Window {
    let (one, other) = (first.acknowledged + first.failed, second.acknowledged + second.failed);
    let weighted = |one_us: u64, other_us: u64| {
        let sum = u128::from(one_us) * u128::from(one) + u128::from(other_us) * u128::from(other);
        u64::try_from(sum / u128::from((one + other).max(1))).unwrap_or(u64::MAX)
    };
    Window {
        at_ms: first.at_ms,
        length_ms: first.length_ms + second.length_ms,
        acknowledged: first.acknowledged + second.acknowledged,
        failed: first.failed + second.failed,
        p50_us: weighted(first.p50_us, second.p50_us),
        p99_us: first.p99_us.max(second.p99_us),
        max_us: first.max_us.max(second.max_us),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sheet::Outcome;
    use super::*;

    const DONE: Outcome = Outcome::Acknowledged { attempts: 1 };

    fn part(method: Method, latencies_us: &[u64]) -> Part {
        let mut part = Part::new().unwrap();
        for micros in latencies_us {
            part.record(method, DONE, Duration::from_micros(*micros));
        }
        part
    }

    #[test]
    fn a_second_is_folded_once_every_connection_is_through_with_it() {
        let mut series = Series::new(2, None);
        series.advance(0, &part(Method::Deduct, &[100]), Some(1));
        assert!(series.windows.is_empty(), "the other connection is still in it");
        series.advance(1, &part(Method::Balance, &[300, 200]), Some(2));
        assert_eq!(series.windows.len(), 1);
        series.advance(0, &part(Method::Deduct, &[7]), Some(3));
        series.advance(0, &part(Method::Deduct, &[9]), None);
        series.advance(1, &part(Method::Deduct, &[]), None);

        let windows = series.finish(Duration::from_millis(3_250)).0;
        let figures: Vec<_> = windows.iter().map(|w| (w.at_ms, w.length_ms, w.acknowledged, w.max_us)).collect();
        assert_eq!(figures, [(0, 1_000, 3, 300), (1_000, 1_000, 1, 7), (2_000, 1_000, 0, 0), (3_000, 250, 1, 9)]);
        assert_eq!((windows[0].p50_us, windows[0].p99_us), (200, 300));
    }

    #[test]
    fn a_long_run_has_longer_windows_and_loses_nothing() {
        let mut series = Series::new(1, None);
        let seconds = MOST_WINDOWS as u64 + 2;
        for second in 0..seconds {
            series.advance(0, &part(Method::Deduct, &[second + 1]), Some(second + 1));
        }
        series.advance(0, &Part::new().unwrap(), None);
        let windows = series.finish(Duration::from_secs(seconds)).0;
        assert!(windows.len() <= MOST_WINDOWS, "{}", windows.len());
        assert_eq!(windows.iter().map(|window| window.acknowledged).sum::<u64>(), seconds);
        assert_eq!(windows.iter().map(|window| window.length_ms).sum::<u64>(), seconds * 1_000);
        assert!(windows.windows(2).all(|pair| pair[0].at_ms + pair[0].length_ms == pair[1].at_ms));
        assert_eq!((windows[0].length_ms, windows[0].max_us), (2_000, 2));
    }
}
