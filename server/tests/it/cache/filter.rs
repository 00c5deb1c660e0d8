//! Ids without an account: they cost next to no query; and however the filter that spares them was made, lost or brought
//! back, it never hides an account.

use std::sync::Arc;

use test_support::{MariaDb, Redis};
use uuid::Uuid;
use zbl_server::{
    cache::{Freshness, Served},
    ledger::Ledger,
    store::{FilterState, Isolation},
};

use super::{instance, relay::Relay, writer};
use crate::{
    app::{Bench, Database, PATIENCE, WITHOUT_REDIS, money, until},
    stalls::signal,
};

/// Ids that nobody opens but the test.
const FIRST: i64 = 5_000_000_000_000;

async fn open(ledger: &Arc<Ledger>, user_id: i64) {
    ledger.open(user_id, money("1.00"), Uuid::new_v4()).await.unwrap();
}

/// Has the reader believe, as freshly as it ever will, that there is no such account.
async fn denies(reader: &Bench, user_id: i64) {
    reader.has_filter().await;
    until("the filter answers", async || reader.read(user_id).await == (None, Served::Hit)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_ids_cost_next_to_no_query() {
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let bench = instance(&database, &redis.url(), &[]).await;
        let user_id = bench.account("1.00").await;
        denies(&bench, FIRST).await;
        let keys = || redis.command(&["KEYS", "*balance:*"]).unwrap().lines().count();
        let had = keys();
        let (before, began) = (bench.ledger.bench().store.work().round_trips, std::time::Instant::now());
        for id in 0..1000 {
            assert_eq!(bench.read(FIRST + id).await.0, None);
        }
        let queries = bench.ledger.bench().store.work().round_trips - before;
        let looks = 1 + began.elapsed().as_secs();
        // One in a hundred may be mistaken, in this filter of one account none is.
        assert!(queries <= looks + 5, "{queries} queries, {looks} looks at the row");
        assert!(keys() <= had, "they leave no keys");
        assert!(bench.read(user_id).await.0.is_some());
        open(&bench.ledger, FIRST).await;
        assert_eq!(bench.read(FIRST).await, (bench.stored(FIRST).await, Served::Hit));
        assert!(bench.ledger.cache().figures().filtered >= 1000);
    }
}

/// An id that the filter mistakes for an account is asked for once, and then remembered for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_mistaken_for_an_account_is_remembered() {
    let (database, redis) = (Database::sqlite(), Redis::start().unwrap());
    let bench = instance(&database, &redis.url(), &[]).await;
    denies(&bench, FIRST).await;
    let everything = "redis.call('SETRANGE', KEYS[1], 128, string.rep('\\255', redis.call('STRLEN', KEYS[1]) - 128))";
    let key = filter_key(&redis);
    redis.command(&["EVAL", everything, "1", &key]).unwrap();
    let filtered = bench.ledger.cache().figures().filtered;
    let (before, began) = (bench.ledger.bench().store.work().round_trips, std::time::Instant::now());
    for _ in 0..100 {
        assert_eq!(bench.read(FIRST).await.0, None);
    }
    let queries = bench.ledger.bench().store.work().round_trips - before;
    // A look at the row each second, and what is remembered for three seconds is asked for again.
    assert!(queries <= 4 + 2 * began.elapsed().as_secs(), "{queries} queries for 100 reads");
    assert!(bench.ledger.cache().figures().filtered - filtered >= 99);
    open(&bench.ledger, FIRST).await;
    assert_eq!(bench.read(FIRST).await, (bench.stored(FIRST).await, Served::Hit), "and forgotten when it is opened");
}

fn filter_key(redis: &Redis) -> String {
    let keys = redis.command(&["KEYS", "*:filter:*"]).unwrap();
    let whole = keys.lines().find(|key| redis.command(&["PTTL", key]).unwrap() == "-1");
    whole.expect("there is a filter that counts").to_owned()
}

/// A server that has no Redis, or does not reach it, opens an account that all others deny at that moment.
#[tokio::test(flavor = "multi_thread")]
async fn who_opens_without_redis_is_not_hidden() {
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let relay = Relay::to(redis.addr()).await;
        let reader = instance(&database, &redis.url(), &[]).await;
        let without = Bench::open(&database.url, &[WITHOUT_REDIS]).await;
        let cut_off = instance(&database, &relay.url(), &["--cache-wait", "100ms", "--cache", "false"]).await;
        relay.cut();
        for (at, opener) in [&without, &cut_off].into_iter().enumerate() {
            let user_id = FIRST + at as i64;
            denies(&reader, user_id).await;
            open(&opener.ledger, user_id).await;
            let read = reader.ledger.balance(user_id, Freshness::Cached).await.unwrap();
            assert_eq!(read.0, reader.stored(user_id).await, "{at} on {}", database.url);
            assert!(read.0.is_some());
            // A filter comes back, with the account in it.
            until("it is built anew", async || {
                let _ = reader.read(FIRST + 99).await;
                reader.ledger.bench().store.filter().await.unwrap().state == FilterState::Sound
            })
            .await;
            assert!(reader.read(user_id).await.0.is_some());
        }
    }
}

/// While it is built anew again and again, accounts are opened by one who adds them and one who cannot.
#[tokio::test(flavor = "multi_thread")]
async fn who_opens_while_it_is_built_is_not_hidden() {
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let reader = instance(&database, &redis.url(), &[]).await;
        let other = instance(&database, &redis.url(), &[]).await;
        let without = Bench::open(&database.url, &[WITHOUT_REDIS]).await;
        reader.has_filter().await;
        for round in 0..3 {
            // Gone: found out by whoever asks for an absent id.
            redis.command(&["DEL", &filter_key(&redis)]).unwrap();
            let opening = (0..40).map(|at| {
                let (reader, other, without) = (&reader, &other, &without);
                async move {
                    let user_id = FIRST + round * 1000 + at;
                    let _ = reader.read(user_id).await;
                    let opener = if at % 20 == 19 { without } else { other };
                    open(&opener.ledger, user_id).await;
                    for bench in [reader, other] {
                        assert!(bench.read(user_id).await.0.is_some(), "round {round}, account {at}");
                    }
                }
            });
            futures::future::join_all(opening).await;
            until("there is one again", async || {
                let _ = reader.read(FIRST - 1).await;
                reader.read(FIRST - 1).await == (None, Served::Hit)
            })
            .await;
            for at in 0..40 {
                assert!(reader.read(FIRST + round * 1000 + at).await.0.is_some(), "round {round}, account {at}");
            }
        }
    }
}

/// Redis comes back: empty, and then with what it had before an account was added.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_opened_before_redis_lost_its_memory_is_not_hidden() {
    let (database, mut redis) = (Database::mysql(), Redis::start().unwrap());
    let reader = instance(&database, &redis.url(), &[]).await;
    let user_id = FIRST;
    denies(&reader, user_id).await;
    redis.command(&["SAVE"]).unwrap();
    open(&reader.ledger, user_id).await;
    denies(&reader, user_id + 1).await;
    // Its snapshot has the filter of then, without the account.
    redis.restart().unwrap();
    assert_eq!(redis.command(&["EXISTS", &filter_keys(&redis)[0]]).unwrap(), "1");
    let found = reader.ledger.balance(user_id, Freshness::Cached);
    assert!(found.await.unwrap().0.is_some(), "restored from a snapshot");
    until("it answers", async || reader.read(user_id).await.1 == Served::Hit).await;
    assert!(reader.read(user_id).await.0.is_some());
    redis.command(&["FLUSHALL"]).unwrap();
    assert!(reader.read(user_id).await.0.is_some(), "emptied");
    denies(&reader, user_id + 1).await;
    assert!(reader.read(user_id).await.0.is_some());
}

fn filter_keys(redis: &Redis) -> Vec<String> {
    redis.command(&["KEYS", "*:filter:*"]).unwrap().lines().map(str::to_owned).collect()
}

/// Redis is demoted and promoted again: the same process, with the filter that the other had before an account was added.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_opened_before_redis_was_promoted_again_is_not_hidden() {
    let (database, ours, other) = (Database::sqlite(), Redis::start().unwrap(), Redis::start().unwrap());
    let reader = instance(&database, &ours.url(), &[]).await;
    follow(&other, &ours).await;
    // That they have met gives the master a new name, and it a new filter.
    reader.has_filter().await;
    until("the other one has the filter that counts", async || {
        reader.read(FIRST).await == (None, Served::Hit) && other.command(&["PTTL", &filter_key(&ours)]).unwrap() == "-1"
    })
    .await;
    promote(&other);
    open(&reader.ledger, FIRST).await;
    follow(&ours, &other).await;
    assert!(reader.read(FIRST).await.0.is_some(), "demoted");
    promote(&ours);
    assert!(reader.read(FIRST).await.0.is_some(), "promoted again");
    until("there is a filter again", async || {
        let _ = reader.read(FIRST + 1).await;
        reader.read(FIRST + 1).await == (None, Served::Hit)
    })
    .await;
    assert!(reader.read(FIRST).await.0.is_some());
}

async fn follow(follower: &Redis, leader: &Redis) {
    let address = leader.addr();
    follower.command(&["REPLICAOF", &address.ip().to_string(), &address.port().to_string()]).unwrap();
    until("it has what the other has", async || {
        follower.command(&["INFO", "replication"]).unwrap().contains("master_link_status:up")
    })
    .await;
}

fn promote(follower: &Redis) {
    follower.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
}

/// The database hangs. Whether the filter can be believed cannot be told then; nobody waits for more than one who asks.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_absent_ids_do_not_queue_for_a_database_that_hangs() {
    const READERS: i64 = 60;
    let (server, redis) = (MariaDb::start().unwrap(), Redis::start().unwrap());
    server.create_database("zbl").unwrap();
    let words = ["--redis-url", &redis.url(), "--lock-wait", "1s", "--pool-wait", "1s", "--cache-wait", "10s"];
    let reader = Bench::open(&server.url("zbl"), &words).await;
    denies(&reader, FIRST).await;
    signal(&server, "-STOP");
    until("what was seen is too old", async || reader.ledger.balance(FIRST, Freshness::Cached).await.is_err()).await;
    let reads = (0..READERS).map(|at| reader.ledger.balance(FIRST + at, Freshness::Cached));
    // One after the other they would need a second each, at least.
    let reads = tokio::time::timeout(PATIENCE, futures::future::join_all(reads)).await;
    signal(&server, "-CONT");
    assert!(reads.expect("they queue").iter().all(Result::is_err));
}

/// One has just revoked the filter, and waits until nobody believes in it. Whoever opens, or finds what it opened, waits too.
#[tokio::test(flavor = "multi_thread")]
async fn who_opens_while_it_is_revoked_is_not_hidden() {
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let reader = instance(&database, &redis.url(), &[]).await;
        let openers =
            [Bench::open(&database.url, &[WITHOUT_REDIS]).await, Bench::open(&database.url, &[WITHOUT_REDIS]).await];
        for (at, repeats) in [true, false].into_iter().enumerate() {
            let first = FIRST + 2 * at as i64;
            let second = if repeats { first } else { first + 1 };
            denies(&reader, first).await;
            denies(&reader, second).await;
            let id = Uuid::new_v4();
            let ledger = Arc::clone(&openers[0].ledger);
            let opening = tokio::spawn(async move { ledger.open(first, money("1.00"), id).await });
            until("the filter is revoked", async || {
                reader.ledger.bench().store.filter().await.unwrap().state == FilterState::Revoked
            })
            .await;
            let id = if repeats { id } else { Uuid::new_v4() };
            // A RESET opens what is not there, and repeats what an OPEN did.
            let opened = match repeats {
                true => openers[1].ledger.reset(second, money("1.00"), id).await.unwrap(),
                false => openers[1].ledger.open(second, money("1.00"), id).await.unwrap(),
            };
            assert_eq!(opened.replayed, repeats);
            assert!(reader.read(second).await.0.is_some(), "repeats: {repeats}, on {}", database.url);
            opening.await.unwrap().unwrap();
            assert!(reader.read(first).await.0.is_some());
            until("it is built anew", async || {
                let _ = reader.read(FIRST + 99).await;
                reader.ledger.bench().store.filter().await.unwrap().state == FilterState::Sound
            })
            .await;
        }
    }
}

/// An opening that does not end holds the row. The builder, who wants it for itself, does not make others wait behind it.
#[tokio::test(flavor = "multi_thread")]
async fn who_opens_while_another_is_stuck_does_not_wait_for_it() {
    let (database, redis) = (Database::mysql(), Redis::start().unwrap());
    let opener = Bench::open(&database.url, &[WITHOUT_REDIS, "--lock-wait", "60s"]).await;
    let mut stuck = opener.ledger.bench().store.transaction(Isolation::ReadCommitted, None);
    assert_eq!(stuck.filter().await.unwrap().state, FilterState::Off);
    let reader = instance(&database, &redis.url(), &["--lock-wait", "60s"]).await;
    until("the builder waits", async || reader.ledger.lock_waits().await.unwrap().in_database > 0).await;
    let opening = tokio::time::timeout(PATIENCE, open(&opener.ledger, FIRST)).await;
    opening.expect("it waits for the one that is stuck");
    stuck.rollback().await;
    denies(&reader, FIRST + 1).await;
    assert!(reader.read(FIRST).await.0.is_some());
}

/// Where no filter can be made, accounts are not counted for one again and again; and none is left.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_asked_before_accounts_are_counted() {
    let (database, redis) = (Database::sqlite(), Redis::start().unwrap());
    redis.command(&["ACL", "SETUSER", "default", "-info"]).unwrap();
    let opener = Bench::open(&database.url, &[WITHOUT_REDIS]).await;
    open(&opener.ledger, FIRST).await;
    let reader = instance(&database, &redis.url(), &[]).await;
    // Whoever tries to build takes the right to do so.
    let lease = "*:filter-builder";
    let tries = async || until("it is tried", async || !redis.command(&["KEYS", lease]).unwrap().is_empty()).await;
    tries().await;
    let before = reader.ledger.bench().store.work().round_trips;
    for _ in 0..2 {
        redis.command(&["DEL", &redis.command(&["KEYS", lease]).unwrap()]).unwrap();
        tries().await;
    }
    let queries = reader.ledger.bench().store.work().round_trips - before;
    // Each time it reads the row, the first time perhaps a moment late; counting accounts would be as many again.
    assert!((2..=3).contains(&queries), "{queries} queries");
    assert!(filter_keys(&redis).is_empty());
    redis.command(&["ACL", "SETUSER", "default", "+info"]).unwrap();
    denies(&reader, FIRST + 1).await;
}

/// Neither the filter that was replaced nor one that its builder gave up takes up memory.
#[tokio::test(flavor = "multi_thread")]
async fn no_filter_is_left_over() {
    let (database, redis) = (Database::sqlite(), Redis::start().unwrap());
    let reader = instance(&database, &redis.url(), &[]).await;
    let without = Bench::open(&database.url, &[WITHOUT_REDIS]).await;
    for at in 0..3 {
        denies(&reader, FIRST + at).await;
        assert_eq!(filter_keys(&redis).len(), 1, "after {at} were replaced");
        open(&without.ledger, FIRST + at).await;
        until("it is replaced", async || {
            let _ = reader.read(FIRST + 99).await;
            reader.ledger.bench().store.filter().await.unwrap().state == FilterState::Sound
        })
        .await;
    }
}

/// The builder has read its page of ids when an account is opened that would have been on it.
#[tokio::test(flavor = "multi_thread")]
async fn who_opens_behind_the_builders_back_is_not_hidden() {
    let add =
        [include_str!("../../../src/cache/scripts/filter.lua"), include_str!("../../../src/cache/scripts/add.lua")];
    let add = redis::Script::new(&add.concat());
    for (database, adds) in Database::each().into_iter().chain(Database::each()).zip([true, true, false, false]) {
        let redis = Redis::start().unwrap();
        let relay = Relay::to(redis.addr()).await;
        let without = Bench::open(&database.url, &[WITHOUT_REDIS]).await;
        open(&without.ledger, FIRST + 1000).await;
        relay.hold_calls(&add);
        let reader = instance(&database, &relay.url(), &[]).await;
        relay.holds_more_than(0).await;
        let state = reader.ledger.bench().store.filter().await.unwrap().state;
        assert_eq!(state, FilterState::Building);
        let opener = if adds { writer(&database, &redis.url(), &[]).await } else { without };
        open(&opener.ledger, FIRST).await;
        relay.open();
        denies(&reader, FIRST + 1).await;
        // The filter alone is to tell.
        let keys = redis.command(&["KEYS", &format!("*balance:{FIRST}")]).unwrap();
        redis.command(&["DEL", &keys]).unwrap();
        assert!(reader.read(FIRST).await.0.is_some(), "adds: {adds}, on {}", database.url);
        assert!(reader.read(FIRST + 1000).await.0.is_some());
    }
}
