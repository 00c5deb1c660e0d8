//! The lock against real Redis servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod held;
mod model;
mod outage;
mod redlock;
mod waiting;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use test_support::Redis;
use zbl_lock::{Lock, Settings};

/// Beyond this something hangs: a hundred times what the slowest step takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Settings with keys that nobody else in these tests has.
fn settings() -> Settings {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let prefix = format!("test:{}:", NEXT.fetch_add(1, Ordering::Relaxed));
    Settings { prefix, ..Settings::new("test", "here") }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One process's lock.
fn lock(redis: &Redis, settings: &Settings) -> Lock {
    Lock::single(&redis.url(), settings.clone()).expect("these settings are in order")
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(ms(2)).await;
    }
}

/// Runs a command and returns its answer.
fn ask(redis: &Redis, words: &[&str]) -> String {
    redis.command(words).expect("Redis answers")
}
