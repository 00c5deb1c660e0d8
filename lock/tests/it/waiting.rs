//! Waiting for a lock: in order, in turns, by callers who may go away; and counting who is kept out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use test_support::Redis;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use zbl_lock::{Error, Lease, Lock, Owner, Settings};

use crate::{ask, lock, ms, settings, until};

/// Starts an acquisition and returns when it is counted among the waiting.
async fn begin_to_wait(lock: &Lock, key: &'static str) -> JoinHandle<Result<Lease, Error>> {
    let waiters = |lock: &Lock| lock.leases().iter().filter(|h| h.key == key).map(|h| h.waiters).sum::<usize>();
    let before = waiters(lock);
    let task = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire(key, &Owner::new("waits")).await }
    });
    until("it waits", async || waiters(lock) > before).await;
    task
}

#[tokio::test]
async fn waiters_of_one_process_get_it_in_their_order() {
    let here = lock(Redis::shared().unwrap(), &settings());
    let first = here.acquire("k", &Owner::new("first")).await.unwrap();
    let (tell, mut told) = mpsc::channel(10);
    for place in 0..5 {
        let (task, tell) = (begin_to_wait(&here, "k").await, tell.clone());
        tokio::spawn(async move {
            let lease = task.await.unwrap().unwrap();
            tell.send((place, lease.token())).await.unwrap();
            lease.release().await.unwrap();
        });
    }
    let mut last = first.token();
    first.release().await.unwrap();
    for place in 0..5 {
        let (came, token) = told.recv().await.unwrap();
        assert_eq!(came, place);
        assert!(token > last);
        last = token;
    }
}

#[tokio::test]
async fn waiting_ends_when_its_time_is_over_and_names_the_holder() {
    let (redis, settings) = (Redis::shared().unwrap(), Settings { wait: ms(150), ..settings() });
    let (here, there) = (lock(redis, &settings), lock(redis, &settings));
    let lease = here.acquire("k", &Owner::new("r-1")).await.unwrap();
    for process in [&here, &there] {
        let begun = Instant::now();
        let refused = process.acquire("k", &Owner::new("r-2")).await.unwrap_err();
        let Error::Busy { holder, waited, .. } = refused else { panic!("{refused}") };
        assert_eq!(holder, "here/r-1");
        assert!(waited >= settings.wait && begun.elapsed() < settings.wait + settings.command, "{waited:?}");
    }
    lease.release().await.unwrap();
    assert_eq!((here.figures().busy, there.figures().busy), (1, 1));
}

/// Lets `processes` of six tasks each hold it in turn for `time`, and returns how often each did.
pub(crate) async fn contend(processes: &[Lock], time: Duration) -> Vec<usize> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let counts: Vec<_> = processes.iter().map(|_| Arc::new(AtomicUsize::new(0))).collect();
    for (process, count) in processes.iter().zip(&counts) {
        for _ in 0..6 {
            let (process, count, stop) = (process.clone(), Arc::clone(count), Arc::clone(&stop));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let lease = process.acquire("k", &Owner::new("r")).await.unwrap();
                    sleep(ms(1)).await;
                    lease.release().await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_it_though_each_has_a_queue_of_its_own() {
    let (redis, settings) = (Redis::shared().unwrap(), settings());
    let processes: Vec<_> = (0..3).map(|_| lock(redis, &settings)).collect();
    let counts = contend(&processes, ms(1500)).await;
    let all: usize = counts.iter().sum();
    println!("turns of each process: {counts:?}");
    assert!(counts.iter().all(|count| *count >= all / 6), "a third each would be fair: {counts:?}");
}

#[tokio::test]
async fn a_process_that_has_waited_for_a_turn_is_let_in_first_until_it_falls_silent() {
    let (redis, settings) = (Redis::shared().unwrap(), Settings { wait: ms(0), ..settings() });
    let (here, owner) = (lock(redis, &settings), Owner::new("r"));
    // Another process that asked just now, for the first time so many ms ago.
    let mark = |waits: u64| {
        let time = ask(redis, &["TIME"]);
        let parts: Vec<u64> = time.lines().map(|part| part.parse().unwrap()).collect();
        let now = parts[0] * 1000 + parts[1] / 1000;
        let value = format!("{}:{now}", now - waits);
        ask(redis, &["HSET", &format!("{}wanted:k", settings.prefix), "another", &value]);
    };
    mark(1);
    here.acquire("k", &owner).await.expect("its turn has not come").release().await.unwrap();
    // It counts as silent a tenth of a second later, which a busy machine may take until we ask.
    until("it is let in first", async || {
        mark(50);
        match here.acquire("k", &owner).await {
            Ok(lease) => lease.release().await.map(|()| false).unwrap(),
            Err(refused) => matches!(refused, Error::Busy { .. }),
        }
    })
    .await;
    until("it is forgotten", async || here.acquire("k", &owner).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_go_away_leave_nothing_taken() {
    let (redis, settings) = (Redis::shared().unwrap(), settings());
    let (here, there) = (lock(redis, &settings), lock(redis, &settings));
    let mut got = 0;
    for round in 0..300 {
        let process = if round % 2 == 0 { &here } else { &there };
        let patience = Duration::from_micros(round * 7 % 1500);
        // Goes away in every state: queued here, asking Redis, waiting for another process, just having been given it.
        let names = [Owner::new("goes"), Owner::new("goes too")];
        let one = timeout(patience, process.acquire("k", &names[0]));
        let other = timeout(patience / 2, there.acquire("k", &names[1]));
        let (one, other) = tokio::join!(one, other);
        for lease in [one, other].into_iter().flatten() {
            got += 1;
            lease.unwrap().release().await.unwrap();
        }
    }
    println!("{got} of 600 got it in time");
    let key = format!("{}lock:k", settings.prefix);
    let begun = Instant::now();
    until("it is free", async || ask(redis, &["EXISTS", &key]) == "0").await;
    assert!(begun.elapsed() < settings.lease / 5, "it ran out instead of being given back");
    until("nobody is left", async || here.leases().is_empty() && there.leases().is_empty()).await;
}

#[tokio::test]
async fn those_who_are_kept_out_are_counted_exactly() {
    let (redis, settings) = (Redis::shared().unwrap(), settings());
    let (here, there) = (lock(redis, &settings), lock(redis, &settings));
    assert_eq!(here.blocked().await, Ok(0));
    let first = here.acquire("k", &Owner::new("first")).await.unwrap();
    let other = there.acquire("l", &Owner::new("first")).await.unwrap();
    assert_eq!(here.blocked().await, Ok(0), "holding is not waiting");
    let mut waiting = Vec::new();
    for (process, key, expected) in [(&here, "k", 1), (&here, "k", 2), (&here, "l", 3)] {
        waiting.push(begin_to_wait(process, key).await);
        assert_eq!(here.blocked().await, Ok(expected));
    }
    let elsewhere = begin_to_wait(&there, "k").await;
    assert_eq!((here.blocked().await, there.blocked().await), (Ok(3), Ok(1)));
    waiting.remove(1).abort();
    until("it is gone", async || here.blocked().await == Ok(2)).await;
    other.release().await.unwrap();
    assert_eq!(here.blocked().await, Ok(1), "whose lock is free is not kept out, whether it knows yet or not");
    waiting.remove(1).await.unwrap().unwrap().release().await.unwrap();
    first.release().await.unwrap();
    let release = async |task: JoinHandle<Result<Lease, Error>>| task.await.unwrap().unwrap().release().await.unwrap();
    tokio::join!(release(waiting.remove(0)), release(elsewhere));
    assert_eq!((here.blocked().await, there.blocked().await), (Ok(0), Ok(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_lock_has_just_become_free_never_counts() {
    let (redis, settings) = (Redis::shared().unwrap(), settings());
    let here = lock(redis, &settings);
    for _ in 0..100 {
        let holder = here.acquire("k", &Owner::new("holder")).await.unwrap();
        let waits = begin_to_wait(&here, "k").await;
        assert_eq!(here.blocked().await, Ok(1));
        holder.release().await.unwrap();
        assert_eq!(here.blocked().await, Ok(0));
        waits.await.unwrap().unwrap().release().await.unwrap();
    }
}

#[tokio::test]
async fn one_who_waits_for_another_process_comes_soon_after_it_is_free() {
    let (redis, settings) = (Redis::shared().unwrap(), settings());
    let (here, there) = (lock(redis, &settings), lock(redis, &settings));
    let lease = here.acquire("k", &Owner::new("first")).await.unwrap();
    let waits = begin_to_wait(&there, "k").await;
    // Long enough for its pauses to have grown.
    until("it has asked for long", async || there.blocked().await == Ok(1) && lease.valid_for() < ms(9_700)).await;
    lease.release().await.unwrap();
    let begun = Instant::now();
    waits.await.unwrap().unwrap().release().await.unwrap();
    assert!(begun.elapsed() < ms(200), "{:?}", begun.elapsed());
}
