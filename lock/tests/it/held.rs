//! A lock that is held: by one, for as long as it is renewed, and given back by its owner alone.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use test_support::Redis;
use tokio::task::JoinSet;
use zbl_lock::{Error, Lock, Lost, Owner, Settings};

use crate::{ask, lock, ms, settings, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_in_two_processes_one_holds_it_and_tokens_grow() {
    let (redis, settings) = (Redis::shared().unwrap(), settings());
    let (inside, tokens) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let mut tasks = JoinSet::new();
    for process in [lock(redis, &settings), lock(redis, &settings)] {
        for task in 0..8 {
            let (process, inside, tokens) = (process.clone(), Arc::clone(&inside), Arc::clone(&tokens));
            tasks.spawn(async move {
                for _ in 0..20 {
                    let lease = process.acquire("one", &Owner::new(task)).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                    tokio::task::yield_now().await;
                    tokens.lock().unwrap().push(lease.token().unwrap());
                    lease.check().unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    lease.release().await.unwrap();
                }
            });
        }
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let tokens = tokens.lock().unwrap();
    assert_eq!(tokens.len(), 320);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    let left = ask(redis, &["KEYS", &format!("{}*", settings.prefix)]);
    assert!(!left.contains("lock:"), "{left}");
}

#[tokio::test]
async fn its_owner_takes_it_again_and_keeps_it_until_the_last_release() {
    let (redis, settings) = (Redis::shared().unwrap(), settings());
    let (here, there) = (lock(redis, &settings), lock(redis, &Settings { wait: ms(0), ..settings.clone() }));
    let owner = Owner::new("outer");
    let outer = here.acquire("k", &owner).await.unwrap();
    let inner = here.acquire("k", &owner.clone()).await.unwrap();
    assert_eq!(outer.token(), inner.token());
    outer.release().await.unwrap();
    inner.check().unwrap();
    inner.extend().await.unwrap();
    let refused = there.acquire("k", &Owner::new("other")).await;
    assert!(matches!(refused, Err(Error::Busy { ref holder, .. }) if holder == "here/outer"), "{refused:?}");
    inner.release().await.unwrap();
    there.acquire("k", &Owner::new("other")).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_request_of_the_same_name_is_another_owner() {
    let (redis, settings) = (Redis::shared().unwrap(), Settings { wait: ms(0), ..settings() });
    let here = lock(redis, &settings);
    let first = here.acquire("k", &Owner::new("request")).await.unwrap();
    assert!(matches!(here.acquire("k", &Owner::new("request")).await, Err(Error::Busy { .. })));
    first.release().await.unwrap();
}

#[tokio::test]
async fn whoever_no_longer_owns_it_releases_nothing_and_is_told() {
    let (redis, settings) = (Redis::shared().unwrap(), settings());
    let lease = lock(redis, &settings).acquire("k", &Owner::new("first")).await.unwrap();
    let key = format!("{}lock:k", settings.prefix);
    ask(redis, &["HSET", &key, "owner", "elsewhere/second/x"]);
    assert_eq!(lease.release().await, Err(Error::Lost(Lost::NotOurs)));
    assert_eq!(ask(redis, &["HGET", &key, "owner"]), "elsewhere/second/x");
}

#[tokio::test]
async fn a_lease_that_redis_gave_to_another_is_lost_at_the_next_renewal() {
    let (redis, settings) = (Redis::shared().unwrap(), Settings { lease: ms(600), command: ms(200), ..settings() });
    let here = lock(redis, &settings);
    let lease = here.acquire("k", &Owner::new("first")).await.unwrap();
    ask(redis, &["DEL", &format!("{}lock:k", settings.prefix)]);
    // The next in this process gets in as soon as the loss is known, though the lease is still in somebody's hands.
    let next = here.acquire("k", &Owner::new("second")).await.unwrap();
    assert_eq!((lease.lost().await, lease.check()), (Lost::NotOurs, Err(Lost::NotOurs)));
    assert!(next.token() > lease.token());
    assert_eq!(lease.extend().await, Err(Error::Lost(Lost::NotOurs)));
    assert_eq!(lease.release().await, Err(Error::Lost(Lost::NotOurs)));
    next.check().unwrap();
    next.release().await.unwrap();
    assert_eq!(here.figures().lost, 1);
}

#[tokio::test]
async fn renewal_keeps_it_far_beyond_its_length() {
    let (redis, settings) = (Redis::shared().unwrap(), Settings { lease: ms(400), command: ms(200), ..settings() });
    let rival = lock(redis, &Settings { wait: ms(50), ..settings.clone() });
    let lease = lock(redis, &settings).acquire("k", &Owner::new("first")).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < settings.lease * 4 {
        assert!(matches!(rival.acquire("k", &Owner::new("rival")).await, Err(Error::Busy { .. })));
        lease.check().unwrap();
    }
    lease.release().await.unwrap();
}

#[tokio::test]
async fn the_clock_ends_it_even_if_its_renewal_never_runs() {
    let (redis, settings) = (Redis::shared().unwrap(), Settings { lease: ms(100), command: ms(50), ..settings() });
    let here = lock(redis, &settings);
    let lease = here.acquire("k", &Owner::new("first")).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "keeps the only thread from renewing, as a stopped process would")]
    thread::sleep(settings.lease);
    assert_eq!(lease.check(), Err(Lost::RanOut));
    assert_eq!(lease.lost().await, Lost::RanOut);
    // The renewal runs now, and must not bring it back, whatever Redis says.
    let next = here.acquire("k", &Owner::new("second")).await.unwrap();
    assert_eq!(lease.check(), Err(Lost::RanOut));
    assert!(next.token() > lease.token());
}

#[tokio::test]
async fn dropping_a_lease_asks_nothing_of_redis_and_the_lock_runs_out() {
    let (redis, settings) = (Redis::shared().unwrap(), Settings { lease: ms(500), command: ms(200), ..settings() });
    let (here, there) = (lock(redis, &settings), lock(redis, &settings));
    let lease = here.acquire("k", &Owner::new("first")).await.unwrap();
    drop(lease);
    let key = format!("{}lock:k", settings.prefix);
    let (left, begun) = (ask(redis, &["PTTL", &key]).parse::<i64>().unwrap(), Instant::now());
    assert!(left > 0, "it was given back, or had run out already");
    there.acquire("k", &Owner::new("second")).await.unwrap().release().await.unwrap();
    let waited = i64::try_from(begun.elapsed().as_millis()).unwrap();
    // Neither given back before, nor renewed after.
    assert!((left - 5..left + 300).contains(&waited), "{waited} of {left} ms");
    assert_eq!((here.leases(), here.figures().lost), (vec![], 0));
}

#[tokio::test]
async fn what_is_held_and_waited_for_can_be_told() {
    let (redis, settings) = (Redis::shared().unwrap(), settings());
    let (here, there) =
        (lock(redis, &settings), lock(redis, &Settings { instance: "there".into(), ..settings.clone() }));
    let lease = here.acquire("k", &Owner::new("r-1")).await.unwrap();
    let waiting: Vec<_> = [&here, &there]
        .map(|process| {
            let process = process.clone();
            tokio::spawn(async move { process.acquire("k", &Owner::new("r-2")).await?.release().await })
        })
        .into();
    let told = |process: &Lock| process.leases().pop().map(|holding| (holding.holder, holding.waiters));
    let expected = Some((Some("here/r-1".to_owned()), 1));
    until("both wait", async || told(&here) == expected && told(&there) == expected).await;
    for process in [&here, &there] {
        let ttl = process.leases()[0].ttl.unwrap();
        assert!(ttl > settings.lease / 2 && ttl <= settings.lease, "{ttl:?}");
    }
    lease.release().await.unwrap();
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    assert_eq!((here.leases(), there.leases()), (vec![], vec![]));
    let figures = here.figures();
    assert_eq!((figures.acquired, figures.busy, figures.lost), (2, 0, 0));
    assert!(!figures.held.is_zero() && !figures.waited.is_zero(), "{figures:?}");
}

#[tokio::test]
async fn a_key_without_a_name_or_a_long_one_is_refused() {
    let here = lock(Redis::shared().unwrap(), &settings());
    for key in ["", &"x".repeat(513)] {
        assert!(matches!(here.acquire(key, &Owner::new("r")).await, Err(Error::Key(_))));
    }
}
