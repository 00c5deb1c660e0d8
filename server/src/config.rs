//! The server's configuration: typed, checked, and with its provenance. Flags beat the environment, the environment
//! beats the file, the file beats the defaults; an empty variable counts as unset. `DATABASE_URL` is asked after
//! `ZBL_DATABASE_URL` and before the file, `OTEL_EXPORTER_OTLP_ENDPOINT` after `ZBL_OTLP_ENDPOINT`. This is the only place
//! that reads the environment, and it refuses to start on a key it does not know.

mod amqp_url;
mod database_url;
mod layers;
mod parse;
mod redis_url;
mod setting;
mod show;
mod trace_url;

use std::{
    convert::Infallible,
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
    str::FromStr,
    time::Duration,
};

use clap::ArgMatches;
use zbl_trace::{Endpoint, Ratio};

use crate::tls;

pub(crate) use self::database_url::Place;
pub use self::{
    amqp_url::AmqpUrl,
    database_url::DatabaseUrl,
    layers::{ConfigError, Environment, Origin},
    redis_url::RedisUrl,
    setting::{SETTINGS, Setting, arguments},
    show::{as_json, as_text},
    trace_url::TraceUrl,
};
use self::{
    layers::Layers,
    parse::{address, choice, filter, list, name, number, optional, time, time_within, truth, whole_seconds},
    setting::*,
};

/// The most connections of one server: beyond it MySQL's default of 151 would turn others away.
const MOST_CONNECTIONS: u32 = 128;
/// The most calls at a time: some 20 kB each, so about a gigabyte.
const MOST_CALLS: u32 = 1 << 16;
/// The most connections of a port: some 20 kB each, so about a gigabyte before anybody calls.
const MOST_OPEN: u32 = 1 << 16;
/// The highest rate: more than any machine serves, so a higher one would be no limit.
const MOST_RATE: u32 = 1_000_000;
/// The most attempts of one call; with backoff between them, more would outlive any caller's deadline.
const MOST_ATTEMPTS: u32 = 1000;
/// The most events retained: about 200 bytes each, so 200 MB.
const MOST_EVENTS: u32 = 1 << 20;
/// The most that may wait in the queue: about 500 bytes each, so some gigabytes of the broker's disk.
const MOST_QUEUED: u32 = 10_000_000;
/// The most that a worker has in hand: as many changes as may be in flight.
const MOST_PREFETCHED: u32 = 4096;
/// The longest that a message may take to be confirmed: well within the ten seconds for which a call has its record to itself.
const LONGEST_QUEUE_WAIT: Duration = Duration::from_secs(8);
/// The fewest events retained: one burst of a hundred operations of a few phases each.
const FEWEST_EVENTS: u32 = 1 << 10;
/// The shortest wait that is still a wait.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// The shortest life of a cached balance; less would be all misses.
const SHORTEST_CACHE_TTL: Duration = Duration::from_secs(1);
/// The shortest heartbeat: a faster one would be traffic, not a sign of life.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(100);

/// Everything that can be set. Every value has been checked, except that the strategy exists.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gRPC listens.
    pub grpc_addr: SocketAddr,
    /// Where HTTP listens.
    pub http_addr: SocketAddr,
    /// The files of TLS, where it is spoken.
    pub tls: Option<tls::Files>,
    /// Connections of each port at a time.
    pub max_connections: u32,
    /// How long a connection may take to say what it wants.
    pub handshake_timeout: Duration,
    /// Where accounts are kept.
    pub database_url: DatabaseUrl,
    /// The Redis of the locks on one server and of the cache.
    pub redis_url: Option<RedisUrl>,
    /// The Redis servers of the lock on several.
    pub redlock_urls: Vec<RedisUrl>,
    /// What every key in Redis begins with.
    pub redis_prefix: String,
    /// How long a command to a lock in Redis may take.
    pub redis_wait: Duration,
    /// How long a lock in Redis outlives its holder.
    pub lease: Duration,
    /// How long an attempt may wait for a lock in Redis.
    pub lease_wait: Duration,
    /// Whether GetBalance may be answered from Redis.
    pub cache: bool,
    /// How long Redis keeps a balance, at least.
    pub cache_ttl: Duration,
    /// How long a read or a commit waits for the cache.
    pub cache_wait: Duration,
    /// The RabbitMQ of deductions that are made later.
    pub amqp_url: Option<AmqpUrl>,
    /// Their queue.
    pub queue_name: String,
    /// How many may wait in it.
    pub queue_limit: u32,
    /// How long a message may take to be confirmed.
    pub queue_wait: Duration,
    /// How often one is tried.
    pub queue_attempts: u32,
    /// Whether this server makes them, too.
    pub worker: bool,
    /// How many of them it has in hand at a time.
    pub prefetch: u32,
    /// The strategy of requests that name none; the registry decides whether it exists.
    pub strategy: String,
    /// Calls at a time.
    pub max_concurrent: u32,
    /// The longest that a call may go on.
    pub max_deadline: Duration,
    /// Calls a second; 0: any number.
    pub rate_limit: u32,
    /// Calls at once after a silence; 0: as many as in a second.
    pub rate_burst: u32,
    /// Changes a second of one account; 0: any number.
    pub user_rate_limit: u32,
    /// How far back a breaker looks.
    pub breaker_window: Duration,
    /// How much must have failed for it to open, percent.
    pub breaker_failed: u32,
    /// Fewer outcomes than this prove nothing.
    pub breaker_least: u32,
    /// How long it stays open.
    pub breaker_open: Duration,
    /// How many must succeed before it closes.
    pub breaker_probes: u32,
    /// Whether entries get digests.
    pub hash_chain: bool,
    /// How often journal and balances are compared; zero: never.
    pub reconcile_every: Duration,
    /// How often the projector looks at the journal; zero: never.
    pub project_every: Duration,
    /// Database connections to keep.
    pub pool_size: u32,
    /// How often one call may run its transaction.
    pub max_attempts: u32,
    /// How long a statement may wait for a row lock; whole seconds, at least one.
    pub lock_wait: Duration,
    /// How long a call may wait for a database connection.
    pub pool_wait: Duration,
    /// How long one call may go on making attempts.
    pub operation_timeout: Duration,
    /// How long the server tries to learn the fate of its own lost COMMIT.
    pub settle_timeout: Duration,
    /// How long an operation stays in its compute phase; zero outside the lab.
    pub compute_delay: Duration,
    /// Timeline events retained.
    pub timeline_capacity: usize,
    /// The silence after which a timeline stream sends a heartbeat.
    pub heartbeat: Duration,
    /// This process's name.
    pub instance: String,
    /// Whether account 1 is opened at start-up.
    pub demo_account: bool,
    /// What callers of everything but health must present.
    pub auth_token: Option<Secret>,
    /// What callers of `LabService` must present, everywhere; without it they are let in on loopback only.
    pub lab_token: Option<Secret>,
    /// Where spans are sent.
    pub otlp_endpoint: Option<Endpoint>,
    /// How many of the traces that begin here are recorded.
    pub trace_sample: Ratio,
    /// Where a trace can be looked at.
    pub trace_url: Option<TraceUrl>,
    /// The log filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How long the server goes on serving after it has said that it will stop.
    pub drain_delay: Duration,
    /// How long calls in flight may take once the server was told to stop.
    pub shutdown_grace: Duration,
}

/// A setting as it came out, for `zbl-server config`; secrets are already redacted.
#[derive(Debug)]
pub struct Effective {
    /// Which setting.
    pub setting: &'static Setting,
    /// Its value as text.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

impl Config {
    /// Resolves every setting from parsed [`arguments`], the environment and the file. `directory` is where
    /// `zbl.toml` is looked for. Also returns what each setting came to and why.
    ///
    /// # Errors
    /// [`ConfigError`] names the flag, variable or key at fault.
    pub fn resolve(
        flags: &ArgMatches,
        environment: &Environment<'_>,
        directory: &Path,
    ) -> Result<(Self, Vec<Effective>), ConfigError> {
        let mut read = Reader { layers: Layers::load(flags, environment, directory)?, effective: Vec::new() };
        let grpc_addr = read.value(&GRPC_ADDR, address)?;
        let config = Self {
            grpc_addr,
            http_addr: read.value(&HTTP_ADDR, address)?,
            tls: read.tls()?,
            max_connections: read.value(&MAX_CONNECTIONS, number(1..=MOST_OPEN))?,
            handshake_timeout: read.time(&HANDSHAKE_TIMEOUT, time(SHORTEST_WAIT))?,
            database_url: read.value(&DATABASE_URL, str::parse)?,
            redis_url: read.optional(&REDIS_URL)?,
            redlock_urls: read.shown(&REDLOCK_URLS, list(str::parse), |urls: &Vec<RedisUrl>| {
                urls.iter().map(RedisUrl::to_string).collect::<Vec<_>>().join(",")
            })?,
            redis_prefix: read.value(&REDIS_PREFIX, name)?,
            redis_wait: read.time(&REDIS_WAIT, time(SHORTEST_WAIT))?,
            lease: read.time(&LEASE, time(SHORTEST_WAIT))?,
            lease_wait: read.time(&LEASE_WAIT, time(Duration::ZERO))?,
            cache: read.value(&CACHE, truth)?,
            cache_ttl: read.time(&CACHE_TTL, time(SHORTEST_CACHE_TTL))?,
            cache_wait: read.time(&CACHE_WAIT, time(SHORTEST_WAIT))?,
            amqp_url: read.optional(&AMQP_URL)?,
            queue_name: read.value(&QUEUE_NAME, name)?,
            queue_limit: read.value(&QUEUE_LIMIT, number(1..=MOST_QUEUED))?,
            queue_wait: read.time(&QUEUE_WAIT, time_within(SHORTEST_WAIT..=LONGEST_QUEUE_WAIT))?,
            queue_attempts: read.value(&QUEUE_ATTEMPTS, number(1..=MOST_ATTEMPTS))?,
            worker: read.value(&WORKER, truth)?,
            prefetch: read.value(&PREFETCH, number(1..=MOST_PREFETCHED))?,
            strategy: read.value(&STRATEGY, name)?,
            max_concurrent: read.value(&MAX_CONCURRENT, number(1..=MOST_CALLS))?,
            max_deadline: read.time(&MAX_DEADLINE, time(SHORTEST_WAIT))?,
            rate_limit: read.value(&RATE_LIMIT, number(0..=MOST_RATE))?,
            rate_burst: read.value(&RATE_BURST, number(0..=MOST_RATE))?,
            user_rate_limit: read.value(&USER_RATE_LIMIT, number(0..=MOST_RATE))?,
            breaker_window: read.time(&BREAKER_WINDOW, time(SHORTEST_WAIT))?,
            breaker_failed: read.value(&BREAKER_FAILED, number(1..=100))?,
            breaker_least: read.value(&BREAKER_LEAST, number(1..=u32::MAX))?,
            breaker_open: read.time(&BREAKER_OPEN, time(Duration::ZERO))?,
            breaker_probes: read.value(&BREAKER_PROBES, number(1..=MOST_CONNECTIONS))?,
            hash_chain: read.value(&HASH_CHAIN, truth)?,
            reconcile_every: read.time(&RECONCILE_EVERY, time(Duration::ZERO))?,
            project_every: read.time(&PROJECT_EVERY, time(Duration::ZERO))?,
            pool_size: read.value(&POOL_SIZE, number(1..=MOST_CONNECTIONS))?,
            max_attempts: read.value(&MAX_ATTEMPTS, number(1..=MOST_ATTEMPTS))?,
            lock_wait: read.time(&LOCK_WAIT, whole_seconds)?,
            pool_wait: read.time(&POOL_WAIT, time(SHORTEST_WAIT))?,
            operation_timeout: read.time(&OPERATION_TIMEOUT, time(SHORTEST_WAIT))?,
            settle_timeout: read.time(&SETTLE_TIMEOUT, time(SHORTEST_WAIT))?,
            compute_delay: read.time(&COMPUTE_DELAY, time(Duration::ZERO))?,
            timeline_capacity: read.value(&TIMELINE_CAPACITY, number(FEWEST_EVENTS..=MOST_EVENTS))? as usize,
            heartbeat: read.time(&HEARTBEAT, time(SHORTEST_HEARTBEAT))?,
            instance: read.value(&INSTANCE, |text| if text == AUTO { Ok(instance()) } else { name(text) })?,
            demo_account: read.value(&DEMO_ACCOUNT, |text| {
                choice(text).map(|chosen| chosen.unwrap_or(grpc_addr.ip().is_loopback()))
            })?,
            auth_token: read.secret(&AUTH_TOKEN)?,
            lab_token: read.secret(&LAB_TOKEN)?,
            otlp_endpoint: read.optional(&OTLP_ENDPOINT)?,
            trace_sample: read.value(&TRACE_SAMPLE, str::parse)?,
            trace_url: read.optional(&TRACE_URL)?,
            log: read.value(&LOG, filter)?,
            log_format: read.value(&LOG_FORMAT, str::parse)?,
            drain_delay: read.time(&DRAIN_DELAY, time(Duration::ZERO))?,
            shutdown_grace: read.time(&SHUTDOWN_GRACE, time(Duration::ZERO))?,
        };
        Ok((config, read.effective))
    }
}

/// The environment of this process.
#[must_use]
pub fn process_environment(variable: &str) -> Option<OsString> {
    std::env::var_os(variable)
}

/// Takes settings off the layers and keeps the record of what they came to.
struct Reader<'a> {
    layers: Layers<'a>,
    effective: Vec<Effective>,
}

impl Reader<'_> {
    fn value<T: fmt::Display>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.shown(setting, parse, T::to_string)
    }

    /// What may be left out.
    fn optional<T: FromStr<Err = String> + fmt::Display>(
        &mut self,
        setting: &'static Setting,
    ) -> Result<Option<T>, ConfigError> {
        self.shown(setting, optional(str::parse), |value: &Option<T>| {
            value.as_ref().map_or_else(String::new, T::to_string)
        })
    }

    fn secret(&mut self, setting: &'static Setting) -> Result<Option<Secret>, ConfigError> {
        let sendable = |text: &str| match text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            true => Ok(Secret(text.to_owned())),
            // Not repeated: it may be logged.
            false => Err("a token has printable ASCII characters only, or no header could carry it".to_owned()),
        };
        let secret = self.value(setting, sendable)?;
        match self.effective.last().map(|effective| &effective.origin) {
            // In a variable it is how others unset; here it would be a door that somebody believes to be locked.
            Some(origin @ (Origin::Flag(_) | Origin::File(..))) if secret.0.is_empty() => Err(ConfigError::Invalid {
                origin: origin.clone(),
                reason: "it is empty; give a token, or leave the setting out".to_owned(),
            }),
            _ => Ok(Some(secret).filter(|secret| !secret.0.is_empty())),
        }
    }

    fn path(&mut self, setting: &'static Setting) -> Result<Option<PathBuf>, ConfigError> {
        let path = self.value(setting, |text| Ok(text.to_owned()))?;
        Ok(Some(path).filter(|path| !path.is_empty()).map(PathBuf::from))
    }

    /// The files of TLS: a certificate and its key, or neither.
    fn tls(&mut self) -> Result<Option<tls::Files>, ConfigError> {
        let (certificate, key) = (self.path(&TLS_CERT)?, self.path(&TLS_KEY)?);
        let client_authorities = self.path(&TLS_CLIENT_CA)?;
        let lacks = |setting: &'static Setting, given: &str| ConfigError::Invalid {
            origin: Origin::Flag(setting.flag()),
            reason: format!("it is missing, and {given} is given"),
        };
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(tls::Files { certificate, key, client_authorities })),
            (Some(_), None) => Err(lacks(&TLS_KEY, &TLS_CERT.flag())),
            (None, Some(_)) => Err(lacks(&TLS_CERT, &TLS_KEY.flag())),
            (None, None) if client_authorities.is_some() => Err(lacks(&TLS_CERT, &TLS_CLIENT_CA.flag())),
            (None, None) => Ok(None),
        }
    }

    fn time(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<Duration, String>,
    ) -> Result<Duration, ConfigError> {
        self.shown(setting, parse, |time| humantime::format_duration(*time).to_string())
    }

    fn shown<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> Result<T, ConfigError> {
        let (text, origin) = self.layers.text(setting)?;
        match parse(&text) {
            Ok(value) => {
                self.effective.push(Effective { setting, value: show(&value), origin });
                Ok(value)
            }
            Err(reason) => Err(ConfigError::Invalid { origin, reason }),
        }
    }
}

/// `HOST-PID`; the process alone tells two instances of one machine apart.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = name(host.trim()).unwrap_or_else(|_| "zbl".to_owned());
    format!("{host}-{}", process::id())
}

/// A text that is never shown: `Debug` and `Display` write `***`, or nothing when it is empty.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { "***" })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text when stderr is a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Auto, Self::Text, Self::Json]
            .into_iter()
            .find(|format| format.to_string() == text)
            .ok_or_else(|| format!("`{text}` is not auto, text or json"))
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => AUTO,
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests;
