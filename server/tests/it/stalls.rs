//! Databases that neither answer nor refuse: one that hangs, one that another process has locked.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use test_support::MariaDb;
use zbl_server::error::Error;

use crate::app::{Bench, Database, deduction, money, until};

/// Far beyond every limit set below, far below for ever.
const IN_TIME: Duration = Duration::from_secs(15);

pub fn signal(server: &MariaDb, signal: &str) {
    let done = Command::new("kill").args([signal, &server.pid().to_string()]).status().unwrap();
    assert!(done.success());
}

/// A server that is stopped keeps its connections and says nothing on them. Calls end with a reason all the same, and
/// nothing is lost or doubled by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_given_up_on() {
    let server = MariaDb::start().unwrap();
    server.create_database("zbl").unwrap();
    let words = ["--lock-wait", "1s", "--pool-wait", "1s", "--settle-timeout", "1s", "--operation-timeout", "1s"];
    let bench = Bench::open(&server.url("zbl"), &words).await;
    let user_id = bench.account("1000.00").await;
    let before = deduction(user_id);
    bench.ledger.apply(before, None).await.unwrap();

    signal(&server, "-STOP");
    let began = Instant::now();
    let stuck = deduction(user_id);
    let answer = bench.ledger.apply(stuck, None).await;
    let took = began.elapsed();
    signal(&server, "-CONT");
    assert!(matches!(answer, Err(Error::BackendDown { .. })), "{answer:?}");
    assert!(took < IN_TIME, "{took:?}");

    until("the database answers again", async || bench.ledger.state(user_id).await.is_ok()).await;
    assert_eq!(bench.balance(user_id).await, money("990.00"));
    let again = bench.ledger.apply(stuck, None).await.unwrap();
    assert_eq!((again.version, again.is_replay()), (3, false), "the first call had no effect, as it said");
}

/// Another process that writes to the same SQLite file is contention, not a bug.
#[tokio::test(flavor = "multi_thread")]
async fn another_process_that_holds_the_file_is_contention() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &["--lock-wait", "1s", "--operation-timeout", "1s"]).await;
    let user_id = bench.account("1000.00").await;
    let mut other = SqliteConnection::establish(database.url.trim_start_matches("sqlite://")).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let ledger = Arc::clone(&bench.ledger);
    let refused = ledger.apply(deduction(user_id), None).await;
    assert!(matches!(refused, Err(Error::Contended { .. })), "{refused:?}");
    other.batch_execute("ROLLBACK").unwrap();
    bench.ledger.apply(deduction(user_id), None).await.unwrap();
    assert_eq!(bench.balance(user_id).await, money("990.00"));
}
