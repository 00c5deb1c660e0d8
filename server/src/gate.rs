//! Gates: where the lab holds operations. A [`Script`] stops one request at chosen points, tells where it stands, lets it
//! go by one step at a time, or crashes it there. The operation runs the same code as in production; without scripts a
//! point costs one relaxed load.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::select_all;
use tokio::sync::watch;
use uuid::Uuid;

use crate::timeline::Phase;

/// A point at which an operation can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before a phase, in every attempt.
    Before(Phase),
    /// Of a deduction for the queue: when it is recorded, before its message is published.
    Publish,
    /// When the broker has confirmed the message, before that is noted.
    Published,
    /// After the commit, before the caller is told of it.
    Answer,
}

/// The points before every phase.
pub const PHASES: [Point; 5] = [
    Point::Before(Phase::LockWait),
    Point::Before(Phase::Read),
    Point::Before(Phase::Compute),
    Point::Before(Phase::Write),
    Point::Before(Phase::Commit),
];

/// Where an operation is, as far as its script knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between two points: at work, waiting for a lock, not begun, or ended.
    Away,
    /// Held.
    Standing {
        /// Where.
        point: Point,
        /// In which attempt, from 1.
        attempt: u32,
    },
    /// Let go for good.
    Free,
    /// Crashed at a point.
    Crashed,
}

/// The scripts there are.
#[derive(Debug, Default)]
pub struct Gates {
    holds: Mutex<HashMap<Uuid, Arc<Hold>>>,
    /// How many of them there are. Relaxed: a script is there before the request it is for.
    count: AtomicUsize,
}

/// What a script and its operation share.
#[derive(Debug)]
struct Hold {
    points: Vec<Point>,
    place: watch::Sender<Place>,
}

/// Holds one request, until dropped.
#[derive(Debug)]
pub struct Script {
    gates: Arc<Gates>,
    request_id: Uuid,
    hold: Arc<Hold>,
    seen: watch::Receiver<Place>,
}

impl Gates {
    /// Stops a request that has not begun yet before one phase.
    pub fn hold(self: &Arc<Self>, request_id: Uuid, phase: Phase) -> Script {
        self.script(request_id, &[Point::Before(phase)])
    }

    /// Stops a request that has not begun yet whenever it comes to one of `points`.
    pub fn script(self: &Arc<Self>, request_id: Uuid, points: &[Point]) -> Script {
        let hold = Arc::new(Hold { points: points.to_vec(), place: watch::Sender::new(Place::Away) });
        let mut holds = self.lock();
        holds.insert(request_id, Arc::clone(&hold));
        self.count.store(holds.len(), Ordering::Relaxed);
        let seen = hold.place.subscribe();
        Script { gates: Arc::clone(self), request_id, hold, seen }
    }

    /// Called by the operation: returns when it may go on. Crashed, it never does: whoever owns the work drops it, see
    /// [`Self::mortal`].
    pub async fn pass(&self, request_id: Uuid, point: Point, attempt: u32) {
        let Some(hold) = self.find(request_id).filter(|hold| hold.points.contains(&point)) else { return };
        let mut place = hold.place.subscribe();
        hold.place.send_if_modified(|place| {
            let stops = *place == Place::Away;
            if stops {
                *place = Place::Standing { point, attempt };
            }
            stops
        });
        // The sender lives in `hold`, so waiting cannot fail.
        let _ = place.wait_for(|place| matches!(place, Place::Away | Place::Free)).await;
    }

    /// Runs the work of some requests to its end, or drops it where it is when one of them is crashed: `None`.
    pub async fn mortal<T>(
        &self,
        request_ids: impl IntoIterator<Item = Uuid>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let holds: Vec<_> = request_ids.into_iter().filter_map(|id| self.find(id)).collect();
        if holds.is_empty() {
            return Some(work.await);
        }
        let crashes = holds.iter().map(|hold| {
            let mut place = hold.place.subscribe();
            Box::pin(async move { place.wait_for(|place| *place == Place::Crashed).await.is_ok() })
        });
        tokio::select! {
            // The dead notice nothing, such as that others of their work are gone.
            biased;
            _ = select_all(crashes) => None,
            done = work => Some(done),
        }
    }

    /// Whether nothing is held anywhere.
    pub fn are_unused(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn find(&self, request_id: Uuid) -> Option<Arc<Hold>> {
        if self.are_unused() {
            return None;
        }
        self.lock().get(&request_id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Hold>>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script {
    /// Where the operation is.
    pub fn place(&self) -> Place {
        *self.hold.place.borrow()
    }

    /// Returns when the operation stands at a point.
    pub async fn arrived(&self) {
        let _ = self.hold.place.subscribe().wait_for(|place| matches!(place, Place::Standing { .. })).await;
    }

    /// Returns when the place has changed since this was last called. Dropping the future loses nothing.
    pub async fn moved(&mut self) {
        let _ = self.seen.changed().await;
    }

    /// Lets the operation go on to its next point.
    pub fn step(&self) {
        self.go_on(Place::Away);
    }

    /// Ends the operation where it stands, as if its process had died.
    pub fn crash(&self) {
        self.go_on(Place::Crashed);
    }

    fn go_on(&self, next: Place) {
        self.hold.place.send_if_modified(|place| {
            let stands = matches!(place, Place::Standing { .. });
            if stands {
                *place = next;
            }
            stands
        });
    }

    /// Whether there is still work going on that a crash would end.
    pub fn is_at_work(&self) -> bool {
        // The script's own reference and that of the gates; every further one is a piece of work's.
        Arc::strong_count(&self.hold) > 2
    }

    /// Lets the operation go for good.
    pub fn release(self) {}
}

impl Drop for Script {
    fn drop(&mut self) {
        {
            let mut holds = self.gates.lock();
            if holds.get(&self.request_id).is_some_and(|hold| Arc::ptr_eq(hold, &self.hold)) {
                holds.remove(&self.request_id);
            }
            self.gates.count.store(holds.len(), Ordering::Relaxed);
        }
        self.hold.place.send_if_modified(|place| {
            let lives = *place != Place::Crashed;
            if lives {
                *place = Place::Free;
            }
            lives
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const READ: Point = Point::Before(Phase::Read);
    const WRITE: Point = Point::Before(Phase::Write);

    #[tokio::test]
    async fn an_operation_is_let_go_step_by_step_and_then_for_good() {
        let (gates, id) = (Arc::new(Gates::default()), Uuid::from_u128(1));
        let script = gates.script(id, &[READ, WRITE]);
        let mut work = Box::pin(async {
            for point in [READ, Point::Before(Phase::Compute), WRITE, READ] {
                gates.pass(id, point, 1).await;
            }
        });
        for point in [READ, WRITE] {
            assert!((&mut work).now_or_never().is_none());
            assert_eq!(script.place(), Place::Standing { point, attempt: 1 });
            script.step();
            script.step();
        }
        assert!((&mut work).now_or_never().is_none(), "each attempt is held again");
        drop(script);
        work.now_or_never().expect("it is free");
        assert!(gates.lock().is_empty() && gates.are_unused());
    }

    #[tokio::test]
    async fn a_crashed_operation_goes_no_further_and_its_work_is_dropped() {
        let (gates, id) = (Arc::new(Gates::default()), Uuid::from_u128(1));
        let script = gates.script(id, &[READ]);
        let mut work = Box::pin(gates.mortal([id, Uuid::from_u128(2)], gates.pass(id, READ, 1)));
        assert!((&mut work).now_or_never().is_none());
        script.crash();
        drop(script);
        assert_eq!(work.now_or_never(), Some(None));
        assert_eq!(gates.mortal([id], async { 7 }).now_or_never(), Some(Some(7)), "others are not touched");
    }
}
