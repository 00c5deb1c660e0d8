//! Redis answers, but not what is wanted: it is full, it has forgotten, or it holds what is not ours. No answer is old for it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use test_support::{Cut, CutProxy, Redis};
use tokio::task::JoinSet;
use zbl_server::cache::{Freshness, Served};

use super::{instance, schedules::ANNOUNCE};
use crate::app::{Bench, Database, WITHOUT_REDIS, deduction, until};

/// The key of an account that Redis knows.
fn key(redis: &Redis, user_id: i64) -> String {
    redis.command(&["KEYS", &format!("*balance:{user_id}")]).unwrap().trim().to_owned()
}

/// While a COMMIT whose link is lost is on its way, Redis forgets that it was announced and keeps what was before it. Then
/// it takes effect and is acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_told_when_it_is_settled() {
    let (database, redis) = (Database::mysql(), Redis::start().unwrap());
    let proxy = CutProxy::start(&database.url).unwrap();
    let name = database.url.rsplit('/').next().unwrap();
    let reader = instance(&database, &redis.url(), &[]).await;
    let user_id = reader.account("100.00").await;
    let words = ["--redis-url", &redis.url(), "--cache=false", "--cache-wait=10s", "--strategy=pessimistic"];
    let writer = Bench::open(&proxy.url(name), &words).await;
    writer.deduct(user_id).await;
    assert_eq!(reader.read(user_id).await.1, Served::Hit);
    let cuts = proxy.cuts();
    proxy.arm(Cut::InFlight, 1);
    let (ledger, change) = (Arc::clone(&writer.ledger), deduction(user_id));
    let call = tokio::spawn(async move { ledger.apply(change, None).await });
    until("the writer waits for the lost COMMIT's lock", async || {
        proxy.cuts() > cuts && writer.ledger.blocked().await.unwrap() > 0
    })
    .await;
    until("it has told what it owed", async || writer.ledger.cache().figures().owed == 0).await;
    redis.command(&["FLUSHALL"]).unwrap();
    let before = reader.version(user_id).await;
    assert_eq!(reader.read(user_id).await.1, Served::Hit, "what was before is kept");
    assert_eq!(proxy.release_held(), 1);
    let acknowledged = call.await.unwrap().unwrap().version;
    assert_eq!((reader.version(user_id).await, acknowledged), (before + 1, before + 1));
    // The same where another server is asked what became of it.
    redis.command(&["HSET", &key(&redis, user_id), "v", &before.to_string(), "b", "9000"]).unwrap();
    assert_eq!(reader.version(user_id).await, before);
    reader.ledger.apply(change, None).await.unwrap();
    assert_eq!(reader.version(user_id).await, acknowledged, "a repeat acknowledges it too");
}

/// A full Redis refuses to begin new hashes. That keeps no change from being announced, whatever else is refused meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_keeps_nothing_old() {
    let (database, redis) = (Database::mysql(), Redis::start().unwrap());
    let without = Bench::open(&database.url, &[WITHOUT_REDIS]).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(without.account("1.00").await);
    }
    let here = Arc::new(instance(&database, &redis.url(), &[]).await);
    let there = instance(&database, &redis.url(), &[]).await;
    there.has_filter().await;
    let user_id = here.account("1000.00").await;
    assert_eq!(there.read(user_id).await.1, Served::Hit);
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let (mut tasks, over) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    for worker in 0..8 {
        let (here, others, over) = (Arc::clone(&here), others.clone(), Arc::clone(&over));
        tasks.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                for other in others.iter().skip(worker) {
                    let (found, served) = here.read(*other).await;
                    assert_eq!((found.unwrap().version, served), (1, Served::Bypass), "nothing is kept");
                }
            }
        });
    }
    for _ in 0..20 {
        let acknowledged = here.deduct(user_id).await;
        assert_eq!(there.version(user_id).await, acknowledged);
        assert_eq!(here.version(user_id).await, acknowledged);
    }
    over.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    assert_eq!(there.read(others[0]).await.1, Served::Miss);
    assert_eq!(there.read(others[0]).await.1, Served::Hit, "with room, it is used again");
}

/// Something else stands where a balance belongs: it is neither served nor in anybody's way, and the next change removes it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_removed() {
    let (database, redis) = (Database::sqlite(), Redis::start().unwrap());
    let bench = instance(&database, &redis.url(), &[]).await;
    let user_id = bench.account("1000.00").await;
    let key = key(&redis, user_id);
    for other in [&["SET", &key, "text"][..], &["HSET", &key, "v", "new", "b", "much"][..]] {
        redis.command(other).unwrap();
        assert_eq!(bench.read(user_id).await, (bench.stored(user_id).await, Served::Bypass), "{other:?}");
        let acknowledged = bench.deduct(user_id).await;
        assert_eq!(bench.read(user_id).await, (bench.stored(user_id).await, Served::Hit), "{other:?}");
        assert_eq!(bench.version(user_id).await, acknowledged);
    }
}

/// Nobody will take that announcement back, and what was announced never happened.
#[tokio::test(flavor = "multi_thread")]
async fn under_an_announcement_that_stands_a_read_makes_one_query() {
    const READS: u32 = 5;
    let (database, redis) = (Database::sqlite(), Redis::start().unwrap());
    let bench = instance(&database, &redis.url(), &[]).await;
    let user_id = bench.account("100.00").await;
    redis.command(&["EVAL", ANNOUNCE, "1", &key(&redis, user_id), "60000", "dead", "2"]).unwrap();
    let queries = AtomicU32::new(0);
    let load = || async {
        queries.fetch_add(1, Ordering::Relaxed);
        Ok(bench.stored(user_id).await)
    };
    for _ in 0..READS {
        let (found, served) = bench.ledger.cache().balance(user_id, Freshness::Cached, load).await.unwrap();
        assert_eq!((found.unwrap().version, served), (1, Served::Bypass));
    }
    assert_eq!(queries.load(Ordering::Relaxed), READS);
}
