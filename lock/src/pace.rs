//! How often to ask for a lock that another process holds: often at first, and when ours is the next turn; then less.

use std::time::Duration;

/// A lock is often held for no longer than this: a few trips to a database in the same room.
const SHORTEST: Duration = Duration::from_millis(1);
/// The most that a free lock is left lying; also what one waiting process costs Redis: fifty small scripts a second.
const LONGEST: Duration = Duration::from_millis(20);

/// The pauses of one who waits.
#[derive(Debug)]
pub(crate) struct Pace {
    pause: Duration,
    next: bool,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { pause: SHORTEST, next: false }
    }

    /// The pause before the next question, up to half shorter by chance, so that those who collided part. `next`: whether
    /// we are the next to get the lock; it will not be long then, and nobody else may have it meanwhile.
    pub(crate) fn pause(&mut self, next: bool) -> Duration {
        if next && !self.next {
            self.pause = SHORTEST;
        }
        self.next = next;
        let pause = self.pause;
        self.pause = (pause * 5 / 4).min(LONGEST);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew_once_when_the_turn_comes() {
        let mut pace = Pace::new();
        let waits: Vec<_> = (0..100).map(|_| pace.pause(false)).collect();
        assert!(waits[0] <= SHORTEST && waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[99] >= LONGEST / 2);
        assert!(pace.pause(true) <= SHORTEST);
        assert!((0..100).map(|_| pace.pause(true)).last() >= Some(LONGEST / 2));
    }
}
