//! Hunts for stale answers: readers and writers on two servers that share a Redis, while things go wrong. Each reader notes
//! what had been acknowledged when it began, and must not be told less.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use test_support::Redis;

use super::instance;
use crate::app::{Bench, Database, deduction};

/// Few enough that readers and writers meet all the time.
const ACCOUNTS: usize = 3;

/// How long a hunt takes.
const HUNT: Duration = Duration::from_secs(4);

/// What has been acknowledged of an account, and when.
#[derive(Default)]
struct Acknowledged(Mutex<Vec<(Instant, i64)>>);

impl Acknowledged {
    fn note(&self, version: i64) {
        self.0.lock().unwrap().push((Instant::now(), version));
    }

    /// The newest version that had been acknowledged by then.
    fn by(&self, then: Instant) -> i64 {
        let all = self.0.lock().unwrap();
        all.iter().filter(|(when, _)| *when <= then).map(|(_, version)| *version).max().unwrap_or(0)
    }
}

struct Prey {
    user_id: i64,
    acknowledged: Acknowledged,
}

/// Hunts until `faults` is over. An answer may lack what was acknowledged less than `bound` before its read began.
async fn hunt(benches: [Bench; 2], bound: Duration, faults: impl Future<Output = ()>) -> u64 {
    let mut prey = Vec::new();
    for _ in 0..ACCOUNTS {
        prey.push(Prey { user_id: benches[0].account("1000000.00").await, acknowledged: Acknowledged::default() });
    }
    let (prey, benches) = (Arc::new(prey), Arc::new(benches));
    let (over, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..12_usize {
        let (prey, benches, over, reads) =
            (Arc::clone(&prey), Arc::clone(&benches), Arc::clone(&over), Arc::clone(&reads));
        tasks.spawn(async move {
            let bench = &benches[worker % 2];
            for turn in worker.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Prey { user_id, acknowledged } = &prey[turn % ACCOUNTS];
                if worker < 4 {
                    let receipt = bench.ledger.apply(deduction(*user_id), None).await.unwrap();
                    acknowledged.note(receipt.version);
                } else {
                    let began = Instant::now();
                    let version = bench.version(*user_id).await;
                    let least = acknowledged.by(began.checked_sub(bound).unwrap());
                    assert!(version >= least, "version {version}, when {least} was acknowledged");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    faults.await;
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let figures = benches.each_ref().map(|bench| bench.ledger.cache().figures());
    assert!(figures.iter().all(|figures| figures.hits > 0), "{figures:?}");
    reads.load(Ordering::Relaxed)
}

/// Redis loses keys, or everything, again and again: that alone never makes an answer old.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_older_than_what_was_acknowledged() {
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let benches = [instance(&database, &redis.url(), &[]).await, instance(&database, &redis.url(), &[]).await];
        let faults = async {
            let until = Instant::now() + HUNT;
            let mut turn = 0;
            while Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(3)).await;
                turn += 1;
                if turn % 10 == 0 {
                    redis.command(&["FLUSHALL"]).unwrap();
                } else {
                    // As an eviction would.
                    let any = "local key = redis.call('RANDOMKEY'); if key then redis.call('DEL', key) end";
                    redis.command(&["EVAL", any, "0"]).unwrap();
                }
            }
        };
        assert!(hunt(benches, Duration::ZERO, faults).await > 1000);
    }
}

/// Redis stops answering, again and again: what could not be announced is old until Redis answers its writer again.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_makes_answers_old_for_as_long_as_it_lasts() {
    /// Of one outage; then the writer's rest, and what a loaded machine needs.
    const OUTAGE: Duration = Duration::from_millis(300);
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let words = ["--cache-wait", "50ms"];
        let benches =
            [instance(&database, &redis.url(), &words).await, instance(&database, &redis.url(), &words).await];
        let faults = async {
            let until = Instant::now() + HUNT;
            while Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(400)).await;
                redis.pause().unwrap();
                tokio::time::sleep(OUTAGE).await;
                redis.resume().unwrap();
            }
        };
        assert!(hunt(benches, OUTAGE + Duration::from_secs(1), faults).await > 100);
    }
}
