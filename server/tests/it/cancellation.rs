//! Calls that are cancelled in mid-query must not leave their answers to the next caller (see `store/mysql/pool.rs`).

use std::time::Duration;

use futures::{StreamExt, stream};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use uuid::Uuid;
use zbl_server::{
    account::{Money, State},
    chain::Chaining,
    config::DatabaseUrl,
    store::{
        self, Store,
        mysql::{Limits, MysqlStore},
    },
};

use crate::app::{Bench, Database, config};

/// Accounts, each with a balance that no other has.
const ACCOUNTS: i64 = 100;

/// Calls, a third of them given so little time that most are cut off in mid-query.
const CALLS: i64 = 6000;

#[tokio::test(flavor = "multi_thread")]
async fn no_cancelled_call_leaves_its_answer_to_another() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    for user_id in 1..=ACCOUNTS {
        bench.ledger.open(user_id, Money::from_minor(user_id * 100), Uuid::new_v4()).await.unwrap();
    }
    let mut random = SmallRng::seed_from_u64(7);
    let calls: Vec<(i64, Option<Duration>)> = (0..CALLS)
        .map(|call| {
            let patience = (call % 3 == 0).then(|| Duration::from_micros(random.random_range(0..1500)));
            (random.random_range(1..=ACCOUNTS), patience)
        })
        .collect();
    // The store itself: the breaker before it would wait for a question whose asker has gone.
    let DatabaseUrl::Mysql(url) = config(&database.url, &[]).database_url else { panic!("not on MySQL") };
    let limits = Limits { pool_size: 4, pool_wait: Duration::from_secs(10), lock_wait: Duration::from_secs(5) };
    let store = &MysqlStore::open(&url, &limits, Chaining::On).await.unwrap();
    let answers = stream::iter(calls).map(|(user_id, patience)| async move {
        let call = store.read(user_id);
        let balance = |state: store::Result<Option<State>>| (user_id, state.unwrap().unwrap().balance);
        match patience {
            None => Some(balance(call.await)),
            // The timer is polled after the call, which therefore gets as far as sending its query.
            Some(patience) => tokio::time::timeout(patience, call).await.ok().map(balance),
        }
    });
    let answers: Vec<_> = answers.buffer_unordered(32).collect().await;
    let cancelled = answers.iter().filter(|answer| answer.is_none()).count();
    let wrong = answers.iter().flatten().filter(|(user_id, balance)| balance.minor() != user_id * 100).count();
    assert!(cancelled > 100, "only {cancelled} calls were cancelled: the test tests nothing");
    assert_eq!(wrong, 0, "of {CALLS} calls, {cancelled} cancelled");
}
