//! Balances in Redis, for GetBalance alone: strategies never read them. Cache-aside, shared by all servers of a database,
//! and never wrong: a read that starts after a change was acknowledged answers that change or a later one, within the
//! bounds below.
//!
//! # What Redis holds of an account
//!
//! One hash: `v`, the newest version that anybody announced; `b`, the balance at exactly that version, once it is known;
//! `e`, the *era*, a name that readers find and that the next announcement removes. A balance is served only where it
//! belongs to the newest version announced. That is the whole rule; no clock is in it.
//!
//! ```text
//!  writer   lock row ── write ── announce v ──────────── COMMIT ── publish v, b ── answer
//!                                   │ forgets b and e       │           │ b, if v is still the newest
//!  reader   look: v, b ─► hit       │                       │
//!           look: era e ── query ── fill, if e is still there and the version is not older than v
//! ```
//!
//! # Why no answer is stale
//!
//! A version stands for one state of the account, for ever: the database counts, under the row lock. So what is served is
//! at worst old, never false; what is to be shown is that it is not old. Let a read start after version *w* was
//! acknowledged, and *w* have been announced.
//!
//! - **Hit.** The announcement came before the COMMIT, so `v ≥ w` ever since, and only `b` of `v` is served. Versions are
//!   announced under the row lock: whoever announces a higher one knows that all lower ones have ended. So an announcement
//!   that arrives late (its writer gave up waiting for Redis) has nothing to say where a higher one is known, and does no
//!   harm where none is: it only makes readers ask the database.
//! - **Miss.** The query starts after the read did, so it sees *w*.
//! - **A slow reader** that queried before *w* fills after it: the announcement of *w* removed its era; and where Redis
//!   forgot the account in between (eviction, `FLUSHALL`, a restart, the end of a life), the era is gone with it.
//! - **A shared query** (single flight) may have begun before *w* was committed. It is shared only within an era: the reader
//!   looked for itself, found the era of that flight still standing, so nothing was announced since the flight looked. And
//!   what was announced before the flight looked, but not committed when it queried, the reader has found as `v`: it asks
//!   for itself.
//! - **A writer that dies between COMMIT and publish** (or whose commit is lost with its link) leaves an announcement without
//!   a balance. Readers ask the database, and may keep what they find as soon as it is as new as the announcement.
//! - **A lost commit that is settled later**, here or by another server that is asked again: whoever finds the entry in the
//!   journal publishes it before the answer.
//! - **A commit that fails** takes its announcement back, if nobody announced after it. Where that fails too, reads of the
//!   account ask the database until the next change, or until the announcement runs out.
//! - **Redis forgets the account between announcement and COMMIT**: a reader may keep what it read before the COMMIT. The
//!   publication, before the answer, finds no announcement and announces instead: what was kept is dropped.
//!
//! # Where it is bounded
//!
//! `life` is `--cache-ttl` and up to a tenth more, by Redis's clock: 5 min 30 s.
//!
//! | what happens | a read that starts after the acknowledgement may be older |
//! | --- | --- |
//! | Redis and the servers' way to it work, or Redis is gone for all | never |
//! | the writer cannot announce, while others can read, or can so again before it | until Redis answers this writer again; if it dies before that, for `life` since the balance was kept |
//! | Redis forgets the account between announcement and COMMIT, and then fails the publication as well | the same |
//! | Redis comes back with older contents: restored from a snapshot, or a replica promoted that lagged | for `life` since the balance was kept |
//! | a server without this Redis writes the same database; somebody writes around the service | for `life` since the balance was kept |
//! | a COMMIT takes effect more than `life` after it was announced, and its server is not there to publish | for `life` more |
//! | Redis is full (`noeviction`) or refuses single calls | never: no era, so nothing new is kept, and reads ask the database; a full Redis still takes announcements, a few bytes each. Where it refuses those too, as where the writer cannot announce |
//! | Redis evicts what an opening told it, in the milliseconds before its COMMIT, and fails the calls around that | 3 s, in which the new account may be said not to be there |
//! | more than 100 000 accounts were written while Redis was gone | those beyond: for `life` since the balance was kept |
//!
//! The writer's own server asks the database itself for every account that it still owes Redis (`owed.rs`), so through it
//! each reads its own writes even then. A key holds at most 10 s longer where its reader took that long (`shelf.rs`).
//!
//! A database restored from a backup counts its versions anew, and so does one that lost commits in a fail-over
//! (asynchronous replication): until its accounts pass the versions that Redis has seen, balances are *false*, not only old.
//! Give it a new `account_filter.keyspace`, or empty Redis. The same holds of a copy of a database that goes through the same
//! Redis: change the keyspace in the copy before a server is started on it. Redis Cluster is not supported: a batch tells
//! all its accounts in one call; nor is Galera with several writers, where row locks do not order the announcements and a
//! node may answer with what another has already replaced.
//!
//! # What it costs
//!
//! Two calls to Redis around each commit, one for a repeat, a read of one or two. Each waits `--cache-wait` at most (the first
//! under row locks), and after an outage nobody waits for a tenth of a second but one who tries again (`link.rs`). Without `--redis-url` there is no
//! decorator around the store and no call. With `--cache=false` this server does not read from Redis, but still tells it
//! what it writes: the others do.

mod announce;
mod figures;
mod filter;
mod link;
mod owed;
mod shelf;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use self::{
    announce::{Announced, Announcer},
    figures::Counters,
    filter::{Believed, build::Builder},
    link::Link,
    owed::Owed,
    shelf::{Look, Nothing, Said, Shelf},
};
pub use self::{figures::Figures, filter::Admission};
use crate::{
    account::State,
    error,
    store::{self, FilterState, Store, Transaction},
};

/// The most queries at a time that others may share. It is only a memory of who is on the way: those beyond it query for
/// themselves.
const FLIGHTS: u64 = 10_000;

/// How long a result waits for those who found its era just before it ended. However long, it is right for them.
const FLIGHT_LIFE: Duration = Duration::from_secs(1);

/// How long a server that ends goes on telling Redis what it owes it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How the cache is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Redis server, with its password.
    pub url: String,
    /// What every key begins with.
    pub prefix: String,
    /// How long a balance is kept, at least; up to a tenth longer.
    pub life: Duration,
    /// How long a call waits for Redis.
    pub wait: Duration,
    /// Whether this server reads from it.
    pub reads: Reads,
}

/// Where a server reads balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// From Redis, where it has them.
    FromRedis,
    /// From the database alone.
    FromDatabase,
}

/// How new an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As new as the cache promises.
    Cached,
    /// As the database has it now, whatever goes wrong.
    Consistent,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// From Redis.
    Hit,
    /// From the database: Redis had nothing.
    Miss,
    /// From the database: Redis was not asked, could not be, or knows of a change under way.
    Bypass,
}

impl Served {
    /// Its name on the wire and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not tell which it is.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// The driver does not take the URL.
    #[error("--redis-url: {0}")]
    Url(String),
}

/// The cache of one server. Without a Redis it reads from the database and tells nobody.
pub struct Cache {
    store: Arc<dyn Store>,
    counters: Arc<Counters>,
    redis: Option<Shared>,
    /// What goes on in the background ends with the cache.
    _tasks: JoinSet<()>,
}

/// What there is with a Redis.
struct Shared {
    announcer: Arc<Announcer>,
    believed: Arc<Believed>,
    reads: Reads,
    /// Queries under way, by account and era. Not a cache: nobody finds the era any more once the result is in Redis. Who
    /// found it just before that takes the result from here.
    flights: moka::future::Cache<(i64, String), Option<State>>,
}

impl Cache {
    /// The cache over a store. It does not connect yet: Redis may be down, and come back.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open(store: Arc<dyn Store>, settings: Option<Settings>) -> Result<Self, Error> {
        let counters = Arc::new(Counters::new());
        let mut tasks = JoinSet::new();
        let redis = match settings {
            None => None,
            Some(settings) => Some(Shared::open(&store, settings, &counters, &mut tasks).await?),
        };
        Ok(Self { store, counters, redis, _tasks: tasks })
    }

    /// The store, made to tell Redis what is committed in it; without a Redis, the store itself.
    #[must_use]
    pub fn listen_to(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match &self.redis {
            None => store,
            Some(redis) => Arc::new(Announced { inner: store, announcer: Arc::clone(&redis.announcer) }),
        }
    }

    /// An account's state and where it came from; `load` reads it from the database. `None`: no such account.
    ///
    /// # Errors
    /// Those of `load`. Redis makes none.
    pub async fn balance<F>(
        &self,
        user_id: i64,
        freshness: Freshness,
        load: impl Fn() -> F + Send + Sync,
    ) -> Result<(Option<State>, Served), error::Error>
    where
        F: Future<Output = Result<Option<State>, error::Error>> + Send,
    {
        let (found, served) = match &self.redis {
            Some(redis) if redis.reads == Reads::FromRedis && freshness == Freshness::Cached => {
                redis.balance(user_id, &load, &self.counters).await?
            }
            _ => (load().await?, Served::Bypass),
        };
        self.counters.served(served);
        Ok((found, served))
    }

    /// Before an account's opening commits: sees to it that nobody will be told that there is none. To be settled when it
    /// is committed.
    ///
    /// # Errors
    /// The store's; the transaction is then to be rolled back.
    pub async fn admit(&self, transaction: &mut dyn Transaction, user_id: i64) -> store::Result<Admission> {
        let shelf = self.redis.as_ref().map(|redis| &*redis.announcer.shelf);
        filter::admit(shelf, transaction, user_id).await
    }

    /// The same for an account that is found to be there.
    ///
    /// # Errors
    /// The store's.
    pub async fn doubt(&self, transaction: &mut dyn Transaction) -> store::Result<Admission> {
        filter::doubt(transaction).await
    }

    /// Returns when an opening that was committed may be acknowledged.
    pub async fn settle(&self, admission: Admission) {
        filter::settle(&*self.store, admission).await;
    }

    /// Before this server ends: tells Redis once more what it was not told, as far as it answers in a moment. What is still
    /// owed then runs out.
    pub async fn pay_debts(&self) {
        if let Some(redis) = &self.redis {
            let Announcer { shelf, owed } = &*redis.announcer;
            let paying = async {
                let mut debts = owed.next();
                while !debts.is_empty() && shelf.remind(&debts).await.is_some() {
                    owed.told(&debts);
                    debts = owed.next();
                }
            };
            // Whoever is still owed something then is in the table of bounds.
            let _ = tokio::time::timeout(LAST_WORD, paying).await;
        }
    }

    /// Whether reads are answered from Redis.
    pub fn reads(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| redis.reads == Reads::FromRedis)
    }

    /// What it has done so far.
    pub fn figures(&self) -> Figures {
        self.counters.read()
    }
}

impl Shared {
    async fn open(
        store: &Arc<dyn Store>,
        settings: Settings,
        counters: &Arc<Counters>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, Error> {
        let link = Link::new(&settings.url, settings.wait, Arc::clone(counters))
            .map_err(|error| Error::Url(error.to_string()))?;
        let prefix = format!("{}{}:", settings.prefix, store.keyspace().await?);
        let shelf = Arc::new(Shelf::new(link, prefix, settings.life));
        let owed = Arc::new(Owed::new(Arc::clone(counters)));
        let believed = Arc::new(Believed::new(Arc::clone(store)));
        tasks.spawn(pay(Arc::clone(&shelf), Arc::clone(&owed)));
        if settings.reads == Reads::FromRedis {
            tasks.spawn(Builder::new(Arc::clone(store), Arc::clone(&shelf), Arc::clone(&believed)).run());
        }
        let flights = moka::future::Cache::builder().max_capacity(FLIGHTS).time_to_live(FLIGHT_LIFE).build();
        Ok(Self { announcer: Arc::new(Announcer { shelf, owed }), believed, reads: settings.reads, flights })
    }

    async fn balance<F>(
        &self,
        user_id: i64,
        load: &(impl Fn() -> F + Send + Sync),
        counters: &Counters,
    ) -> Result<(Option<State>, Served), error::Error>
    where
        F: Future<Output = Result<Option<State>, error::Error>> + Send,
    {
        let filter = self.believed.candidate();
        let looked = match self.announcer.owed.contains(user_id) {
            true => None,
            false => self.announcer.shelf.look(user_id, filter).await,
        };
        match looked {
            Some(Look::Found(state)) => return Ok((Some(state), Served::Hit)),
            Some(Look::Absent) => {
                if let Some(build) = filter
                    && self.believed.is_sound(build).await
                {
                    counters.filtered();
                    return Ok((None, Served::Hit));
                }
            }
            Some(Look::Nothing(Nothing { announced: 0, era: Some(era), filter: said })) => {
                let keep_absence = filter.filter(|_| said == Said::Maybe);
                let flight = Flight { user_id, era, keep_absence };
                let found = self.share(flight, load, counters).await?;
                if found.is_none() {
                    self.missed_a_filter(said).await;
                }
                return Ok((found, Served::Miss));
            }
            // Of what was announced and not committed yet, another's query may have been too early for us.
            Some(Look::Nothing(Nothing { era: Some(era), .. })) => {
                let found = load().await?;
                if found.is_some() {
                    self.announcer.shelf.fill(user_id, &era, found, None).await;
                }
                return Ok((found, Served::Bypass));
            }
            Some(Look::Nothing(_)) | None => {}
        }
        Ok((load().await?, Served::Bypass))
    }

    /// What the database has, asked once for all who are in the same era, and kept in Redis.
    async fn share<F>(
        &self,
        Flight { user_id, era, keep_absence }: Flight,
        load: &(impl Fn() -> F + Send + Sync),
        counters: &Counters,
    ) -> Result<Option<State>, error::Error>
    where
        F: Future<Output = Result<Option<State>, error::Error>> + Send,
    {
        let flight = (user_id, era);
        let (piloted, kept) = (AtomicBool::new(false), AtomicBool::new(false));
        let query = async {
            piloted.store(true, Ordering::Relaxed);
            let found = load().await?;
            let filled = self.announcer.shelf.fill(user_id, &flight.1, found, keep_absence).await;
            kept.store(filled == Some(true), Ordering::Relaxed);
            Ok::<_, error::Error>(found)
        };
        let found = self.flights.try_get_with(flight.clone(), query).await.map_err(|error| (*error).clone())?;
        if !piloted.load(Ordering::Relaxed) {
            counters.spared();
        } else if !kept.load(Ordering::Relaxed) {
            // The era goes on, and whoever comes now asks again.
            self.flights.invalidate(&flight).await;
        }
        Ok(found)
    }

    /// Somebody asked for an account that is not there, and the filter did not spare the query.
    async fn missed_a_filter(&self, said: Said) {
        let sound = self.believed.lately().await.is_some_and(|filter| filter.state == FilterState::Sound);
        if !sound || said == Said::Unknown {
            self.believed.want();
        }
    }
}

/// A query that others may share.
struct Flight {
    user_id: i64,
    era: String,
    /// The filter by which it may be kept that there is no such account.
    keep_absence: Option<i64>,
}

/// Tells Redis what it has not been told, as soon as it answers.
async fn pay(shelf: Arc<Shelf>, owed: Arc<Owed>) {
    loop {
        let some = owed.some().await;
        match shelf.remind(&some).await {
            Some(()) => owed.told(&some),
            None => tokio::time::sleep(link::REST).await,
        }
    }
}
