//! Batches: that each change in one gets its own answer, whatever the others are.

use std::{sync::Arc, time::Duration};

use test_support::{Cut, CutProxy};
use tokio::task::JoinHandle;
use uuid::Uuid;
use zbl_server::{
    account::{Change, Direction, Receipt, Refusal},
    error::Error,
    gate::{Point, Script},
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

/// A committer that is kept from its queue by a batch of one, held before its write.
struct Busy {
    gate: Script,
    first: Call,
}

impl Busy {
    async fn committer(bench: &Bench) -> Self {
        let busy = deduction(account(bench, 1_000_000, "10.00").await);
        let gate = bench.gates.hold(busy.request_id, Phase::Write);
        let first = call(bench, busy, batched());
        gate.arrived().await;
        Self { gate, first }
    }

    /// Lets it go on.
    async fn release(self) {
        self.gate.release();
        self.first.await.unwrap().unwrap();
    }
}

/// Keeps the committer busy until all the changes are queued behind it, so that they come in one batch.
async fn in_one_batch(bench: &Bench, changes: &[Change]) -> Vec<Call> {
    let busy = Busy::committer(bench).await;
    let calls: Vec<Call> = changes.iter().map(|change| call(bench, *change, batched())).collect();
    until("all are queued", async || bench.ledger.waiting() == changes.len()).await;
    busy.release().await;
    calls
}

/// When the commit that a request was part of began, nanoseconds.
fn commit_of(bench: &Bench, change: &Change) -> i64 {
    let spans = bench.spans(change.request_id);
    spans.iter().find(|span| span.phase == Phase::Commit).unwrap_or_else(|| panic!("{spans:?}")).start_ns
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

/// Whoever gives up while queued, by going away or by a deadline, is dropped and told so; the others of the batch are not
/// touched, and what a batch has taken runs to its end although nobody waits for it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_while_queued_is_dropped_and_what_has_begun_is_not() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = account(&bench, 1, "1000.00").await;
        let [stays, goes, expires, begun] = [(); 4].map(|()| deduction(user_id));

        let busy = Busy::committer(&bench).await;
        let staying = call(&bench, stays, batched());
        let going = call(&bench, goes, batched());
        until("both are queued", async || bench.ledger.waiting() == 2).await;
        going.abort();
        assert!(going.await.unwrap_err().is_cancelled());
        let deadline = tokio::time::Instant::now() + Duration::from_millis(50);
        let expired = bench.ledger.apply_by(Some(deadline), expires, Some(batched())).await;
        assert!(matches!(expired, Err(Error::Expired)), "{expired:?}");
        busy.release().await;
        assert_eq!(staying.await.unwrap().unwrap().balance, money("990.00"));

        let gate = bench.gates.hold(begun.request_id, Phase::Write);
        let beginning = call(&bench, begun, batched());
        gate.arrived().await;
        beginning.abort();
        assert!(beginning.await.unwrap_err().is_cancelled());
        gate.release();
        bench.ledger.drained().await;

        let requests: Vec<Uuid> = bench.journal(user_id).await.iter().skip(1).map(|entry| entry.request_id).collect();
        assert_eq!(requests, [stays.request_id, begun.request_id]);
        let why = |change: &Change| bench.spans(change.request_id).iter().map(|span| span.failure).collect::<Vec<_>>();
        assert_eq!((why(&goes), why(&expires)), (vec![Some("WITHDRAWN")], vec![Some("WITHDRAWN")]));
        assert_eq!(bench.ledger.batches().changes, 3, "a dropped change is in no batch");
    }
}

/// A deadline that finds the change at its commit cannot promise anything; one that comes before that can, whether the
/// change waits for a mutex or has begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_tells_what_commits_from_what_does_not_whatever_the_strategy() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("1000.00").await;
    let mutex = strategy::find("mutex").unwrap();
    let (commits, waits, begun) = (deduction(user_id), deduction(user_id), deduction(user_id));
    let gate = bench.gates.hold(commits.request_id, Phase::Commit);
    let by = |change: Change| {
        let (ledger, deadline) = (Arc::clone(&bench.ledger), tokio::time::Instant::now() + Duration::from_secs(1));
        tokio::spawn(async move { ledger.apply_by(Some(deadline), change, Some(mutex)).await })
    };
    let first = by(commits);
    gate.arrived().await;
    let second = by(waits);
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(matches!(first, Err(Error::OutcomeUnknown { .. })), "{first:?}");
    assert!(matches!(second, Err(Error::Expired)), "{second:?}");
    gate.release();
    bench.ledger.drained().await;

    let gate = bench.gates.hold(begun.request_id, Phase::Write);
    let third = by(begun);
    gate.arrived().await;
    let third = third.await.unwrap();
    assert!(matches!(third, Err(Error::Expired)), "{third:?}");
    gate.release();
    bench.ledger.drained().await;
    let requests: Vec<Uuid> = bench.journal(user_id).await.iter().skip(1).map(|entry| entry.request_id).collect();
    assert_eq!(requests, [commits.request_id]);
}

/// A batch whose first pass met a repeated id goes round once more. Nothing was sent to be committed yet, and a deadline that
/// comes then can still promise that nothing will be.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_between_two_passes_of_a_batch_is_no_unknown_outcome() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = account(&bench, 1, "1000.00").await;
    let (applied, late) = (deduction(user_id), deduction(user_id));
    bench.ledger.apply(applied, Some(batched())).await.unwrap();

    let busy = Busy::committer(&bench).await;
    let gate = bench.gates.script(late.request_id, &[Point::Before(Phase::Read)]);
    let repeat = call(&bench, applied, batched());
    let (ledger, deadline) = (Arc::clone(&bench.ledger), tokio::time::Instant::now() + Duration::from_secs(6));
    let call = tokio::spawn(async move { ledger.apply_by(Some(deadline), late, Some(batched())).await });
    until("both are queued", async || bench.ledger.waiting() == 2).await;
    busy.release().await;
    gate.arrived().await;
    gate.step();
    // The first pass is over when it stands there again.
    gate.arrived().await;
    let answer = call.await.unwrap();
    assert!(matches!(answer, Err(Error::Expired)), "{answer:?}");
    gate.release();
    assert!(repeat.await.unwrap().unwrap().is_replay());
    assert_eq!(bench.journal(user_id).await.len(), 2);
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
    let mut calls = in_one_batch(&bench, &[waits, waits, goes]).await;
    let goes = calls.pop().unwrap().await.unwrap().unwrap();
    assert_eq!(goes.balance, money("990.00"));
    assert!(calls.iter().all(|call| !call.is_finished()), "one was answered under another's lock");
    gate.release();
    assert_eq!(holding.await.unwrap().unwrap().version, 2);
    let waited = futures::future::join_all(calls).await.into_iter().map(|call| call.unwrap().unwrap());
    let (replays, firsts): (Vec<_>, Vec<_>) = waited.partition(Receipt::is_replay);
    assert_eq!((replays.len(), replays[0].version), (1, 3), "the same request twice is applied once");
    assert_eq!((firsts[0].version, firsts[0].version_before, firsts[0].attempts), (3, 2, 1));
    // The one that kept the committer busy, the free one, and the locked one twice: each in one batch.
    assert_eq!(bench.ledger.batches().changes, 4);
}

/// Many batches find the same account locked. One of them waits for it; the others have connections to work with.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_account_takes_one_connection_however_many_come() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &["--pool-size", "2"]).await;
    let (locked, free) = (account(&bench, 1, "1000.00").await, account(&bench, 2, "1000.00").await);
    let holder = deduction(locked);
    let gate = bench.gates.hold(holder.request_id, Phase::Write);
    let holding = call(&bench, holder, strategy::find("pessimistic").unwrap());
    gate.arrived().await;
    let mut waiting = Vec::new();
    for _ in 0..6 {
        waiting.push(call(&bench, deduction(locked), batched()));
        // Each of them comes in a batch of its own, with one that is not locked.
        assert!(bench.ledger.apply(deduction(free), Some(batched())).await.is_ok());
    }
    assert!(waiting.iter().all(|call| !call.is_finished()));
    gate.release();
    holding.await.unwrap().unwrap();
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    assert_eq!((bench.balance(locked).await, bench.balance(free).await), (money("930.00"), money("940.00")));
    // Six that were free; the first that was not, and then all who had come meanwhile.
    let batches = bench.ledger.batches();
    assert_eq!((batches.batches, batches.changes), (6 + 2, 12));
}

/// A row that the database refuses for a reason nobody foresaw fails alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_row_fails_alone() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let poison = "ALTER TABLE entries ADD CONSTRAINT poison CHECK (delta <> -6.66)";
    test_support::query(&database.url, poison).unwrap();
    let (one, other) = (account(&bench, 1, "1000.00").await, account(&bench, 2, "1000.00").await);
    let poisoned = Change { amount: money("6.66"), ..deduction(one) };
    let calls = in_one_batch(&bench, &[deduction(one), poisoned, deduction(one), deduction(other)]).await;
    let answers: Vec<_> = futures::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert!(matches!(answers[1], Err(Error::Bug(_))), "{:?}", answers[1]);
    assert!([0, 2, 3].iter().all(|at| answers[*at].is_ok()), "{answers:?}");
    assert_eq!((bench.balance(one).await, bench.balance(other).await), (money("980.00"), money("990.00")));
    assert_eq!(bench.ledger.apply(deduction(one), Some(batched())).await.unwrap().balance, money("970.00"));
}

/// Beyond a committer's queue there is an answer at once, and nothing of it happens.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_overload() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = account(&bench, 1, "1000000.00").await;
    let busy = Busy::committer(&bench).await;
    let calls: Vec<Call> = (0..4050).map(|_| call(&bench, deduction(user_id), batched())).collect();
    until("what does not fit is answered", async || calls.iter().filter(|call| call.is_finished()).count() == 50).await;
    busy.release().await;
    let answers = futures::future::join_all(calls).await.into_iter().map(Result::unwrap);
    let (applied, refused): (Vec<_>, Vec<_>) = answers.partition(Result::is_ok);
    assert!(refused.iter().all(|answer| matches!(answer, Err(Error::Overloaded(_)))), "{:?}", refused[0]);
    assert_eq!((applied.len(), refused.len()), (4000, 50));
    assert_eq!(bench.balance(user_id).await, money("960000.00"));
}

/// A deadline that had passed before the call arrived begins nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_in_the_past_begins_nothing() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = bench.account("1000.00").await;
        let past = tokio::time::Instant::now();
        for row in strategy::REGISTRY {
            let late = bench.ledger.apply_by(Some(past), deduction(user_id), Some(row)).await;
            assert!(matches!(late, Err(Error::Expired)), "{}: {late:?}", row.name);
        }
        bench.ledger.drained().await;
        assert_eq!(bench.journal(user_id).await.len(), 1);
    }
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
