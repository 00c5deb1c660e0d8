//! Redis slow, gone, and back: answers stay right, and come in time.

use std::time::{Duration, Instant};

use test_support::Redis;
use zbl_server::cache::{Freshness, Served};

use super::{instance, relay::Relay, writer};
use crate::app::{Bench, Database, until};

/// Far less than a wait for an answer that does not come, far more than a loaded machine needs for some milliseconds.
const SOON: Duration = Duration::from_secs(2);

/// Changes and reads, each of which must be right and quick.
async fn works(bench: &Bench, user_id: i64, when: &str) {
    for _ in 0..5 {
        let began = Instant::now();
        let acknowledged = bench.deduct(user_id).await;
        assert!(bench.version(user_id).await >= acknowledged, "{when}");
        let consistent = bench.ledger.balance(user_id, Freshness::Consistent).await.unwrap();
        assert_eq!(consistent, (bench.stored(user_id).await, Served::Bypass), "{when}");
        assert!(began.elapsed() < SOON, "{when}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_depends_on_redis() {
    for database in Database::each() {
        let mut redis = Redis::start().unwrap();
        let url = redis.url();
        redis.kill().unwrap();
        let bench = instance(&database, &url, &["--cache-wait", "50ms"]).await;
        let user_id = bench.account("1000.00").await;
        works(&bench, user_id, "down from the start").await;
        redis.restart().unwrap();
        until("it is used when it is there", async || bench.read(user_id).await.1 == Served::Hit).await;
        works(&bench, user_id, "up").await;
        redis.pause().unwrap();
        works(&bench, user_id, "paused").await;
        redis.resume().unwrap();
        until("it is used when it answers", async || bench.read(user_id).await.1 == Served::Hit).await;
        assert_eq!(bench.read(user_id).await.0, bench.stored(user_id).await);
        redis.restart().unwrap();
        works(&bench, user_id, "restarted empty").await;
        until("it is filled again", async || bench.read(user_id).await.1 == Served::Hit).await;
        redis.kill().unwrap();
        works(&bench, user_id, "killed").await;
        assert!(bench.ledger.cache().figures().failures > 0);
    }
}

/// A writer that cannot reach Redis leaves another server's readers with the old balance; until it can.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_announced_is_made_good() {
    let (database, redis) = (Database::mysql(), Redis::start().unwrap());
    let relay = Relay::to(redis.addr()).await;
    let writer = instance(&database, &relay.url(), &["--cache-wait", "200ms"]).await;
    let reader = instance(&database, &redis.url(), &[]).await;
    let user_id = reader.account("100.00").await;
    relay.cut();
    let acknowledged = writer.deduct(user_id).await;
    assert_eq!(writer.ledger.cache().figures().owed, 1);
    assert_eq!(writer.version(user_id).await, acknowledged, "its own readers know");
    assert_eq!(reader.version(user_id).await, acknowledged - 1, "the bound is there for a reason");
    relay.open();
    until("others are told", async || reader.version(user_id).await == acknowledged).await;
    until("nothing is owed", async || writer.ledger.cache().figures().owed == 0).await;
}

/// It never can again: what is kept runs out.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_announced_runs_out() {
    let (database, redis) = (Database::sqlite(), Redis::start().unwrap());
    let relay = Relay::to(redis.addr()).await;
    let writer = writer(&database, &relay.url(), &["--cache-wait", "200ms"]).await;
    let reader = instance(&database, &redis.url(), &["--cache-ttl", "2s"]).await;
    let user_id = reader.account("100.00").await;
    relay.cut();
    let kept = Instant::now();
    let acknowledged = writer.deduct(user_id).await;
    assert_eq!(reader.read(user_id).await.1, Served::Hit);
    until("it runs out", async || reader.version(user_id).await == acknowledged).await;
    assert!(kept.elapsed() < Duration::from_millis(2200) + SOON, "{:?}", kept.elapsed());
}

/// Balances that are kept together run out apart.
#[tokio::test(flavor = "multi_thread")]
async fn lives_differ_by_a_tenth() {
    let (database, redis) = (Database::sqlite(), Redis::start().unwrap());
    let bench = instance(&database, &redis.url(), &["--cache-ttl", "5m"]).await;
    for _ in 0..50 {
        bench.account("1.00").await;
    }
    let keys = redis.command(&["KEYS", "*balance:*"]).unwrap();
    let lives: Vec<u64> = keys.lines().map(|key| redis.command(&["PTTL", key]).unwrap().parse().unwrap()).collect();
    let (least, most) = (*lives.iter().min().unwrap(), *lives.iter().max().unwrap());
    assert!(lives.len() == 50 && least > 280_000 && most <= 330_000, "{lives:?}");
    assert!(most - least > 10_000, "fifty of them within a third of the range: {lives:?}");
}
