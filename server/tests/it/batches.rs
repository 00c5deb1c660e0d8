//! Batches: that each change in one gets its own answer, whatever the others are.

use std::sync::Arc;

use test_support::{Cut, CutProxy};
use tokio::task::JoinHandle;
use uuid::Uuid;
use zbl_server::{
    account::{Change, Direction, Receipt, Refusal},
    error::Error,
    strategy::{self, Row},
    timeline::Phase,
};

use crate::app::{Bench, Database, deduction, money, until};

fn batched() -> &'static Row {
    strategy::find("batched").unwrap()
}

type Call = JoinHandle<Result<Receipt, Error>>;

fn call(bench: &Bench, change: Change, row: &'static Row) -> Call {
    let ledger = Arc::clone(&bench.ledger);
    tokio::spawn(async move { ledger.apply(change, Some(row)).await })
}

/// Accounts whose ids are multiples of this share a committer, however many of those there are up to it.
const SAME_COMMITTER: i64 = 64;

async fn account(bench: &Bench, number: i64, opening: &str) -> i64 {
    bench.ledger.open(number * SAME_COMMITTER, money(opening), Uuid::new_v4()).await.unwrap().user_id
}

/// Keeps the committer busy until all the changes are queued behind it, so that they come in one batch.
async fn in_one_batch(bench: &Bench, changes: &[Change]) -> Vec<Call> {
    let busy = deduction(account(bench, 1_000_000, "10.00").await);
    let gate = bench.gates.hold(busy.request_id, Phase::Write);
    let first = call(bench, busy, batched());
    gate.arrived().await;
    let calls: Vec<Call> = changes.iter().map(|change| call(bench, *change, batched())).collect();
    until("all are queued", async || bench.ledger.waiting() == changes.len()).await;
    gate.release();
    first.await.unwrap().unwrap();
    calls
}

/// When the commit that a request was part of began.
fn commit_of(bench: &Bench, change: &Change) -> std::time::Duration {
    let spans = bench.spans(change.request_id);
    spans.iter().find(|span| span.phase == Phase::Commit).unwrap_or_else(|| panic!("{spans:?}")).start
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_mixed_batch_gets_its_own_answer() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let rich = account(&bench, 1, "1000.00").await;
        let poor = account(&bench, 2, "10.00").await;
        let full = account(&bench, 3, "92233720368547758.07").await;
        let replayed = deduction(rich);
        let first = bench.ledger.apply(replayed, None).await.unwrap();

        let plain = deduction(rich);
        let twice = deduction(rich);
        // Two for which there is money for one; which of them is first in the queue is the scheduler's choice.
        let (last, too_much) = (deduction(poor), deduction(poor));
        let nowhere = deduction(404 * SAME_COMMITTER);
        let overflow = Change { direction: Direction::Deposit, ..deduction(full) };
        let reused = Change { amount: money("1.00"), ..replayed };
        let changes = [plain, replayed, twice, twice, last, too_much, nowhere, overflow, reused];
        let calls = in_one_batch(&bench, &changes).await;
        let answers: Vec<_> = futures::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();

        assert_eq!(answers[0].as_ref().unwrap().attempts, 1);
        let again = answers[1].as_ref().unwrap();
        assert!(again.is_replay());
        assert_eq!(again.version, first.version, "the replay is the first receipt");
        let (one, other) = (answers[2].as_ref().unwrap(), answers[3].as_ref().unwrap());
        assert_eq!(one.version, other.version);
        assert_eq!([one, other].iter().filter(|receipt| receipt.is_replay()).count(), 1);
        let (sold, refused) = if answers[4].is_ok() { (4, 5) } else { (5, 4) };
        assert_eq!(answers[sold].as_ref().unwrap().balance, money("0.00"));
        let refused = &answers[refused];
        assert!(matches!(refused, Err(Error::Refused(Refusal::InsufficientBalance { .. }))), "{refused:?}");
        assert!(matches!(answers[6], Err(Error::Refused(Refusal::AccountNotFound { .. }))), "{:?}", answers[6]);
        assert!(matches!(answers[7], Err(Error::Refused(Refusal::BalanceOverflow { .. }))), "{:?}", answers[7]);
        assert!(matches!(answers[8], Err(Error::Refused(Refusal::RequestIdReused { .. }))), "{:?}", answers[8]);
        assert_eq!(bench.balance(rich).await, money("970.00"));
        assert_eq!(bench.journal(rich).await.len(), 4);
        assert_eq!(commit_of(&bench, &plain), commit_of(&bench, &changes[sold]), "it was one batch");
    }
}

/// The commit of a batch loses its link: what had no part in it is answered as if it had been alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_leaves_no_change_of_its_batch_unknown() {
    let database = Database::mysql();
    let proxy = CutProxy::start(&database.url).unwrap();
    let bench = Bench::open(&proxy.url(database.url.rsplit('/').next().unwrap()), &["--settle-timeout", "2s"]).await;
    let changes = [deduction(account(&bench, 1, "1000.00").await), deduction(404 * SAME_COMMITTER)];
    // Cut as well: the opening of the account that keeps the committer busy, and its deduction.
    proxy.arm(Cut::BehindCommit, 3);
    let calls = in_one_batch(&bench, &changes).await;
    let answers: Vec<_> = futures::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(proxy.cuts(), 3);
    assert_eq!(answers[0].as_ref().unwrap().balance, money("990.00"));
    assert!(matches!(answers[1], Err(Error::Refused(Refusal::AccountNotFound { .. }))), "{:?}", answers[1]);
}

/// On MySQL alone: on SQLite a transaction holds the whole database.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_account_does_not_stall_the_others() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let (locked, free) = (account(&bench, 1, "1000.00").await, account(&bench, 2, "1000.00").await);
    let holder = deduction(locked);
    let gate = bench.gates.hold(holder.request_id, Phase::Write);
    let holding = call(&bench, holder, strategy::find("pessimistic").unwrap());
    gate.arrived().await;

    let (waits, goes) = (deduction(locked), deduction(free));
    let mut calls = in_one_batch(&bench, &[waits, goes]).await;
    let goes = calls.pop().unwrap().await.unwrap().unwrap();
    assert_eq!(goes.balance, money("990.00"));
    let waits = calls.pop().unwrap();
    assert!(!waits.is_finished(), "it was answered under another's lock");
    gate.release();
    assert_eq!(holding.await.unwrap().unwrap().version, 2);
    let waits = waits.await.unwrap().unwrap();
    assert_eq!((waits.version, waits.version_before, waits.attempts), (3, 2, 1));
}

/// Two instances and every other strategy on one hot account, each with its own committers: nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn batches_of_two_instances_and_all_safe_strategies_mix() {
    let database = Database::mysql();
    let (one, other) = (Bench::open(&database.url, &[]).await, Bench::open(&database.url, &[]).await);
    let user_id = one.account("1000.00").await;
    let safe = ["batched", "pessimistic", "batched", "atomic", "batched", "optimistic", "serializable"];
    let safe = safe.map(|name| strategy::find(name).unwrap());
    let calls = (0..84).map(|at| call([&one, &other][at % 2], deduction(user_id), safe[at % safe.len()]));
    let answers = futures::future::join_all(calls.collect::<Vec<_>>()).await;
    let applied = answers.into_iter().filter(|answer| answer.as_ref().unwrap().is_ok()).count();
    let journal = one.journal(user_id).await;
    assert_eq!(journal.len(), applied + 1);
    assert!(journal.iter().all(|entry| entry.version == entry.version_before + 1));
    let left = 100_000 - 1_000 * i64::try_from(applied).unwrap();
    assert_eq!(one.balance(user_id).await.minor(), left);
    assert!(applied > 42, "only {applied} of 84 came through: the rest says little");
}
