//! Where in the journal the projector has to look next. `seq` is given out when an entry is inserted and shows when its transaction
//! commits, so the entries that show have holes between them: of transactions that are still open, and of those that were rolled
//! back, which nobody can tell apart. A hole is looked into again until it is old. Pure: it is told what was seen, and when.
//!
//! It may be wrong and nothing is: what makes the models right are the versions of accounts, and what it forgets the sweep finds.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A hole is looked into for so long: three times what a statement of the service may take by default (--lock-wait and
/// --pool-wait).
pub(super) const HOLE_AGE: Duration = Duration::from_secs(30);

/// The most holes that are looked into, each a range of an index in every query; more are given up early, the oldest first.
pub(super) const HOLES_MOST: usize = 200;

/// Entries that did not show, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    from: i64,
    to: i64,
    since: Instant,
}

/// How far the journal was read, and what was missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    read: i64,
    /// In order, none touching another.
    holes: VecDeque<Hole>,
}

impl Tail {
    /// Nothing is missing up to here.
    pub(super) const fn after(seq: i64) -> Self {
        Self { read: seq, holes: VecDeque::new() }
    }

    /// The highest `seq` that was seen.
    pub(super) const fn read(&self) -> i64 {
        self.read
    }

    /// Up to here nothing is missing that anybody still waits for.
    pub(super) fn complete(&self) -> i64 {
        self.holes.front().map_or(self.read, |hole| hole.from - 1)
    }

    /// The ranges up to [`Self::read`] that are to be looked into again.
    pub(super) fn ranges(&self) -> Vec<(i64, i64)> {
        self.holes.iter().map(|hole| (hole.from, hole.to)).collect()
    }

    /// These showed, in order, when the ranges and what comes after them were looked into. What lies between them did not, as far
    /// as the last of them, and is waited for with `patience`.
    #[must_use]
    pub(super) fn having_seen(&self, seqs: impl IntoIterator<Item = i64>, patience: Duration, now: Instant) -> Self {
        let mut seen = self.clone();
        for seq in seqs {
            if seq > seen.read {
                if seq > seen.read + 1 {
                    seen.holes.push_back(Hole { from: seen.read + 1, to: seq - 1, since: now });
                }
                seen.read = seq;
            } else {
                seen.fill(seq);
            }
        }
        let is_old = |hole: &Hole| now.saturating_duration_since(hole.since) >= patience;
        seen.holes.retain(|hole| !is_old(hole));
        let surplus = seen.holes.len().saturating_sub(HOLES_MOST);
        seen.holes.drain(..surplus);
        seen
    }

    /// Takes a `seq` out of the hole that it lies in.
    fn fill(&mut self, seq: i64) {
        let at = self.holes.partition_point(|hole| hole.to < seq);
        let Some(hole) = self.holes.get(at).copied().filter(|hole| hole.from <= seq) else { return };
        self.holes.remove(at);
        let rest = [Hole { to: seq - 1, ..hole }, Hole { from: seq + 1, ..hole }];
        for (offset, part) in rest.into_iter().filter(|part| part.from <= part.to).enumerate() {
            self.holes.insert(at + offset, part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_shows_late_is_looked_for_and_what_never_shows_is_given_up() {
        let began = Instant::now();
        let tail = Tail::after(10).having_seen([11, 13, 17], HOLE_AGE, began);
        assert_eq!((tail.read(), tail.complete(), tail.ranges()), (17, 11, vec![(12, 12), (14, 16)]));
        let later = began + HOLE_AGE / 2;
        let tail = tail.having_seen([12, 15, 19], HOLE_AGE, later);
        assert_eq!((tail.read(), tail.complete(), tail.ranges()), (19, 13, vec![(14, 14), (16, 16), (18, 18)]));
        // A part of a hole is as old as the hole was.
        let tail = tail.having_seen([], HOLE_AGE, began + HOLE_AGE);
        assert_eq!((tail.complete(), tail.ranges()), (17, vec![(18, 18)]));
        assert_eq!(tail.having_seen([], HOLE_AGE, later + HOLE_AGE), Tail::after(19));
    }

    #[test]
    fn the_holes_are_bounded() {
        let seqs = (1..).step_by(2).take(HOLES_MOST + 10).map(|seq| seq + 1);
        let tail = Tail::after(0).having_seen(seqs, HOLE_AGE, Instant::now());
        assert_eq!((tail.ranges().len(), tail.complete()), (HOLES_MOST, 20));
    }

    proptest! {
        /// Against a set of what is missing.
        #[test]
        fn ranges_are_what_was_not_seen(pages in prop::collection::vec(prop::collection::btree_set(1..60_i64, 0..12), 1..8)) {
            let now = Instant::now();
            let mut tail = Tail::after(0);
            let mut seen = BTreeSet::new();
            for page in pages {
                tail = tail.having_seen(page.iter().copied(), HOLE_AGE, now);
                seen.extend(page);
                let read = seen.last().copied().unwrap_or(0);
                let missing: Vec<i64> = (1..=read).filter(|seq| !seen.contains(seq)).collect();
                let ranges: Vec<i64> = tail.ranges().into_iter().flat_map(|(from, to)| from..=to).collect();
                prop_assert_eq!(&ranges, &missing);
                prop_assert_eq!(tail.read(), read);
                prop_assert_eq!(tail.complete(), missing.first().map_or(read, |first| first - 1));
            }
        }
    }
}
