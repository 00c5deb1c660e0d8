//! Which schedules there are: every one by depth-first replay, or a sample. Each is played from its beginning; what can
//! follow a step is what the real code allows, so nothing here knows what a strategy does.

use std::collections::HashSet;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Error,
    outcome::Outcome,
    play::Play,
    schedule::{Scene, Schedule, Step, Token},
    stage::Stage,
};

/// The most branches put aside because a schedule did not go as remembered. Where that happens more often, operations
/// do not depend on their steps alone, and an enumeration means nothing.
const ASIDE_MOST: usize = 50;

/// How many schedules are played at the most for each that a sample is to hold: the rest are repeats.
const TRIES_EACH: usize = 4;

/// How much is played.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Up to so many schedules all are played; of more a sample of so many.
    pub limit: usize,
    /// What the sample follows from.
    pub seed: u64,
}

/// What was played of all there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Coverage {
    /// Every schedule.
    All,
    /// A sample.
    Sample {
        /// What it follows from.
        seed: u64,
        /// About how many schedules there are (Knuth, "Estimating the Efficiency of Backtrack Programs", 1975).
        of_about: f64,
    },
    /// What there was time for.
    Interrupted,
}

/// What an exploration came to, besides the outcomes it handed out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Explored {
    /// What was played.
    pub coverage: Coverage,
    /// How often a schedule did not go as remembered.
    pub diverged: usize,
}

/// What an exploration hands out.
pub enum Found {
    /// What came of a schedule not played before.
    Outcome(Box<Outcome>),
    /// There are too many, and those handed out so far are alike in how they begin. They no longer count: a sample
    /// follows.
    TooMany,
}

/// What is to be done after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// Go on.
    Continue,
    /// Enough.
    Stop,
}

/// Plays the schedules of a scene, each distinct one once, and hands out what came of them.
///
/// # Errors
/// [`Error`]; what was handed out before holds.
pub async fn explore(
    stage: &Stage,
    scene: &Scene,
    bounds: Bounds,
    mut visit: impl FnMut(Found) -> Onward,
) -> Result<Explored, Error> {
    let mut tree = Tree::default();
    let mut played = HashSet::new();
    while let Some(outcome) = tree.next(stage, scene).await? {
        if !played.insert(outcome.schedule.clone()) {
            continue;
        }
        if played.len() > bounds.limit {
            visit(Found::TooMany);
            return sample(stage, scene, bounds, visit).await;
        }
        if visit(Found::Outcome(Box::new(outcome))) == Onward::Stop {
            return Ok(Explored { coverage: Coverage::Interrupted, diverged: tree.diverged });
        }
    }
    Ok(Explored { coverage: Coverage::All, diverged: tree.diverged })
}

/// Plays schedules that are chosen step by step at random, until there are as many distinct ones as the bounds say.
async fn sample(
    stage: &Stage,
    scene: &Scene,
    Bounds { limit, seed }: Bounds,
    mut visit: impl FnMut(Found) -> Onward,
) -> Result<Explored, Error> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut played = HashSet::new();
    let (mut estimates, mut tries) = (0.0, 0_u32);
    while played.len() < limit && (tries as usize) < limit.saturating_mul(TRIES_EACH) {
        let mut play = Play::begin(stage, scene).await?;
        let mut ways = 1.0;
        loop {
            let choices = play.choices();
            if choices.is_empty() {
                break;
            }
            ways *= choices.len() as f64;
            play.take(choices[random.random_range(0..choices.len())]).await?;
        }
        tries += 1;
        estimates += ways;
        let outcome = play.end().await?;
        if played.insert(outcome.schedule.clone()) && visit(Found::Outcome(Box::new(outcome))) == Onward::Stop {
            return Ok(Explored { coverage: Coverage::Interrupted, diverged: 0 });
        }
    }
    let of_about = estimates / f64::from(tries.max(1));
    Ok(Explored { coverage: Coverage::Sample { seed, of_about }, diverged: 0 })
}

/// Plays the schedule of a token. Where it ends before the operations do, they go on in their order.
///
/// # Errors
/// [`Error::NotPossible`] where the schedule cannot be followed; the database's.
pub async fn replay(stage: &Stage, token: &Token) -> Result<Outcome, Error> {
    let mut play = Play::begin(stage, &token.scene).await?;
    for step in &token.schedule.0 {
        play.take(*step).await?;
    }
    while let Some(step) = play.choices().first() {
        play.take(*step).await?;
    }
    play.end().await
}

/// A point of a schedule: the steps that were possible, and which of them is being tried.
#[derive(Clone, Debug)]
struct Fork {
    choices: Vec<Step>,
    taken: usize,
}

/// What has been found of the tree of schedules.
#[derive(Default)]
struct Tree {
    /// The schedule to play next, as far as it is known. At its end, and before the first, nothing is.
    path: Option<Vec<Fork>>,
    /// Schedules that did not go as remembered; they are tried again.
    aside: Vec<Vec<Fork>>,
    /// Whether that is being done: what goes astray a second time had been seen wrong the first time.
    again: bool,
    diverged: usize,
}

impl Tree {
    /// Plays the next schedule; `None` when there is none left.
    async fn next(&mut self, stage: &Stage, scene: &Scene) -> Result<Option<Outcome>, Error> {
        let Some(mut path) = self.take_path() else { return Ok(None) };
        let mut play = Play::begin(stage, scene).await?;
        let mut depth = 0;
        loop {
            let choices = play.choices();
            let is_as_remembered = path.get(depth).is_none_or(|fork| fork.choices == choices);
            if !is_as_remembered {
                self.put_aside(&path, &play.schedule())?;
                path.truncate(depth);
            }
            if choices.is_empty() {
                break;
            }
            if depth == path.len() {
                path.push(Fork { choices, taken: 0 });
            }
            let Fork { choices, taken } = &path[depth];
            play.take(choices[*taken]).await?;
            depth += 1;
        }
        self.path = Some(path);
        play.end().await.map(Some)
    }

    /// The next path: the last one with its last open fork moved on, or else one put aside.
    fn take_path(&mut self) -> Option<Vec<Fork>> {
        // Nothing is remembered before the first schedule, which is the empty path itself.
        let Some(mut path) = self.path.take() else { return Some(Vec::new()) };
        while let Some(fork) = path.last_mut() {
            fork.taken += 1;
            if fork.taken < fork.choices.len() {
                return Some(path);
            }
            path.pop();
        }
        let again = self.aside.pop();
        self.again = again.is_some();
        if again.is_none() {
            self.path = Some(path);
        }
        again
    }

    fn put_aside(&mut self, path: &[Fork], schedule: &Schedule) -> Result<(), Error> {
        self.diverged += 1;
        if self.diverged > ASIDE_MOST {
            return Err(Error::NotDeterministic { times: self.diverged, schedule: schedule.clone() });
        }
        if !std::mem::take(&mut self.again) {
            self.aside.push(path.to_vec());
        }
        Ok(())
    }
}
