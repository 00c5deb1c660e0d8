//! `RebuildBalance` and `GetBalance` as of then, on each database: what is lost is told to the cent, a REPAIR sets it
//! right once, and nobody who writes meanwhile loses anything by it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use test_support::Redis;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::Code;
use uuid::Uuid;
use zbl_client::{AsOf, Client, Mending as Asked, Reason};
use zbl_proto::v1::{RunAttackRequest, run_attack_response::Step};
use zbl_server::{
    account::{Change, Direction, EntryKind, Money, NewEntry, Refusal},
    error::Error,
    ledger::{AsOf as PastOf, Mending, Rebuilt},
    reconcile::Reconciler,
    store::{AccountWrite, Isolation, RowLock, Store, Transaction},
    strategy,
};

use crate::{
    app::{Bench, Database, Served, deduction, money, until},
    reconcile::{loss, race},
};

fn client(served: &Served) -> Client {
    Client::connect_lazy(&served.grpc.to_string()).unwrap()
}

/// The newest entry's kind, version and what it left behind.
async fn newest(bench: &Bench, user_id: i64) -> (EntryKind, i64, Money) {
    let version = bench.ledger.state(user_id).await.unwrap().version;
    let entry = bench.ledger.entry_as_of(user_id, PastOf::Version(version)).await.unwrap();
    (entry.kind, entry.version, entry.balance_after)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attack_lost_is_told_to_the_cent_and_repaired_once() {
    for database in Database::each() {
        // With a Redis of its own words the cache is read from.
        let redis = Redis::shared().unwrap().url();
        let served = Served::start(&database.url, &["--compute-delay", "1ms", "--redis-url", &redis]).await;
        let attack = RunAttackRequest {
            workers: 10,
            deductions: 5,
            opening_balance: "500.00".to_owned(),
            strategy: "none".to_owned(),
            ..RunAttackRequest::default()
        };
        let steps = served.lab().run_attack(attack).await.unwrap().into_inner();
        let steps: Vec<Step> = steps.map(|step| step.unwrap().step.unwrap()).collect().await;
        let Some(Step::Result(verdict)) = steps.last() else { panic!("{steps:?}") };
        let (client, user_id) = (client(&served), verdict.user_id);
        let mut reconciler = Reconciler::new(Arc::clone(&served.bench.ledger.bench().store));
        let lost = money(&verdict.lost);
        assert!(lost > Money::ZERO, "{verdict:?}");
        assert_eq!(loss(&mut reconciler).await, u128::from(lost.minor().unsigned_abs()));

        let before = newest(&served.bench, user_id).await;
        let looked = client.rebuild_balance(user_id, Asked::Look).await.unwrap();
        assert_eq!((looked.difference, looked.explained), (lost, lost), "{verdict:?}");
        assert_eq!(looked.stored, money(&verdict.final_balance));
        let pairs = |victim: Uuid, overwriter: Uuid| (victim.to_string(), overwriter.to_string());
        let mut told: Vec<_> =
            looked.lost.iter().map(|lost| pairs(lost.request_id, lost.overwriter_request_id)).collect();
        told.reverse();
        let judged: Vec<_> = verdict
            .lost_updates
            .iter()
            .map(|lost| (lost.victim_request_id.clone(), lost.overwriter_request_id.clone()))
            .collect();
        assert_eq!(told, judged);
        assert_eq!(newest(&served.bench, user_id).await, before, "a look writes nothing");

        // Cached, so that the repair has to tell the cache.
        assert_eq!(client.balance(user_id).await.unwrap().balance, looked.stored);
        let request = Asked::Repair(Uuid::new_v4());
        let repaired = client.rebuild_balance(user_id, request).await.unwrap();
        assert_eq!((repaired.repaired, repaired.replayed, repaired.version), (true, false, before.1 + 1));
        assert_eq!((repaired.difference, &repaired.lost), (lost, &looked.lost));
        assert_eq!(newest(&served.bench, user_id).await, (EntryKind::Repair, before.1 + 1, looked.expected));
        assert_eq!(client.balance(user_id).await.unwrap().balance, looked.expected);
        assert_eq!(loss(&mut reconciler).await, 0, "the gauge closes");

        // What comes afterwards changes nothing about the first answer.
        client.deposit(&zbl_client::Change::new(user_id, money("100.00"))).await.unwrap();
        let again = client.rebuild_balance(user_id, request).await.unwrap();
        assert_eq!(again, zbl_client::Rebuilt { replayed: true, ..repaired });
        let sound = client.rebuild_balance(user_id, Asked::Repair(Uuid::new_v4())).await.unwrap();
        assert_eq!((sound.repaired, sound.difference, sound.lost.len()), (false, Money::ZERO, 0));
        assert_eq!(sound.since_version, before.1 + 1);
        let kinds = served.bench.journal(user_id).await;
        assert_eq!(kinds.iter().filter(|entry| entry.kind == EntryKind::Repair).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_that_was_something_else_repairs_nothing() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("100.00").await;
    race(&bench, [deduction(user_id), deduction(user_id)]).await;
    let taken = bench.ledger.apply(deduction(user_id), None).await.unwrap();
    let refused = bench.ledger.rebuild(user_id, Mending::Repair(taken.request_id)).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::RequestIdReused { .. })), "{refused}");
    let absent = bench.ledger.rebuild(user_id + 1, Mending::Look).await.unwrap_err();
    assert!(matches!(absent, Error::Refused(Refusal::AccountNotFound { .. })), "{absent}");
}

/// More was taken than there was: what remains is less than nothing, which cannot be stored.
#[tokio::test(flavor = "multi_thread")]
async fn below_zero_there_is_nothing_to_repair_to_until_somebody_pays() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user_id = served.bench.account("15.00").await;
        race(&served.bench, [deduction(user_id), deduction(user_id)]).await;
        let client = client(&served);
        assert_eq!(client.rebuild_balance(user_id, Asked::Look).await.unwrap().expected, money("-5.00"));
        let request = Asked::Repair(Uuid::new_v4());
        let refused = client.rebuild_balance(user_id, request).await.unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::RepairBelowZero), "{refused}");
        assert!(refused.to_string().contains("deposit at least 5.00"), "{refused}");
        client.deposit(&zbl_client::Change::new(user_id, money("5.00"))).await.unwrap();
        let repaired = client.rebuild_balance(user_id, request).await.unwrap();
        assert_eq!((repaired.repaired, repaired.expected), (true, Money::ZERO));
        assert_eq!(client.balance(user_id).await.unwrap().balance, Money::ZERO);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_and_a_changed_row_are_told_and_nothing_is_repaired() {
    for (damage, found) in [
        ("DELETE FROM entries WHERE version = 3 AND", "version 3 is missing"),
        ("DELETE FROM entries WHERE version = 5 AND", "version 5 is missing"),
        (
            "UPDATE entries SET balance_after = balance_after + 1 WHERE version = 3 AND",
            "version 4 leaves 970.00 behind",
        ),
    ] {
        let database = Database::mysql();
        let served = Served::start(&database.url, &[]).await;
        let user_id = served.bench.account("1000.00").await;
        for _ in 2..=5 {
            served.bench.ledger.apply(deduction(user_id), None).await.unwrap();
        }
        test_support::query(&database.url, &format!("{damage} user_id = {user_id}")).unwrap();
        for asked in [Asked::Look, Asked::Repair(Uuid::new_v4())] {
            let refused = client(&served).rebuild_balance(user_id, asked).await.unwrap_err();
            assert_eq!(refused.reason(), Some(Reason::JournalBroken), "{refused}");
            assert!(refused.to_string().contains(found), "{refused}");
        }
    }
}

/// A balance that somebody changed: no lost update explains it, and it is repaired all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_changed_by_hand_is_told_from_lost_updates() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("1000.00").await;
    race(&bench, [deduction(user_id), deduction(user_id)]).await;
    let change = format!("UPDATE accounts SET balance = balance + 1 WHERE user_id = {user_id}");
    test_support::query(&database.url, &change).unwrap();
    let rebuilt = bench.ledger.rebuild(user_id, Mending::Repair(Uuid::new_v4())).await.unwrap();
    assert_eq!((rebuilt.difference, rebuilt.expected.lost), (money("11.00"), money("10.00")));
    assert_eq!(bench.balance(user_id).await, money("980.00"));
}

/// An account whose row the test has locked, and a repair that has come to that lock: all that it read before is read.
struct Waiting {
    bench: Bench,
    user_id: i64,
    version: i64,
    balance: Money,
    transaction: Box<dyn Transaction>,
    repair: JoinHandle<Result<Rebuilt, Error>>,
}

impl Waiting {
    async fn begin(url: &str) -> Self {
        let bench = Bench::open(url, &["--lock-wait", "20s"]).await;
        let user_id = bench.account("1000.00").await;
        race(&bench, [deduction(user_id), deduction(user_id)]).await;
        let mut transaction = bench.ledger.bench().store.transaction(Isolation::ReadCommitted, None);
        let state = transaction.read(user_id, RowLock::Exclusive).await.unwrap().unwrap();
        let ledger = Arc::clone(&bench.ledger);
        let repair = tokio::spawn(async move { ledger.rebuild(user_id, Mending::Repair(Uuid::new_v4())).await });
        until("the repair waits for the row", async || bench.ledger.blocked().await.unwrap() > 0).await;
        Self { bench, user_id, version: state.version, balance: state.balance, transaction, repair }
    }

    /// Journals a deposit of 1.00 whose operation had read `version_before`, which left `seen` behind.
    async fn write(&mut self, version_before: i64, seen: Money) {
        let one = money("1.00");
        self.version += 1;
        self.balance = seen.checked_add(one).unwrap();
        self.transaction.write(self.user_id, self.balance).await.unwrap();
        let entry = NewEntry {
            user_id: self.user_id,
            version: self.version,
            request_id: Uuid::new_v4(),
            kind: EntryKind::Deposit,
            delta: one,
            balance_after: self.balance,
            version_before,
            strategy: "none",
        };
        self.transaction.append(&entry).await.unwrap();
    }

    /// What the repair answers when the row is free, and how many transactions were given up for that.
    async fn end(self) -> (Bench, Rebuilt, u64) {
        let before = self.bench.ledger.bench().store.work().rollbacks;
        self.transaction.commit().await.unwrap();
        let rebuilt = self.repair.await.unwrap().unwrap();
        let given_up = self.bench.ledger.bench().store.work().rollbacks - before;
        assert_eq!(newest(&self.bench, self.user_id).await.1, rebuilt.repaired.unwrap());
        assert_eq!(self.bench.balance(self.user_id).await, rebuilt.expected.balance);
        (self.bench, rebuilt, given_up)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_a_repair_waits_for_the_row_is_folded_under_its_lock() {
    for database in Database::each() {
        let mut waiting = Waiting::begin(&database.url).await;
        let (version, balance) = (waiting.version, waiting.balance);
        waiting.write(version, balance).await;
        let (_, rebuilt, given_up) = waiting.end().await;
        // 1000 - 10 - 10 + 1; stored was 990 + 1.
        assert_eq!((rebuilt.expected.balance, rebuilt.difference), (money("981.00"), money("10.00")));
        assert_eq!((rebuilt.repaired, rebuilt.lost.len()), (Some(5), 1));
        assert_eq!(given_up, 0, "the row was locked first, so the journal's key had nobody to turn away");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_write_while_a_repair_waits_makes_it_walk_anew() {
    for database in Database::each() {
        let mut waiting = Waiting::begin(&database.url).await;
        // It had read the opening, and brings both deductions to nothing.
        waiting.write(1, money("1000.00")).await;
        let (_, rebuilt, given_up) = waiting.end().await;
        assert_eq!((rebuilt.expected.balance, rebuilt.difference), (money("981.00"), money("20.00")));
        let overwriters: Vec<_> =
            rebuilt.lost.iter().map(|lost| (lost.entry.version, lost.overwriter.version)).collect();
        assert_eq!((overwriters, given_up), (vec![(3, 4), (2, 4)], 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_is_read_under_the_lock_is_walked_without_it() {
    for database in Database::each() {
        let mut waiting = Waiting::begin(&database.url).await;
        for _ in 0..1001 {
            let (version, balance) = (waiting.version, waiting.balance);
            waiting.write(version, balance).await;
        }
        let (_, rebuilt, given_up) = waiting.end().await;
        assert_eq!((rebuilt.expected.balance, rebuilt.difference), (money("1981.00"), money("10.00")));
        assert_eq!((rebuilt.repaired, rebuilt.lost.len(), given_up), (Some(1005), 1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_beside_repairs_lose_nothing() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = bench.account("10000.00").await;
        race(&bench, [deduction(user_id), deduction(user_id)]).await;
        let writers: Vec<_> = ["atomic", "batched", "optimistic", "pessimistic", "event_sourced"]
            .map(|name| {
                let (ledger, row) = (Arc::clone(&bench.ledger), strategy::find(name).ok());
                tokio::spawn(async move {
                    for _ in 0..30 {
                        // Under one id until it is applied: each counts once.
                        let change = deduction(user_id);
                        while let Err(error) = ledger.apply(change, row).await {
                            assert!(matches!(error, Error::Contended { .. }), "{name}: {error}");
                        }
                    }
                })
            })
            .into();
        let mut repaired = 0;
        while !writers.iter().all(JoinHandle::is_finished) {
            match bench.ledger.rebuild(user_id, Mending::Repair(Uuid::new_v4())).await {
                Ok(rebuilt) => repaired += u32::from(rebuilt.repaired.is_some()),
                Err(error) => assert!(matches!(error, Error::Contended { .. }), "{error}"),
            }
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(repaired, 1, "there was one loss to repair");
        // 2 before, 150 beside it.
        assert_eq!(bench.balance(user_id).await, money("8480.00"));
        let rebuilt = bench.ledger.rebuild(user_id, Mending::Look).await.unwrap();
        assert_eq!((rebuilt.difference, rebuilt.lost.len()), (Money::ZERO, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_told_by_version_and_by_time() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user_id = served.bench.account("1000.00").await;
        race(&served.bench, [deduction(user_id), deduction(user_id)]).await;
        let client = client(&served);
        let journal = served.bench.journal(user_id).await;
        for entry in &journal {
            let told = client.balance_as_of(user_id, AsOf::Version(entry.version)).await.unwrap();
            assert_eq!((told.balance, told.version), (entry.balance_after, entry.version), "lost or not");
            let written_at = SystemTime::from(entry.created_at.and_utc());
            assert_eq!(told.written_at, written_at);
            let newest = journal.iter().rfind(|other| other.created_at == entry.created_at).unwrap();
            let by_time = client.balance_as_of(user_id, AsOf::Time(written_at)).await.unwrap();
            assert_eq!(by_time.version, newest.version);
        }
        let opened = SystemTime::from(journal[0].created_at.and_utc());
        let hour = Duration::from_secs(3600);
        assert_eq!(client.balance_as_of(user_id, AsOf::Time(opened + hour)).await.unwrap().version, 3, "not come yet");

        let early = client.balance_as_of(user_id, AsOf::Time(opened - hour)).await.unwrap_err();
        assert_eq!(early.reason(), Some(Reason::AccountNotFound));
        let day = journal[0].created_at.format("%Y-%m-%d").to_string();
        assert!(early.to_string().contains(&format!("was opened at {day}")), "{early}");
        let far = client.balance_as_of(user_id, AsOf::Version(4)).await.unwrap_err();
        assert_eq!((far.reason(), far.code()), (Some(Reason::InvalidAsOf), Code::OutOfRange));
        assert!(far.to_string().contains("its newest is 3"), "{far}");
        for wrong in [AsOf::Version(0), AsOf::Version(-1), AsOf::Time(SystemTime::UNIX_EPOCH - hour * 24 * 366 * 1970)]
        {
            let refused = client.balance_as_of(user_id, wrong).await.unwrap_err();
            assert_eq!((refused.reason(), refused.code()), (Some(Reason::InvalidAsOf), Code::InvalidArgument));
        }
        let absent = client.balance_as_of(user_id + 1, AsOf::Version(1)).await.unwrap_err();
        assert_eq!(absent.reason(), Some(Reason::AccountNotFound));
    }
}

/// A million entries, two of them lost: how fast that is, and that memory stays flat.
/// `cargo test -p zbl-server --test it -- --ignored --nocapture a_million_entries`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes of writing; run by hand"]
async fn a_million_entries_are_rebuilt_in_flat_memory() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = bench.account("1000.00").await;
        race(&bench, [deduction(user_id), deduction(user_id)]).await;
        let store = &bench.ledger.bench().store;
        for thousand in 0..1000 {
            a_thousand_more(&**store, user_id).await;
            if thousand == 9 {
                let small = measured(&bench, user_id).await;
                println!("{}: 10 000 entries: {small:?}", store.name());
            }
        }
        let (took, grown_kb) = measured(&bench, user_id).await;
        println!("{}: 1 000 000 entries: {took:?}, peak grows by {grown_kb} kB", store.name());
        assert!(grown_kb < 20_000, "{grown_kb} kB");
    }
}

/// How long a look takes, and how much the peak of the process's memory (kB) lies above what it had before.
async fn measured(bench: &Bench, user_id: i64) -> (Duration, u64) {
    let status = |field: &str| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    // Forgets the peak so far.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, began) = (status("VmRSS"), std::time::Instant::now());
    let rebuilt = bench.ledger.rebuild(user_id, Mending::Look).await.unwrap();
    assert_eq!((rebuilt.difference, rebuilt.lost.len()), (money("10.00"), 1));
    (began.elapsed(), status("VmHWM").saturating_sub(before))
}

async fn a_thousand_more(store: &dyn Store, user_id: i64) {
    let mut transaction = store.transaction(Isolation::ReadCommitted, None);
    let state = transaction.read(user_id, RowLock::Exclusive).await.unwrap().unwrap();
    let entries: Vec<NewEntry> = (1..=1000)
        .map(|more| NewEntry {
            user_id,
            version: state.version + more,
            request_id: Uuid::new_v4(),
            kind: EntryKind::Deposit,
            delta: Money::from_minor(1),
            balance_after: Money::from_minor(state.balance.minor() + more),
            version_before: state.version + more - 1,
            strategy: "atomic",
        })
        .collect();
    let balance = Money::from_minor(state.balance.minor() + 1000);
    transaction.write_many(&entries, &[AccountWrite { user_id, balance, entries: 1000 }]).await.unwrap();
    transaction.commit().await.unwrap();
}

/// A lost deduction and a lost deposit of the same amount: the balance is right, and two promises were broken.
#[tokio::test(flavor = "multi_thread")]
async fn losses_that_make_up_for_each_other_are_found_and_settled() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = bench.account("1000.00").await;
        let deposit = || Change { direction: Direction::Deposit, ..deduction(user_id) };
        race(&bench, [deduction(user_id), deduction(user_id)]).await;
        race(&bench, [deposit(), deposit()]).await;
        let looked = bench.ledger.rebuild(user_id, Mending::Look).await.unwrap();
        assert_eq!((looked.difference, looked.lost.len()), (Money::ZERO, 2));
        let repaired = bench.ledger.rebuild(user_id, Mending::Repair(Uuid::new_v4())).await.unwrap();
        assert_eq!(repaired.repaired, Some(6));
        assert_eq!(bench.balance(user_id).await, money("1000.00"));
        let settled = bench.ledger.rebuild(user_id, Mending::Repair(Uuid::new_v4())).await.unwrap();
        assert_eq!((settled.repaired, settled.lost.len()), (None, 0));
    }
}
