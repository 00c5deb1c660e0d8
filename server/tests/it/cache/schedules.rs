//! Races that can be told apart by who is where: each is played, never hoped for.

use std::sync::Arc;

use redis::Script;
use test_support::Redis;
use tokio::sync::{Notify, Semaphore};
use zbl_server::cache::{Freshness, Served};

use super::{instance, looks, relay::Relay, writer};
use crate::app::{Bench, Database, PATIENCE, WITHOUT_REDIS, deduction};

pub fn script(text: &str) -> Script {
    Script::new(text)
}

pub const ANNOUNCE: &str = include_str!("../../../src/cache/scripts/announce.lua");
const PUBLISH: &str = include_str!("../../../src/cache/scripts/publish.lua");
const RETRACT: &str = include_str!("../../../src/cache/scripts/retract.lua");
const FILL: &str = include_str!("../../../src/cache/scripts/fill.lua");
const LOOK: [&str; 2] =
    [include_str!("../../../src/cache/scripts/filter.lua"), include_str!("../../../src/cache/scripts/look.lua")];

/// The scripts themselves, one after the other in every order that could hurt.
#[tokio::test]
async fn a_newer_version_is_never_replaced() {
    let redis = Redis::shared().unwrap();
    let key = format!("test:{}", uuid::Uuid::new_v4());
    let run = |script: &str, arguments: &[&str]| {
        let words: Vec<&str> = ["EVAL", script, "1", &key].iter().chain(arguments).copied().collect();
        redis.command(&words).unwrap()
    };
    let look = || {
        let text = LOOK.concat();
        redis.command(&["EVAL", &text, "2", &key, "", "new-era", "1000", "", "1", "1"]).unwrap()
    };
    let announce = |version| run(ANNOUNCE, &["9000", "me", version]);
    let publish = |version, balance| run(PUBLISH, &["9000", version, balance]);
    let fill = |era, version, balance| run(FILL, &[era, version, balance, "9000", ""]);

    assert_eq!(look(), "none\n0\nnew-era\n");
    assert_eq!(fill("new-era", "4", "400"), "1");
    assert_eq!(look(), "value\n4\n400");
    assert_eq!(fill("new-era", "5", "1"), "0", "an era ends when it is filled");
    announce("5");
    assert_eq!(look(), "none\n5\nnew-era\n", "what is announced is not served");
    assert_eq!(fill("new-era", "4", "400"), "0", "nor is what was before it kept");
    announce("5");
    assert_eq!(fill("new-era", "5", "500"), "0", "an announcement ends the era");
    publish("5", "500");
    assert_eq!(look(), "value\n5\n500");
    publish("4", "400");
    announce("5");
    announce("3");
    assert_eq!(look(), "value\n5\n500", "what comes late says nothing new");
    announce("7");
    publish("6", "600");
    assert_eq!(look(), "none\n7\nnew-era\n", "a balance belongs to the newest version or to none");
    run(RETRACT, &["another"]);
    assert_eq!(look(), "none\n7\nnew-era\n");
    run(RETRACT, &["me"]);
    assert_eq!(look(), "none\n0\nnew-era\n");
    publish("8", "800");
    assert_eq!(look(), "none\n8\nnew-era\n", "a publication whose announcement is forgotten only announces");
}

/// A reader has read the old balance, and comes to keep it when the new one is acknowledged; once with Redis as it was, and
/// once when it has forgotten everything meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_keeps_nothing_old() {
    for forgets in [false, true] {
        let (database, redis) = (Database::mysql(), Redis::start().unwrap());
        let relay = Relay::to(redis.addr()).await;
        let user_id = Bench::open(&database.url, &[WITHOUT_REDIS]).await.account("100.00").await;
        let slow = instance(&database, &relay.url(), &[]).await;
        slow.has_filter().await;
        let other = instance(&database, &redis.url(), &[]).await;
        relay.hold_calls(&script(FILL));
        let ledger = Arc::clone(&slow.ledger);
        let reading = tokio::spawn(async move { ledger.balance(user_id, Freshness::Cached).await });
        relay.holds_more_than(0).await;
        let acknowledged = other.deduct(user_id).await;
        if forgets {
            redis.command(&["FLUSHALL"]).unwrap();
        }
        relay.open();
        assert_eq!(reading.await.unwrap().unwrap().0.unwrap().version, 1, "it began before");
        for bench in [&slow, &other] {
            assert_eq!(bench.version(user_id).await, acknowledged, "forgets: {forgets}");
        }
    }
}

/// A query that began before a change was acknowledged is of no use to a reader who comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_shares_a_query_that_began_too_early() {
    for forgets in [false, true] {
        let (database, redis) = (Database::sqlite(), Redis::start().unwrap());
        let user_id = Bench::open(&database.url, &[WITHOUT_REDIS]).await.account("100.00").await;
        let bench = instance(&database, &redis.url(), &[]).await;
        let (queried, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let early = tokio::spawn({
            let (ledger, queried, go_on) = (Arc::clone(&bench.ledger), Arc::clone(&queried), Arc::clone(&go_on));
            async move {
                let load = || async {
                    let state = ledger.bench().store.read(user_id).await.unwrap();
                    queried.notify_one();
                    drop(go_on.acquire().await.unwrap());
                    Ok(state)
                };
                ledger.cache().balance(user_id, Freshness::Cached, load).await
            }
        });
        tokio::time::timeout(PATIENCE, queried.notified()).await.expect("nobody asks the database");
        let acknowledged = bench.deduct(user_id).await;
        if forgets {
            redis.command(&["FLUSHALL"]).unwrap();
        }
        assert_eq!(bench.version(user_id).await, acknowledged, "forgets: {forgets}");
        go_on.add_permits(1);
        assert_eq!(early.await.unwrap().unwrap().0.unwrap().version, 1);
        assert_eq!(bench.version(user_id).await, acknowledged, "forgets: {forgets}");
    }
}

/// The same where the change had been announced before the query, and was committed after it; and could not be published.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_shares_a_query_that_was_too_early_for_what_was_announced() {
    let (database, redis) = (Database::mysql(), Redis::start().unwrap());
    let relay = Relay::to(redis.addr()).await;
    let writer = writer(&database, &relay.url(), &["--cache-wait", "1s", "--strategy", "pessimistic"]).await;
    let bench = instance(&database, &redis.url(), &[]).await;
    let user_id = bench.account("100.00").await;
    // So that Redis knows its scripts.
    writer.deduct(user_id).await;
    relay.hold_answers(&script(ANNOUNCE));
    let change = deduction(user_id);
    let ledger = Arc::clone(&writer.ledger);
    let writing = tokio::spawn(async move { ledger.apply(change, None).await.unwrap().version });
    relay.holds_more_than(0).await;
    let (queried, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    // Announced, not committed. The announcement may be on its way yet.
    crate::app::until("the announcement has arrived", async || bench.read(user_id).await.1 == Served::Bypass).await;
    let early = tokio::spawn({
        let (ledger, queried, go_on) = (Arc::clone(&bench.ledger), Arc::clone(&queried), Arc::clone(&go_on));
        async move {
            let load = || async {
                let state = ledger.bench().store.read(user_id).await.unwrap();
                queried.notify_one();
                drop(go_on.acquire().await.unwrap());
                Ok(state)
            };
            ledger.cache().balance(user_id, Freshness::Cached, load).await
        }
    });
    tokio::time::timeout(PATIENCE, queried.notified()).await.expect("nobody asks the database");
    let held = relay.held();
    relay.hold_calls(&script(PUBLISH));
    relay.holds_more_than(held).await;
    let acknowledged = writing.await.unwrap();
    let before = looks(&redis);
    let ledger = Arc::clone(&bench.ledger);
    let late = tokio::spawn(async move { ledger.balance(user_id, Freshness::Cached).await });
    crate::app::until("it has looked, and shares", async || looks(&redis) > before).await;
    go_on.add_permits(1);
    early.await.unwrap().unwrap();
    assert_eq!(late.await.unwrap().unwrap().0.unwrap().version, acknowledged);
}

/// The writer dies between COMMIT and publication: what it wrote is served all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_dies_after_its_commit_leaves_nothing_old() {
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let relay = Relay::to(redis.addr()).await;
        let writer = writer(&database, &relay.url(), &["--strategy", "pessimistic"]).await;
        let bench = instance(&database, &redis.url(), &[]).await;
        let user_id = bench.account("100.00").await;
        assert_eq!(bench.read(user_id).await.1, Served::Hit);
        relay.hold_calls(&script(PUBLISH));
        let ledger = Arc::clone(&writer.ledger);
        let dying = tokio::spawn(async move { ledger.apply(deduction(user_id), None).await });
        relay.holds_more_than(0).await;
        relay.cut();
        let stored = bench.stored(user_id).await;
        assert_eq!(stored.unwrap().version, 2, "it is committed");
        assert_eq!(bench.read(user_id).await, (stored, Served::Bypass));
        assert_eq!(bench.read(user_id).await, (stored, Served::Hit), "and kept, being as new as the announcement");
        dying.await.unwrap().unwrap();
    }
}

/// It dies before COMMIT: nothing is served that did not happen, and nothing is kept that may yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_that_does_not_come_true_hides_nothing() {
    let (database, redis) = (Database::mysql(), Redis::start().unwrap());
    let bench = instance(&database, &redis.url(), &["--strategy", "atomic_three_trips"]).await;
    let user_id = bench.account("100.00").await;
    let change = deduction(user_id);
    bench.ledger.apply(change, None).await.unwrap();
    // A repeat is turned away by the journal in the very trip that would have committed it.
    bench.ledger.apply(change, None).await.unwrap();
    let stored = bench.stored(user_id).await;
    assert_eq!(bench.read(user_id).await, (stored, Served::Bypass), "what the repeat acknowledged is announced");
    assert_eq!(bench.read(user_id).await, (stored, Served::Hit), "and its own announcement taken back");
    // One that nobody takes back: its writer is gone.
    let keys = redis.command(&["KEYS", &format!("*balance:{user_id}")]).unwrap();
    redis.command(&["EVAL", ANNOUNCE, "1", &keys, "60000", "dead", "3"]).unwrap();
    for _ in 0..3 {
        assert_eq!(bench.read(user_id).await, (bench.stored(user_id).await, Served::Bypass));
    }
    bench.deduct(user_id).await;
    assert_eq!(bench.read(user_id).await, (bench.stored(user_id).await, Served::Hit));
}
