//! The timeline: what operations did, phase by phase, and where they raced. One bounded ring per process, written by
//! every operation and read by any number of watchers, each at its own pace.
//!
//! It owns the order of events (sequence within an epoch) and the lanes. It never makes an operation wait for a
//! watcher: a reader slower than the ring is long is told what it missed.

mod lanes;

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use uuid::Uuid;
use zbl_trace::TraceId;

pub use self::lanes::Lane;
use self::lanes::Lanes;
use crate::{
    account::{Money, State},
    waiting::Waiting,
};

/// The phases of an operation, in the order they come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waiting in the queue of DeductAsync, from when it was accepted until a worker took it.
    Queued,
    /// Waiting for a lock of this process or of a lock server.
    LockWait,
    /// Reading balance and version.
    Read,
    /// Deciding the new balance.
    Compute,
    /// Writing the balance and the journal entry.
    Write,
    /// Committing.
    Commit,
}

impl Phase {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::LockWait => "lock_wait",
            Self::Read => "read",
            Self::Compute => "compute",
            Self::Write => "write",
            Self::Commit => "commit",
        }
    }
}

/// One phase of one operation.
#[derive(Clone, Debug)]
pub struct Span {
    /// The account.
    pub user_id: i64,
    /// The operation's request id.
    pub request_id: Uuid,
    /// The trace of the call that made it, if a call did.
    pub trace_id: Option<TraceId>,
    /// Its lane, from 1.
    pub lane: u32,
    /// Its strategy.
    pub strategy: &'static str,
    /// Which phase.
    pub phase: Phase,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it began, nanoseconds since the epoch began; below zero where it had begun before.
    pub start_ns: i64,
    /// How long it took.
    pub duration: Duration,
    /// What the phase saw and wrote.
    pub noted: Noted,
    /// Why it failed, if it did, in a word.
    pub failure: Option<&'static str>,
}

/// What a phase tells the timeline about its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Balance and version read.
    pub seen: Option<State>,
    /// Balance and version written.
    pub written: Option<State>,
    /// Money destroyed by the write, minor units; negative: brought back.
    pub destroyed: Money,
    /// How many changes went through it together; 0 or 1: this one alone.
    pub together: u16,
}

/// A lost update at the moment it was committed.
#[derive(Clone, Debug)]
pub struct Race {
    /// The account.
    pub user_id: i64,
    /// The entry that overwrote.
    pub overwriter: Contender,
    /// What it had read.
    pub seen: State,
    /// The entries it cut off, newest first.
    pub victims: Vec<Contender>,
    /// How many more there may be, at the most.
    pub victims_omitted: u32,
    /// Money destroyed, minor units, signed.
    pub destroyed: Money,
}

/// One side of a race.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// The request id.
    pub request_id: Uuid,
    /// The version it wrote.
    pub version: i64,
    /// Its signed change, minor units.
    pub delta: Money,
    /// The balance it left behind, minor units.
    pub balance_after: Money,
}

/// What the ring holds.
#[derive(Clone, Debug)]
pub enum Event {
    /// A phase ended.
    Span(Span),
    /// An update was lost.
    Race(Race),
}

impl Event {
    /// The account it is about.
    pub const fn user_id(&self) -> i64 {
        match self {
            Self::Span(span) => span.user_id,
            Self::Race(race) => race.user_id,
        }
    }
}

/// The ring, its clock and its lanes.
#[derive(Debug)]
pub struct Timeline {
    epoch: Uuid,
    began: Instant,
    capacity: usize,
    ring: Mutex<Ring>,
    lanes: Lanes,
    /// Watchers that wait for the next event; without any, recording wakes nobody.
    waiting: AtomicUsize,
    recorded: Notify,
}

#[derive(Debug)]
struct Ring {
    /// The sequence of the newest event; 0 before the first.
    newest: u64,
    /// The sequence up to which the lab cleared the ring.
    cleared: u64,
    events: VecDeque<Event>,
}

/// What [`Timeline::after`] found.
#[derive(Debug)]
pub struct Batch {
    /// Matching events with their sequences, in order.
    pub events: Vec<(u64, Event)>,
    /// The sequence up to which the reader now is complete; pass it to the next call.
    pub up_to: u64,
    /// What the reader has missed, if it has.
    pub missed: Option<Missed>,
}

/// Events that are gone before a reader came to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The first sequence that can still be had.
    pub before: u64,
    /// Whether the lab cleared them; otherwise the reader was too slow.
    pub cleared: bool,
}

/// A poisoned lock only means that another thread panicked between two plain assignments; the ring is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Timeline {
    /// The most events one call looks at, whether they concern the reader or not: it bounds the time the ring is locked.
    const BATCH: usize = 512;

    /// An empty timeline that holds at most `capacity` events.
    pub fn new(capacity: usize) -> Self {
        Self {
            epoch: Uuid::new_v4(),
            began: Instant::now(),
            capacity: capacity.max(1),
            ring: Mutex::new(Ring { newest: 0, cleared: 0, events: VecDeque::with_capacity(capacity.max(1)) }),
            lanes: Lanes::default(),
            waiting: AtomicUsize::new(0),
            recorded: Notify::new(),
        }
    }

    /// This process's run. Sequences of another epoch mean nothing here.
    pub const fn epoch(&self) -> Uuid {
        self.epoch
    }

    /// Time since the epoch began, monotonic.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The moment so long after the epoch began.
    pub fn instant(&self, since: Duration) -> Instant {
        self.began + since
    }

    /// Appends an event, dropping the oldest when the ring is full.
    pub fn record(&self, event: Event) {
        {
            let mut ring = lock(&self.ring);
            if ring.events.len() == self.capacity {
                ring.events.pop_front();
            }
            ring.newest += 1;
            ring.events.push_back(event);
        }
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.recorded.notify_waiters();
        }
    }

    /// Forgets all events and returns how many there were. Sequences go on.
    pub fn clear(&self) -> usize {
        let mut ring = lock(&self.ring);
        ring.cleared = ring.newest;
        let count = ring.events.len();
        ring.events.clear();
        count
    }

    /// The most events held.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The sequence of the newest event, 0 before the first.
    pub fn newest(&self) -> u64 {
        lock(&self.ring).newest
    }

    /// The position before the oldest event still held.
    pub fn first_held(&self) -> u64 {
        let ring = lock(&self.ring);
        ring.newest - ring.events.len() as u64
    }

    /// The events after `sequence` that concern `user_id` (0: all), at most one batch of them.
    pub fn after(&self, sequence: u64, user_id: i64) -> Batch {
        let ring = lock(&self.ring);
        let oldest = ring.newest + 1 - ring.events.len() as u64;
        let missed = (sequence.saturating_add(1) < oldest)
            .then_some(Missed { before: oldest, cleared: sequence < ring.cleared });
        let from = sequence.max(oldest - 1).min(ring.newest);
        let mut batch = Batch { events: Vec::new(), up_to: from, missed };
        for event in ring.events.iter().skip((from + 1 - oldest) as usize).take(Self::BATCH) {
            batch.up_to += 1;
            if user_id == 0 || event.user_id() == user_id {
                batch.events.push((batch.up_to, event.clone()));
            }
        }
        batch
    }

    /// Every event held that was recorded after `sequence` and by now, and that concerns `user_id` (0: all).
    pub fn retained(&self, sequence: u64, user_id: i64) -> impl Iterator<Item = (u64, Event)> {
        let (mut after, until) = (sequence.max(self.first_held()), self.newest());
        let batches = std::iter::from_fn(move || {
            let batch = (after < until).then(|| self.after(after, user_id))?;
            after = batch.up_to;
            Some(batch.events)
        });
        batches.flatten().take_while(move |(sequence, _)| *sequence <= until)
    }

    /// Waits until there is an event after `sequence`.
    pub async fn recorded_after(&self, sequence: u64) {
        loop {
            let notified = self.recorded.notified();
            tokio::pin!(notified);
            // Registered before looking, so that an event recorded in between is not slept through.
            notified.as_mut().enable();
            let _counted = Waiting::begin(&self.waiting);
            if self.newest() > sequence {
                return;
            }
            notified.await;
        }
    }

    /// The lowest free lane of an account, held until dropped.
    pub fn lane(&self, user_id: i64) -> Lane<'_> {
        self.lanes.take(user_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(user_id: i64) -> Event {
        Event::Span(Span {
            user_id,
            request_id: Uuid::nil(),
            trace_id: None,
            lane: 1,
            strategy: "none",
            phase: Phase::Read,
            attempt: 1,
            start_ns: 0,
            duration: Duration::ZERO,
            noted: Noted::default(),
            failure: None,
        })
    }

    fn sequences(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|(sequence, _)| *sequence).collect()
    }

    #[test]
    fn a_reader_sees_each_event_once_and_in_order() {
        let timeline = Timeline::new(10);
        for user in [1, 2, 1] {
            timeline.record(span(user));
        }
        let first = timeline.after(0, 0);
        assert_eq!((sequences(&first), first.up_to, first.missed), (vec![1, 2, 3], 3, None));
        assert_eq!(sequences(&timeline.after(3, 0)), Vec::<u64>::new());
        let filtered = timeline.after(0, 1);
        assert_eq!((sequences(&filtered), filtered.up_to), (vec![1, 3], 3));
    }

    #[test]
    fn a_slow_reader_learns_where_the_ring_begins() {
        let timeline = Timeline::new(2);
        for _ in 0..5 {
            timeline.record(span(1));
        }
        let batch = timeline.after(1, 0);
        assert_eq!((sequences(&batch), batch.missed), (vec![4, 5], Some(Missed { before: 4, cleared: false })));
        assert_eq!(timeline.after(3, 0).missed, None);
    }

    #[test]
    fn a_cleared_ring_goes_on_counting() {
        let timeline = Timeline::new(10);
        timeline.record(span(1));
        timeline.record(span(1));
        assert_eq!((timeline.clear(), timeline.newest()), (2, 2));
        timeline.record(span(1));
        let batch = timeline.after(1, 0);
        assert_eq!((sequences(&batch), batch.missed), (vec![3], Some(Missed { before: 3, cleared: true })));
    }

    #[test]
    fn a_position_from_the_future_reads_nothing() {
        let timeline = Timeline::new(2);
        timeline.record(span(1));
        let batch = timeline.after(u64::MAX, 0);
        assert_eq!((batch.events.len(), batch.up_to), (0, 1));
    }
}
