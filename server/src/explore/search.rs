//! Which schedules there are: every one by depth-first replay, or a sample. Each is played from its beginning; what can
//! follow a step is what the real code allows, so nothing here knows what a strategy does.

use std::collections::{HashMap, HashSet};

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
    /// One schedule, again and again.
    Replay,
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
    /// How many of these did not go as remembered when tried again: what is behind them was not played.
    pub given_up: usize,
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
            return Ok(tree.explored(Coverage::Interrupted));
        }
    }
    Ok(tree.explored(Coverage::All))
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
    let mut remembered: HashMap<Schedule, Vec<Step>> = HashMap::new();
    let mut diverged = 0;
    let (mut estimates, mut tries) = (0.0, 0_u32);
    while played.len() < limit && (tries as usize) < limit.saturating_mul(TRIES_EACH) {
        let mut play = Play::begin(stage, scene).await?;
        let mut ways = 1.0;
        loop {
            let choices = play.choices();
            if choices.is_empty() {
                break;
            }
            if *remembered.entry(play.schedule()).or_insert_with(|| choices.clone()) != choices {
                diverged += 1;
            }
            ways *= choices.len() as f64;
            play.take(choices[random.random_range(0..choices.len())]).await?;
        }
        tries += 1;
        estimates += ways;
        let outcome = play.end().await?;
        if played.insert(outcome.schedule.clone()) && visit(Found::Outcome(Box::new(outcome))) == Onward::Stop {
            return Ok(Explored { coverage: Coverage::Interrupted, diverged, given_up: diverged });
        }
    }
    let of_about = estimates / f64::from(tries.max(1));
    // Nothing is tried again here: the sample is what it is, but not what the seed alone would give.
    Ok(Explored { coverage: Coverage::Sample { seed, of_about }, diverged, given_up: diverged })
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
    /// Whether that is being done.
    again: bool,
    diverged: usize,
    given_up: usize,
}

impl Tree {
    fn explored(&self, coverage: Coverage) -> Explored {
        Explored { coverage, diverged: self.diverged, given_up: self.given_up }
    }

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
                self.again = false;
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
        if std::mem::take(&mut self.again) {
            self.given_up += 1;
        } else {
            self.aside.push(path.to_vec());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forks(taken: &[(usize, usize)]) -> Vec<Fork> {
        let steps: Schedule = "r1 r2 c1 c2".parse().unwrap();
        taken.iter().map(|&(taken, of)| Fork { choices: steps.0[..of].to_vec(), taken }).collect()
    }

    fn taken(path: &[Fork]) -> Vec<usize> {
        path.iter().map(|fork| fork.taken).collect()
    }

    #[test]
    fn paths_are_taken_in_order_and_each_once() {
        let mut tree = Tree::default();
        assert_eq!(taken(&tree.take_path().unwrap()), [0; 0]);
        tree.path = Some(forks(&[(0, 2), (0, 2), (0, 1)]));
        assert_eq!(taken(&tree.take_path().unwrap()), [0, 1]);
        tree.path = Some(forks(&[(0, 2), (1, 2)]));
        assert_eq!(taken(&tree.take_path().unwrap()), [1]);
        tree.path = Some(forks(&[(1, 2), (0, 1)]));
        assert!(tree.take_path().is_none() && tree.take_path().is_none(), "the end stays the end");
    }

    #[test]
    fn what_goes_astray_is_tried_once_more_and_then_given_up() {
        let mut tree = Tree::default();
        let strayed = forks(&[(1, 2), (0, 2)]);
        tree.put_aside(&strayed, &Schedule(Vec::new())).unwrap();
        tree.path = Some(Vec::new());
        assert_eq!(taken(&tree.take_path().unwrap()), [1, 0], "when nothing else is left");
        tree.put_aside(&strayed, &Schedule(Vec::new())).unwrap();
        assert_eq!((tree.diverged, tree.given_up, tree.aside.len()), (2, 1, 0));
    }

    #[test]
    fn what_went_well_at_the_second_try_gives_the_next_one_a_second_try_too() {
        let mut tree = Tree::default();
        tree.put_aside(&forks(&[(0, 2)]), &Schedule(Vec::new())).unwrap();
        tree.path = Some(Vec::new());
        let path = tree.take_path().unwrap();
        // It went as remembered this time, and the walk goes on from it.
        tree.path = Some(path);
        assert_eq!(taken(&tree.take_path().unwrap()), [1]);
        tree.put_aside(&forks(&[(1, 2)]), &Schedule(Vec::new())).unwrap();
        assert_eq!((tree.given_up, tree.aside.len()), (0, 1));
    }

    #[test]
    fn what_never_goes_twice_the_same_way_is_no_enumeration() {
        let mut tree = Tree::default();
        let mut put_aside = || tree.put_aside(&forks(&[(0, 2)]), &Schedule(Vec::new()));
        assert!((0..ASIDE_MOST).all(|_| put_aside().is_ok()));
        assert!(matches!(put_aside(), Err(Error::NotDeterministic { .. })));
    }
}
