//! From the configuration to the parts: each is made here of the settings that it needs, and knows no others.

use std::{iter, num::NonZeroU32, sync::Arc};

use zbl_lock::Lock;
use zbl_trace::{Program, Tracer, Traces};

use super::Error;
use crate::{
    breaker::{self, Breaker},
    cache::{self, Cache, Reads},
    chain::Chaining,
    config::{Config, DatabaseUrl, RedisUrl},
    gate::Gates,
    ledger::{self, Ledger},
    limit::{self, Rate},
    outbox::{self, Outbox},
    queue::{self, Queue},
    store::{
        Circuit, Store,
        mysql::{self, MysqlStore},
        outbox::OutboxTable,
        reports::{Projections, Reports},
        sqlite::SqliteStore,
    },
    strategy::{self, Guarantee, GuardedLock, Locks, Workbench},
    timeline::Timeline,
    trace::Database,
    worker::{self, Worker},
};

/// The most changes in flight. Beyond it waiting would only lengthen: at 1 ms each on one hot account this is 4 s.
const MAX_IN_FLIGHT: usize = 4096;

/// A service over its own connections to the configured database. Several in one process are several instances; they
/// may share a timeline and gates.
///
/// # Errors
/// [`Error::Strategy`], [`Error::Store`].
pub async fn ledger(config: &Config, timeline: Arc<Timeline>, gates: Option<Arc<Gates>>) -> Result<Arc<Ledger>, Error> {
    service(config, timeline, gates).await.map(|service| service.ledger)
}

/// The same with its outbox.
///
/// # Errors
/// [`Error::Strategy`], [`Error::Store`], [`Error::Queue`].
pub async fn ledger_and_outbox(config: &Config, timeline: Arc<Timeline>) -> Result<(Arc<Ledger>, Arc<Outbox>), Error> {
    service(config, timeline, None).await.map(|service| (service.ledger, service.outbox))
}

/// What serves accounts.
pub(super) struct Service {
    pub(super) ledger: Arc<Ledger>,
    pub(super) read_side: ReadSide,
    pub(super) outbox: Arc<Outbox>,
}

/// The read side of the service: those who read reports, and who keeps them.
pub(super) type ReadSide = (Arc<dyn Reports>, Arc<dyn Projections>);

/// The same with its read side and its outbox, over the same connections.
pub(super) async fn service(
    config: &Config,
    timeline: Arc<Timeline>,
    gates: Option<Arc<Gates>>,
) -> Result<Service, Error> {
    // First, because it is the one thing that can be wrong without touching the database.
    let default_strategy = strategy::find(&config.strategy)?;
    let breaker = Breaker::new("database", breaker_settings(config));
    let Opened { store, read_side: (reports, projections), outbox } = open(config).await?;
    let reports = Arc::new(Circuit::new(reports, Arc::clone(&breaker)));
    let table: Arc<dyn OutboxTable> = Arc::new(Circuit::new(outbox, Arc::clone(&breaker)));
    let store: Arc<dyn Store> = Arc::new(Circuit::new(store, Arc::clone(&breaker)));
    let cache = Cache::open(Arc::clone(&store), cache_settings(config)).await?;
    let store = cache.listen_to(store);
    let locks = locks(config)?;
    for row in strategy::REGISTRY.iter().filter(|row| row.guarantee != Guarantee::Always) {
        // Told as none from the start: of a counter that appears with its first race nobody sees that it has grown.
        metrics::counter!("races_total", "strategy" => row.name).increment(0);
    }
    let lock_breakers = [&locks.single, &locks.redlock].into_iter().flatten().map(|lock| Arc::clone(&lock.breaker));
    let breakers = iter::once(breaker).chain(lock_breakers).collect();
    let database = Database::new(store.name(), &config.database_url);
    let bench = Workbench { store, database, timeline, locks, breakers, gates, compute_delay: config.compute_delay };
    let limits = ledger::Limits {
        max_attempts: config.max_attempts,
        operation_timeout: config.operation_timeout,
        settle_timeout: config.settle_timeout,
        max_in_flight: MAX_IN_FLIGHT,
    };
    let ledger = Arc::new(Ledger::new(Arc::new(bench), cache, limits, default_strategy));
    let outbox = Arc::new(Outbox::new(Arc::clone(&ledger), table, queue(config)?, outbox_settings(config)));
    Ok(Service { ledger, read_side: (reports, projections), outbox })
}

/// The projector's own connections to the configured database, for a process that does nothing else.
///
/// # Errors
/// [`Error::Store`].
pub async fn read_side(config: &Config) -> Result<ReadSide, Error> {
    open(config).await.map(|opened| opened.read_side)
}

/// The table of the outbox over connections of its own to the configured database.
///
/// # Errors
/// [`Error::Store`].
pub async fn outbox_table(config: &Config) -> Result<Arc<dyn OutboxTable>, Error> {
    open(config).await.map(|opened| opened.outbox)
}

/// The cache that the configuration names, if it names a Redis.
fn cache_settings(config: &Config) -> Option<cache::Settings> {
    let url = config.redis_url.as_ref()?.expose().to_owned();
    Some(cache::Settings {
        url,
        prefix: config.redis_prefix.clone(),
        life: config.cache_ttl,
        wait: config.cache_wait,
        reads: if config.cache { Reads::FromRedis } else { Reads::FromDatabase },
    })
}

/// The traces of this server, which are sent where the configuration says.
pub(super) fn traces(config: &Config) -> Result<Traces, zbl_trace::StartError> {
    let instance = config.instance.clone();
    let program = Program { name: "zbl-server", version: env!("CARGO_PKG_VERSION"), instance };
    Traces::start(program, config.otlp_endpoint.as_ref(), config.trace_sample)
}

/// The locks that the configuration names. None of them is connected to yet: Redis may be down, and come back.
fn locks(config: &Config) -> Result<Locks, Error> {
    // Whoever waits is told it between slashes.
    let instance = config.instance.replace(|c: char| !c.is_ascii_alphanumeric() && !"._:-".contains(c), "-");
    let settings = |name: &str| zbl_lock::Settings {
        prefix: config.redis_prefix.clone(),
        lease: config.lease,
        wait: config.lease_wait,
        // What an acquisition takes comes off the lease.
        command: config.redis_wait.min(config.lease / 2),
        ..zbl_lock::Settings::new(name, &instance)
    };
    let guarded = |name, lock: Result<Lock, zbl_lock::Error>| {
        lock.map(|lock| GuardedLock { lock, breaker: Breaker::new(name, breaker_settings(config)) })
    };
    let single = |url: &RedisUrl| guarded(strategy::SINGLE, Lock::single(url.expose(), settings(strategy::SINGLE)));
    let single = config.redis_url.as_ref().map(single);
    let urls: Vec<String> = config.redlock_urls.iter().map(|url| url.expose().to_owned()).collect();
    let redlock =
        (!urls.is_empty()).then(|| guarded(strategy::REDLOCK, Lock::redlock(&urls, settings(strategy::REDLOCK))));
    Ok(Locks { single: single.transpose()?, redlock: redlock.transpose()? })
}

/// The configured database, its schema brought up to date, with nothing around it.
///
/// # Errors
/// [`Error::Store`].
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, Error> {
    open(config).await.map(|opened| opened.store)
}

/// One database, as those who use it see it.
struct Opened {
    store: Arc<dyn Store>,
    read_side: ReadSide,
    outbox: Arc<dyn OutboxTable>,
}

impl Opened {
    fn new<S: Store + Reports + Projections + OutboxTable>(store: S) -> Self {
        let store = Arc::new(store);
        Self { store: store.clone(), read_side: (store.clone(), store.clone()), outbox: store }
    }
}

async fn open(config: &Config) -> Result<Opened, Error> {
    let chaining = if config.hash_chain { Chaining::On } else { Chaining::Off };
    Ok(match &config.database_url {
        DatabaseUrl::Sqlite(path) => Opened::new(SqliteStore::open(path, config.lock_wait, chaining).await?),
        DatabaseUrl::Mysql(url) => {
            let limits =
                mysql::Limits { pool_size: config.pool_size, pool_wait: config.pool_wait, lock_wait: config.lock_wait };
            Opened::new(MysqlStore::open(url, &limits, chaining).await?)
        }
    })
}

/// The queue that the configuration names. It connects in the background: RabbitMQ may be down, and come back.
fn queue(config: &Config) -> Result<Option<Queue>, Error> {
    let Some(url) = &config.amqp_url else { return Ok(None) };
    let settings = queue::Settings {
        url: url.clone(),
        name: config.queue_name.clone(),
        limit: config.queue_limit,
        wait: config.queue_wait,
        instance: config.instance.clone(),
    };
    Queue::open(settings).map(Some).map_err(|error| Error::Queue(error.to_string()))
}

/// What makes deductions of the outbox's queue.
pub(super) fn worker(
    config: &Config,
    ledger: &Arc<Ledger>,
    outbox: &Arc<Outbox>,
    tracer: &Tracer,
) -> Result<Worker, Error> {
    let queue = outbox.queue().cloned().ok_or(Error::NoQueue)?;
    let settings = worker::Settings {
        // The setting is at most 4096.
        prefetch: u16::try_from(config.prefetch).unwrap_or(u16::MAX),
        attempts: config.queue_attempts,
        grace: config.shutdown_grace,
        instance: config.instance.clone(),
    };
    Worker::new(Arc::clone(ledger), Arc::clone(outbox), queue, tracer.clone(), settings)
        .map_err(|error| Error::Queue(error.to_string()))
}

const fn outbox_settings(config: &Config) -> outbox::Settings {
    outbox::Settings { claim: outbox::CLAIM, limit: config.queue_limit }
}

const fn breaker_settings(config: &Config) -> breaker::Settings {
    breaker::Settings {
        window: config.breaker_window,
        failed_percent: config.breaker_failed,
        least: config.breaker_least,
        open: config.breaker_open,
        probes: config.breaker_probes,
    }
}

/// How much is taken on.
pub(super) fn bounds(config: &Config) -> limit::Bounds {
    let rate = |per_second, burst| {
        let per_second = NonZeroU32::new(per_second)?;
        Some(Rate { per_second, burst: NonZeroU32::new(burst).unwrap_or(per_second) })
    };
    limit::Bounds {
        max_concurrent: config.max_concurrent,
        rate: rate(config.rate_limit, config.rate_burst),
        account_rate: rate(config.user_rate_limit, 0),
    }
}
