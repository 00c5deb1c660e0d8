//! Puts spans back in the order they began. The server records a span when it ends, so a long one arrives behind short
//! ones that began after it. Holds events back for a bounded time and in a bounded number, and gives up beyond that.

use std::collections::BTreeMap;

use zbl_proto::v1::{Race, Span};

use super::clocks::Shift;
use crate::paint::begin_ns;

/// How far the newest end must be ahead of an event's beginning before it is let go: longer than any phase but a
/// wait, shorter than a reader notices.
const WINDOW_NS: i64 = 100_000_000;

/// The most events held back: a tenth of a second of the fastest server on record, eight thousand operations a second
/// of five phases each.
const CAPACITY: usize = 4096;

/// What has a place in time.
#[derive(Debug)]
pub(super) enum Happening {
    Span(Span),
    Race(Race),
}

/// The events held back.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// By beginning, then by server and sequence.
    held: BTreeMap<(i64, usize, i64), Happening>,
    newest_end_ns: i64,
}

impl Order {
    /// Takes an event in. A race has no time of its own: it belongs behind everything that had ended when it arrived.
    pub(super) fn hold(&mut self, source: usize, sequence: i64, happening: Happening) {
        let begin_ns = match &happening {
            Happening::Span(span) => {
                self.newest_end_ns = self.newest_end_ns.max(span.start_ns.saturating_add(span.duration_ns));
                begin_ns(span)
            }
            Happening::Race(_) => self.newest_end_ns,
        };
        self.held.insert((begin_ns, source, sequence), happening);
    }

    /// Moves a server's events later.
    pub(super) fn shift(&mut self, shift: Shift) {
        let moved = self.held.extract_if(.., |(_, source, _), _| *source == shift.source).collect::<Vec<_>>();
        for ((begin_ns, source, sequence), mut happening) in moved {
            if let Happening::Span(span) = &mut happening {
                span.start_ns = span.start_ns.saturating_add(shift.by_ns);
            }
            self.held.insert((begin_ns.saturating_add(shift.by_ns), source, sequence), happening);
        }
    }

    /// Lets the next event go, with the time it began and its server, if its turn has certainly come or there is no room to wait.
    pub(super) fn release(&mut self) -> Option<(i64, usize, Happening)> {
        let first = self.held.first_entry()?;
        let old_enough = first.key().0 <= self.newest_end_ns.saturating_sub(WINDOW_NS);
        if old_enough || self.held.len() > CAPACITY { self.settle() } else { None }
    }

    /// Lets the next event go in any case.
    pub(super) fn settle(&mut self) -> Option<(i64, usize, Happening)> {
        self.held.pop_first().map(|((begin_ns, source, _), happening)| (begin_ns, source, happening))
    }

    /// Whether anything is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start_ms: i64, end_ms: i64) -> Happening {
        let (start_ns, duration_ns) = (start_ms * 1_000_000, (end_ms - start_ms) * 1_000_000);
        Happening::Span(Span { start_ns, duration_ns, ..Default::default() })
    }

    fn released(order: &mut Order) -> Vec<i64> {
        std::iter::from_fn(|| order.release()).map(|(begin_ns, ..)| begin_ns / 1_000_000).collect()
    }

    #[test]
    fn spans_come_out_in_the_order_they_began() {
        let mut order = Order::default();
        for (sequence, (start, end)) in [(5, 6), (7, 9), (0, 10), (20, 30)].into_iter().enumerate() {
            order.hold(0, sequence as i64, span(start, end));
        }
        assert_eq!(released(&mut order), [] as [i64; 0], "all began within the window");
        order.hold(0, 9, span(105, 107));
        assert_eq!(released(&mut order), [0, 5, 7]);
        assert_eq!(order.settle().map(|(begin_ns, ..)| begin_ns), Some(20_000_000));
        assert!(!order.is_empty());
    }

    #[test]
    fn a_race_comes_behind_what_had_ended() {
        let mut order = Order::default();
        order.hold(0, 1, span(0, 10));
        order.hold(0, 2, Happening::Race(Race::default()));
        order.hold(0, 3, span(9, 12));
        order.hold(0, 4, span(11, 12));
        let kinds: Vec<_> = std::iter::from_fn(|| order.settle()).map(|(ns, _, h)| (ns / 1_000_000, h)).collect();
        assert!(matches!(kinds[..], [(0, _), (9, _), (10, Happening::Race(_)), (11, _)]), "{kinds:?}");
    }

    #[test]
    fn room_is_bounded() {
        let mut order = Order::default();
        for sequence in 0..=CAPACITY as i64 {
            order.hold(0, sequence, span(0, 1));
        }
        assert!(order.release().is_some());
        assert!(order.release().is_none());
    }
}
