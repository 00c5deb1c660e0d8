//! The projector against the journal that it follows: whatever order transactions commit in, whoever projects, and wherever it is cut
//! off, the read models are what the journal comes to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::NaiveDate;
use mysql_async::{Conn, Opts, prelude::Queryable as _};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;
use zbl_server::{
    account::{Change, Direction, Entry, EntryKind},
    app::read_side,
    projector::{Pace, Patience, Projector},
    report::Turnover,
    store::reports::{Projection, Projections, Ranking, Reports},
    strategy,
};

use crate::app::{Bench, Database, PATIENCE, config, deduction, money, until};

/// A test has no time for patience: holes are remembered, another projector is not waited for, and the sweep never rests.
const HASTY: Patience = Patience { hole: PATIENCE, lease: Duration::ZERO, sweep: Duration::ZERO };

/// So long that it does not happen in a test.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A service and its read side.
struct Scene {
    bench: Bench,
    reports: Arc<dyn Reports>,
    projections: Arc<dyn Projections>,
}

/// What an account spent and was paid, in minor units, with how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flow(i128, i128, i64, i64);

impl From<Turnover> for Flow {
    fn from(turnover: Turnover) -> Self {
        Self(turnover.spent.minor(), turnover.deposited.minor(), turnover.deductions, turnover.deposits)
    }
}

impl Flow {
    fn add(&mut self, entry: &Entry) {
        let minor = i128::from(entry.delta.minor());
        match entry.kind {
            EntryKind::Deduct => (self.0, self.2) = (self.0 - minor, self.2 + 1),
            EntryKind::Deposit => (self.1, self.3) = (self.1 + minor, self.3 + 1),
            _ => {}
        }
    }
}

/// The read models, as they are read or as they should be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sight {
    accounts: i64,
    entries: i64,
    all: Flow,
    days: BTreeMap<(i64, NaiveDate), Flow>,
    ranks: Vec<(i64, Flow)>,
}

impl Scene {
    async fn open(database: &Database) -> Self {
        let bench = Bench::open(&database.url, &[]).await;
        let (reports, projections) = read_side(&config(&database.url, &[])).await.unwrap();
        Self { bench, reports, projections }
    }

    fn projector(&self, patience: Patience) -> Projector {
        Projector::new(Arc::clone(&self.projections), patience)
    }

    async fn change(&self, user_id: i64, direction: Direction, amount: &str, strategy: &str) {
        let change = Change { direction, amount: money(amount), ..deduction(user_id) };
        self.bench.ledger.apply(change, Some(strategy::find(strategy).unwrap())).await.unwrap();
    }

    async fn journal(&self) -> Vec<Entry> {
        let (mut journal, mut after) = (Vec::new(), (0, 0));
        loop {
            let page = self.bench.ledger.bench().store.journal(after, 1000).await.unwrap();
            let Some(last) = page.last() else { return journal };
            after = (last.user_id, last.version);
            journal.extend(page);
        }
    }

    /// What the journal comes to, entry by entry.
    async fn due(&self) -> Sight {
        let mut sight = Sight::default();
        let mut ranks: BTreeMap<i64, Flow> = BTreeMap::new();
        for entry in self.journal().await {
            sight.entries += 1;
            sight.accounts += i64::from(entry.kind == EntryKind::Open);
            sight.all.add(&entry);
            ranks.entry(entry.user_id).or_default().add(&entry);
            if matches!(entry.kind, EntryKind::Deduct | EntryKind::Deposit) {
                sight.days.entry((entry.user_id, entry.created_at.date())).or_default().add(&entry);
            }
        }
        sight.ranks = ranks.into_iter().filter(|(_, flow)| flow.0 > 0).collect();
        sight.ranks.sort_by_key(|(user_id, flow)| (-flow.0, *user_id));
        sight
    }

    /// What is read.
    async fn seen(&self) -> Sight {
        let (standing, top) = self.reports.top(Ranking { day: None, after: None, limit: 1000 }).await.unwrap();
        let totals = standing.projection.totals;
        let user_ids: BTreeSet<i64> = self.journal().await.iter().map(|entry| entry.user_id).collect();
        let mut days = BTreeMap::new();
        for user_id in user_ids {
            let (_, found) = self
                .reports
                .days(
                    user_id,
                    NaiveDate::from_ymd_opt(1970, 1, 1).unwrap()..=NaiveDate::from_ymd_opt(9999, 1, 1).unwrap(),
                    1000,
                )
                .await
                .unwrap();
            days.extend(found.into_iter().map(|(day, turnover)| ((user_id, day), turnover.into())));
        }
        Sight {
            accounts: totals.accounts,
            entries: totals.entries,
            all: totals.turnover.into(),
            days,
            ranks: top.into_iter().map(|(user_id, turnover)| (user_id, turnover.into())).collect(),
        }
    }

    async fn entries_projected(&self) -> i64 {
        self.reports.standing().await.unwrap().projection.totals.entries
    }

    /// Ticks until as much is projected as was journaled, and compares.
    async fn check(&self, projector: &mut Projector) {
        let due = self.due().await;
        until("everything is projected", async || {
            projector.tick().await.unwrap();
            self.entries_projected().await >= due.entries
        })
        .await;
        assert_eq!(self.seen().await, due);
    }
}

/// Writers of several strategies on a few accounts.
fn writers(bench: &Bench, user_ids: &[i64], each: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let names = ["none", "atomic", "batched", "optimistic", "pessimistic", "event_sourced", "batched"];
    let start = |(number, name): (usize, &str)| {
        let (ledger, row, user_ids) = (Arc::clone(&bench.ledger), strategy::find(name).ok(), user_ids.to_vec());
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(number as u64);
            for turn in 0..each {
                let user_id = user_ids[random.random_range(0..user_ids.len())];
                let direction = if random.random_bool(0.3) { Direction::Deposit } else { Direction::Deduct };
                let amount = money(&format!("{}.{:02}", random.random_range(0..3), random.random_range(1..100)));
                // Contention and empty accounts are answers.
                let _ = ledger.apply(Change { direction, amount, ..deduction(user_id) }, row).await;
                if turn == each / 2 && number == 0 {
                    ledger.reset(user_id, money("500.00"), Uuid::new_v4()).await.unwrap();
                }
            }
        })
    };
    names.into_iter().enumerate().map(start).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projectors_that_are_restarted_beside_writers_come_to_what_the_journal_does() {
    for database in Database::each() {
        let scene = Scene::open(&database).await;
        let mut user_ids = Vec::new();
        for _ in 0..5 {
            user_ids.push(scene.bench.account("300.00").await);
        }
        let writers = writers(&scene.bench, &user_ids, 40);
        let mut projectors = [scene.projector(HASTY), scene.projector(HASTY)];
        let mut random = StdRng::seed_from_u64(7);
        let mut cut_off = 0;
        while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            let [one, other] = &mut projectors;
            let patience = Duration::from_micros(random.random_range(100..30_000));
            // Wherever it is then: in the middle of a transaction as well, or of its commit.
            let (one, other) = tokio::join!(tokio::time::timeout(patience, one.tick()), other.tick());
            cut_off += usize::from(one.is_err());
            if let Ok(Err(error)) | Err(error) = one.map_or(Ok(Ok(Pace::CaughtUp)), Ok).and(other.map(Ok)) {
                // Beside each other they may meet a deadlock; they begin anew.
                assert!(matches!(error, zbl_server::store::Error::Contended(_)), "{error}");
            }
            if random.random_bool(0.2) {
                projectors[random.random_range(0..2)] = scene.projector(HASTY);
            }
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert!(cut_off > 3, "only {cut_off} ticks were cut off");
        scene.check(&mut projectors[0]).await;
    }
}

/// A transaction of the test's own, which has journaled a deduction of 1.00 and not committed it.
struct Open(Conn);

impl Open {
    async fn deduction(url: &str, user_id: i64, version: i64) -> Self {
        let mut conn = Conn::new(Opts::from_url(url).unwrap()).await.unwrap();
        let id = Uuid::new_v4().simple();
        conn.query_drop("BEGIN").await.unwrap();
        conn.query_drop(format!(
            "UPDATE accounts SET balance = balance - 1, version = {version} WHERE user_id = {user_id}"
        ))
        .await
        .unwrap();
        conn.query_drop(format!(
            "INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy) \
             SELECT user_id, version, X'{id}', 'DEDUCT', -1, balance, version - 1, 'atomic' FROM accounts \
             WHERE user_id = {user_id}"
        ))
        .await
        .unwrap();
        Self(conn)
    }

    async fn commit(mut self) {
        self.0.query_drop("COMMIT").await.unwrap();
    }
}

/// One entry is held back in its transaction while later ones are projected past it, and then committed. Gives the projector that
/// went past it.
async fn held_open(scene: &Scene, database: &Database, patience: Patience) -> (Projector, i64) {
    let (slow, quick) = (scene.bench.account("100.00").await, scene.bench.account("100.00").await);
    let mut projector = scene.projector(patience);
    scene.check(&mut projector).await;
    // The sweep has seen everything, and rests if it ever does.
    for _ in 0..3 {
        projector.tick().await.unwrap();
    }
    let open = Open::deduction(&database.url, slow, 2).await;
    for _ in 0..3 {
        scene.change(quick, Direction::Deduct, "1.00", "atomic").await;
    }
    scene.check(&mut projector).await;
    let standing = scene.reports.standing().await.unwrap();
    let Projection { seq, read_seq, .. } = standing.projection;
    assert_eq!(read_seq, standing.newest_seq);
    if patience.hole > Duration::ZERO {
        assert!(seq < read_seq, "{seq} says that nothing is missing");
    }
    open.commit().await;
    (projector, slow)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_commits_after_later_ones_is_found_where_it_was_missing() {
    let database = Database::mysql();
    let scene = Scene::open(&database).await;
    let (mut projector, _) = held_open(&scene, &database, Patience { sweep: NEVER, ..HASTY }).await;
    projector.tick().await.unwrap();
    assert_eq!(scene.seen().await, scene.due().await);
    let standing = scene.reports.standing().await.unwrap();
    assert_eq!(standing.projection.seq, standing.newest_seq);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_hole_the_sweep_finds_it() {
    let database = Database::mysql();
    let scene = Scene::open(&database).await;
    let (mut projector, _) = held_open(&scene, &database, Patience { hole: Duration::ZERO, ..HASTY }).await;
    scene.check(&mut projector).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hole_and_sweep_the_next_entry_of_its_account_or_a_restart_brings_it() {
    let database = Database::mysql();
    let blind = Patience { hole: Duration::ZERO, sweep: NEVER, ..HASTY };
    for by_restart in [false, true] {
        let scene = Scene::open(&database).await;
        let (mut projector, slow) = held_open(&scene, &database, blind).await;
        for _ in 0..5 {
            projector.tick().await.unwrap();
        }
        // The test would see it if something else brought it.
        let due = scene.due().await;
        assert_eq!(scene.entries_projected().await, due.entries - 1);
        if by_restart {
            projector = scene.projector(blind);
        } else {
            scene.change(slow, Direction::Deduct, "1.00", "atomic").await;
        }
        scene.check(&mut projector).await;
    }
}

/// What keeps two steps from writing what both have read: it does not wait, it goes without.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_is_locked_for_one_step_at_a_time() {
    let database = Database::mysql();
    let scene = Scene::open(&database).await;
    let (mut first, mut second) = (scene.projections.step(), scene.projections.step());
    assert!(first.lock(1).await.unwrap().is_some());
    assert!(second.lock(1).await.unwrap().is_none());
    first.rollback().await;
    assert!(second.lock(1).await.unwrap().is_some());
    second.rollback().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_projectors_generation_is_left_alone_until_it_stops_moving() {
    let database = Database::sqlite();
    let scene = Scene::open(&database).await;
    let user_id = scene.bench.account("100.00").await;
    let (mut first, mut second) = (scene.projector(HASTY), scene.projector(Patience { lease: NEVER, ..HASTY }));
    first.tick().await.unwrap();
    scene.change(user_id, Direction::Deduct, "1.00", "atomic").await;
    for _ in 0..3 {
        second.tick().await.unwrap();
    }
    assert_eq!(scene.entries_projected().await, 1);
    let lag = second.progress().borrow().lag_entries();
    assert_eq!(lag, 1, "it tells all the same");
    let mut third = scene.projector(HASTY);
    scene.check(&mut third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_beside_writers_and_readers_takes_the_old_ones_place_at_once() {
    for database in Database::each() {
        let scene = Scene::open(&database).await;
        let user_ids = [scene.bench.account("300.00").await, scene.bench.account("300.00").await];
        for writer in writers(&scene.bench, &user_ids, 30) {
            writer.await.unwrap();
        }
        let mut projector = scene.projector(HASTY);
        scene.check(&mut projector).await;
        // What was read of it was wrong: a rebuild does not begin with what is there.
        let before = scene.reports.standing().await.unwrap().projection;
        let generation = scene.reports.rebuild().await.unwrap();
        assert_eq!((generation, scene.reports.rebuild().await.unwrap()), (before.generation + 1, generation));

        let writers = writers(&scene.bench, &user_ids, 30);
        let mut seen = before;
        until("the rebuilt generation is read", async || {
            // No tick may fail; readers never see less than they have seen.
            projector.tick().await.unwrap();
            let now = scene.reports.standing().await.unwrap().projection;
            assert!(now.totals.entries >= seen.totals.entries && now.seq >= seen.seq, "{now:?} after {seen:?}");
            seen = now;
            now.generation == generation
        })
        .await;
        for writer in writers {
            writer.await.unwrap();
        }
        scene.check(&mut projector).await;
        until("the old generation is gone", async || {
            projector.tick().await.unwrap();
            scene.projections.projections().await.unwrap().len() == 1
        })
        .await;
        assert_eq!(scene.seen().await, scene.due().await);
    }
}

/// Ten times all the money that an account can hold.
#[tokio::test(flavor = "multi_thread")]
async fn sums_may_leave_64_bits() {
    const ALL: &str = "92233720368547758.07";
    for database in Database::each() {
        let scene = Scene::open(&database).await;
        let (rich, poor) = (scene.bench.account("0.00").await, scene.bench.account("1.00").await);
        for _ in 0..10 {
            scene.change(rich, Direction::Deposit, ALL, "atomic").await;
            scene.change(rich, Direction::Deduct, ALL, "atomic").await;
        }
        scene.change(poor, Direction::Deduct, "1.00", "atomic").await;
        scene.check(&mut scene.projector(HASTY)).await;
        let (standing, top) = scene.reports.top(Ranking { day: None, after: None, limit: 10 }).await.unwrap();
        assert_eq!(top[0].1.spent.to_string(), "922337203685477580.70");
        assert_eq!(standing.projection.totals.turnover.spent.to_string(), "922337203685477581.70");
        assert_eq!(top.iter().map(|(user_id, _)| *user_id).collect::<Vec<_>>(), [rich, poor]);
    }
}

/// More entries than a page has, and a journal that is older than the read models.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_journal_takes_several_ticks() {
    let database = Database::mysql();
    let scene = Scene::open(&database).await;
    for user_id in [11, 12, 13] {
        let opening = format!(
            "INSERT INTO accounts (user_id, balance, version) VALUES ({user_id}, 0, 700); \
             INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at) \
             WITH RECURSIVE n (v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 700) \
             SELECT {user_id}, v, UNHEX(LPAD(HEX(v), 32, '0')), IF(v = 1, 'OPEN', IF(v % 3 = 0, 'DEPOSIT', 'DEDUCT')), \
                    IF(v % 3 = 0, 0.03, -0.01) * (v > 1), 0, v - 1, 'atomic', '2026-01-01' + INTERVAL v HOUR FROM n"
        );
        test_support::query(&database.url, &opening).unwrap();
    }
    let mut projector = scene.projector(HASTY);
    assert_eq!(projector.tick().await.unwrap(), Pace::Behind);
    assert_eq!(scene.entries_projected().await, 500);
    assert!(projector.progress().borrow().lag() > Duration::from_secs(60), "the entries are old");
    scene.check(&mut projector).await;
    assert_eq!(projector.tick().await.unwrap(), Pace::CaughtUp);
    assert_eq!(projector.progress().borrow().lag_entries(), 0);
    assert_eq!(projector.progress().borrow().lag(), Duration::ZERO);
}

/// Somebody has removed an entry: that account's reports end before it, and everybody else's go on; in a rebuild too.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_with_a_gap_keeps_nobody_else_waiting() {
    let database = Database::mysql();
    let scene = Scene::open(&database).await;
    let mut projector = scene.projector(HASTY);
    let (broken, whole) = (scene.bench.account("100.00").await, scene.bench.account("100.00").await);
    for _ in 0..2 {
        scene.change(broken, Direction::Deduct, "1.00", "atomic").await;
    }
    let gone = format!("DELETE FROM entries WHERE user_id = {broken} AND version = 2");
    test_support::query(&database.url, &gone).unwrap();
    for due in [3, 4] {
        scene.change(broken, Direction::Deduct, "1.00", "atomic").await;
        scene.change(whole, Direction::Deduct, "1.00", "atomic").await;
        // Both openings, and what the whole one spent.
        until("it rests", async || projector.tick().await.unwrap() == Pace::CaughtUp).await;
        assert_eq!(scene.entries_projected().await, due);
    }
    let before = scene.reports.standing().await.unwrap().projection.generation;
    scene.reports.rebuild().await.unwrap();
    until("the rebuilt ones are read", async || {
        projector.tick().await.unwrap();
        scene.reports.standing().await.unwrap().projection.generation > before
    })
    .await;
    assert_eq!(scene.entries_projected().await, 4);
}
