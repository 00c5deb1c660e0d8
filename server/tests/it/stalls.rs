//! Databases that neither answer nor refuse: one that hangs, one that another process has locked.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use test_support::MariaDb;
use tokio::time::timeout;
use zbl_server::{
    chain::Chaining,
    config::DatabaseUrl,
    error::Error,
    store::{
        self, Isolation, RowLock, Store,
        mysql::{Limits, MysqlStore},
    },
};

use crate::app::{Bench, Database, config, deduction, money, until};

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

/// Links are shared. How long a caller was ready to wait for a row is not what the next one on its link waits, whichever
/// statement takes the lock.
#[tokio::test(flavor = "multi_thread")]
async fn each_caller_waits_for_a_row_for_as_long_as_it_wants() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("10.00").await;
    let DatabaseUrl::Mysql(url) = config(&database.url, &[]).database_url else { panic!("not on MySQL") };
    let limits = Limits { pool_size: 1, pool_wait: IN_TIME, lock_wait: IN_TIME };
    let store = Arc::new(MysqlStore::open(&url, &limits, Chaining::On).await.unwrap());
    let mut holder = bench.ledger.bench().store.transaction(Isolation::ReadCommitted, None);
    holder.read(user_id, RowLock::Exclusive).await.unwrap();

    let soon = || Some(Instant::now() + Duration::from_millis(300));
    let mut hurried = store.transaction(Isolation::ReadCommitted, soon());
    assert!(matches!(hurried.read(user_id, RowLock::Exclusive).await, Err(store::Error::Contended(_))));
    hurried.rollback().await;
    let claiming = Arc::clone(&store);
    let mut patient = tokio::spawn(async move { claiming.read_fenced(user_id, 1, None).await });
    // What the one before was given, and as much again.
    assert!(timeout(Duration::from_secs(3), &mut patient).await.is_err(), "the wait was cut short");
    holder.rollback().await;
    patient.await.unwrap().unwrap();

    let mut holder = bench.ledger.bench().store.transaction(Isolation::ReadCommitted, None);
    holder.read(user_id, RowLock::Exclusive).await.unwrap();
    let began = Instant::now();
    assert!(matches!(store.read_fenced(user_id, 2, soon()).await, Err(store::Error::Contended(_))));
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    holder.rollback().await;
}
