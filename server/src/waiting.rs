//! Counting who waits: for a lock, for an event. The lab reads these counts to see that an operation is blocked, so a
//! count must be exact: whoever has been handed what it waits for no longer counts, even before it runs again.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

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

/// Awaits a future, counted in `counter` from when it has to wait until it is woken: whoever wakes it takes it off the
/// count, before doing anything else.
pub async fn counted<F: Future>(counter: &Arc<AtomicUsize>, future: F) -> F::Output {
    let mut future = pin!(future);
    // Replaced by each poll: the waker of the one before may be kept somewhere still, and no longer counts.
    let mut sleeper = Arc::new(Sleeper::new(counter, Waker::noop()));
    poll_fn(|context| {
        sleeper.wake_up();
        sleeper = Arc::new(Sleeper::new(counter, context.waker()));
        let polled = future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&sleeper))));
        match polled {
            Poll::Ready(_) => sleeper.wake_up(),
            Poll::Pending => sleeper.fall_asleep(),
        }
        polled
    })
    .await
}

/// One poll, and whether its task sleeps over it.
struct Sleeper {
    counter: Arc<AtomicUsize>,
    state: AtomicU8,
    task: Waker,
}

/// Polled just now.
const AWAKE: u8 = 0;
/// Has to wait, and is counted.
const ASLEEP: u8 = 1;
/// Has been woken, or is out of use.
const WOKEN: u8 = 2;

impl Sleeper {
    fn new(counter: &Arc<AtomicUsize>, task: &Waker) -> Self {
        Self { counter: Arc::clone(counter), state: AtomicU8::new(AWAKE), task: task.clone() }
    }

    fn fall_asleep(&self) {
        self.counter.fetch_add(1, Ordering::SeqCst);
        if self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            // Woken before it slept.
            self.counter.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn wake_up(&self) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == ASLEEP {
            self.counter.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_up();
        self.task.wake_by_ref();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.wake_up();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn whoever_is_handed_the_lock_no_longer_waits_and_whoever_gives_up_does_not_either() {
        let (lock, counter) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
        let waiting = || counter.load(Ordering::SeqCst);
        let held = counted(&counter, lock.lock()).await;
        assert_eq!(waiting(), 0, "it was free");
        let mut second = Box::pin(counted(&counter, lock.lock()));
        let mut third = Box::pin(counted(&counter, lock.lock()));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        assert_eq!(waiting(), 2);
        drop(held);
        assert_eq!(waiting(), 1, "the second has it, though it has not run yet");
        drop(third);
        assert_eq!(waiting(), 0);
        drop(second.now_or_never().expect("it has the lock"));
        assert_eq!(waiting(), 0);
    }
}
