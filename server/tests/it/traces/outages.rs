//! Collectors that are not there, do not answer, or come late: callers notice nothing, and the server still stops in time.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use test_support::free_port;

use super::take;
use crate::app::{Database, Served};

/// The two seconds that last spans are given, and what a slow machine takes for all else.
const STOPPED_WITHIN: Duration = Duration::from_secs(8);

/// More than fit into the queue: five spans each.
const CALLS: usize = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_silent_changes_no_answer_and_no_shutdown() {
    // It is connected to, and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for port in [free_port().unwrap(), silent.local_addr().unwrap().port()] {
        let database = Database::sqlite();
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut served = Served::start(&database.url, &["--otlp-endpoint", &endpoint]).await;
        let user_id = served.bench.account("1000000.00").await;
        let calls = (0..CALLS).map(|_| {
            let mut account = served.account();
            async move { account.deduct(take(user_id, "batched")).await }
        });
        for answer in futures::future::join_all(calls).await {
            answer.unwrap();
        }
        let asked = Instant::now();
        served.ask_to_stop();
        served.stopped().await;
        assert!(asked.elapsed() < STOPPED_WITHIN, "it took {:?} to stop", asked.elapsed());
    }
}
