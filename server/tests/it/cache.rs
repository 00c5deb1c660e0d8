//! The cache of balances, over real Redis servers: what is in it, what becomes of it when Redis fails, and that no answer is
//! older than it may be.

mod filter;
mod hunt;
mod outages;
mod refusals;
mod relay;
mod schedules;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use test_support::Redis;
use tokio::sync::Semaphore;
use tonic::{Code, metadata::MetadataMap};
use uuid::Uuid;
use zbl_proto::{CACHE_KEY, v1};
use zbl_server::{
    account::{Change, Direction, State},
    cache::{Freshness, Served},
    ledger::{Fate, Resolve},
    store::FilterState,
    strategy::REGISTRY,
};

use crate::app::{Bench, Database, PATIENCE, Served as Server, WITHOUT_REDIS, deduction, money, until};

/// Long enough that a loaded machine is never taken for a slow Redis.
const PATIENT: [&str; 2] = ["--cache-wait", "10s"];

/// An instance that shares a Redis.
async fn instance(database: &Database, redis: &str, words: &[&str]) -> Bench {
    let patience: &[&str] = if words.contains(&PATIENT[0]) { &[] } else { &PATIENT };
    let all: Vec<&str> = ["--redis-url", redis].iter().chain(patience).chain(words).copied().collect();
    Bench::open(&database.url, &all).await
}

/// Another that only writes, and whose calls to Redis the test counts on: no builder disturbs it.
async fn writer(database: &Database, redis: &str, words: &[&str]) -> Bench {
    let all: Vec<&str> = ["--cache", "false"].iter().chain(words).copied().collect();
    instance(database, redis, &all).await
}

impl Bench {
    /// A read through the cache.
    async fn read(&self, user_id: i64) -> (Option<State>, Served) {
        let read = self.ledger.balance(user_id, Freshness::Cached);
        tokio::time::timeout(PATIENCE, read).await.expect("a read that does not end").unwrap()
    }

    /// The version that a read through the cache answers.
    async fn version(&self, user_id: i64) -> i64 {
        self.read(user_id).await.0.map_or(0, |state| state.version)
    }

    /// What the database has.
    async fn stored(&self, user_id: i64) -> Option<State> {
        self.ledger.bench().store.read(user_id).await.unwrap()
    }

    /// Takes 10.00; returns the new version.
    async fn deduct(&self, user_id: i64) -> i64 {
        self.ledger.apply(deduction(user_id), None).await.unwrap().version
    }

    /// Returns when a filter counts.
    async fn has_filter(&self) {
        until("there is a sound filter", async || {
            self.ledger.bench().store.filter().await.unwrap().state == FilterState::Sound
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_where_it_came_from() {
    let told = |metadata: &MetadataMap| metadata.get(CACHE_KEY).unwrap().to_str().unwrap().to_owned();
    for database in Database::each() {
        let redis = Redis::shared().unwrap().url();
        let served = Server::start(&database.url, &["--redis-url", &redis, "--cache-wait", "10s"]).await;
        let user_id = served.bench.account("100.00").await;
        let mut account = served.account();
        let mut ask = async |user_id, consistent| match account
            .get_balance(v1::GetBalanceRequest { user_id, consistent, as_of: None })
            .await
        {
            Ok(answer) => (Code::Ok, told(answer.metadata())),
            Err(status) => (status.code(), told(status.metadata())),
        };
        assert_eq!(ask(user_id, false).await, (Code::Ok, "hit".to_owned()), "an opening is published");
        assert_eq!(ask(user_id, true).await, (Code::Ok, "bypass".to_owned()));
        let other = user_id + 1;
        assert_eq!(ask(other, true).await, (Code::NotFound, "bypass".to_owned()));
        let before = served.bench.ledger.cache().figures();
        assert_eq!((before.hits, before.bypasses), (1, 2));
        let line = format!("GET /balance/{user_id}");
        let (status, head) = crate::facade::head(served.http, &line).await;
        assert!(status == 200 && head.contains("zbl-cache: hit"), "{head}");
        let (status, head) = crate::facade::head(served.http, &format!("{line}?consistent=true")).await;
        assert!(status == 200 && head.contains("zbl-cache: bypass"), "{head}");
        let (status, _) = crate::facade::head(served.http, &format!("{line}?consistent=perhaps")).await;
        assert_eq!(status, 400);

        let without = Server::start(&database.url, &[WITHOUT_REDIS]).await;
        let answer = without
            .account()
            .get_balance(v1::GetBalanceRequest { user_id, consistent: false, as_of: None })
            .await
            .unwrap();
        assert_eq!(told(answer.metadata()), "bypass");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_up_once_is_found_again() {
    for database in Database::each() {
        let redis = Redis::shared().unwrap().url();
        let without = Bench::open(&database.url, &[WITHOUT_REDIS]).await;
        let user_id = without.account("100.00").await;
        let bench = instance(&database, &redis, &[]).await;
        let state = bench.stored(user_id).await;
        assert_eq!(bench.read(user_id).await, (state, Served::Miss));
        assert_eq!(bench.read(user_id).await, (state, Served::Hit));
        let figures = bench.ledger.cache().figures();
        assert_eq!((figures.hits, figures.misses, figures.bypasses), (1, 1, 0));
        // Two databases in one Redis have nothing to do with each other.
        let elsewhere = Database::sqlite();
        let stranger = instance(&elsewhere, &redis, &[]).await;
        assert_eq!(stranger.read(user_id).await.0, None);
    }
}

/// Whatever the journal takes, by whatever strategy, every instance has it when the caller has.
#[tokio::test(flavor = "multi_thread")]
async fn every_entry_is_in_the_cache_before_it_is_acknowledged() {
    for database in Database::each() {
        let redis = Redis::shared().unwrap().url();
        let (here, there) = (instance(&database, &redis, &[]).await, instance(&database, &redis, &[]).await);
        for row in REGISTRY {
            let user_id = here.account("1000.00").await;
            let check = async |what: &str| {
                let stored = here.stored(user_id).await;
                for bench in [&here, &there] {
                    let (state, served) = bench.read(user_id).await;
                    assert_eq!(state, stored, "{} after {what} on {}", row.name, database.url);
                    // What journals nothing may take an announcement back, and the balance with it.
                    if what == what.to_uppercase() {
                        assert_eq!(served, Served::Hit, "{} after {what} on {}", row.name, database.url);
                    }
                }
            };
            check("OPEN").await;
            let change = deduction(user_id);
            here.ledger.apply(change, Some(row)).await.unwrap();
            check("DEDUCT").await;
            there.ledger.apply(change, Some(row)).await.unwrap();
            check("a repeat").await;
            let deposit = Change { direction: Direction::Deposit, ..deduction(user_id) };
            there.ledger.apply(deposit, Some(row)).await.unwrap();
            check("DEPOSIT").await;
            here.ledger.reset(user_id, money("7.00"), Uuid::new_v4()).await.unwrap();
            check("RESET").await;
            assert!(here.ledger.apply(deduction(user_id), Some(row)).await.is_err(), "there is no money left");
            check("a refusal").await;
            let fate = there.ledger.fate(user_id, Uuid::new_v4(), Resolve::Finally).await.unwrap();
            assert_eq!(fate, Fate::Voided);
            check("VOID").await;
        }
    }
}

/// A batch tells all its accounts at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_in_the_cache_as_a_whole() {
    let database = Database::mysql();
    let bench = instance(&database, &Redis::shared().unwrap().url(), &[]).await;
    let mut users = Vec::new();
    for _ in 0..8 {
        users.push(bench.account("1000.00").await);
    }
    let calls = users.iter().flat_map(|user| (0..10).map(|_| bench.deduct(*user)));
    futures::future::join_all(calls).await;
    assert!(bench.ledger.batches().largest > 1);
    for user in users {
        let stored = bench.stored(user).await;
        assert_eq!(stored.map(|state| (state.balance, state.version)), Some((money("900.00"), 11)));
        assert_eq!(bench.read(user).await, (stored, Served::Hit));
    }
}

/// How many times a balance was looked for in a Redis, by a command that the script for it runs once and that nothing runs in
/// the background. (Scripts themselves are called twice where Redis does not know them yet.)
fn looks(redis: &Redis) -> u64 {
    let statistics = redis.command(&["INFO", "commandstats"]).unwrap();
    let line = statistics.lines().find(|line| line.starts_with("cmdstat_hmget:")).unwrap_or("calls=0,");
    line.split(['=', ',']).nth(1).unwrap().parse().unwrap()
}

/// The one query is held until everybody has looked and found nothing.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_miss_at_once_make_one_query() {
    const MANY: u64 = 200;
    for database in Database::each() {
        let redis = Redis::start().unwrap();
        let user_id = Bench::open(&database.url, &[WITHOUT_REDIS]).await.account("100.00").await;
        let bench = instance(&database, &redis.url(), &[]).await;
        bench.has_filter().await;
        // Not the store's own count: what keeps the filter asks the database beside us.
        let (queries, before) = (Arc::new(AtomicU64::new(0)), looks(&redis));
        let all_have_looked = Arc::new(Semaphore::new(0));
        let reads = (0..MANY).map(|_| {
            let (ledger, all_have_looked) = (Arc::clone(&bench.ledger), Arc::clone(&all_have_looked));
            let queries = Arc::clone(&queries);
            tokio::spawn(async move {
                let load = || async {
                    queries.fetch_add(1, Ordering::SeqCst);
                    drop(all_have_looked.acquire().await.unwrap());
                    Ok(ledger.bench().store.read(user_id).await.unwrap())
                };
                ledger.cache().balance(user_id, Freshness::Cached, load).await.unwrap()
            })
        });
        let reads: Vec<_> = reads.collect();
        until("all have looked", async || looks(&redis) >= before + MANY).await;
        all_have_looked.add_permits(1);
        let state = bench.stored(user_id).await;
        for read in reads {
            assert_eq!(read.await.unwrap(), (state, Served::Miss));
        }
        assert_eq!(queries.load(Ordering::SeqCst), 1, "on {}", database.url);
        let figures = bench.ledger.cache().figures();
        assert_eq!((figures.misses, figures.spared), (MANY, MANY - 1), "{figures:?}");
    }
}
