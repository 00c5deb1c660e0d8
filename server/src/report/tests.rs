//! The fold against sums that are made in another way, from entries in any order and any number of times.

use chrono::{DateTime, NaiveDateTime};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// 2026-11-23, 23:59:50 UTC: entries some seconds later are of the next day.
const BEGAN: i64 = 1_795_564_790;

fn at(seconds: i64) -> NaiveDateTime {
    DateTime::from_timestamp(BEGAN + seconds, 0).unwrap().naive_utc()
}

fn entry(user_id: i64, version: i64, (kind, minor, seconds): (usize, i64, i64)) -> Entry {
    let kinds = [EntryKind::Deduct, EntryKind::Deposit, EntryKind::Reset, EntryKind::Void, EntryKind::Repair];
    let kind = if version == 1 { EntryKind::Open } else { kinds[kind % kinds.len()] };
    let delta = match kind {
        EntryKind::Deduct => -minor.abs(),
        EntryKind::Open | EntryKind::Deposit => minor.abs(),
        EntryKind::Void => 0,
        EntryKind::Reset | EntryKind::Repair => minor,
    };
    Entry {
        user_id,
        version,
        request_id: Uuid::nil(),
        kind,
        delta: Money::from_minor(delta),
        balance_after: Money::ZERO,
        version_before: version - 1,
        strategy: String::new(),
        created_at: at(seconds),
    }
}

/// Journals of a few accounts.
fn journals() -> impl Strategy<Value = Vec<Entry>> {
    let of_one = prop::collection::vec((0..5_usize, -i64::MAX..i64::MAX, 0..20_i64), 1..12);
    prop::collection::vec(of_one, 1..5).prop_map(|accounts| {
        let numbered = accounts.into_iter().zip(1..);
        numbered
            .flat_map(|(shapes, user)| shapes.into_iter().zip(1..).map(move |(shape, v)| entry(user, v, shape)))
            .collect()
    })
}

fn sum(entries: &[Entry], which: impl Fn(&Entry) -> bool) -> Sum {
    Sum(entries.iter().filter(|entry| which(entry)).map(|entry| i128::from(entry.delta.minor())).sum())
}

fn count(entries: &[Entry], which: impl Fn(&Entry) -> bool) -> i64 {
    entries.iter().filter(|entry| which(entry)).count() as i64
}

/// What a part of the journal comes to, each figure by a pass of its own.
fn turnover(entries: &[Entry], of: impl Fn(&Entry) -> bool + Copy) -> Turnover {
    let deduct = move |entry: &Entry| of(entry) && entry.kind == EntryKind::Deduct;
    let deposit = move |entry: &Entry| of(entry) && entry.kind == EntryKind::Deposit;
    Turnover {
        spent: Sum(-sum(entries, deduct).0),
        deposited: sum(entries, deposit),
        deductions: count(entries, deduct),
        deposits: count(entries, deposit),
    }
}

fn naive(entries: &[Entry]) -> Models {
    let is = |kind| move |entry: &Entry| entry.kind == kind;
    let adjusts = |entry: &Entry| matches!(entry.kind, EntryKind::Reset | EntryKind::Repair);
    let mut models = Models {
        totals: Totals {
            accounts: count(entries, is(EntryKind::Open)),
            entries: entries.len() as i64,
            opened: sum(entries, is(EntryKind::Open)),
            adjusted: sum(entries, adjusts),
            resets: count(entries, adjusts),
            turnover: turnover(entries, |_| true),
        },
        ..Models::default()
    };
    for Entry { user_id, created_at, .. } in entries {
        let of_account = |entry: &Entry| entry.user_id == *user_id;
        let turnover_of_account = turnover(entries, of_account);
        let version = entries.iter().filter(|entry| of_account(entry)).map(|entry| entry.version).max().unwrap();
        models.accounts.insert(*user_id, AccountTurnover { version, turnover: turnover_of_account });
        let of_day = turnover(entries, |entry| of_account(entry) && entry.created_at.date() == created_at.date());
        if of_day.deductions + of_day.deposits > 0 {
            models.days.insert((*user_id, created_at.date()), of_day);
        }
    }
    models
}

proptest! {
    #[test]
    fn whatever_the_order_each_entry_is_folded_in_once(
        (entries, shuffled) in journals().prop_flat_map(|entries| {
            let twice: Vec<Entry> = entries.iter().chain(&entries).cloned().collect();
            (Just(entries), Just(twice).prop_shuffle())
        }),
    ) {
        let mut models = Models::default();
        let mut folded = 0;
        // Those that come too early come again; in each pass at least one is next.
        for _ in 0..entries.len() {
            for entry in &shuffled {
                folded += usize::from(models.fold(entry).unwrap() == Folded::In);
            }
        }
        prop_assert_eq!(folded, entries.len());
        prop_assert_eq!(&models, &naive(&entries));
        let Totals { opened, adjusted, turnover, .. } = models.totals;
        prop_assert_eq!(opened.0 + adjusted.0 + turnover.deposited.0 - turnover.spent.0, sum(&entries, |_| true).0);
    }

    #[test]
    fn a_sum_is_read_back(minor in -Sum::MOST..=Sum::MOST) {
        let sum = Sum::from_minor(minor).unwrap();
        prop_assert_eq!(Sum::parse(&sum.to_string()), Some(sum));
    }
}

#[test]
fn a_sum_beyond_its_digits_is_refused_and_changes_nothing() {
    let full = Turnover { deposited: Sum(Sum::MOST), ..Turnover::default() };
    let mut models = Models::default();
    models.accounts.insert(1, AccountTurnover { version: 1, turnover: full });
    let before = models.clone();
    assert_eq!(models.fold(&entry(1, 2, (1, 1, 0))), Err(Overflow));
    assert_eq!(models, before);
    assert_eq!(Sum::from_minor(Sum::MOST + 1), None);
    assert_eq!(Sum(-5).to_string(), "-0.05");
    for wrong in ["", "1", "1.5", "1.555", "x.00", ".", "1.-5"] {
        assert_eq!(Sum::parse(wrong), None, "{wrong}");
    }
}
