//! Histories as they never should be, and as they are: what the service tells of an account's past, and of what was lost
//! in it, against a model that keeps everything and looks at all of it.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use chrono::{DateTime, NaiveDateTime, TimeDelta};
use futures::FutureExt;
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::Config};
use uuid::Uuid;
use zbl_server::{
    account::{Entry, EntryKind, Money, NewEntry},
    history::{
        as_of,
        losses::{Expected, Walk},
    },
    ledger::{AsOf, Mending},
    store::{Isolation, Store},
};

use crate::app::{Bench, Database};

/// Random histories that the pure functions are held against.
const PURE: u32 = 100_000;

/// Those that go through a database.
const STORED: usize = 200;

/// The next thing to happen to an account.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: What,
    /// How many versions ago its operation had read.
    stale: usize,
    /// How much later it happens, milliseconds; often at the same time.
    later: i64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Change(i64),
    Void,
    Reset(i64),
    Repair,
}

/// A step out of one number: a hundred thousand histories of structures would take a minute to make.
impl From<u32> for Step {
    fn from(bits: u32) -> Self {
        let amount = i64::from(bits >> 10 & 0x3ff);
        let what = match bits & 15 {
            13 => What::Void,
            14 => What::Reset(amount),
            15 => What::Repair,
            _ => What::Change(300 - amount),
        };
        // Half of them have read the newest.
        let stale = (bits >> 4 & 7).saturating_sub(3) as usize;
        Self { what, stale, later: i64::from((bits >> 7 & 7) % 3) }
    }
}

fn steps() -> impl Strategy<Value = Vec<u32>> {
    vec(any::<u32>(), 0..14)
}

fn time(milliseconds: i64) -> NaiveDateTime {
    DateTime::from_timestamp_millis(1_700_000_000_000 + milliseconds).unwrap().naive_utc()
}

/// Everything that happened to an account.
#[derive(Debug)]
struct Model {
    entries: Vec<Entry>,
}

/// An update that is lost: its version, its overwriter's, whether that is settled.
type Loss = (i64, i64, bool);

impl Model {
    fn of(steps: &[u32]) -> Self {
        let mut model = Self { entries: Vec::new() };
        model.push(EntryKind::Open, 1000, 1000, 0, 0);
        let mut now = 0;
        for step in steps.iter().copied().map(Step::from) {
            now += step.later;
            let newest = model.entries.len();
            let held = model.balance(newest);
            match step.what {
                What::Change(amount) => {
                    let read = newest.saturating_sub(step.stale).max(1);
                    let seen = model.balance(read);
                    let after = if seen + amount < 0 { seen - amount } else { seen + amount };
                    let kind = if after < seen { EntryKind::Deduct } else { EntryKind::Deposit };
                    model.push(kind, after - seen, after, read, now);
                }
                What::Void => model.push(EntryKind::Void, 0, held, newest, now),
                What::Reset(balance) => model.push(EntryKind::Reset, balance - held, balance, newest, now),
                What::Repair => {
                    let (expected, _) = model.expected();
                    if (0..).contains(&expected) {
                        model.push(EntryKind::Repair, expected - held, expected, newest, now);
                    }
                }
            }
        }
        model
    }

    fn push(&mut self, kind: EntryKind, delta: i64, after: i64, read: usize, now: i64) {
        let version = self.entries.len() as i64 + 1;
        self.entries.push(Entry {
            user_id: 1,
            version,
            request_id: Uuid::from_u128(version as u128),
            kind,
            delta: Money::from_minor(delta),
            balance_after: Money::from_minor(after),
            version_before: read as i64,
            strategy: if matches!(kind, EntryKind::Deduct | EntryKind::Deposit) { "none" } else { "" }.to_owned(),
            created_at: time(now),
        });
    }

    fn at(&self, version: i64) -> &Entry {
        &self.entries[version as usize - 1]
    }

    fn balance(&self, version: usize) -> i64 {
        self.at(version as i64).balance_after.minor()
    }

    fn newest(&self) -> i64 {
        self.entries.len() as i64
    }

    /// What the journal comes to, minor units, and the version that the sum begins with.
    fn expected(&self) -> (i64, i64) {
        let (mut sum, mut since) = (0, 0);
        for entry in &self.entries {
            if matches!(entry.kind, EntryKind::Open | EntryKind::Reset | EntryKind::Repair) {
                (sum, since) = (entry.balance_after.minor(), entry.version);
            } else {
                sum += entry.delta.minor();
            }
        }
        (sum, since)
    }

    /// The versions that survive, up to one.
    fn path(&self, newest: i64) -> BTreeSet<i64> {
        let parent = |version: &i64| Some(self.at(*version).version_before).filter(|parent| *parent > 0);
        std::iter::successors(Some(newest), parent).collect()
    }

    /// What is lost, the newest first.
    fn lost(&self) -> Vec<Loss> {
        let (path, (_, since)) = (self.path(self.newest()), self.expected());
        let lost = |entry: &&Entry| !path.contains(&entry.version) && entry.kind != EntryKind::Void;
        let of = |entry: &Entry| {
            (entry.version, *path.iter().find(|version| **version > entry.version).unwrap(), entry.version < since)
        };
        self.entries.iter().rev().filter(lost).map(of).collect()
    }

    /// The newest version that is not later.
    fn newest_by(&self, time: NaiveDateTime) -> Option<i64> {
        self.entries.iter().filter(|entry| entry.created_at <= time).map(|entry| entry.version).max()
    }

    /// Times worth asking for: those of entries, and just beside them.
    fn times(&self) -> impl Iterator<Item = NaiveDateTime> {
        let millisecond = TimeDelta::milliseconds(1);
        let beside =
            move |entry: &Entry| [entry.created_at - millisecond, entry.created_at, entry.created_at + millisecond];
        let times: BTreeSet<NaiveDateTime> = self.entries.iter().flat_map(beside).collect();
        times.into_iter()
    }

    fn walk(&self, newest: i64, down_to: i64) -> (Walk, Vec<Loss>) {
        let mut walk = Walk::from(newest);
        let mut lost = Vec::new();
        while walk.next() > down_to {
            let entry = self.at(walk.next());
            lost.extend(
                walk.back(entry).unwrap().map(|lost| (lost.entry.version, lost.overwriter.version, lost.settled)),
            );
        }
        (walk, lost)
    }
}

proptest! {
    #![proptest_config(Config { cases: PURE, failure_persistence: None, ..Config::default() })]

    /// As of any time, what a look at every entry finds.
    #[test]
    fn a_search_finds_what_a_look_at_all_of_it_finds(steps in steps(), asked_for in -1..28_i64) {
        let model = Model::of(&steps);
        let time = time(asked_for);
        let mut asked = 0;
        let time_of = |version| {
            asked += 1;
            std::future::ready(Ok::<_, Infallible>(model.at(version).created_at))
        };
        let Ok(found) = as_of::newest_by(model.newest(), time, time_of).now_or_never().unwrap();
        prop_assert_eq!(found, model.newest_by(time));
        prop_assert!(asked <= 5, "{} look-ups for {} versions", asked, model.newest());
    }

    /// Walked backwards, with one entry remembered, and looked at as a whole.
    #[test]
    fn a_walk_finds_every_lost_update(steps in steps(), split in 1..14_i64) {
        let model = Model::of(&steps);
        let (whole, lost) = model.walk(model.newest(), 0);
        prop_assert_eq!(lost, model.lost());
        let (expected, since) = model.expected();
        let difference = model.balance(model.entries.len()) - expected;
        let told = Expected {
            balance: Money::from_minor(expected),
            since,
            lost: Money::from_minor(difference),
        };
        prop_assert_eq!(whole.expected().unwrap(), told);

        // Walked in two parts.
        let split = split.min(model.newest());
        let (older, _) = model.walk(split, 0);
        let (newer, _) = model.walk(model.newest(), split);
        let fits = newer.is_complete() || model.path(model.newest()).contains(&split);
        let both = newer.onto(&older).unwrap();
        prop_assert_eq!(both.is_some(), fits);
        if let Some(both) = both {
            prop_assert_eq!(both.expected().unwrap(), told);
        }
    }
}

/// Writes a history as it is.
async fn store(store: &Arc<dyn Store>, user_id: i64, model: &Model) {
    let mut transaction = store.transaction(Isolation::ReadCommitted, None);
    for entry in &model.entries {
        match entry.kind {
            EntryKind::Open => transaction.insert_account(user_id, entry.balance_after).await.unwrap(),
            _ => drop(transaction.write(user_id, entry.balance_after).await.unwrap()),
        }
        let Entry { version, request_id, kind, delta, balance_after, version_before, .. } = *entry;
        let strategy = if entry.strategy.is_empty() { "" } else { "none" };
        let entry = NewEntry { user_id, version, request_id, kind, delta, balance_after, version_before, strategy };
        transaction.append(&entry).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// The same through the ledger and a database, whose clock gives the times.
#[tokio::test(flavor = "multi_thread")]
async fn histories_in_a_database_are_told_as_the_model_tells_them() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for user_id in 1..=STORED as i64 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let mut model = Model::of(&steps);
        store(&bench.ledger.bench().store, user_id, &model).await;
        model.entries = bench.journal(user_id).await;
        for entry in &model.entries {
            let told = bench.ledger.entry_as_of(user_id, AsOf::Version(entry.version)).await.unwrap();
            assert_eq!(&told, entry);
        }
        for time in model.times() {
            let told = bench.ledger.entry_as_of(user_id, AsOf::Time(time)).await;
            assert_eq!(told.as_ref().ok(), model.newest_by(time).map(|version| model.at(version)), "{time}: {model:?}");
        }
        let rebuilt = bench.ledger.rebuild(user_id, Mending::Look).await.unwrap();
        let (expected, since) = model.expected();
        assert_eq!((rebuilt.expected.balance.minor(), rebuilt.expected.since), (expected, since), "{model:?}");
        assert_eq!(rebuilt.difference.minor(), model.balance(model.entries.len()) - expected);
        let lost: Vec<Loss> = model.lost().into_iter().filter(|(_, _, settled)| !settled).collect();
        let told = rebuilt.lost.iter().map(|lost| (lost.entry.version, lost.overwriter.version, lost.settled));
        assert_eq!(told.collect::<Vec<_>>(), lost, "{model:?}");
    }
}
