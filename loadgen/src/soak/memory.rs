//! What the server holds of its machine's memory, by its own `/metrics`, and whether that grows.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, interval_at, timeout};
use zbl_client::{Connection, HttpPort};

/// The name that Prometheus' client libraries use.
const SERIES: &str = "process_resident_memory_bytes";

/// A busy server answers within this or is not asked this time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Far more than a page of metrics with closed lists of labels takes.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// Why memory cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[error("{address}/metrics tells no {SERIES}: {why}")]
pub struct MetricsError {
    address: String,
    #[source]
    why: Untold,
}

#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error("{0}; name the server's HTTP port with --http-addr")]
    Unreachable(zbl_client::Error),
    #[error("{0}; name the server's HTTP port with --http-addr, with https:// where it speaks TLS")]
    Cut(std::io::Error),
    #[error("no answer within {TIMEOUT:?}")]
    Late,
    #[error("the server refuses (HTTP status 401); give one of its tokens with --token")]
    Unauthorized,
    #[error("HTTP status {0}; name the server's HTTP port with --http-addr")]
    Status(String),
    #[error("the answer is not HTTP; name the server's HTTP port with --http-addr, with https:// where it speaks TLS")]
    NotHttp,
    #[error("there is no such series; name the server's HTTP port with --http-addr")]
    NoSeries,
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
    port: HttpPort,
    began: Instant,
    samples: Vec<Sample>,
}

/// Asks a server for its resident memory, in bytes.
async fn resident_bytes(port: &HttpPort) -> Result<u64, Untold> {
    let connection = port.dial().await.map_err(Untold::Unreachable)?;
    let answer = exchange(port, connection).await.map_err(Untold::Cut)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(Untold::NotHttp)?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    match words.next().filter(|_| is_http) {
        Some("200") => {}
        Some("401") => return Err(Untold::Unauthorized),
        Some(status) => return Err(Untold::Status(status.to_owned())),
        None => return Err(Untold::NotHttp),
    }
    let value = body.lines().find_map(|line| line.strip_prefix(SERIES)?.trim().parse::<f64>().ok());
    // Whole bytes, written as any number is.
    value.map(|bytes| bytes as u64).ok_or(Untold::NoSeries)
}

/// All of the answer. By HTTP/1.0 it comes in one piece, and ends with the connection.
async fn exchange(port: &HttpPort, mut connection: Connection) -> std::io::Result<String> {
    let mut request = format!("GET /metrics HTTP/1.0\r\nhost: {}\r\n", port.authority()).into_bytes();
    if let Some(token) = port.authorization() {
        request.extend([b"authorization: ", token.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    connection.write_all(&request).await?;
    connection.flush().await?;
    let mut answer = Vec::new();
    match connection.take(MOST_BYTES).read_to_end(&mut answer).await {
        // Not every server ends TLS in order; it has said all that it had to.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        read => drop(read?),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

impl Memory {
    /// Takes the first sample.
    pub(super) async fn of(port: HttpPort) -> Result<Self, MetricsError> {
        let mut memory = Self { port, began: Instant::now(), samples: Vec::new() };
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
        let told = timeout(TIMEOUT, resident_bytes(&self.port)).await.unwrap_or(Err(Untold::Late));
        let bytes = told.map_err(|why| MetricsError { address: self.port.address().to_owned(), why })?;
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
