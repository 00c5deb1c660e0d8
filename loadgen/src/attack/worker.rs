//! One worker: deductions one after another, each under one request id until its outcome is known or patience ends.

use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use zbl_client::{Backoff, Change, Client, Effect, Error, Money};

use super::{FIRST_PAUSE, LONGEST_PAUSE, Manner, Patience, Progress, Stop};
use crate::history::{Acknowledgement, Operation, Outcome, is_turned_away};
use crate::pacer::Pacer;

/// An operation that has come to an end, and what it took.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) operation: Operation,
    pub(super) latency: Duration,
    /// Transactions the server ran for it.
    pub(super) attempts: u32,
    /// Whether its caller cancelled it.
    pub(super) cancelled: bool,
    pub(super) retries: Retries,
}

/// The calls a client repeated.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Retries {
    /// Because they were turned away, by contention or for load.
    pub(super) contended: u32,
    /// Because the server or its backend was away.
    pub(super) outage: u32,
}

/// What came of one deduction.
struct Came {
    outcome: Outcome,
    attempts: u32,
    cancelled: bool,
    retries: Retries,
    ended: Ended,
}

/// Why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All its deductions are done, or the run was asked to end.
    InOrder,
    /// The server stayed away for longer than the worker's patience.
    GaveUp,
}

pub(super) struct Worker {
    pub(super) client: Client,
    pub(super) user_id: i64,
    pub(super) amount: Money,
    pub(super) strategy: String,
    pub(super) manner: Manner,
    pub(super) pacer: Pacer,
    pub(super) patience: Patience,
    pub(super) finished: mpsc::Sender<Finished>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) stop: Stop,
}

impl Worker {
    pub(super) async fn run(mut self, request_ids: impl Iterator<Item = Uuid>) -> Ended {
        let mut last_ended = Instant::now();
        let mut usual = FIRST_PAUSE;
        for (number, request_id) in (0..).zip(request_ids) {
            if self.stop.requested() {
                break;
            }
            let due = self.pacer.due(number, last_ended);
            if due > last_ended {
                tokio::time::sleep_until(due).await;
            }
            let Came { outcome, attempts, cancelled, retries, ended } = self.deduct(request_id, usual).await;
            last_ended = Instant::now();
            if !cancelled {
                usual = last_ended - due;
            }
            // Checked by the workload: the amount is positive, so it has an opposite.
            let delta = self.amount.checked_neg().unwrap_or_default();
            let operation = Operation { request_id, delta, outcome };
            let finished = Finished { operation, latency: last_ended - due, attempts, cancelled, retries };
            if self.finished.send(finished).await.is_err() || ended == Ended::GaveUp {
                return ended;
            }
        }
        Ended::InOrder
    }

    /// Makes one deduction: repeated under its id while the server is away or turns it away, never after a refusal.
    /// `usual` is about how long one takes.
    async fn deduct(&mut self, request_id: Uuid, usual: Duration) -> Came {
        let strategy = self.strategy.clone();
        let change = Change { user_id: self.user_id, amount: self.amount, request_id, strategy };
        let mut retries = Retries::default();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut effect = Effect::None;
        let mut away_since = None;
        loop {
            let error = match timeout(self.cancels_after(usual), self.call(&change)).await {
                Ok(Ok((outcome, attempts))) => {
                    self.show_waiting(away_since.is_some(), false);
                    return Came { outcome, attempts, cancelled: false, retries, ended: Ended::InOrder };
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    self.show_waiting(away_since.is_some(), false);
                    let outcome = Outcome::Unknown;
                    return Came { outcome, attempts: 0, cancelled: true, retries, ended: Ended::InOrder };
                }
            };
            if error.effect() == Effect::Unknown {
                effect = Effect::Unknown;
            }
            let turned_away = error.reason().is_some_and(is_turned_away);
            let contended = turned_away && retries.contended < self.patience.contended;
            let away = error.is_transient();
            self.show_waiting(away_since.is_some(), away);
            away_since = away.then(|| away_since.unwrap_or_else(Instant::now));
            let gave_up = away_since.is_some_and(|since| since.elapsed() >= self.patience.outage);
            if gave_up || !(contended || away) || !self.pause(&error, &mut backoff).await {
                self.show_waiting(away_since.is_some(), false);
                let ended = if gave_up { Ended::GaveUp } else { Ended::InOrder };
                let outcome = outcome_of(&error, effect);
                return Came { outcome, attempts: 0, cancelled: false, retries, ended };
            }
            retries.contended += u32::from(contended);
            retries.outage += u32::from(away);
        }
    }

    /// Makes the call; what it came to, and the transactions the server ran for it.
    async fn call(&self, change: &Change) -> Result<(Outcome, u32), Error> {
        match self.manner {
            Manner::Deduct => {
                let receipt = self.client.deduct(change).await?;
                Ok((Outcome::Acknowledged(Acknowledgement::of(&receipt)), receipt.attempts))
            }
            Manner::DeductAsync { .. } => self.client.deduct_async(change).await.map(|_| (Outcome::Accepted, 0)),
        }
    }

    /// When this call is cancelled: at a moment that is as likely before its usual end as after it, or never.
    fn cancels_after(&self, usual: Duration) -> Duration {
        let mut random = rand::rng();
        if random.random_range(0..100) < self.patience.cancelled_percent {
            usual.mul_f64(random.random_range(0.0..2.0))
        } else {
            Duration::MAX
        }
    }

    /// Waits before the next try, for as long as the server asks if that is longer; false when the run is to end.
    async fn pause(&mut self, error: &Error, backoff: &mut Backoff) -> bool {
        let asked = error.retry_delay().unwrap_or_default().min(self.patience.outage);
        tokio::select! {
            () = tokio::time::sleep(backoff.pause().max(asked)) => true,
            () = self.stop.wait() => false,
        }
    }

    /// Keeps the number of workers that wait for their server.
    fn show_waiting(&self, before: bool, now: bool) {
        if before != now {
            self.progress.send_modify(|progress| {
                progress.waiting = if now { progress.waiting + 1 } else { progress.waiting.saturating_sub(1) };
            });
        }
    }
}

/// What is known after the last error, given the effect of all tries: a try that ended unknown may commit after a later
/// one was refused.
fn outcome_of(error: &Error, effect: Effect) -> Outcome {
    match (effect, error.reason()) {
        (Effect::None, Some(reason)) => Outcome::Failed { reason: reason.as_str() },
        _ => Outcome::Unknown,
    }
}
