//! Journals made up at random, with every kind of entry and with branches, appended as the store appends them. The
//! accounts' rows have no balances: nobody who reads a journal asks for them.

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use uuid::Uuid;
use zbl_server::{
    account::{EntryKind, Money, NewEntry},
    store::{AccountWrite, Isolation, Store},
};

/// Who may have written an entry; the first two may overwrite.
pub(crate) const STRATEGIES: [&str; 4] = ["none", "mutex", "atomic", "batched"];

/// Rows of one INSERT.
const ROWS: usize = 1000;

/// An account's journal, as it was made so far.
pub(crate) struct History {
    user_id: i64,
    /// What each version left behind, from version 0.
    left: Vec<i64>,
    random: SmallRng,
}

impl History {
    pub(crate) fn of(user_id: i64, seed: u64) -> Self {
        Self { user_id, left: vec![0], random: SmallRng::seed_from_u64(seed) }
    }

    pub(crate) fn newest(&self) -> i64 {
        self.left.len() as i64 - 1
    }

    /// Appends entries of any kind, about every fifth of them beside the newest.
    pub(crate) async fn grow(&mut self, store: &dyn Store, entries: i64) -> Vec<NewEntry> {
        let made: Vec<NewEntry> = (0..entries).map(|_| self.any()).collect();
        write(store, &made).await;
        made
    }

    /// Appends an entry that has read the opening and nothing since.
    pub(crate) async fn overwrite_all(&mut self, store: &dyn Store) {
        let entry = self.entry(EntryKind::Deposit, 1, 500, "none");
        write(store, &[entry]).await;
    }

    /// Appends entries whose kind and parent follow from their versions; the opening comes of itself.
    pub(crate) async fn append(&mut self, store: &dyn Store, entries: i64, made: impl Fn(i64) -> (EntryKind, i64)) {
        let mut all = Vec::new();
        for _ in 0..entries {
            let version = self.newest() + 1;
            all.push(if version == 1 {
                self.entry(EntryKind::Open, 0, 1_000_000_000, "")
            } else {
                let (kind, version_before) = made(version);
                self.entry(kind, version_before, 1, "none")
            });
        }
        write(store, &all).await;
    }

    fn any(&mut self) -> NewEntry {
        let newest = self.newest();
        if newest == 0 {
            return self.entry(EntryKind::Open, 0, 100_000, "");
        }
        let amount = self.random.random_range(0..2000);
        match self.random.random_range(0..10) {
            0 => self.entry(EntryKind::Reset, newest, amount, ""),
            1 => self.entry(EntryKind::Void, newest, 0, ""),
            2 => self.entry(EntryKind::Repair, newest, amount, ""),
            drawn => {
                let kind = if drawn < 5 { EntryKind::Deposit } else { EntryKind::Deduct };
                if self.random.random_ratio(1, 4) && newest > 1 {
                    let version_before = self.random.random_range((newest - 6).max(1)..newest);
                    let strategy = STRATEGIES[..2].choose(&mut self.random).copied().unwrap();
                    return self.entry(kind, version_before, amount, strategy);
                }
                let strategy = STRATEGIES.choose(&mut self.random).copied().unwrap();
                self.entry(kind, newest, amount, strategy)
            }
        }
    }

    fn entry(&mut self, kind: EntryKind, version_before: i64, amount: i64, strategy: &'static str) -> NewEntry {
        let delta = if kind == EntryKind::Deduct { -amount } else { amount };
        let balance_after = self.left[usize::try_from(version_before).unwrap()] + delta;
        self.left.push(balance_after);
        NewEntry {
            user_id: self.user_id,
            version: self.newest(),
            request_id: Uuid::from_u128(self.random.random()),
            kind,
            delta: Money::from_minor(delta),
            balance_after: Money::from_minor(balance_after),
            version_before,
            strategy,
        }
    }
}

async fn write(store: &dyn Store, entries: &[NewEntry]) {
    for rows in entries.chunks(ROWS) {
        let mut transaction = store.transaction(Isolation::ReadCommitted, None);
        let user_id = rows[0].user_id;
        let opened = i64::from(rows[0].version == 1);
        if opened == 1 {
            transaction.insert_account(user_id, Money::ZERO).await.unwrap();
        }
        let moved = AccountWrite { user_id, balance: Money::ZERO, entries: rows.len() as i64 - opened };
        transaction.write_many(rows, &[moved]).await.unwrap();
        transaction.commit().await.unwrap();
    }
}
