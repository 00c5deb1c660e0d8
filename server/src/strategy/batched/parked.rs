//! Changes on accounts that others have locked. Each such account has one task that waits for it, whoever else comes:
//! many of them would wait for the same lock with a connection each, and take it from one another.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Job, committer::BATCH_MOST};

/// What is parked, by account; an account without a task that waits for it is not there. All of it is in flight, and
/// bounded with that.
#[derive(Default)]
pub(super) struct Parked(Mutex<HashMap<i64, Vec<Job>>>);

/// Whether somebody waits for an account already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitedFor {
    Already,
    NotYet,
}

impl Parked {
    /// Parks the jobs of accounts that are waited for, and gives back the rest.
    pub(super) fn join(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut parked = self.lock();
        if parked.is_empty() {
            return jobs;
        }
        let park = |job: Job| match parked.get_mut(&job.operation.change.user_id) {
            Some(waiting) => {
                waiting.push(job);
                None
            }
            None => Some(job),
        };
        jobs.into_iter().filter_map(park).collect()
    }

    /// Parks jobs on their account. Where nobody waits for it yet, the caller sees to it that somebody does.
    pub(super) fn park(&self, user_id: i64, jobs: Vec<Job>) -> WaitedFor {
        let mut parked = self.lock();
        let waited_for = if parked.contains_key(&user_id) { WaitedFor::Already } else { WaitedFor::NotYet };
        parked.entry(user_id).or_default().extend(jobs);
        waited_for
    }

    /// Takes a batch of what is parked on an account; `None` when there is nothing, and nobody waits for it any more.
    pub(super) fn take(&self, user_id: i64) -> Option<Vec<Job>> {
        let mut parked = self.lock();
        let jobs = parked.get_mut(&user_id)?;
        if jobs.is_empty() {
            parked.remove(&user_id);
            return None;
        }
        let rest = jobs.split_off(jobs.len().min(BATCH_MOST));
        Some(std::mem::replace(jobs, rest))
    }

    /// A poisoned lock only means that another thread panicked between two plain moves; the map is still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Vec<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
