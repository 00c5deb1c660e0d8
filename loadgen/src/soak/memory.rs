//! What the server holds of its machine's memory, by its own `/metrics`, and whether that grows.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderValue;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, timeout};

/// The name that Prometheus' client libraries use.
const SERIES: &str = "process_resident_memory_bytes";

/// A busy server answers within this or is not asked this time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Far more than a page of metrics with closed lists of labels takes.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// A host and port that serves `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics(String);

/// Why memory cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address}/metrics tells no {SERIES}: {why}; name the server's HTTP port with --http-addr")]
pub struct MetricsError {
    address: String,
    why: String,
}

/// What was held at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When, in milliseconds since the soak began.
    pub at_ms: u64,
    /// How much is resident, in bytes.
    pub bytes: u64,
}

/// What samples say about growth. The first quarter is left out: caches and pools fill then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trend {
    /// The median of the second quarter, in bytes.
    pub start_bytes: u64,
    /// The median of the last quarter, in bytes.
    pub end_bytes: u64,
    /// The most there was at any time, in bytes.
    pub most_bytes: u64,
    /// The end against the start, in percent; negative where it shrank.
    pub growth_percent: f64,
    /// The slope of the line that fits best (least squares), in bytes per hour.
    pub bytes_per_hour: f64,
}

/// Samples as they are taken.
pub(super) struct Memory {
    metrics: Metrics,
    /// What the server's calls are shown.
    token: Option<HeaderValue>,
    began: Instant,
    samples: Vec<Sample>,
}

impl FromStr for Metrics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        match authority.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self(authority.to_owned())),
            _ => Err(format!("{text:?} is no address; give HOST:PORT")),
        }
    }
}

impl Metrics {
    async fn resident_bytes(&self, token: Option<&HeaderValue>) -> Result<u64, MetricsError> {
        let failed = |why: String| MetricsError { address: self.0.clone(), why };
        let text =
            timeout(TIMEOUT, self.text(token)).await.map_err(|_| failed(format!("no answer within {TIMEOUT:?}")))?;
        let text = text.map_err(|error| failed(error.to_string()))?;
        let value = text.lines().find_map(|line| line.strip_prefix(SERIES)?.trim().parse::<f64>().ok());
        // Whole bytes, written as any number is.
        value.map(|bytes| bytes as u64).ok_or_else(|| failed("there is no such series".to_owned()))
    }

    async fn text(&self, token: Option<&HeaderValue>) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.0).await?;
        let mut request = format!("GET /metrics HTTP/1.0\r\nhost: {}\r\n", self.0).into_bytes();
        if let Some(token) = token {
            request.extend([b"authorization: ", token.as_bytes(), b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        stream.write_all(&request).await?;
        let mut text = String::new();
        stream.take(MOST_BYTES).read_to_string(&mut text).await?;
        Ok(text)
    }
}

impl Memory {
    /// Takes the first sample.
    pub(super) async fn of(metrics: Metrics, token: Option<HeaderValue>) -> Result<Self, MetricsError> {
        let mut memory = Self { metrics, token, began: Instant::now(), samples: Vec::new() };
        memory.look().await?;
        Ok(memory)
    }

    /// Takes one each time, for so long; then rests. A server that does not answer is not looked at.
    pub(super) async fn keep_looking(&mut self, every: Duration, length: Duration) -> Infallible {
        let mut times = interval_at(self.began + every, every);
        while self.began.elapsed() < length {
            times.tick().await;
            let _ = self.look().await;
        }
        std::future::pending().await
    }

    async fn look(&mut self) -> Result<(), MetricsError> {
        let bytes = self.metrics.resident_bytes(self.token.as_ref()).await?;
        let at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.samples.push(Sample { at_ms, bytes });
        Ok(())
    }

    pub(super) fn into_samples(self) -> Vec<Sample> {
        self.samples
    }
}

impl Trend {
    /// That of samples in their order; `None` where there are too few to have one.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let quarter = samples.len() / 4;
        let (start, end) = (samples.get(quarter..2 * quarter)?, samples.get(3 * quarter..)?);
        let bytes = |samples: &[Sample]| median(samples.iter().map(|sample| sample.bytes));
        let (start_bytes, end_bytes) = (bytes(start)?, bytes(end)?);
        Some(Self {
            start_bytes,
            end_bytes,
            most_bytes: samples.iter().map(|sample| sample.bytes).max()?,
            growth_percent: percent(start_bytes, end_bytes),
            bytes_per_hour: slope(&samples[quarter..]) * 3_600_000.0,
        })
    }
}

/// How much more `end` is than `start`, in percent to a tenth.
pub(super) fn percent(start: u64, end: u64) -> f64 {
    ((end as f64 / start.max(1) as f64 - 1.0) * 1e3).round() / 10.0
}

/// The upper one of the two in the middle, where there are two.
pub(super) fn median(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Bytes per millisecond.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&Sample) -> u64| samples.iter().map(|sample| of(sample) as f64).sum::<f64>() / count;
    let (at, bytes) = (mean(|sample| sample.at_ms), mean(|sample| sample.bytes));
    let (mut covariance, mut variance) = (0.0, 0.0);
    for sample in samples {
        let off = sample.at_ms as f64 - at;
        covariance += off * (sample.bytes as f64 - bytes);
        variance += off * off;
    }
    if variance > 0.0 { covariance / variance } else { 0.0 }
}
