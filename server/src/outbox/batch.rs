//! Work of concurrent callers, done together: whatever has queued while a statement was under way goes into the next one. Nobody
//! waits for a batch to fill, so that a lone caller is served at once.

use std::{future::Future, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::store::{Error, Result};

/// The most rows of a statement: some 100 kB of SQL, and a condition of half as many parts as SQLite takes.
pub(super) const BATCH_MOST: usize = 500;

/// How much may queue: two batches. Beyond it callers wait for room, and they are bounded.
const QUEUED_MOST: usize = 2 * BATCH_MOST;

/// How often a batch is tried that meets other writers: a deadlock is between few of its rows, and is over when they have gone on.
const TRIES: u32 = 5;

/// The wait before the first further try; before the next ones it is two, three … times as long.
const PAUSE: Duration = Duration::from_millis(5);

/// A piece of work, and who waits for what it comes to.
struct Job<I, O> {
    item: I,
    answer: oneshot::Sender<Result<O>>,
}

/// A task that does work in batches. It ends when this is dropped.
pub(super) struct Batches<I, O>(mpsc::Sender<Job<I, O>>);

impl<I: Clone + Send + Sync + 'static, O: Send + 'static> Batches<I, O> {
    /// `work` answers each item of a batch, in order. To be called within the runtime.
    pub(super) fn new<F>(work: impl Fn(Vec<I>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<O>>> + Send,
    {
        let (submit, mut submitted) = mpsc::channel::<Job<I, O>>(QUEUED_MOST);
        tokio::spawn(async move {
            let mut jobs = Vec::new();
            while submitted.recv_many(&mut jobs, BATCH_MOST).await > 0 {
                let (items, answers): (Vec<I>, Vec<_>) = jobs.drain(..).map(|job| (job.item, job.answer)).unzip();
                match tried(&items, &work).await {
                    // Whoever has gone needs no answer.
                    Ok(done) => answers.into_iter().zip(done).for_each(|(answer, done)| drop(answer.send(Ok(done)))),
                    Err(error) => answers.into_iter().for_each(|answer| drop(answer.send(Err(error.clone())))),
                }
            }
        });
        Self(submit)
    }

    /// Has an item done, together with what else there is.
    pub(super) async fn done(&self, item: I) -> Result<O> {
        let ended = || Error::Unexpected("the task that works in batches has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        self.0.send(Job { item, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Has an item done some time, unless too much has queued already; nobody hears what comes of it.
    pub(super) fn hand_in(&self, item: I) {
        let _ = self.0.try_send(Job { item, answer: oneshot::channel().0 });
    }
}

async fn tried<I: Clone, O, F>(items: &[I], work: &impl Fn(Vec<I>) -> F) -> Result<Vec<O>>
where
    F: Future<Output = Result<Vec<O>>>,
{
    let mut tries = 1;
    loop {
        match work(items.to_vec()).await {
            Err(Error::Contended(_)) if tries < TRIES => {
                tokio::time::sleep(PAUSE * tries).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn what_queues_meanwhile_is_done_together_and_each_gets_its_own_answer() {
        let (sizes, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (seen, passed) = (Arc::clone(&sizes), Arc::clone(&gate));
        let batches = Arc::new(Batches::new(move |items: Vec<usize>| {
            seen.lock().unwrap().push(items.len());
            let passed = Arc::clone(&passed);
            async move {
                drop(passed.acquire().await);
                Ok(items.into_iter().map(|item| item * 2).collect())
            }
        }));
        let submit = |item| {
            let batches = Arc::clone(&batches);
            tokio::spawn(async move { batches.done(item).await })
        };
        let mut calls = vec![submit(0)];
        while sizes.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        calls.extend((1..=QUEUED_MOST).map(submit));
        while batches.0.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
        for (item, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), item * 2);
        }
        assert_eq!(*sizes.lock().unwrap(), [1, BATCH_MOST, BATCH_MOST], "a lone call waits for nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn other_writers_are_met_a_few_times_and_then_it_is_told() {
        let tries = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&tries);
        let batches = Batches::new(move |items: Vec<u32>| {
            let tries = counted.fetch_add(1, Ordering::Relaxed) + 1;
            async move { if tries < items[0] { Err(Error::Contended("deadlock".to_owned())) } else { Ok(items) } }
        });
        assert_eq!(batches.done(TRIES).await.unwrap(), TRIES);
        tries.store(0, Ordering::Relaxed);
        assert!(matches!(batches.done(TRIES + 1).await, Err(Error::Contended(_))));
    }
}
