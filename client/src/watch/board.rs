//! Which lanes of an account are busy, so that every line can show who else is in the middle of something.

use std::collections::HashMap;

use zbl_proto::v1::{Phase, Span};

use crate::paint::begin_ns;

/// The lanes a line has columns for: more would push the words off a usual terminal.
pub(super) const COLUMNS: usize = 12;

/// How long an operation counts as in flight after its last span. A refused one shows no end, and must not stay forever.
const STALE_NS: i64 = 1_000_000_000;

/// The most accounts remembered: an attack opens one account after the other.
const ACCOUNTS: usize = 64;

/// One lane, as a line shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// Nobody is there.
    Idle,
    /// Another operation is between two of its phases, or in one.
    Busy,
    /// The line's own operation.
    This(Phase),
    /// The line's own operation is in a lane beyond the last column.
    Beyond(Phase),
}

/// The accounts' lanes; each remembers until when it counts as busy.
#[derive(Debug, Default)]
pub(super) struct Board {
    busy_until_ns: HashMap<(usize, i64), [i64; COLUMNS]>,
}

impl Board {
    /// Enters a span, and returns the lanes of its account, on its server, with it.
    pub(super) fn enter(&mut self, source: usize, span: &Span) -> [Cell; COLUMNS] {
        let key = (source, span.user_id);
        if self.busy_until_ns.len() >= ACCOUNTS && !self.busy_until_ns.contains_key(&key) {
            self.busy_until_ns.clear();
        }
        let lanes = self.busy_until_ns.entry(key).or_insert([i64::MIN; COLUMNS]);
        let mut cells = lanes.map(|until| if until > begin_ns(span) { Cell::Busy } else { Cell::Idle });
        let phase = span.phase();
        let lane = usize::try_from(span.lane).unwrap_or(0).saturating_sub(1);
        match (cells.get_mut(lane), lanes.get_mut(lane)) {
            (Some(cell), Some(until)) => {
                *cell = Cell::This(phase);
                let over = span.failed || phase == Phase::Commit;
                let end_ns = span.start_ns.saturating_add(span.duration_ns);
                *until = if over { end_ns } else { end_ns.saturating_add(STALE_NS) };
            }
            _ => cells[COLUMNS - 1] = Cell::Beyond(phase),
        }
        cells
    }

    /// Forgets a server's operations: it was restarted.
    pub(super) fn forget(&mut self, source: usize) {
        self.busy_until_ns.retain(|(of, _), _| *of != source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(board: &mut Board, lane: i32, phase: Phase, start_ns: i64) -> String {
        let span = Span { user_id: 7, lane, phase: phase.into(), start_ns, duration_ns: 10, ..Default::default() };
        let cells = board.enter(0, &span);
        cells
            .map(|cell| match cell {
                Cell::Idle => '.',
                Cell::Busy => '|',
                Cell::This(phase) => crate::paint::letter(phase),
                Cell::Beyond(_) => '+',
            })
            .iter()
            .collect()
    }

    #[test]
    fn lanes_are_busy_from_their_first_span_to_their_commit() {
        let mut board = Board::default();
        assert_eq!(shown(&mut board, 1, Phase::Read, 0), "R...........");
        assert_eq!(shown(&mut board, 2, Phase::Read, 5), "|R..........");
        assert_eq!(shown(&mut board, 1, Phase::Commit, 10), "#|..........");
        assert_eq!(shown(&mut board, 2, Phase::Write, 15), "|W..........", "the commit still runs");
        assert_eq!(shown(&mut board, 2, Phase::Commit, 30), ".#..........");
    }

    #[test]
    fn forgotten_operations_and_far_lanes_do_no_harm() {
        let mut board = Board::default();
        shown(&mut board, 1, Phase::Read, 0);
        assert_eq!(shown(&mut board, 99, Phase::Read, 20), "|..........+");
        assert_eq!(shown(&mut board, -1, Phase::Read, STALE_NS + 10), "R...........");
        for user_id in 0..1000 {
            board.enter(0, &Span { user_id, ..Default::default() });
        }
        assert!(board.busy_until_ns.len() <= ACCOUNTS);
    }
}
