//! `batched`: whatever has queued up while the last commit was under way is decided and committed together, in one
//! transaction.
//!
//! ```text
//!   A: queued ┐
//!   B: queued ┼ lock 100@1 (X) ─ A 90@2, B 80@3, C 70@4 ─ one commit ┬ A's answer
//!   C: queued ┘                                                      ├ B's answer
//!   D:         queued ........................................ (next)└ C's answer
//! ```
//!
//! It prevents every lost update, with any number of servers: the rows are locked as by `pessimistic`, and each change
//! is decided on what the one before it left. It shares the row lock and the fsync, which bound a hot account, among all
//! who wait for them; a cold account is a batch of one and pays nothing extra. What it cannot do is answer before the
//! batch is committed, and a batch is as slow as its commit.
//! Source: group commit, DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984.

mod committer;
mod parked;
mod plan;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::{
    runtime,
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
};

use self::committer::Committer;
use super::{Batches, Conflict, Failure, Guarantee, Held, Operation, Row, Strategy, Workbench};
use crate::{account::Receipt, gate::Point, store, timeline::Phase};

/// This strategy's row of the registry.
pub(super) const ROW: Row = Row {
    name: "batched",
    guarantee: Guarantee::Always,
    conflict: Conflict::Waits,
    summary: "commits everything that queued up during the last commit in one transaction, under row locks",
    build: |bench| match Batched::new(bench) {
        Ok(batched) => Ok(Box::new(batched)),
        Err(error) => Err(format!("its thread cannot be started: {error}")),
    },
};

/// Committers, among which accounts are divided so that each keeps its order.
const COMMITTERS: usize = store::APART;

/// Changes that may wait for one committer: a few of the largest batches. Beyond it the answer is OVERLOADED.
const QUEUE_LENGTH: usize = 4 * committer::BATCH_MOST;

/// A change on its way, and where its answer goes.
struct Job {
    operation: Operation,
    /// When its present wait or work began, since the epoch began.
    since: Duration,
    answer: oneshot::Sender<Result<Receipt, Failure>>,
}

struct Batched {
    queues: Vec<mpsc::Sender<Job>>,
    tally: Arc<Tally>,
}

/// What the committers have done.
#[derive(Default)]
struct Tally {
    /// Jobs that no committer has taken yet.
    waiting: AtomicU64,
    /// Batches under way: without one, nobody waits, though a committer may not have looked into its queue yet.
    under_way: AtomicUsize,
    /// Jobs of a batch that wait while the lab holds another one of it.
    held: AtomicUsize,
    batches: AtomicU64,
    changes: AtomicU64,
    largest: AtomicU64,
    queued_ns: AtomicU64,
}

impl Tally {
    /// A committer took so many jobs from its queue, which had waited so long, all together.
    fn taken(&self, jobs: usize, queued: Duration) {
        self.waiting.fetch_sub(jobs as u64, Ordering::SeqCst);
        self.queued_ns.fetch_add(u64::try_from(queued.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// So many jobs that were taken have to wait again: others have locked their account.
    fn deferred(&self, jobs: usize) {
        self.waiting.fetch_add(jobs as u64, Ordering::SeqCst);
    }

    /// A batch came to so many answers.
    fn answered(&self, changes: usize) {
        if changes == 0 {
            return;
        }
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.changes.fetch_add(changes as u64, Ordering::Relaxed);
        self.largest.fetch_max(changes as u64, Ordering::Relaxed);
    }
}

impl Batched {
    /// Starts the committers; they end when this is dropped.
    ///
    /// They run apart from everybody else, on a thread of their own: among the callers' tasks, each answer of the
    /// database would wait behind the hundreds that the batch before has just woken.
    fn new(bench: &Arc<Workbench>) -> io::Result<Self> {
        let tally = Arc::new(Tally::default());
        let (queues, committers): (Vec<_>, Vec<_>) = (0..COMMITTERS)
            .map(|_| {
                let (queue, jobs) = mpsc::channel(QUEUE_LENGTH);
                let committer = Arc::new(Committer::new(Arc::clone(bench), Arc::clone(&tally)));
                (queue, committer.run(jobs))
            })
            .unzip();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let all = move || runtime.block_on(async { drop(join_all(committers.into_iter().map(tokio::spawn)).await) });
        thread::Builder::new().name("committers".to_owned()).spawn(all)?;
        Ok(Self { queues, tally })
    }

    fn queue(&self, user_id: i64) -> &mpsc::Sender<Job> {
        &self.queues[user_id.unsigned_abs() as usize % self.queues.len()]
    }
}

#[async_trait]
impl Strategy for Batched {
    async fn attempt(&self, operation: &Operation, _: &dyn Held) -> Result<Receipt, Failure> {
        operation.pass_gate(Point::Before(Phase::LockWait)).await;
        let (answer, answered) = oneshot::channel();
        let since = operation.bench().timeline.now();
        let job = Job { operation: operation.clone(), since, answer };
        self.tally.waiting.fetch_add(1, Ordering::SeqCst);
        if let Err(refused) = self.queue(operation.change.user_id).try_send(job) {
            self.tally.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(match refused {
                TrySendError::Full(_) => {
                    store::Error::Exhausted(format!("{QUEUE_LENGTH} changes are queued already")).into()
                }
                TrySendError::Closed(_) => store::Error::Unexpected("the committer is gone".to_owned()).into(),
            });
        }
        // A committer that ended without an answer was cut off in the middle: whether it had committed is not known.
        answered.await.unwrap_or_else(|_| Err(store::Error::CommitLost("the committer ended".to_owned()).into()))
    }

    fn waiting(&self) -> usize {
        let queued = match self.tally.under_way.load(Ordering::SeqCst) {
            0 => 0,
            _ => usize::try_from(self.tally.waiting.load(Ordering::SeqCst)).unwrap_or(usize::MAX),
        };
        queued.saturating_add(self.tally.held.load(Ordering::SeqCst))
    }

    fn batches(&self) -> Option<Batches> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(Batches {
            batches: read(&self.tally.batches),
            changes: read(&self.tally.changes),
            largest: read(&self.tally.largest),
            queued: Duration::from_nanos(read(&self.tally.queued_ns)),
            waiting: read(&self.tally.waiting),
        })
    }
}
