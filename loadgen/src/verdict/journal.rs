//! An account's journal as the tree it is. Each entry says which version its operation had read, so every entry hangs
//! below what it was computed from; the money that survives is the path from the newest entry to the root. It owns that
//! path and refuses to know what clients were told.

use zbl_client::{Entry, Money};

/// A balance at a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The balance.
    pub balance: Money,
    /// The version that left it behind.
    pub version: i64,
}

/// The journal of a run: the state it began with, and every entry since, in order of version.
#[derive(Debug)]
pub struct Journal<'a, E = Entry> {
    /// The OPEN or RESET the run began with; what came before it is another run's.
    pub root: State,
    /// The entries after the root.
    pub entries: &'a [E],
}

// Derived, these would ask the same of the entries, which are only borrowed.
impl<E> Clone for Journal<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Journal<'_, E> {}

/// What an entry must tell to have its place in the tree.
pub trait Node {
    /// Its version.
    fn version(&self) -> i64;
    /// The version its operation had read.
    fn version_before(&self) -> i64;
    /// Its signed change.
    fn delta(&self) -> Money;
    /// The balance it left behind.
    fn balance_after(&self) -> Money;
}

impl Node for Entry {
    fn version(&self) -> i64 {
        self.version
    }

    fn version_before(&self) -> i64 {
        self.version_before
    }

    fn delta(&self) -> Money {
        self.delta
    }

    fn balance_after(&self) -> Money {
        self.balance_after
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// It is on the surviving path.
    Survives,
    /// It is off the path; the entry at this index is the one on the path that wrote over it.
    LostTo(usize),
}

/// What became of each entry, and whether the surviving path leads to the root.
pub(crate) struct Path {
    pub(crate) survival: Vec<Survival>,
    pub(crate) reaches_root: bool,
}

impl<E: Node> Journal<'_, E> {
    /// The balance at `version`; `None` when the journal has no such version.
    pub fn balance_at(&self, version: i64) -> Option<Money> {
        if version == self.root.version {
            return Some(self.root.balance);
        }
        let found = self.entries.binary_search_by_key(&version, E::version).ok()?;
        Some(self.entries[found].balance_after())
    }

    /// The money the write at `version` destroyed by not having seen what it wrote over; negative when it brought lost
    /// money back. The sum over all versions telescopes to the whole difference. `None` when the journal lacks one of the
    /// versions involved.
    pub fn destroyed(&self, version: i64) -> Option<Money> {
        let found = self.entries.binary_search_by_key(&version, E::version).ok()?;
        let seen = self.balance_at(self.entries[found].version_before())?;
        let overwritten = self.balance_at(version.checked_sub(1)?)?;
        seen.checked_sub(overwritten)
    }

    /// Walks from the newest entry to the root. An entry passed on the way is off the path, and the last entry met on it
    /// is the one with `version_before < lost.version < version`: its overwriter.
    ///
    /// Where an entry points at a version that is missing, the path is broken; what is older then counts as surviving,
    /// and whatever is wrong with it shows in the sums.
    pub(crate) fn path(&self) -> Path {
        let mut survival = vec![Survival::Survives; self.entries.len()];
        let mut next = self.newest();
        let mut overwriter = None;
        for (index, entry) in self.entries.iter().enumerate().rev() {
            if entry.version() == next {
                if entry.version_before() >= entry.version() {
                    return Path { survival, reaches_root: false };
                }
                next = entry.version_before();
                overwriter = Some(index);
            } else if let Some(overwriter) = overwriter.filter(|_| entry.version() > next) {
                survival[index] = Survival::LostTo(overwriter);
            } else {
                return Path { survival, reaches_root: false };
            }
        }
        Path { survival, reaches_root: next == self.root.version }
    }

    /// The version of the newest entry, the root's when there is none.
    pub fn newest(&self) -> i64 {
        self.entries.last().map_or(self.root.version, E::version)
    }

    /// How many versions between the root and the newest entry have no entry.
    pub(crate) fn gaps(&self) -> u64 {
        let positions = self.newest().abs_diff(self.root.version);
        positions.saturating_sub(self.entries.len() as u64)
    }

    /// Whether each entry's balance is what it read plus its change; entries whose read version is missing are passed
    /// over.
    pub(crate) fn miscalculated(&self) -> impl Iterator<Item = &E> {
        self.entries.iter().filter(|entry| {
            self.balance_at(entry.version_before())
                .is_some_and(|seen| seen.checked_add(entry.delta()) != Some(entry.balance_after()))
        })
    }
}
