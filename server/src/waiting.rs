//! Counting who waits: for a lock, for an event. The lab reads these counts to see that an operation is blocked.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts a task among those that wait, until dropped.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// Counts the caller in.
    pub fn begin(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
