//! Every latency of a bench, second by second, in HdrHistogram's own log format (1.3), so that its tools and plotters read
//! it. Written while the bench runs, an interval at a time: nothing of it is kept in memory.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};

use super::Method;

/// As HdrHistogram's readers look for it, before everything else.
const FORMAT: &str = "[Histogram log format version 1.3]";

/// The column names that Java's writer puts above the intervals.
const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"";

/// A log that intervals are added to.
pub struct HistogramLog<W> {
    to: W,
    serializer: V2DeflateSerializer,
}

impl<W: Write> HistogramLog<W> {
    /// Writes the header. `started` is when the operations that count began; `title` may hold anything.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn begin(mut to: W, started: SystemTime, title: &str) -> io::Result<Self> {
        let mut serializer = V2DeflateSerializer::new();
        IntervalLogWriterBuilder::new()
            .add_comment(FORMAT)
            // A carriage return would end the comment's line for some readers.
            .add_comment(&format!("[{}; all values in microseconds, one tag per method]", title.replace('\r', " ")))
            .with_start_time(started)
            .with_base_time(started)
            .begin_log_with(&mut to, &mut serializer)?;
        writeln!(to, "{LEGEND}")?;
        Ok(Self { to, serializer })
    }

    /// Adds the latencies, in microseconds, that `method` had in the interval that began `at` after the start.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn interval(
        &mut self,
        method: Method,
        at: Duration,
        length: Duration,
        latencies: &Histogram<u64>,
    ) -> io::Result<()> {
        IntervalLogWriterBuilder::new()
            .begin_log_with(&mut self.to, &mut self.serializer)?
            .write_histogram(latencies, at, length, Tag::new(method.name()))
            .map_err(|error| match error {
                IntervalLogWriterError::IoError(error) => error,
                IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
            })
    }

    /// Brings everything to the writer's end.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    const STARTED: Duration = Duration::from_millis(1_700_000_000_250);

    #[test]
    fn what_is_written_is_read_back() {
        let mut written = Vec::new();
        let mut log = HistogramLog::begin(&mut written, SystemTime::UNIX_EPOCH + STARTED, "a\nb\rc").unwrap();
        let mut latencies = Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        for second in 0..2 {
            for method in [Method::Balance, Method::Deduct] {
                latencies.record(1_000 * (second + 1)).unwrap();
                log.interval(method, Duration::from_secs(second), Duration::from_millis(999), &latencies).unwrap();
            }
        }
        log.finish().unwrap();

        let text = str::from_utf8(&written).unwrap();
        assert!(text.starts_with("#[Histogram log format version 1.3]\n"), "{text}");
        assert!(text.lines().any(|line| line == LEGEND), "{text}");
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&written) {
            match entry.unwrap() {
                LogEntry::StartTime(start) | LogEntry::BaseTime(start) => assert_eq!(start, STARTED),
                LogEntry::Interval(interval) => {
                    let bytes = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).unwrap();
                    let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                    read.push((
                        interval.tag().unwrap().as_str().to_owned(),
                        interval.start_timestamp().as_secs(),
                        interval.duration().as_millis(),
                        interval.max(),
                        histogram.len(),
                    ));
                }
            }
        }
        let expected = [
            ("balance", 0, 1_000.0, 1),
            ("deduct", 0, 1_000.0, 2),
            ("balance", 1, 2_000.0, 3),
            ("deduct", 1, 2_000.0, 4),
        ];
        let expected = expected.map(|(tag, at, max, count)| (tag.to_owned(), at, 999, max, count));
        assert_eq!(read, expected);
    }
}
