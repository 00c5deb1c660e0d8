//! Who of this process holds or waits for what. For each lock those who want it queue up here, in order, so that one of
//! them asks Redis for all, and whoever is done hands over to the next at once. This is order, not protection: only the
//! nodes keep others out.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Turn, OwnedMutexGuard},
    time::Instant,
};

use crate::{Error, Holding, owner::shown};

/// Callers of this process who may wait for one lock. Each waits for all before it, so with more the last would only
/// run out of time.
const MAX_WAITERS: usize = 10_000;

/// The locks that somebody here holds or waits for; an entry goes with the last of them.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    locks: Mutex<HashMap<String, Entry>>,
}

/// Waiters of each lock: their numbers, and who they are.
pub(crate) type Waiters = HashMap<String, BTreeMap<u64, String>>;

#[derive(Debug, Default)]
struct Entry {
    turn: Arc<Turn<()>>,
    next_waiter: u64,
    waiters: BTreeMap<u64, String>,
    /// Whose turn it is. Dropping the last reference takes the lock of this map, so never do that under it.
    seat: Option<(String, Weak<Seat>)>,
    seen: Option<Seen>,
}

/// Who was last known to hold a lock, and until when, if it ends.
#[derive(Debug)]
struct Seen {
    holder: String,
    until: Option<Instant>,
}

impl Entry {
    fn is_used(&self) -> bool {
        !self.waiters.is_empty() || self.seat.as_ref().is_some_and(|(_, seat)| seat.strong_count() > 0)
    }

    fn holder(&self) -> Option<&Seen> {
        self.seen.as_ref().filter(|seen| seen.until.is_none_or(|until| until > Instant::now()))
    }
}

/// Somebody who waits, until dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    queue: Arc<Queue>,
    key: String,
    owner: String,
    number: u64,
}

/// The turn to ask the nodes for a lock, and to hold it; shared by all holds of one owner. The last to drop it hands over.
#[derive(Debug)]
pub(crate) struct Seat {
    queue: Arc<Queue>,
    key: String,
    _turn: OwnedMutexGuard<()>,
}

impl Queue {
    fn locks(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a caller among those who wait.
    ///
    /// # Errors
    /// [`Error::Crowded`].
    pub(crate) fn join(self: &Arc<Self>, key: &str, owner: &str) -> Result<Waiter, Error> {
        let mut locks = self.locks();
        let entry = locks.entry(key.to_owned()).or_default();
        if entry.waiters.len() >= MAX_WAITERS {
            return Err(Error::Crowded { key: key.to_owned(), waiters: entry.waiters.len() });
        }
        let number = entry.next_waiter;
        entry.next_waiter += 1;
        entry.waiters.insert(number, owner.to_owned());
        Ok(Waiter { queue: Arc::clone(self), key: key.to_owned(), owner: owner.to_owned(), number })
    }

    /// Notes who holds a lock, if anybody here is interested in it still.
    pub(crate) fn saw(&self, key: &str, holder: &str, until: Option<Instant>) {
        if let Some(entry) = self.locks().get_mut(key) {
            entry.seen = Some(Seen { holder: shown(holder).to_owned(), until });
        }
    }

    /// Notes that the lock is free as far as we know.
    pub(crate) fn forget(&self, key: &str) {
        if let Some(entry) = self.locks().get_mut(key) {
            entry.seen = None;
        }
    }

    /// `instance/request` of who holds a lock, as far as known.
    pub(crate) fn holder(&self, key: &str) -> Option<String> {
        self.locks().get(key)?.holder().map(|seen| seen.holder.clone())
    }

    /// Everybody who waits.
    pub(crate) fn waiters(&self) -> Waiters {
        let locks = self.locks();
        let waited_for = locks.iter().filter(|(_, entry)| !entry.waiters.is_empty());
        waited_for.map(|(key, entry)| (key.clone(), entry.waiters.clone())).collect()
    }

    /// All that is known here, by key.
    pub(crate) fn holdings(&self) -> Vec<Holding> {
        let now = Instant::now();
        let holding = |(key, entry): (&String, &Entry)| {
            let seen = entry.holder();
            let ttl: Option<Duration> = seen.and_then(|seen| Some(seen.until?.saturating_duration_since(now)));
            Holding {
                key: key.clone(),
                holder: seen.map(|seen| seen.holder.clone()),
                ttl,
                waiters: entry.waiters.len(),
            }
        };
        let mut all: Vec<_> = self.locks().iter().map(holding).collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    fn forget_unused(&self, key: &str) {
        let mut locks = self.locks();
        if locks.get(key).is_some_and(|entry| !entry.is_used()) {
            let entry = locks.remove(key);
            mem::drop(locks);
            mem::drop(entry);
        }
    }
}

impl Waiter {
    /// Waits for the turn. Whoever shares the seat already, as the same owner, need not.
    pub(crate) async fn seat(&self) -> Arc<Seat> {
        let turn = {
            let mut locks = self.queue.locks();
            let entry = locks.entry(self.key.clone()).or_default();
            if let Some((owner, seat)) = &entry.seat
                && *owner == self.owner
                && let Some(seat) = seat.upgrade()
            {
                return seat;
            }
            Arc::clone(&entry.turn)
        };
        let turn = turn.lock_owned().await;
        let seat = Arc::new(Seat { queue: Arc::clone(&self.queue), key: self.key.clone(), _turn: turn });
        let mut locks = self.queue.locks();
        locks.entry(self.key.clone()).or_default().seat = Some((self.owner.clone(), Arc::downgrade(&seat)));
        seat
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(entry) = self.queue.locks().get_mut(&self.key) {
            entry.waiters.remove(&self.number);
        }
        self.queue.forget_unused(&self.key);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.queue.forget_unused(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{task::yield_now, time::timeout};

    use super::*;

    #[tokio::test]
    async fn the_map_forgets_a_lock_with_its_last_user() {
        let queue = Arc::new(Queue::default());
        let (one, two) = (queue.join("k", "one").unwrap(), queue.join("k", "two").unwrap());
        let seat = one.seat().await;
        drop(one);
        assert_eq!(queue.waiters().get("k").map(BTreeMap::len), Some(1));
        drop(two);
        assert_eq!(queue.holdings().len(), 1, "somebody still has the turn");
        drop(seat);
        assert!(queue.locks().is_empty());
    }

    #[tokio::test]
    async fn turns_come_in_order_and_one_who_gave_up_is_passed_over() {
        let queue = Arc::new(Queue::default());
        let first = queue.join("k", "0").unwrap().seat().await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for name in 1..=3 {
            let (queue, tell) = (Arc::clone(&queue), tell.clone());
            tasks.push(tokio::spawn(async move {
                let _seat = queue.join("k", &name.to_string()).unwrap().seat().await;
                tell.send(name).unwrap();
            }));
            yield_now().await;
        }
        tasks[1].abort();
        yield_now().await;
        assert!(told.try_recv().is_err(), "the turn is taken");
        drop(first);
        assert_eq!((told.recv().await, told.recv().await), (Some(1), Some(3)));
    }

    #[tokio::test]
    async fn the_same_owner_shares_its_seat_and_the_last_share_hands_over() {
        let queue = Arc::new(Queue::default());
        let outer = queue.join("k", "a").unwrap().seat().await;
        let inner = queue.join("k", "a").unwrap().seat().await;
        let other = queue.join("k", "b").unwrap();
        drop(outer);
        assert!(timeout(Duration::from_millis(10), other.seat()).await.is_err(), "the inner share is there");
        drop(inner);
        other.seat().await;
    }
}
