//! A committer: takes what has queued, commits it in one transaction, answers each. What would fail the whole batch
//! (a repeated id, a poisoned row, a locked account) is taken apart here, so that no change fails for another's sake.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::select_all;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Job, ROW, Tally,
    parked::{Parked, WaitedFor},
    plan::{Decision, Plan, Request, decide},
};
use crate::{
    account::{Change, Entry, Receipt, Refusal},
    gate::Point,
    store::{self, Error, IfLocked, Isolation, Transaction},
    strategy::{Failure, Workbench},
    timeline::{Noted, Phase},
    waiting::Waiting,
};

/// The most changes in one transaction: some 100 kB of SQL, and a lock held for some ten milliseconds.
pub(super) const BATCH_MOST: usize = 1000;

/// One of the tasks that commit.
pub(super) struct Committer {
    bench: Arc<Workbench>,
    tally: Arc<Tally>,
    parked: Parked,
}

/// What failed, and in which phase.
struct Failed {
    phase: Phase,
    error: Error,
}

fn in_phase(phase: Phase) -> impl Fn(Error) -> Failed {
    move |error| Failed { phase, error }
}

/// What is asked of the journal before writing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LookUp {
    /// Only what would be refused: perhaps it was applied before, and that is why the money is gone.
    Refused,
    /// Every id: one of them is known to be there.
    All,
}

/// When the steps of a transaction began, since the epoch began.
struct Times {
    lock: Duration,
    write: Duration,
    commit: Duration,
}

impl Committer {
    pub(super) fn new(bench: Arc<Workbench>, tally: Arc<Tally>) -> Self {
        Self { bench, tally, parked: Parked::default() }
    }

    /// Commits until the queue is closed.
    pub(super) async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        // What is there, without waiting for more: a batch fills up while the last one commits.
        while queue.recv_many(&mut jobs, BATCH_MOST).await > 0 {
            let batch = self.begin(self.parked.join(std::mem::take(&mut jobs)));
            if !batch.is_empty() {
                self.commit(batch, IfLocked::Skip).await;
            }
        }
    }

    /// Waits for an account that others have locked, and commits what is parked on it until nothing is.
    async fn wait_for(self: Arc<Self>, user_id: i64) {
        while let Some(jobs) = self.parked.take(user_id) {
            let batch = self.begin(jobs);
            if !batch.is_empty() {
                self.commit(batch, IfLocked::Wait).await;
            }
        }
    }

    /// Takes over what its callers still want. The rest is dropped unbegun.
    fn begin(&self, taken: Vec<Job>) -> Vec<Job> {
        let now = self.bench.timeline.now();
        let queued = taken.iter().map(|job| now.saturating_sub(job.since)).sum();
        self.tally.taken(taken.len(), queued);
        let begin = |mut job: Job| {
            let begun = job.operation.begin();
            let withdrawn = begun.as_ref().err().map(Failure::label);
            job.operation.record(Phase::LockWait, job.since, Noted::default(), withdrawn);
            job.since = now;
            match begun {
                Ok(()) => Some(job),
                Err(failure) => {
                    let _ = job.answer.send(Err(failure));
                    None
                }
            }
        };
        taken.into_iter().filter_map(begin).collect()
    }

    /// Commits the jobs and answers them.
    async fn commit(self: &Arc<Self>, mut jobs: Vec<Job>, if_locked: IfLocked) {
        // Over before anybody is answered: whoever is queued is no longer kept waiting then.
        let under_way = Waiting::begin(&self.tally.under_way);
        let mut look_up = LookUp::Refused;
        loop {
            let request_ids: Vec<_> = jobs.iter().map(|job| job.operation.change.request_id).collect();
            let failure = match self.bench.mortal(request_ids, self.attempt(&mut jobs, if_locked, look_up)).await {
                Some(Ok(plan)) => {
                    drop(under_way);
                    return self.answer(jobs, plan, if_locked);
                }
                Some(Err(failure)) => failure,
                // Crashed by the lab: nobody is answered, and the transaction went with its connection. The dead call
                // must not notice, so it goes first.
                None => return drop(select_all(jobs.iter_mut().map(|job| Box::pin(job.answer.closed()))).await),
            };
            if !matches!(failure.error, Error::CommitLost(_)) {
                // Nothing was changed, and until the next time it comes to the commit each can be given up again.
                jobs.iter().for_each(|job| job.operation.reopen());
            }
            match failure {
                Failed { error: Error::Duplicate(_), .. } if look_up == LookUp::Refused => look_up = LookUp::All,
                // One row is poisoned: singly, only its own change fails.
                Failed { error: Error::Unexpected(_), .. } if jobs.len() > 1 => {
                    drop(under_way);
                    for job in jobs {
                        Box::pin(self.commit(vec![job], if_locked)).await;
                    }
                    return;
                }
                // Contention and lost links are repeated, and a lost commit is settled, for each change by the ledger.
                Failed { phase, error } => {
                    drop(under_way);
                    let failure = Failure::from(error);
                    for job in jobs {
                        job.operation.record(phase, job.since, Noted::default(), Some(failure.label()));
                        let _ = job.answer.send(Err(failure.clone()));
                    }
                    return;
                }
            }
        }
    }

    /// One transaction over all the jobs, but those whose callers' time was over when the accounts were locked: they are
    /// answered and gone.
    async fn attempt(&self, jobs: &mut Vec<Job>, if_locked: IfLocked, look_up: LookUp) -> Result<Plan, Failed> {
        let store = &self.bench.store;
        let mut transaction = match if_locked {
            IfLocked::Skip => store.transaction_apart(Isolation::ReadCommitted),
            // It may hold its connection for as long as another holds the lock.
            IfLocked::Wait => store.transaction(Isolation::ReadCommitted, last_deadline(jobs)),
        };
        self.pass_gates(jobs, Phase::Read).await;
        let lock = self.bench.timeline.now();
        let planned = plan(&mut *transaction, jobs, if_locked, look_up).await;
        let plan = match planned {
            Ok(plan) if !plan.entries.is_empty() => plan,
            // Nothing to write: the answers stand on what was read under the locks.
            other => {
                transaction.rollback().await;
                return other.map_err(in_phase(Phase::Read));
            }
        };
        self.pass_gates(jobs, Phase::Write).await;
        let write = self.bench.timeline.now();
        if let Err(failure) = transaction.write_many(&plan.entries, &plan.accounts).await {
            transaction.rollback().await;
            return Err(in_phase(Phase::Write)(failure));
        }
        self.pass_gates(jobs, Phase::Commit).await;
        let commit = self.bench.timeline.now();
        transaction.commit().await.map_err(in_phase(Phase::Commit))?;
        record(jobs, &plan, &Times { lock, write, commit });
        Ok(plan)
    }

    async fn pass_gates(&self, jobs: &[Job], phase: Phase) {
        if self.bench.gates.as_ref().is_none_or(|gates| gates.are_unused()) {
            return;
        }
        // One after the other; the rest of the batch waits meanwhile.
        let _others: Vec<_> = jobs.iter().skip(1).map(|_| Waiting::begin(&self.tally.held)).collect();
        for job in jobs {
            job.operation.pass_gate(Point::Before(phase)).await;
        }
    }

    /// Answers every job but those whose account was locked by another: they are parked, so that nobody waits with them.
    fn answer(self: &Arc<Self>, jobs: Vec<Job>, plan: Plan, if_locked: IfLocked) {
        let is_put_off = |decision: &Decision| *decision == Decision::NotLocked && if_locked == IfLocked::Skip;
        let put_off = plan.decisions.iter().filter(|decision| is_put_off(decision)).count();
        // Before anybody is answered, so that whoever is finds itself counted.
        self.tally.answered(jobs.len() - put_off);
        self.tally.deferred(put_off);
        let mut deferred: BTreeMap<i64, Vec<Job>> = BTreeMap::new();
        let answers: Vec<_> = (0..jobs.len()).map(|at| answer_of(&jobs, &plan, at)).collect();
        for ((job, decision), answer) in jobs.into_iter().zip(plan.decisions).zip(answers) {
            if is_put_off(&decision) {
                deferred.entry(job.operation.change.user_id).or_default().push(job);
            } else {
                if let Err(failure) = &answer {
                    job.operation.record(Phase::Compute, job.since, Noted::default(), Some(failure.label()));
                }
                // A caller that is gone no longer needs it.
                let _ = job.answer.send(answer);
            }
        }
        for (user_id, jobs) in deferred {
            if self.parked.park(user_id, jobs) == WaitedFor::NotYet {
                tokio::spawn(Arc::clone(self).wait_for(user_id));
            }
        }
    }
}

/// When the last of them is no longer waited for; `None` if one is for ever.
fn last_deadline(jobs: &[Job]) -> Option<Instant> {
    jobs.iter().map(|job| job.operation.deadline()).reduce(|one, other| Some(one?.max(other?))).flatten()
}

/// Locks the accounts, asks the journal what needs asking, and decides.
async fn plan(
    transaction: &mut dyn Transaction,
    jobs: &mut Vec<Job>,
    if_locked: IfLocked,
    look_up: LookUp,
) -> store::Result<Plan> {
    let user_ids: BTreeSet<i64> = jobs.iter().map(|job| job.operation.change.user_id).collect();
    let locked = transaction.lock_many(&user_ids, if_locked).await?;
    // For what is locked the last wait is over: what is still wanted of it runs to its end.
    let is_late =
        |job: &mut Job| locked.contains_key(&job.operation.change.user_id) && job.operation.commits().is_err();
    for late in jobs.extract_if(.., is_late) {
        let _ = late.answer.send(Err(Failure::Withdrawn));
    }
    let changes: Vec<Change> = jobs.iter().map(|job| job.operation.change).collect();
    let first = decide(&changes, &locked, &HashMap::new(), ROW.name);
    let asked = changes.iter().zip(&first.decisions).filter(|(change, decision)| match look_up {
        LookUp::Refused => matches!(decision, Decision::Refused(_)),
        LookUp::All => locked.contains_key(&change.user_id),
    });
    let mut requests: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
    for (change, _) in asked {
        requests.entry(change.user_id).or_default().push(change.request_id);
    }
    if requests.is_empty() {
        return Ok(first);
    }
    let known = transaction.find_many(&requests).await?.into_iter();
    let known: HashMap<Request, Entry> = known.map(|entry| ((entry.user_id, entry.request_id), entry)).collect();
    if known.is_empty() { Ok(first) } else { Ok(decide(&changes, &locked, &known, ROW.name)) }
}

/// The answer to the job at `at`.
fn answer_of(jobs: &[Job], plan: &Plan, at: usize) -> Result<Receipt, Failure> {
    let operation = &jobs[at].operation;
    match &plan.decisions[at] {
        Decision::Applied { seen, written } => Ok(operation.receipt(*written, seen.version)),
        Decision::Repeats(before) => answer_of(jobs, plan, *before).map(|first| Receipt { attempts: 0, ..first }),
        Decision::Known(entry) => operation.change.receipt_of(entry.clone()).map_err(Failure::RefusedForGood),
        Decision::Refused(refusal) => Err(Failure::RefusedForGood(*refusal)),
        Decision::NotLocked => {
            let user_id = operation.change.user_id;
            Err(Failure::RefusedForGood(Refusal::AccountNotFound { user_id }))
        }
    }
}

/// The spans of a committed batch: all of them share its times, each with its own values.
fn record(jobs: &[Job], plan: &Plan, times: &Times) {
    let together = u16::try_from(jobs.len()).unwrap_or(u16::MAX);
    for (job, decision) in jobs.iter().zip(&plan.decisions) {
        let Decision::Applied { seen, written } = *decision else { continue };
        let read = Noted { seen: Some(seen), together, ..Noted::default() };
        let wrote = Noted { written: Some(written), together, ..Noted::default() };
        job.operation.record_until(Phase::Read, times.lock, times.write, read);
        job.operation.record_until(Phase::Write, times.write, times.commit, wrote);
        job.operation.record(Phase::Commit, times.commit, wrote, None);
    }
}
