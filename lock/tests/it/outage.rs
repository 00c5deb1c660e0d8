//! A Redis that is down, stopped, or has lost its memory.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use test_support::Redis;
use tokio::time::timeout;
use zbl_lock::{Error, Lock, Lost, Owner, Settings};

use crate::{PATIENCE, ask, lock, ms, settings, until};

/// What the machine may take on top of a bound while all tests run at once.
const SLACK: Duration = Duration::from_millis(400);

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (work.await, begun.elapsed())
}

#[tokio::test]
async fn one_that_is_down_at_the_start_may_come_and_go() {
    let mut redis = Redis::start().unwrap();
    redis.kill().unwrap();
    let (here, owner) = (lock(&redis, &settings()), Owner::new("r"));
    for _ in 0..3 {
        let (refused, took) = timed(here.acquire("k", &owner)).await;
        let Err(Error::Down(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains(&redis.addr().to_string()) && took < SLACK, "{why} after {took:?}");
        assert!(matches!(here.raise_token(1).await, Err(Error::Down(_))));
        redis.restart().unwrap();
        here.acquire("k", &owner).await.expect("it is there").release().await.unwrap();
        redis.kill().unwrap();
    }
    assert_eq!(here.figures().down, 3);
}

#[tokio::test]
async fn one_that_dies_loses_the_leases_and_tokens_begin_anew_until_they_are_raised() {
    let mut redis = Redis::start().unwrap();
    let settings = Settings { lease: ms(600), command: ms(200), ..settings() };
    let (here, owner) = (lock(&redis, &settings), Owner::new("r"));
    for _ in 0..5 {
        here.acquire("other", &owner).await.unwrap().release().await.unwrap();
    }
    let lease = here.acquire("k", &owner).await.unwrap();
    assert_eq!(lease.token(), Some(6));
    redis.kill().unwrap();
    let (why, took) = timed(lease.lost()).await;
    assert!(took <= settings.lease + SLACK, "{took:?}");
    assert_eq!((why, lease.check()), (Lost::RanOut, Err(Lost::RanOut)));
    let (released, took) = timed(lease.release()).await;
    assert!(matches!(released, Err(Error::Lost(Lost::RanOut))) && took < settings.command + SLACK, "{released:?}");
    redis.restart().unwrap();
    let lease = here.acquire("k", &owner).await.unwrap();
    assert_eq!(lease.token(), Some(1), "it has forgotten");
    lease.release().await.unwrap();
    here.raise_token(6).await.unwrap();
    here.raise_token(3).await.unwrap();
    let lease = here.acquire("k", &owner).await.unwrap();
    assert_eq!(lease.token(), Some(7));
    lease.release().await.unwrap();
    assert!(matches!(here.raise_token(i64::MAX).await, Err(Error::Token(_))));
}

#[tokio::test]
async fn one_that_restarts_empty_no_longer_knows_the_lease() {
    let mut redis = Redis::start().unwrap();
    let settings = Settings { lease: ms(3_000), ..settings() };
    let lease = lock(&redis, &settings).acquire("k", &Owner::new("r")).await.unwrap();
    redis.restart().unwrap();
    let (why, took) = timed(lease.lost()).await;
    assert_eq!(why, Lost::NotOurs);
    assert!(took < settings.lease / 2, "found out at the renewal, not at the end: {took:?}");
}

#[tokio::test]
async fn one_that_stands_still_costs_one_bound_and_keeps_nothing_that_nobody_knows_of() {
    let redis = Redis::start().unwrap();
    let settings = Settings { command: ms(1_000), ..settings() };
    let here = lock(&redis, &settings);
    here.acquire("k", &Owner::new("before")).await.unwrap().release().await.unwrap();
    redis.pause().unwrap();
    // The first waits for all of its time, those after it no longer expect an answer.
    let (all, less) = (settings.command, settings.command / 2);
    for (least, most) in [(all, all + SLACK), (ms(0), less), (ms(0), less)] {
        let (refused, took) = timed(here.acquire("k", &Owner::new("meanwhile"))).await;
        assert!(matches!(refused, Err(Error::Down(_))), "{refused:?}");
        assert!(took >= least && took < most, "{took:?}");
    }
    let (refused, took) = timed(here.raise_token(1)).await;
    assert!(matches!(refused, Err(Error::Down(_))) && took < settings.command + SLACK, "{refused:?} {took:?}");
    redis.resume().unwrap();
    // It now does all that it was asked meanwhile. What it took for those who are gone has been given back behind it.
    let (lease, took) = timed(here.acquire("k", &Owner::new("after"))).await;
    lease.unwrap().release().await.unwrap();
    assert!(took < settings.lease / 5, "{took:?}: an acquisition nobody knew of had to run out");
    until("nothing is left", async || ask(&redis, &["KEYS", "*lock*"]).is_empty()).await;
}

#[tokio::test]
async fn one_that_stands_still_for_longer_than_the_lease_ends_it_and_the_next_gets_a_greater_token() {
    let redis = Redis::start().unwrap();
    let settings = Settings { lease: ms(400), command: ms(200), ..settings() };
    let here = lock(&redis, &settings);
    let lease = here.acquire("k", &Owner::new("first")).await.unwrap();
    redis.pause().unwrap();
    let why = timeout(settings.lease + SLACK, lease.lost()).await.expect("by our own clock");
    assert_eq!(why, Lost::RanOut);
    redis.resume().unwrap();
    let next = here.acquire("k", &Owner::new("second")).await.unwrap();
    assert!(next.token() > lease.token());
    assert!(matches!(lease.release().await, Err(Error::Lost(Lost::RanOut))));
    next.check().unwrap();
    next.extend().await.unwrap();
    next.release().await.unwrap();
}

#[tokio::test]
async fn one_that_stands_still_for_a_moment_loses_nothing() {
    let redis = Redis::start().unwrap();
    let settings = Settings { lease: ms(2_000), command: ms(200), ..settings() };
    let lease = lock(&redis, &settings).acquire("k", &Owner::new("first")).await.unwrap();
    redis.pause().unwrap();
    // The first renewal fails, and another is tried.
    until("two thirds are gone", async || lease.valid_for() < settings.lease / 3).await;
    redis.resume().unwrap();
    until("it is renewed", async || lease.valid_for() > settings.lease / 2).await;
    lease.check().unwrap();
    lease.release().await.unwrap();
}

/// A fail-over moves the address. The link stays where it was, with what is a replica now, and has to be given up.
#[tokio::test]
async fn one_whose_address_is_another_servers_now_is_found_there() {
    let (before, after) = (Redis::start().unwrap(), Redis::start().unwrap());
    let here = lock(&before, &settings());
    here.acquire("k", &Owner::new("r")).await.unwrap().release().await.unwrap();
    ask(&before, &["REPLICAOF", "127.0.0.1", "1"]);
    ask(&before, &["CONFIG", "SET", "port", &test_support::free_port().unwrap().to_string()]);
    ask(&after, &["CONFIG", "SET", "port", &before.addr().port().to_string()]);
    here.acquire("k", &Owner::new("r")).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn one_that_refuses_is_told_in_its_own_words() {
    let redis = Redis::start().unwrap();
    ask(&redis, &["CONFIG", "SET", "requirepass", "secret-1"]);
    let here = lock(&redis, &settings());
    let refused = timeout(PATIENCE, here.acquire("k", &Owner::new("r"))).await.unwrap();
    assert!(
        matches!(&refused, Err(Error::Down(why)) if ["NOAUTH", "unauthenticated"].iter().any(|word| why.contains(word))),
        "{refused:?}"
    );
    let url = format!("redis://:wrong-2@{}", redis.addr());
    let wrong = Lock::single(&url, settings()).unwrap();
    let Err(Error::Down(why)) = wrong.acquire("k", &Owner::new("r")).await else { panic!("the password is wrong") };
    assert!(!format!("{why} {wrong:?}").contains("wrong-2"), "{why}");
    let url = format!("redis://:secret-1@{}", redis.addr());
    let right = Lock::single(&url, settings()).unwrap();
    assert!(!format!("{right:?}").contains("secret-1"));
    right.acquire("k", &Owner::new("r")).await.unwrap().release().await.unwrap();
}

#[test]
fn an_address_that_is_none_is_refused_without_repeating_it() {
    for url in ["", "http://u:secret-3@x", "redis://u:secret-3@[x", "rediss://u:secret-3@127.0.0.1"] {
        let refused = Lock::single(url, settings());
        let Err(Error::Url(why)) = refused else { panic!("{url} passed") };
        assert!(!why.contains("secret-3"), "{why}");
    }
}
