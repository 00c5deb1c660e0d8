//! Accounts that were written while Redis could not be told. What it still holds of them is older, so they are told as
//! soon as it answers again. Bounded: what does not fit is only bounded by the life of a balance, and counted.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::figures::Counters;

/// The most accounts that are remembered: a Redis that is gone for long is told of these; by then, most of what it held
/// has run out anyway.
const MOST: usize = 100_000;

/// The most that are told at once.
const AT_ONCE: usize = 500;

/// What Redis has to know of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Debt {
    /// That it has, or may get, this version.
    pub(super) version: i64,
    /// Which remembrance made it.
    first: Remembrance,
    /// Which was the last to confirm it: who told Redis before that has not told it since.
    last: Remembrance,
}

/// Numbers the calls of [`Owed::remember`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembrance(u64);

/// The accounts of which Redis has to be told.
pub(super) struct Owed {
    book: Mutex<Book>,
    some: Notify,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Book {
    debts: BTreeMap<i64, Debt>,
    remembrances: u64,
    /// The last account that was handed out. The next are those after it, so that none that cannot be told stands in the
    /// way of the others for ever.
    handed_out: i64,
}

impl Owed {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { book: Mutex::default(), some: Notify::new(), counters }
    }

    /// Remembers that accounts have, or may get, these versions.
    pub(super) fn remember(&self, versions: impl IntoIterator<Item = (i64, i64)>) -> Remembrance {
        let mut book = self.lock();
        book.remembrances += 1;
        let this = Remembrance(book.remembrances);
        for (user_id, version) in versions {
            if book.debts.len() >= MOST && !book.debts.contains_key(&user_id) {
                self.counters.forgotten();
                continue;
            }
            let debt = book.debts.entry(user_id).or_insert(Debt { version, first: this, last: this });
            (debt.version, debt.last) = (version.max(debt.version), this);
        }
        self.counters.owed(book.debts.len());
        drop(book);
        self.some.notify_one();
        this
    }

    /// What was remembered did not happen. What others owe of the same accounts stays.
    pub(super) fn withdraw(&self, this: Remembrance, accounts: impl Iterator<Item = i64>) {
        let mut book = self.lock();
        for user_id in accounts {
            if book.debts.get(&user_id).is_some_and(|debt| debt.first == this && debt.last == this) {
                book.debts.remove(&user_id);
            }
        }
        self.counters.owed(book.debts.len());
    }

    /// Whether Redis may hold something older of an account than was written here.
    pub(super) fn contains(&self, user_id: i64) -> bool {
        self.lock().debts.contains_key(&user_id)
    }

    /// Some of them, when there are any; the next time, others.
    pub(super) async fn some(&self) -> BTreeMap<i64, Debt> {
        loop {
            let some = self.next();
            if !some.is_empty() {
                return some;
            }
            self.some.notified().await;
        }
    }

    /// Some of them, if there are any.
    pub(super) fn next(&self) -> BTreeMap<i64, Debt> {
        let mut book = self.lock();
        let mut after = book.debts.range((Excluded(book.handed_out), Unbounded)).peekable();
        if after.peek().is_none() {
            after = book.debts.range(i64::MIN..).peekable();
        }
        let some: BTreeMap<i64, Debt> = after.take(AT_ONCE).map(|(user_id, debt)| (*user_id, *debt)).collect();
        book.handed_out = some.last_key_value().map_or(0, |(user_id, _)| *user_id);
        some
    }

    /// Redis was told; what has been remembered meanwhile, even of the same version, is still owed.
    pub(super) fn told(&self, debts: &BTreeMap<i64, Debt>) {
        let mut book = self.lock();
        for (user_id, told) in debts {
            if book.debts.get(user_id).is_some_and(|debt| debt.last == told.last) {
                book.debts.remove(user_id);
            }
        }
        self.counters.owed(book.debts.len());
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed() -> Owed {
        Owed::new(Arc::default())
    }

    #[test]
    fn telling_pays_what_was_told_and_no_later_debt() {
        let owed = owed();
        owed.remember([(1, 5), (2, 7)]);
        let told = owed.next();
        // The same version again: Redis may have forgotten between the two.
        owed.remember([(1, 5)]);
        owed.told(&told);
        assert!(owed.contains(1) && !owed.contains(2));
        owed.told(&owed.next());
        assert!(!owed.contains(1));
    }

    #[test]
    fn none_stands_in_the_way_of_the_others() {
        let owed = owed();
        let all = 2 * AT_ONCE as i64 + 1;
        owed.remember((1..=all).map(|user_id| (user_id, 1)));
        // Nothing can be told.
        let seen: std::collections::BTreeSet<i64> = (0..3).flat_map(|_| owed.next().into_keys()).collect();
        assert_eq!(seen.len() as i64, all);
    }

    #[test]
    fn who_failed_withdraws_its_own_debt_alone() {
        let owed = owed();
        let mine = owed.remember([(1, 5), (2, 5)]);
        owed.remember([(2, 5)]);
        owed.remember([(3, 4)]);
        let later = owed.remember([(3, 5)]);
        owed.withdraw(mine, [1, 2].into_iter());
        owed.withdraw(later, [3].into_iter());
        assert!(!owed.contains(1) && owed.contains(2) && owed.contains(3));
    }
}
