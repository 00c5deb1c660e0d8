//! How often to ask for a lock that another process holds: often at first, and when ours is the next turn; then less.

use std::time::Duration;

/// The first pause. A lock is often held for no longer: a few trips to a database in the same room.
const SHORTEST: Duration = Duration::from_millis(1);
/// The first pause with several nodes: longer than it takes to ask them all, or those whose votes were split meet again.
const SHORTEST_OF_SEVERAL: Duration = Duration::from_millis(8);
/// The most that a free lock is left lying; also what one waiting process costs Redis: some eighty small scripts a second.
const LONGEST: Duration = Duration::from_millis(20);

/// The pauses of one who waits.
#[derive(Debug)]
pub(crate) struct Pace {
    shortest: Duration,
    pause: Duration,
    next: bool,
}

impl Pace {
    pub(crate) fn of_nodes(nodes: usize) -> Self {
        let shortest = if nodes > 1 { SHORTEST_OF_SEVERAL } else { SHORTEST };
        Self { shortest, pause: shortest, next: false }
    }

    /// The pause before the next question: a tenth to all of the present length, by chance, so that those who collided
    /// part. `next`: whether we are the next to get the lock; it will not be long then, and nobody else may have it.
    pub(crate) fn pause(&mut self, next: bool) -> Duration {
        if next && !self.next {
            self.pause = self.shortest;
        }
        self.next = next;
        let pause = self.pause;
        self.pause = (pause * 5 / 4).min(LONGEST);
        pause.mul_f64(rand::random_range(0.1..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew_once_when_the_turn_comes() {
        let mut pace = Pace::of_nodes(1);
        assert!(pace.pause(false) <= SHORTEST);
        for _ in 0..100 {
            assert!(pace.pause(false) <= LONGEST);
        }
        assert_eq!(pace.pause, LONGEST);
        assert!(pace.pause(true) <= SHORTEST);
        for _ in 0..100 {
            pace.pause(true);
        }
        assert_eq!(pace.pause, LONGEST);
    }
}
