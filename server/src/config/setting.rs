//! The settings there are: one row each. A row's name makes its flag (`--pool-size`), its environment variable
//! (`ZBL_POOL_SIZE`) and its TOML key (`pool_size`), so the three cannot drift apart.

use clap::Arg;

/// A setting: what it is called, what it does, and what it is when nobody says.
#[derive(Debug)]
pub struct Setting {
    /// The TOML key; flag and environment variable follow from it.
    pub name: &'static str,
    /// The value when no layer gives one, in the text form every layer uses.
    pub default: &'static str,
    placeholder: &'static str,
    help: &'static str,
}

impl Setting {
    const fn new(name: &'static str, default: &'static str, placeholder: &'static str, help: &'static str) -> Self {
        Self { name, default, placeholder, help }
    }

    /// The flag, with its dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// The environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("ZBL_{}", self.name.to_uppercase())
    }

    /// The variable that is asked when its own is unset: where there is a convention older than ours.
    #[must_use]
    pub fn fallback_variable(&self) -> Option<&'static str> {
        [(&DATABASE_URL, "DATABASE_URL"), (&OTLP_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT")]
            .into_iter()
            .find_map(|(setting, variable)| (setting.name == self.name).then_some(variable))
    }

    fn argument(&self) -> Arg {
        let variables = match self.fallback_variable() {
            Some(fallback) => format!("{} or {fallback}", self.variable()),
            None => self.variable(),
        };
        let default = if self.default.is_empty() { String::new() } else { format!("[default: {}] ", self.default) };
        Arg::new(self.name)
            .long(self.flag().trim_start_matches("--").to_owned())
            .value_name(self.placeholder)
            .help(format!("{}\n{default}[env: {variables}]", self.help))
            .help_heading("Settings")
            // `--pool-size -1` should meet our own message, which names the range.
            .allow_negative_numbers(true)
            .global(true)
    }
}

/// The value of a setting that the server works out for itself.
pub(super) const AUTO: &str = "auto";

pub(super) const GRPC_ADDR: Setting = Setting::new("grpc_addr", "127.0.0.1:50051", "ADDR", "Where gRPC listens");
pub(super) const HTTP_ADDR: Setting =
    Setting::new("http_addr", "127.0.0.1:8080", "ADDR", "Where HTTP listens: the page, health and the JSON facade");
pub(super) const TLS_CERT: Setting = Setting::new(
    "tls_cert",
    "",
    "FILE",
    "Speak TLS on both ports, and nothing else: the certificate, followed by those that sign it (PEM). Read again on SIGHUP, as are the other two files",
);
pub(super) const TLS_KEY: Setting = Setting::new("tls_key", "", "FILE", "The private key of --tls-cert (PEM)");
pub(super) const TLS_CLIENT_CA: Setting = Setting::new(
    "tls_client_ca",
    "",
    "FILE",
    "Let in only whoever shows a certificate that one of these authorities has signed (PEM): on both ports, health too",
);
pub(super) const MAX_CONNECTIONS: Setting = Setting::new(
    "max_connections",
    "4096",
    "N",
    "Connections of each port at a time; more are closed as soon as they are made",
);
pub(super) const HANDSHAKE_TIMEOUT: Setting = Setting::new(
    "handshake_timeout",
    "10s",
    "TIME",
    "How long a connection may take for its TLS handshake, and then to say what it wants: HTTP/2's preface, HTTP/1.1's head",
);
pub(super) const DATABASE_URL: Setting = Setting::new(
    "database_url",
    "sqlite://zbl.db",
    "URL",
    "Where accounts are kept: sqlite://PATH or mysql://user:pass@host:port/db",
);
pub(super) const REDIS_URL: Setting = Setting::new(
    "redis_url",
    "",
    "URL",
    "The Redis of redis_lock, redis_lock_fenced and the cache of balances: redis://[user:pass@]host:port[/number]",
);
pub(super) const REDLOCK_URLS: Setting = Setting::new(
    "redlock_urls",
    "",
    "URL,…",
    "The Redis servers of redlock, separated by commas: an odd number, three or more, that know nothing of each other",
);
pub(super) const REDIS_PREFIX: Setting = Setting::new(
    "redis_prefix",
    "zbl:",
    "TEXT",
    "What every key in Redis begins with; servers that share accounts share it",
);
pub(super) const REDIS_WAIT: Setting = Setting::new(
    "redis_wait",
    "500ms",
    "TIME",
    "How long one command to a lock in Redis may take, connecting included; never more than half the lease",
);
pub(super) const LEASE: Setting = Setting::new(
    "lease",
    "10s",
    "TIME",
    "How long a lock in Redis outlives its holder; it is renewed at a third of that",
);
pub(super) const LEASE_WAIT: Setting =
    Setting::new("lease_wait", "5s", "TIME", "How long an attempt may wait for a lock in Redis");
pub(super) const CACHE: Setting = Setting::new(
    "cache",
    "true",
    "true|false",
    "Answer GetBalance from Redis, where there is one; if not, what is written is still told to it, for the other servers",
);
pub(super) const CACHE_TTL: Setting = Setting::new(
    "cache_ttl",
    "5m",
    "TIME",
    "How long Redis keeps a balance, and at random up to a tenth longer, so that many do not run out at once",
);
pub(super) const CACHE_WAIT: Setting = Setting::new(
    "cache_wait",
    "50ms",
    "TIME",
    "How long a read or a commit waits for the cache in Redis before it goes on without",
);
pub(super) const AMQP_URL: Setting = Setting::new(
    "amqp_url",
    "",
    "URL",
    "The RabbitMQ of DeductAsync: amqp://[user:pass@]host[:port][/vhost]; without it there is no queue",
);
pub(super) const QUEUE_NAME: Setting = Setting::new(
    "queue_name",
    "zbl.deductions",
    "NAME",
    "The queue of accepted deductions, with which the names of the others begin; servers that share accounts share it",
);
pub(super) const QUEUE_LIMIT: Setting = Setting::new(
    "queue_limit",
    "100000",
    "N",
    "How many may wait there before DeductAsync is answered QUEUE_FULL; every server must give the same",
);
pub(super) const QUEUE_WAIT: Setting = Setting::new(
    "queue_wait",
    "5s",
    "TIME",
    "How long RabbitMQ may take to confirm a message before the outcome counts as unknown; at most 8s",
);
pub(super) const QUEUE_ATTEMPTS: Setting = Setting::new(
    "queue_attempts",
    "8",
    "N",
    "How often a deduction of the queue is tried before it is laid aside as a dead letter; a database that is away does not count",
);
pub(super) const WORKER: Setting =
    Setting::new("worker", "false", "true|false", "Make deductions of the queue in this server, too");
pub(super) const PREFETCH: Setting = Setting::new(
    "prefetch",
    "256",
    "N",
    "How many deductions of the queue a worker has in hand at a time; the batched strategy makes its batches of them",
);
pub(super) const STRATEGY: Setting =
    Setting::new("strategy", "batched", "NAME", "The strategy of requests that name none");
pub(super) const MAX_CONCURRENT: Setting =
    Setting::new("max_concurrent", "4096", "N", "Calls of accounts at a time; more are answered OVERLOADED at once");
pub(super) const MAX_DEADLINE: Setting = Setting::new(
    "max_deadline",
    "60s",
    "TIME",
    "The longest that a call may go on, whatever its caller says; streams may go on, and their items may not",
);
pub(super) const RATE_LIMIT: Setting =
    Setting::new("rate_limit", "0", "N", "Calls of accounts a second, each item of a DeductStream too; 0: any number");
pub(super) const RATE_BURST: Setting =
    Setting::new("rate_burst", "0", "N", "How many of them may come at once after a silence; 0: a second's worth");
pub(super) const USER_RATE_LIMIT: Setting =
    Setting::new("user_rate_limit", "0", "N", "Changes of one account a second; 0: any number");
pub(super) const BREAKER_WINDOW: Setting =
    Setting::new("breaker_window", "10s", "TIME", "How far back the circuit breakers of database and Redis look");
pub(super) const BREAKER_FAILED: Setting =
    Setting::new("breaker_failed", "60", "PERCENT", "How much of what they see must have failed for one to open");
pub(super) const BREAKER_LEAST: Setting =
    Setting::new("breaker_least", "3", "N", "How many outcomes it must have seen at least");
pub(super) const BREAKER_OPEN: Setting = Setting::new(
    "breaker_open",
    "60s",
    "TIME",
    "How long calls are then answered CIRCUIT_OPEN, unless the server is seen alive before",
);
pub(super) const BREAKER_PROBES: Setting =
    Setting::new("breaker_probes", "3", "N", "How many calls are then let in, and must succeed, before all are");
pub(super) const HASH_CHAIN: Setting = Setting::new(
    "hash_chain",
    "true",
    "true|false",
    "Write with each entry a digest over it and the entry before it, so that `zbl-server verify` can find what was changed by hand",
);
pub(super) const RECONCILE_EVERY: Setting = Setting::new(
    "reconcile_every",
    "1s",
    "TIME",
    "How often some of the journal is compared with the balances, for balance_loss_amount in /metrics; 0s: never",
);
pub(super) const PROJECT_EVERY: Setting = Setting::new(
    "project_every",
    "200ms",
    "TIME",
    "How often the journal is looked at for the reports; 0s: never, and another server or `zbl-server projector` does it",
);
pub(super) const POOL_SIZE: Setting = Setting::new("pool_size", "16", "N", "Database connections to keep");
pub(super) const MAX_ATTEMPTS: Setting = Setting::new(
    "max_attempts",
    "20",
    "N",
    "How often one call may run its transaction before it is answered CONTENDED (a lost compare-and-swap, a deadlock)",
);
pub(super) const LOCK_WAIT: Setting =
    Setting::new("lock_wait", "5s", "TIME", "How long a statement may wait for a row lock; whole seconds");
pub(super) const POOL_WAIT: Setting =
    Setting::new("pool_wait", "5s", "TIME", "How long a call may wait for a database connection");
pub(super) const OPERATION_TIMEOUT: Setting = Setting::new(
    "operation_timeout",
    "15s",
    "TIME",
    "How long one call may go on making attempts; the attempt under way is not cut off",
);
pub(super) const SETTLE_TIMEOUT: Setting = Setting::new(
    "settle_timeout",
    "10s",
    "TIME",
    "How long the server tries to learn what became of a COMMIT whose answer it lost",
);
pub(super) const COMPUTE_DELAY: Setting =
    Setting::new("compute_delay", "0ms", "TIME", "Lab: how long to stay between read and write, which widens the race");
pub(super) const TIMELINE_CAPACITY: Setting =
    Setting::new("timeline_capacity", "65536", "N", "Timeline events kept for readers that resume or lag");
pub(super) const HEARTBEAT: Setting =
    Setting::new("heartbeat", "5s", "TIME", "How long a stream is silent before it shows a sign of life");
pub(super) const INSTANCE: Setting =
    Setting::new("instance", AUTO, "NAME", "This process's name in events and logs; auto: HOST-PID");
pub(super) const DEMO_ACCOUNT: Setting = Setting::new(
    "demo_account",
    AUTO,
    "auto|true|false",
    "Open account 1 with 1000.00 at start-up; auto: when gRPC listens on loopback",
);
pub(super) const AUTH_TOKEN: Setting = Setting::new(
    "auth_token",
    "",
    "SECRET",
    "What callers of everything but health must present, as `authorization: Bearer SECRET`: gRPC, reflection, JSON, /metrics. Better given by environment than by flag",
);
pub(super) const LAB_TOKEN: Setting = Setting::new(
    "lab_token",
    "",
    "SECRET",
    "What callers of LabService must present, everywhere; without it they are let in on loopback only. It opens everything that --auth-token opens. Better given by environment than by flag",
);
pub(super) const TRACE_URL: Setting = Setting::new(
    "trace_url",
    "",
    "URL",
    "Where a trace can be looked at, for the page's links: a URL in which {trace_id} stands for its id, as in http://localhost:16686/trace/{trace_id}",
);
pub(super) const LOG: Setting = Setting::new(
    "log",
    // h2 warns of every connection that it closes for its resets, which whoever wants to can make thousands of; lapin calls
    // each end of a connection to the broker an error, several times, which the queue tells of once.
    "info,h2=error,lapin=off",
    "FILTER",
    "What to log to stderr, such as `warn` or `info,zbl_server=debug`; on SIGHUP the settings are read again for it",
);
pub(super) const OTLP_ENDPOINT: Setting = Setting::new(
    "otlp_endpoint",
    "",
    "URL",
    "Where spans are sent by OTLP over gRPC, such as http://127.0.0.1:4317; without it none are recorded",
);
pub(super) const TRACE_SAMPLE: Setting = Setting::new(
    "trace_sample",
    "1",
    "RATIO",
    "How many of the calls whose caller says nothing of a trace are recorded, from 0 to 1; other callers decide themselves",
);
pub(super) const LOG_FORMAT: Setting =
    Setting::new("log_format", AUTO, "auto|text|json", "How log lines look; auto: text on a terminal, JSON elsewhere");
pub(super) const DRAIN_DELAY: Setting = Setting::new(
    "drain_delay",
    "0s",
    "TIME",
    "How long to go on serving after SIGINT or SIGTERM, told as NOT_SERVING: what a load balancer takes to notice",
);
pub(super) const SHUTDOWN_GRACE: Setting =
    Setting::new("shutdown_grace", "10s", "TIME", "How long calls in flight may take after SIGINT or SIGTERM");

/// Every setting, in the order of `--help` and `zbl-server config`.
pub const SETTINGS: [&Setting; 58] = [
    &GRPC_ADDR,
    &HTTP_ADDR,
    &TLS_CERT,
    &TLS_KEY,
    &TLS_CLIENT_CA,
    &MAX_CONNECTIONS,
    &HANDSHAKE_TIMEOUT,
    &DATABASE_URL,
    &REDIS_URL,
    &REDLOCK_URLS,
    &REDIS_PREFIX,
    &REDIS_WAIT,
    &LEASE,
    &LEASE_WAIT,
    &CACHE,
    &CACHE_TTL,
    &CACHE_WAIT,
    &AMQP_URL,
    &QUEUE_NAME,
    &QUEUE_LIMIT,
    &QUEUE_WAIT,
    &QUEUE_ATTEMPTS,
    &WORKER,
    &PREFETCH,
    &STRATEGY,
    &MAX_CONCURRENT,
    &MAX_DEADLINE,
    &RATE_LIMIT,
    &RATE_BURST,
    &USER_RATE_LIMIT,
    &BREAKER_WINDOW,
    &BREAKER_FAILED,
    &BREAKER_LEAST,
    &BREAKER_OPEN,
    &BREAKER_PROBES,
    &HASH_CHAIN,
    &RECONCILE_EVERY,
    &PROJECT_EVERY,
    &POOL_SIZE,
    &MAX_ATTEMPTS,
    &LOCK_WAIT,
    &POOL_WAIT,
    &OPERATION_TIMEOUT,
    &SETTLE_TIMEOUT,
    &COMPUTE_DELAY,
    &TIMELINE_CAPACITY,
    &HEARTBEAT,
    &INSTANCE,
    &DEMO_ACCOUNT,
    &AUTH_TOKEN,
    &LAB_TOKEN,
    &OTLP_ENDPOINT,
    &TRACE_SAMPLE,
    &TRACE_URL,
    &LOG,
    &LOG_FORMAT,
    &DRAIN_DELAY,
    &SHUTDOWN_GRACE,
];

/// The name of `--config` among the parsed arguments.
pub(super) const FILE_ARGUMENT: &str = "config";

/// The environment variable that names the file.
pub(super) const FILE_VARIABLE: &str = "ZBL_CONFIG";

/// The file that is read when it is there and no other is named.
pub(super) const DEFAULT_FILE: &str = "zbl.toml";

/// The command line arguments of every setting and of the file. Clap only collects their texts: values are checked in
/// one place for all layers, so that a bad one is reported the same way wherever it came from.
#[must_use]
pub fn arguments() -> Vec<Arg> {
    let file = Arg::new(FILE_ARGUMENT)
        .long("config")
        .value_name("FILE")
        .help(format!("A TOML file of settings\n[default: {DEFAULT_FILE}, if there] [env: {FILE_VARIABLE}]"))
        .help_heading("Settings")
        .global(true);
    std::iter::once(file).chain(SETTINGS.iter().map(|setting| setting.argument())).collect()
}
