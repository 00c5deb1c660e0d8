//! Lanes: the numbers under which the operations in flight on one account are drawn, each as low as is free, so that a
//! picture has as many lanes as there were operations at a time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The lanes of all accounts. The map holds accounts with operations in flight only.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<i64, OfAccount>>);

#[derive(Debug, Default)]
struct OfAccount {
    /// The highest number given out; each number up to it is taken or free.
    highest: u32,
    free: BinaryHeap<Reverse<u32>>,
}

/// A lane in use, until dropped.
#[derive(Debug)]
pub struct Lane<'a> {
    lanes: &'a Lanes,
    user_id: i64,
    number: u32,
}

impl Lanes {
    /// The lowest free lane of an account.
    pub(super) fn take(&self, user_id: i64) -> Lane<'_> {
        let mut accounts = self.lock();
        let lanes = accounts.entry(user_id).or_default();
        let number = lanes.free.pop().map_or_else(
            || {
                lanes.highest += 1;
                lanes.highest
            },
            |Reverse(lowest)| lowest,
        );
        Lane { lanes: self, user_id, number }
    }

    /// A poisoned lock only means that another thread panicked between two plain assignments; the map is still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, OfAccount>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane<'_> {
    /// Its number, from 1.
    pub const fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        let mut accounts = self.lanes.lock();
        if let Some(lanes) = accounts.get_mut(&self.user_id) {
            lanes.free.push(Reverse(self.number));
            if lanes.free.len() == lanes.highest as usize {
                accounts.remove(&self.user_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_reused_and_forgotten() {
        let lanes = Lanes::default();
        let [first, second, third] = [7, 7, 7].map(|user_id| lanes.take(user_id));
        assert_eq!([&first, &second, &third].map(Lane::number), [1, 2, 3]);
        assert_eq!(lanes.take(8).number(), 1);
        drop(second);
        drop(first);
        let again = [7, 7, 7].map(|user_id| lanes.take(user_id));
        assert_eq!([&again[0], &again[1], &again[2]].map(Lane::number), [1, 2, 4]);
        drop((again, third));
        assert!(lanes.lock().is_empty());
    }
}
