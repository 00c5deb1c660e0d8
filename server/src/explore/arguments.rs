//! The command line of `zbl-server explore`: from its options to scenes.

use std::path::PathBuf;

use super::schedule::{Crashes, INSTANCES_MOST, Malformed, OPERATIONS_MOST, Part, Scene, Token, find, money};
use crate::{
    account::Money,
    strategy::{Guarantee, REGISTRY, Row},
};

/// What stands for every strategy.
const ALL: &str = "all";

/// Two operations have hundreds of schedules, thousands with crashes: all are played.
const LIMIT_OF_TWO: u32 = 20_000;

/// Three have tens of thousands; so many are a minute's work.
const LIMIT: u32 = 500;

/// The most times a schedule is played again.
const TIMES_MOST: u32 = 10_000;

/// The options of `explore`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Arguments {
    /// How many operations there are; as many as strategies are named when left out, or 2
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=OPERATIONS_MOST as i64))]
    ops: Option<u8>,
    /// What the operations take, one amount for all or one for each; a negative one is a deposit
    #[arg(long, value_name = "AMOUNTS", default_value = "10.00", allow_hyphen_values = true)]
    amounts: String,
    /// The balance of the fresh account of each schedule
    #[arg(long, value_name = "AMOUNT", default_value = "100.00", allow_hyphen_values = true)]
    opening: String,
    /// How many instances of the service take turns with the operations; when left out 1, and then 2 for a strategy
    /// that waits in the process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=INSTANCES_MOST as i64))]
    instances: Option<u8>,
    /// Also crash an operation, at most one a schedule, wherever it can be held and between its commit and its answer
    #[arg(long)]
    crash: bool,
    /// Up to so many schedules all are played, of more a sample of so many [default: 20000; of 3 operations 500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: Option<u32>,
    /// What samples follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Play the schedule of a token instead, and show its lanes
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["ops", "amounts", "opening", "instances", "crash", "limit"])]
    replay: Option<String>,
    /// How often to play it
    #[arg(long, value_name = "N", default_value_t = 1, requires = "replay",
          value_parser = clap::value_parser!(u32).range(1..=TIMES_MOST as i64))]
    times: u32,
    /// Write the results as JSON to this file, or to standard output for `-`
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

const HELP: &str = "\
Plays every interleaving of operations of the real service on a real database, each on a fresh account, and judges it by
what clients were told and what the journal says. A schedule is the order in which operations were let go: `l` to take a
lock or a place in a queue, `r` to read, `c` to compute, `w` to write, `k` to commit, each with the operation's number;
`x1` crashes operation 1 where it stands, `a1` lets the answer to it out.

--strategy NAME explores operations of one strategy, --strategy none,optimistic one of each, --strategy all (the
default) the whole matrix: each strategy by itself, and each that promises never to overwrite beside every other.

Without --database-url the accounts are in a private SQLite file, removed at the end; with it, each schedule leaves an
account behind. On MariaDB, give the user the
privilege PROCESS: without it lock waits are counted for the whole server, and other traffic there disturbs.

Two operations of `batched` on one instance are committed together or one after the other by the same task, which proves
little; it is explored with two instances as well, and beside every other strategy. What promises never to overwrite may
still be overwritten by one that does.

Exit codes: 0 what was found agrees with what the strategies promise; 10 it does not, or a replay came out otherwise; 2
usage; 3 no result, or not all of it.";

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Task {
    /// Play every schedule of these scenes, or samples.
    Explore {
        /// The scenes.
        scenes: Vec<Scene>,
        /// Whether a scene whose operations wait in the process is played with two instances as well.
        instances: Instances,
        /// The most schedules of one scene.
        limit: usize,
        /// What samples follow from.
        seed: u64,
    },
    /// Play one schedule.
    Replay {
        /// Which, and in which scene.
        token: Box<Token>,
        /// How often.
        times: u32,
    },
}

/// How many instances scenes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// As many as they say.
    Given,
    /// One, and for what waits in the process two as well.
    OneThenTwo,
}

impl Arguments {
    /// What the options, and `--strategy` where it was given, ask for.
    ///
    /// # Errors
    /// [`Malformed`], which names the option.
    pub fn task(&self, strategies: Option<&str>) -> Result<Task, Malformed> {
        if let Some(token) = &self.replay {
            let token = token.parse().map_err(|error| Malformed::of("--replay", &error))?;
            return Ok(Task::Replay { token: Box::new(token), times: self.times });
        }
        let strategies = strategies.unwrap_or(ALL);
        let named: Vec<&str> = strategies.split(',').collect();
        let count = match (self.ops, named.len()) {
            (Some(ops), 1) => usize::from(ops),
            (Some(ops), names) if usize::from(ops) != names => {
                let text = format!("{ops} operations, but --strategy names {names}");
                return Err(Malformed::of("--ops", &text));
            }
            (None, 1) => 2,
            (_, names) => names,
        };
        let cast = |names: &[&'static Row]| self.scene(names, count);
        let scenes = if strategies == ALL {
            matrix().iter().map(|names| cast(names)).collect::<Result<_, _>>()?
        } else {
            let rows = named.into_iter().map(find).collect::<Result<Vec<_>, _>>();
            vec![cast(&rows.map_err(|error| Malformed::of("--strategy", &error))?)?]
        };
        let limit = self.limit.unwrap_or(if count == 2 { LIMIT_OF_TWO } else { LIMIT });
        let instances = if self.instances.is_some() { Instances::Given } else { Instances::OneThenTwo };
        Ok(Task::Explore { scenes, instances, limit: limit as usize, seed: self.seed })
    }

    /// The scene in which `count` operations take turns with these strategies.
    fn scene(&self, rows: &[&'static Row], count: usize) -> Result<Scene, Malformed> {
        let amounts = self.amounts.split(',').map(money).collect::<Result<Vec<Money>, _>>();
        let amounts = amounts.map_err(|error| Malformed::of("--amounts", &error))?;
        if ![1, count].contains(&amounts.len()) {
            let text = format!("{} amounts for {count} operations; give one, or one for each", amounts.len());
            return Err(Malformed::of("--amounts", &text));
        }
        let scene = Scene {
            parts: (0..count)
                .map(|at| Part { strategy: rows[at % rows.len()], amount: amounts[at % amounts.len()] })
                .collect(),
            opening: money(&self.opening).map_err(|error| Malformed::of("--opening", &error))?,
            instances: self.instances.map_or(1, usize::from),
            crashes: if self.crash { Crashes::One } else { Crashes::Never },
        };
        scene.check()?;
        Ok(scene)
    }
}

/// Each strategy by itself, and each that promises never to overwrite beside every other one.
fn matrix() -> Vec<Vec<&'static Row>> {
    let alone = REGISTRY.iter().map(|row| vec![row]);
    let pairs =
        REGISTRY.iter().enumerate().flat_map(|(at, one)| REGISTRY[at + 1..].iter().map(move |other| [one, other]));
    let is_of_interest = |pair: &[&'static Row; 2]| pair.iter().any(|row| row.guarantee == Guarantee::Always);
    alone.chain(pairs.filter(is_of_interest).map(Vec::from)).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn task(strategies: Option<&str>, words: &str) -> Result<Task, String> {
        let words = ["explore"].into_iter().chain(words.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.arguments.task(strategies).map_err(|error| error.to_string())
    }

    fn scenes(strategies: Option<&str>, words: &str) -> Vec<Scene> {
        match task(strategies, words).unwrap() {
            Task::Explore { scenes, .. } => scenes,
            Task::Replay { .. } => panic!("not asked for"),
        }
    }

    #[test]
    fn one_name_is_for_all_operations_and_several_are_one_each() {
        let [scene] = &scenes(Some("atomic"), "--ops 3 --amounts 1,2,-3")[..] else { panic!() };
        assert_eq!((scene.strategies().as_str(), scene.parts.len()), ("atomic", 3));
        assert_eq!(scene.parts[2].movement().1, Money::from_minor(300));
        let [scene] = &scenes(Some("none,optimistic"), "--instances 2 --crash")[..] else { panic!() };
        assert_eq!((scene.strategies().as_str(), scene.instances), ("none,optimistic", 2));
        assert_eq!(scene.crashes, Crashes::One);
    }

    #[test]
    fn the_matrix_has_every_strategy_and_every_pair_with_a_promise() {
        let always = REGISTRY.iter().filter(|row| row.guarantee == Guarantee::Always).count();
        let others = REGISTRY.len() - always;
        let expected = REGISTRY.len() + always * others + always * (always - 1) / 2;
        assert_eq!(scenes(None, "").len(), expected);
    }

    #[test]
    fn what_cannot_be_played_is_refused_and_the_option_named() {
        for (strategies, words, says) in [
            (Some("hope"), "", "--strategy"),
            (Some("none,atomic"), "--ops 3", "--ops"),
            (None, "--ops 1", "--ops"),
            (None, "--amounts 1,2,3", "--amounts"),
            (None, "--amounts ten", "--amounts"),
            (None, "--opening -1", "negative"),
            (None, "--replay zbl1:none", "--replay"),
            (None, "--times 2", "--replay"),
        ] {
            let error = task(strategies, words).unwrap_err();
            assert!(error.contains(says), "{words}: {error}");
        }
    }
}
