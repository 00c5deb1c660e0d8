//! What was found in a scene: counts, the shortest loss, and whether it is what the strategies promise.

use std::time::Duration;

use super::{
    outcome::{Answer, Outcome},
    schedule::{Act, Scene, Schedule},
    search::{Coverage, Explored},
};
use crate::{gate::Point, timeline::Phase};

/// The most broken promises told one by one.
const BROKEN_MOST: usize = 10;

/// What was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The scene.
    pub scene: Scene,
    /// What accounts were stored in.
    pub store: &'static str,
    /// Schedules that were played.
    pub schedules: u64,
    /// Those in which acknowledged money was lost.
    pub losing: Vec<Schedule>,
    /// In how many an operation took effect twice.
    pub doubled: u64,
    /// In how many the rules refused an operation.
    pub refused: u64,
    /// In how many an operation was blocked.
    pub blocked: u64,
    /// In how many the database broke a deadlock.
    pub deadlocked: u64,
    /// Unknown outcomes that turned out to have been applied.
    pub unknown_succeeded: u64,
    /// Unknown outcomes that were settled as never to be applied.
    pub unknown_voided: u64,
    /// The losing schedule of the fewest steps, and of those the one that goes from operation to operation least often.
    pub shortest: Option<Outcome>,
    /// Schedules that broke a promise, and how; the first few.
    pub broken: Vec<String>,
    /// How much was played of all there is.
    pub explored: Explored,
    /// How long it took.
    pub took: Duration,
    /// Whether an operation can wait in the process.
    waits_here: bool,
}

impl Finding {
    /// Nothing yet.
    pub fn new(scene: &Scene, store: &'static str) -> Self {
        Self {
            scene: scene.clone(),
            store,
            schedules: 0,
            losing: Vec::new(),
            doubled: 0,
            refused: 0,
            blocked: 0,
            deadlocked: 0,
            unknown_succeeded: 0,
            unknown_voided: 0,
            shortest: None,
            broken: Vec::new(),
            explored: Explored { coverage: Coverage::Interrupted, diverged: 0, given_up: 0 },
            took: Duration::ZERO,
            waits_here: false,
        }
    }

    /// Counts anew, for a sample. What was broken so far stays broken.
    pub fn count_anew(&mut self) {
        let new = Self::new(&self.scene, self.store);
        let (broken, shortest) = (std::mem::take(&mut self.broken), self.shortest.take());
        *self = Self { broken, shortest, waits_here: self.waits_here, ..new };
    }

    /// Whether everything that was to be played was.
    pub fn is_complete(&self) -> bool {
        self.explored.coverage != Coverage::Interrupted && self.explored.given_up == 0
    }

    /// Takes a schedule into account.
    pub fn add(&mut self, outcome: Outcome) {
        let answered =
            |what: fn(&Answer) -> bool| outcome.calls.iter().filter(|call| what(&call.answer)).count() as u64;
        self.schedules += 1;
        self.doubled += u64::from(outcome.judgement.doubled > 0);
        self.refused += u64::from(outcome.is_refused());
        self.blocked += u64::from(outcome.blocked);
        self.deadlocked += u64::from(outcome.deadlocked);
        self.unknown_succeeded += answered(|answer| matches!(answer, Answer::UnknownThenSucceeded));
        self.unknown_voided += answered(|answer| matches!(answer, Answer::UnknownThenVoided));
        self.waits_here |= outcome.schedule.0.iter().any(|step| step.act == Act::Pass(Point::Before(Phase::LockWait)));
        if let Some(how) = outcome.broken_promise(&self.scene).filter(|_| self.broken.len() < BROKEN_MOST) {
            self.broken.push(format!("{}: {how} ({})", outcome.schedule, outcome.token(&self.scene)));
        }
        if outcome.is_losing() {
            self.losing.push(outcome.schedule.clone());
            let length = |outcome: &Outcome| (outcome.schedule.0.len(), outcome.schedule.switches());
            if self.shortest.as_ref().is_none_or(|shortest| length(&outcome) < length(shortest)) {
                self.shortest = Some(outcome);
            }
        }
    }

    /// Whether operations waited, or could have, for one another in the process: with a second instance they cannot.
    pub const fn waits_in_the_process(&self) -> bool {
        self.waits_here
    }

    /// How what was found differs from what the strategies promise; empty when it does not.
    pub fn disagreements(&self) -> Vec<String> {
        let name = self.scene.strategies();
        let mut disagreements: Vec<String> = self.broken.iter().map(|how| format!("{name}: {how}")).collect();
        let tested = matches!(self.explored.coverage, Coverage::All | Coverage::Sample { .. });
        if self.scene.must_lose() && self.losing.is_empty() && tested {
            disagreements.push(format!("{name}: no schedule loses money, so nothing was tested"));
        }
        disagreements
    }

    /// The token of the shortest losing schedule.
    pub fn token(&self) -> Option<String> {
        self.shortest.as_ref().map(|outcome| outcome.token(&self.scene).to_string())
    }
}
