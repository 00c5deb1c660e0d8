//! Redlock: five servers that know nothing of each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use test_support::Redis;
use tokio::{task::JoinSet, time::timeout};
use zbl_lock::{Error, Lock, Lost, Owner, Settings};

use crate::{ask, ms, settings, until, waiting::contend};

struct Nodes(Vec<Redis>);

impl Nodes {
    fn start() -> Self {
        Self((0..5).map(|_| Redis::start().unwrap()).collect())
    }

    fn lock(&self, settings: &Settings) -> Lock {
        Lock::redlock(&self.0.iter().map(Redis::url).collect::<Vec<_>>(), settings.clone()).unwrap()
    }

    /// How many of some nodes have the lock of `k`.
    fn locked(nodes: &[Redis]) -> usize {
        nodes.iter().filter(|node| !ask(node, &["KEYS", "*lock:k"]).is_empty()).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_excludes_and_moves_on_with_a_minority_stopped_or_dead() {
    let mut nodes = Nodes::start();
    let settings = Settings { lease: ms(3_000), command: ms(1_000), ..settings() };
    let processes = [nodes.lock(&settings), nodes.lock(&settings)];
    nodes.0[0].kill().unwrap();
    nodes.0[1].pause().unwrap();
    let (inside, begun, mut tasks) = (Arc::new(AtomicUsize::new(0)), Instant::now(), JoinSet::new());
    for process in processes.iter().flat_map(|process| [process, process]) {
        let (process, inside) = (process.clone(), Arc::clone(&inside));
        tasks.spawn(async move {
            for _ in 0..10 {
                let lease = process.acquire("k", &Owner::new("r")).await.unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                assert_eq!(lease.token(), None);
                tokio::task::yield_now().await;
                lease.check().unwrap();
                inside.fetch_sub(1, Ordering::SeqCst);
                lease.release().await.unwrap();
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    // Forty times the bound of the silent node would be 40 s.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}: it waits for those who are silent", begun.elapsed());
    let lease = processes[0].acquire("k", &Owner::new("r")).await.unwrap();
    until("it is renewed", async || {
        lease.check().unwrap();
        begun.elapsed() > settings.lease * 2 && lease.valid_for() > settings.lease / 2
    })
    .await;
    lease.release().await.unwrap();
    nodes.0[1].resume().unwrap();
    until("the one that stood still is free", async || Nodes::locked(&nodes.0[1..]) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_it() {
    let nodes = Nodes::start();
    let settings = settings();
    let counts = contend(&[nodes.lock(&settings), nodes.lock(&settings)], ms(2_000)).await;
    println!("turns of each process on five nodes: {counts:?}");
    let all: usize = counts.iter().sum();
    assert!(counts.iter().all(|count| *count >= all / 5), "half each would be fair: {counts:?}");
}

#[tokio::test]
async fn without_a_majority_nothing_is_given_and_what_was_given_is_lost() {
    let mut nodes = Nodes::start();
    let settings = Settings { lease: ms(900), command: ms(200), ..settings() };
    let here = nodes.lock(&settings);
    let lease = here.acquire("k", &Owner::new("first")).await.unwrap();
    for node in &mut nodes.0[..3] {
        node.kill().unwrap();
    }
    let lost = timeout(settings.lease + ms(300), lease.lost()).await;
    assert_eq!((lost, lease.check()), (Ok(Lost::RanOut), Err(Lost::RanOut)));
    let begun = Instant::now();
    let refused = here.acquire("other", &Owner::new("second")).await;
    assert!(matches!(&refused, Err(Error::Down(why)) if why.contains("and 2 more")), "{refused:?}");
    assert!(begun.elapsed() < settings.command * 2);
    assert!(matches!(here.blocked().await, Ok(0)), "nobody waits");
    for node in &mut nodes.0[..3] {
        node.restart().unwrap();
    }
    here.acquire("k", &Owner::new("second")).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_majority_that_forgot_loses_the_lease_at_the_next_renewal() {
    let mut nodes = Nodes::start();
    let settings = Settings { lease: ms(3_000), ..settings() };
    let lease = nodes.lock(&settings).acquire("k", &Owner::new("first")).await.unwrap();
    for node in &mut nodes.0[..2] {
        node.restart().unwrap();
    }
    lease.extend().await.expect("three know it still");
    nodes.0[2].restart().unwrap();
    assert_eq!(lease.extend().await, Err(Error::Lost(Lost::NotOurs)));
    assert_eq!(lease.lost().await, Lost::NotOurs);
}

#[tokio::test]
async fn it_is_released_also_where_no_answer_came() {
    let nodes = Nodes::start();
    let here = nodes.lock(&Settings { command: ms(300), ..settings() });
    here.acquire("k", &Owner::new("connects")).await.unwrap().release().await.unwrap();
    until("the last are free", async || Nodes::locked(&nodes.0) == 0).await;
    nodes.0[4].pause().unwrap();
    let lease = here.acquire("k", &Owner::new("r")).await.unwrap();
    assert_eq!(Nodes::locked(&nodes.0[..4]), 4);
    lease.release().await.unwrap();
    until("four are free", async || Nodes::locked(&nodes.0[..4]) == 0).await;
    nodes.0[4].resume().unwrap();
    // It takes the lock now, as it was asked, and gives it back, as it was asked.
    until("all five are free", async || Nodes::locked(&nodes.0) == 0).await;
}

#[tokio::test]
async fn what_a_minority_gave_is_given_back() {
    let nodes = Nodes::start();
    let settings = Settings { wait: ms(100), ..settings() };
    let here = nodes.lock(&settings);
    let key = format!("{}lock:k", settings.prefix);
    for node in &nodes.0[..3] {
        ask(node, &["HSET", &key, "owner", "elsewhere/r-9/x", "token", "0", "hold:x", "1"]);
        ask(node, &["PEXPIRE", &key, "60000"]);
    }
    let refused = here.acquire("k", &Owner::new("r")).await;
    assert!(matches!(&refused, Err(Error::Busy { holder, .. }) if holder == "elsewhere/r-9"), "{refused:?}");
    until("the others are free", async || Nodes::locked(&nodes.0[3..]) == 0).await;
    assert_eq!(Nodes::locked(&nodes.0[..3]), 3);
}

#[tokio::test]
async fn one_clock_that_jumps_does_not_give_it_away() {
    if !Redis::can_move_clock() {
        panic!("libfaketime is missing; run: apt-get install -y libfaketime");
    }
    let mut nodes = Nodes::start();
    nodes.0[0] = Redis::start_with_movable_clock().unwrap();
    let settings = Settings { wait: ms(100), ..settings() };
    let (here, there) = (nodes.lock(&settings), nodes.lock(&settings));
    let lease = here.acquire("k", &Owner::new("first")).await.unwrap();
    until("all have it", async || Nodes::locked(&nodes.0) == 5).await;
    nodes.0[0].jump(Duration::from_secs(3600)).unwrap();
    until("the one that jumped let it run out", async || Nodes::locked(&nodes.0[..1]) == 0).await;
    assert!(matches!(there.acquire("k", &Owner::new("second")).await, Err(Error::Busy { .. })));
    lease.extend().await.unwrap();
    lease.release().await.unwrap();
    there.acquire("k", &Owner::new("second")).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn those_who_are_kept_out_are_counted_by_the_word_of_a_majority() {
    let mut nodes = Nodes::start();
    let settings = settings();
    let (here, there) = (nodes.lock(&settings), nodes.lock(&settings));
    let lease = here.acquire("k", &Owner::new("first")).await.unwrap();
    nodes.0[0].kill().unwrap();
    let waits = [&here, &there].map(|process| {
        let process = process.clone();
        tokio::spawn(async move { process.acquire("k", &Owner::new("second")).await?.release().await })
    });
    until("both are kept out", async || (here.blocked().await, there.blocked().await) == (Ok(1), Ok(1))).await;
    lease.release().await.unwrap();
    for task in waits {
        task.await.unwrap().unwrap();
    }
    assert_eq!((here.blocked().await, there.blocked().await), (Ok(0), Ok(0)));
}

#[test]
fn sets_of_nodes_that_make_no_majority_are_refused() {
    let url = |port: u16| format!("redis://127.0.0.1:{port}");
    for urls in [vec![], vec![url(1)], (1..=4).map(url).collect(), vec![url(1), url(2), format!("{}/3", url(2))]] {
        let refused = Lock::redlock(&urls, settings());
        assert!(matches!(refused, Err(Error::Url(_))), "{urls:?}: {refused:?}");
    }
}
