//! One schedule under way. Between two steps every operation is at rest: it stands at a point, has ended, or is blocked,
//! which the database's own state of lock waits tells, or that of the locks of this process; never the time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::select_all;
use tokio::{task::JoinHandle, time::timeout};
use uuid::Uuid;

use super::{
    Error,
    outcome::{self, Answer, Outcome},
    schedule::{Act, Crashes, STEPS_MOST, Scene, Schedule, Step},
    stage::Stage,
};
use crate::{
    account::{Change, Receipt},
    error,
    gate::{PHASES, Place, Point, Script},
    ledger::{Fate, Ledger, Resolve},
    timeline::Event,
};

/// How often it is looked whether operations are at rest when none of them says so itself by moving.
const POLL: Duration = Duration::from_millis(1);

/// How long operations may take to come to rest. Beyond it something else is wrong, and the exploration ends.
pub(super) const REST_LIMIT: Duration = Duration::from_secs(60);

/// Where an operation is while all are at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Before this point, in this attempt.
    Standing(Point, u32),
    /// Waiting for a lock that another holds, or for its turn.
    Blocked,
    /// Its call has ended.
    Ended,
    /// It was crashed.
    Crashed,
}

/// A schedule being played on a fresh account.
pub struct Play {
    stage: Stage,
    scene: Scene,
    user_id: i64,
    /// The timeline's sequence when it began.
    began: u64,
    /// The one up to which it was told.
    told: u64,
    actors: Vec<Actor>,
    steps: Vec<Step>,
    /// Those that were blocked when all were last at rest.
    blocked: Vec<usize>,
    /// Whether any ever was.
    ever_blocked: bool,
}

/// An operation and its call.
struct Actor {
    change: Change,
    ledger: Arc<Ledger>,
    script: Script,
    call: JoinHandle<Result<Receipt, error::Error>>,
    answer: Option<Result<Receipt, error::Error>>,
}

impl Actor {
    /// Returns when the operation has come to a point or left one, or has ended.
    async fn moved(&mut self) {
        tokio::select! {
            answer = &mut self.call => {
                let ended = |error| Err(error::Error::Bug(format!("the call's task: {error}")));
                self.answer = Some(answer.unwrap_or_else(ended));
            }
            () = self.script.moved() => {}
        }
    }

    fn standing(&self) -> Option<(Point, u32)> {
        match self.script.place() {
            Place::Standing { point, attempt } if self.answer.is_none() => Some((point, attempt)),
            _ => None,
        }
    }

    fn is_away(&self) -> bool {
        self.answer.is_none() && self.standing().is_none()
    }
}

impl Play {
    /// Opens an account, calls all operations on it, and returns when they are at rest.
    ///
    /// # Errors
    /// [`Error`]; the database's, or [`Error::Restless`].
    pub async fn begin(stage: &Stage, scene: &Scene) -> Result<Self, Error> {
        // The opening, and each operation.
        stage.count(1 + scene.parts.len() as u64);
        let user_id = stage.ledger_of(0).open(0, scene.opening, Uuid::new_v4()).await?.user_id;
        let began = stage.timeline().newest();
        let points: Vec<Point> = match scene.crashes {
            Crashes::Never => PHASES.to_vec(),
            Crashes::One => PHASES.into_iter().chain([Point::Answer]).collect(),
        };
        let actors = scene.parts.iter().enumerate().map(|(operation, part)| {
            let (direction, amount) = part.movement();
            let change = Change { user_id, request_id: request_id(operation), direction, amount };
            let ledger = Arc::clone(stage.ledger_of(operation));
            let script = stage.gates().script(change.request_id, &points);
            let call = tokio::spawn({
                let (ledger, strategy) = (Arc::clone(&ledger), part.strategy);
                async move { ledger.apply(change, Some(strategy)).await }
            });
            Actor { change, ledger, script, call, answer: None }
        });
        let mut play = Self {
            stage: stage.clone(),
            scene: scene.clone(),
            user_id,
            began,
            told: began,
            actors: actors.collect(),
            steps: Vec::new(),
            blocked: Vec::new(),
            ever_blocked: false,
        };
        play.rest().await?;
        Ok(play)
    }

    /// Where each operation is.
    pub fn positions(&self) -> Vec<Position> {
        let position = |(operation, actor): (usize, &Actor)| match (&actor.answer, actor.standing()) {
            (Some(_), _) if actor.script.place() == Place::Crashed => Position::Crashed,
            (Some(_), _) => Position::Ended,
            (None, Some((point, attempt))) => Position::Standing(point, attempt),
            (None, None) => {
                debug_assert!(self.blocked.contains(&operation));
                Position::Blocked
            }
        };
        self.actors.iter().enumerate().map(position).collect()
    }

    /// The steps that can be taken now; none when the schedule is at its end. A commit's answer is either given or lost,
    /// and nothing else happens in between: nobody could tell the difference.
    pub fn choices(&self) -> Vec<Step> {
        let standing = self.actors.iter().enumerate().filter_map(|(at, actor)| Some((at, actor.standing()?.0)));
        let standing: Vec<(usize, Point)> = standing.collect();
        let urgent = standing.iter().find(|(_, point)| *point == Point::Answer);
        let may_go = urgent.map_or(&standing[..], std::slice::from_ref);
        let step = |act: Act, operation| Step { operation, act };
        let passes = may_go.iter().map(|&(operation, point)| step(Act::Pass(point), operation));
        let may_crash = self.scene.crashes == Crashes::One && self.steps.iter().all(|step| step.act != Act::Crash);
        let crashes = may_go.iter().filter(|_| may_crash).map(|&(operation, _)| step(Act::Crash, operation));
        passes.chain(crashes).collect()
    }

    /// The steps taken so far.
    pub fn schedule(&self) -> Schedule {
        Schedule(self.steps.clone())
    }

    /// The account.
    pub const fn user_id(&self) -> i64 {
        self.user_id
    }

    /// The request ids of the operations, in their order.
    pub fn request_ids(&self) -> impl Iterator<Item = Uuid> {
        self.actors.iter().map(|actor| actor.change.request_id)
    }

    /// What the operations have done since this was last asked.
    pub fn events(&mut self) -> Vec<Event> {
        let until = self.stage.timeline().newest();
        let events = self.stage.timeline().retained(self.told, self.user_id);
        self.told = until;
        events.take_while(|(sequence, _)| *sequence <= until).map(|(_, event)| event).collect()
    }

    /// Takes a step, and returns when all operations are at rest again.
    ///
    /// # Errors
    /// [`Error::NotPossible`] for a step that is not among the [`Self::choices`]; [`Error::Endless`];
    /// [`Error::Restless`]; the database's.
    pub async fn take(&mut self, step: Step) -> Result<(), Error> {
        let choices = self.choices();
        if !choices.contains(&step) {
            let schedule = self.schedule();
            return Err(Error::NotPossible { step, after: schedule, possible: Schedule(choices) });
        }
        if self.steps.len() == STEPS_MOST {
            return Err(Error::Endless { schedule: self.schedule() });
        }
        let script = &self.actors[step.operation].script;
        if step.act == Act::Crash {
            let strays = self.stage.stray_links().await?;
            script.crash();
            self.steps.push(step);
            self.rest().await?;
            return self.forget(step.operation, strays).await;
        }
        script.step();
        self.steps.push(step);
        self.rest().await
    }

    /// Waits until all operations are at rest, and one of them can go on if any has not ended.
    async fn rest(&mut self) -> Result<(), Error> {
        let until = Instant::now() + REST_LIMIT;
        loop {
            let away: Vec<usize> = (0..self.actors.len()).filter(|at| self.actors[*at].is_away()).collect();
            let somebody_can_go_on = self.actors.iter().any(|actor| actor.standing().is_some());
            // Where only those are away that had been blocked before, it is the likeliest that they still are.
            let likely = away.iter().all(|operation| self.blocked.contains(operation));
            if away.is_empty() || (somebody_can_go_on && likely && self.are_blocked(&away).await?) {
                self.ever_blocked |= !away.is_empty();
                self.blocked = away;
                return Ok(());
            }
            if timeout(POLL, self.moved()).await.is_err() {
                // Nothing moves: perhaps because those that are away are blocked, from now on.
                self.blocked = away;
            }
            if Instant::now() > until {
                let (schedule, blocked) = (self.schedule(), self.blocked.clone());
                // Nobody can go on, and all of them still wait for a lock.
                let for_good = !somebody_can_go_on && self.are_blocked(&blocked).await?;
                return Err(if for_good {
                    Error::Deadlocked { schedule }
                } else {
                    Error::Restless { schedule, blocked }
                });
            }
        }
    }

    /// Whether the operations that are away wait for a lock, each of them: they still are away when that many waits have
    /// been counted.
    async fn are_blocked(&self, away: &[usize]) -> Result<bool, Error> {
        let waits = self.stage.waits().await?;
        Ok(waits >= away.len() as u64 && away.iter().all(|at| self.actors[*at].is_away()))
    }

    /// Returns when an operation has moved.
    async fn moved(&mut self) {
        let running = self.actors.iter_mut().filter(|actor| actor.answer.is_none());
        let moves: Vec<_> = running.map(|actor| Box::pin(actor.moved())).collect();
        if !moves.is_empty() {
            select_all(moves).await;
        }
    }

    /// Waits until nothing is left of a crashed operation: its work is dropped, its link closed, and its transaction
    /// rolled back by the database.
    async fn forget(&mut self, operation: usize, strays_before: i64) -> Result<(), Error> {
        let until = Instant::now() + REST_LIMIT;
        while self.actors[operation].script.is_at_work() || self.stage.stray_links().await? > strays_before {
            if Instant::now() > until {
                return Err(Error::Restless { schedule: self.schedule(), blocked: vec![operation] });
            }
            tokio::time::sleep(POLL).await;
        }
        // What it held, others may have now.
        self.rest().await
    }

    /// Settles what is unknown, and judges. To be called when there are no more [`Self::choices`].
    ///
    /// # Errors
    /// The database's.
    pub async fn end(self) -> Result<Outcome, Error> {
        let schedule = Schedule(self.steps);
        let mut answers = Vec::new();
        for (operation, actor) in self.actors.into_iter().enumerate() {
            let answer = match actor.answer {
                Some(Ok(receipt)) => Answer::Acknowledged(receipt),
                // As its client would: it asks another instance where there is one.
                Some(Err(error::Error::OutcomeUnknown { .. })) => {
                    let asked = self.stage.ledger_of((operation + 1) % self.stage.instances());
                    let Change { user_id, request_id, .. } = actor.change;
                    match asked.fate(user_id, request_id, Resolve::Finally).await? {
                        Fate::Journaled(_) => Answer::UnknownThenSucceeded,
                        Fate::Voided => Answer::UnknownThenVoided,
                        fate => {
                            return Err(error::Error::Bug(format!("a resolved request is {fate:?}")).into());
                        }
                    }
                }
                Some(Err(error::Error::Refused(refusal))) => Answer::Refused(refusal),
                // Only the rules may refuse: nothing here runs out of time or attempts by itself.
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Error::Restless { schedule, blocked: self.blocked }),
            };
            let request_id = actor.change.request_id;
            answers.push((outcome::Call { request_id, delta: actor.change.delta(), answer }, actor.ledger));
        }
        let ledger = Arc::clone(&answers[0].1);
        let calls = answers.into_iter().map(|(call, _)| call).collect();
        let evidence = outcome::Evidence {
            entries: ledger.entries(self.user_id, 1, outcome::ENTRIES_MOST).await?,
            state: ledger.state(self.user_id).await?,
            events: self.stage.timeline().retained(self.began, self.user_id).map(|(_, event)| event).collect(),
        };
        Outcome::of(schedule, &self.scene, calls, evidence, self.ever_blocked)
    }
}

/// A request id whose first eight digits are the operation's number, so that pictures and logs tell operations apart.
fn request_id(operation: usize) -> Uuid {
    const DIGITS: u128 = 0x1111_1111;
    let number = (operation as u128 + 1) * DIGITS;
    Uuid::from_u128(number << 96 | Uuid::new_v4().as_u128() & (u128::MAX >> 32))
}
