//! An account's journal while it is read: what is old is summed up along the surviving path, so that a long journal takes
//! no more memory than a short one. It owns the sums and refuses to judge them.

use std::collections::HashSet;

use uuid::Uuid;
use zbl_client::{Entry, EntryKind, Money};

use super::WITNESSES;
use crate::bench::operation::RequestIds;
use crate::bench::tally::{Digest, Keys, Told};
use crate::history::Acknowledgement;
use crate::report::{Pair, Side};
use crate::verdict::{Journal, Node, Overflow, State, Survival};

/// Entries held of an account's journal, at least; what is older is summed up, if the surviving path is known by then.
/// An operation may have read what is this many entries old: more than are made in the five seconds a call may take.
pub(super) const HELD: usize = 250_000;

/// A journal entry, as much of it as the tree and its witnesses need: 48 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) version: i64,
    pub(super) version_before: i64,
    pub(super) delta: Money,
    pub(super) balance_after: Money,
    pub(super) request_id: Uuid,
}

impl Node for Row {
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

/// What a stretch of a journal says, along the surviving path.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    pub(super) survived: i128,
    pub(super) journaled: i128,
    pub(super) lost_updates: u64,
    pub(super) paired: i128,
    pub(super) witnesses: Vec<Pair>,
    pub(super) miscalculated: u64,
    pub(super) gaps: u64,
    /// Whether the path leads from the end of every stretch to its beginning.
    pub(super) broken: bool,
}

impl Trail {
    /// Goes on along the next stretch, whose newest entry survives.
    pub(super) fn follow(&mut self, journal: Journal<'_, Row>, ids: RequestIds) -> Result<(), Overflow> {
        let path = journal.path();
        for (row, survival) in journal.entries.iter().zip(&path.survival) {
            self.journaled += i128::from(row.delta.minor());
            match survival {
                Survival::Survives => self.survived += i128::from(row.delta.minor()),
                Survival::LostTo(overwriter) if row.is_own(ids) => self.mourn(row, &journal.entries[*overwriter])?,
                Survival::LostTo(_) => {}
            }
        }
        self.miscalculated += journal.miscalculated().count() as u64;
        self.gaps += journal.gaps();
        self.broken |= !path.reaches_root;
        Ok(())
    }

    fn mourn(&mut self, victim: &Row, overwriter: &Row) -> Result<(), Overflow> {
        let amount = victim.delta.checked_neg().ok_or(Overflow)?;
        self.lost_updates += 1;
        self.paired += i128::from(amount.minor());
        if self.witnesses.len() < WITNESSES {
            self.witnesses.push(Pair { victim: side(victim)?, overwriter: side(overwriter)?, amount });
        }
        Ok(())
    }
}

impl Row {
    /// Whether it is a deduction of the run with these ids: a void changes nothing.
    pub(super) fn is_own(&self, ids: RequestIds) -> bool {
        ids.holds(self.request_id) && self.delta != Money::ZERO
    }
}

/// An account's journal while it is read.
pub(in super::super) struct Reading<'a> {
    pub(super) ids: RequestIds,
    pub(super) keys: &'a Keys,
    pub(super) unsettled: &'a HashSet<Uuid>,
    /// What a fresh account began with.
    pub(super) began: Option<State>,
    /// What the run began with.
    pub(super) first: State,
    /// What the rows begin with: the first one, or an entry on the surviving path.
    pub(super) root: State,
    pub(super) rows: Vec<Row>,
    /// What is between the two.
    pub(super) trail: Trail,
    /// Rows to keep when older ones are summed up.
    pub(super) held: usize,
    /// With this many rows the older ones are summed up.
    pub(super) full: usize,
    /// Entries of the run, without those of unsettled operations.
    pub(super) journaled: Told,
    /// Entries of operations whose outcome was never learnt.
    pub(super) found: u64,
    /// Such operations that are voided.
    pub(super) voided: u64,
    pub(super) foreign: u64,
}

impl<'a> Reading<'a> {
    /// A journal to be read from its beginning; what counts is behind what the account began with. Of an account that was
    /// there before, this is whatever its newest entry before the run's first one left behind.
    pub(in super::super) fn new(
        ids: RequestIds,
        keys: &'a Keys,
        unsettled: &'a HashSet<Uuid>,
        began: Option<State>,
    ) -> Self {
        let root = began.unwrap_or(State { balance: Money::ZERO, version: 0 });
        let journaled = Told { acknowledged: 0, digest: Digest::NONE };
        let (rows, trail, held, full) = (Vec::new(), Trail::default(), HELD, 2 * HELD);
        let (first, found, voided, foreign) = (root, 0, 0, 0);
        Self { ids, keys, unsettled, began, first, root, rows, trail, held, full, journaled, found, voided, foreign }
    }

    /// Takes the next entry; those up to the root are passed over, and those that were read before.
    ///
    /// # Errors
    /// [`Overflow`] when a balance before a write does not fit money.
    pub(in super::super) fn take(&mut self, entry: &Entry) -> Result<(), Overflow> {
        if entry.version <= self.newest() {
            return Ok(());
        }
        let &Entry { version, request_id, delta, balance_after, version_before, .. } = entry;
        if self.began.is_none() && self.rows.is_empty() && !self.ids.holds(request_id) {
            self.root = State { balance: balance_after, version };
            self.first = self.root;
            return Ok(());
        }
        self.rows.push(Row { version, version_before, delta, balance_after, request_id });
        match (self.ids.holds(request_id), entry.kind) {
            (false, _) => self.foreign += 1,
            // A void settles that there is nothing.
            (true, EntryKind::Void) => self.voided += u64::from(self.unsettled.contains(&request_id)),
            (true, _) if self.unsettled.contains(&request_id) => self.found += 1,
            (true, _) => {
                let receipt = Acknowledgement { balance: balance_after, version, version_before };
                self.journaled.acknowledged += 1;
                self.journaled.digest.add(self.keys.digest(request_id, delta, &receipt));
            }
        }
        if self.rows.len() >= self.full { self.sum_up() } else { Ok(()) }
    }

    /// Sums up the older rows: up to one on the path that survives as far as is known. Should an operation have read what
    /// is older than that, then the path does not lead to the rows' root, and the money it wrote over is missing from the
    /// sums: the loss is seen all the same, only not who lost to whom.
    fn sum_up(&mut self) -> Result<(), Overflow> {
        let path = self.journal().path();
        let older = self.rows.len() - self.held;
        let survivor = path.survival[..older].iter().rposition(|survival| *survival == Survival::Survives);
        if let Some(survivor) = survivor.filter(|_| path.reaches_root) {
            let entries = &self.rows[..=survivor];
            self.trail.follow(Journal { root: self.root, entries }, self.ids)?;
            let Row { balance_after: balance, version, .. } = self.rows[survivor];
            self.root = State { balance, version };
            self.rows.drain(..=survivor);
        }
        self.full = self.rows.len() + self.held;
        Ok(())
    }

    /// How many entries are held.
    pub(in super::super) const fn held(&self) -> usize {
        self.rows.len()
    }

    /// The version of the newest entry.
    pub(in super::super) fn newest(&self) -> i64 {
        self.journal().newest()
    }

    pub(super) fn journal(&self) -> Journal<'_, Row> {
        Journal { root: self.root, entries: &self.rows }
    }

    /// How often ids of the run are journaled twice among the rows that are held; the database allows none.
    pub(super) fn doubled(&self) -> u64 {
        let mut ids: Vec<Uuid> =
            self.rows.iter().filter(|row| row.is_own(self.ids)).map(|row| row.request_id).collect();
        ids.sort_unstable();
        ids.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64
    }
}

fn side(row: &Row) -> Result<Side, Overflow> {
    Ok(Side {
        request_id: row.request_id,
        version_before: row.version_before,
        balance_before: row.balance_after.checked_sub(row.delta).ok_or(Overflow)?,
        version: row.version,
        balance_after: row.balance_after,
    })
}
