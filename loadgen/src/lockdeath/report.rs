//! What was lost in which scene, for machines (`lockdeath.schema.json` next to this crate is the published form) and for
//! people. It owns what is shown and refuses to take a scene that was not played for one that lost nothing.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::Cell as Field;
use serde::{Serialize, Serializer};
use zbl_client::{Error, Guarantee, Money, Phase, Receipt};

use super::play::{AMOUNT, OPENING};
use super::stage::kept_off;
use super::story::Facts;
use super::{Death, Plan, phase_name};
use crate::report::{Pair, aligned, decimal, pair, plain, promise};
use crate::verdict::{Doubt, Judgement, Verdict};

/// The version of the published form; it grows when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

const LEGEND: &str = "\
Money lost, and in brackets where: with the holder stopped before its WRITE, before its COMMIT.
  kept out     the rival did not get in until the holder was done
  turned away  the rival got an error instead, such as that there is no Redis to lock in
  noticed      the holder found in time that the lock was not its own any more, and began anew
  ?            it could not be judged, or not be played; nothing is known of it";

/// Everything that was played.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What the servers store accounts in.
    pub store: String,
    /// The holder's server.
    pub holder: String,
    /// The rival's server.
    pub rival: String,
    /// The lease, in milliseconds.
    pub lease_ms: u64,
    /// What each account began with.
    #[serde(with = "decimal")]
    pub opening: Money,
    /// What each of the two took.
    #[serde(with = "decimal")]
    pub amount: Money,
    /// Each death with each strategy.
    pub cells: Vec<Cell>,
    /// Why not everything was played; `None` when it was.
    pub halted: Option<String>,
}

/// One death with one strategy.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The death.
    pub death: String,
    /// The strategy.
    pub strategy: String,
    /// What the strategy promises.
    #[serde(serialize_with = "promise::serialize")]
    pub guarantee: Guarantee,
    /// The scenes, by where the holder stood.
    pub places: Vec<Place>,
}

/// One scene.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// The phase before which the holder stood.
    #[serde(serialize_with = "phase")]
    pub phase: Phase,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a scene.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was played to its end.
    Played(Box<Played>),
    /// It could not be played, so that nothing is known.
    Failed(String),
}

/// A scene that was played.
#[derive(Clone, Debug, Serialize)]
pub struct Played {
    /// The account.
    pub user_id: i64,
    /// The verdict.
    pub verdict: Verdict,
    /// The acknowledged money that is gone.
    #[serde(with = "decimal")]
    pub lost: Money,
    /// What became of the rival while the holder stood.
    #[serde(serialize_with = "rival")]
    pub rival: Rival,
    /// Whether the holder found out that the lock was not its own any more, and began anew.
    pub noticed: bool,
    /// Why it cannot be called clean, besides losses.
    #[serde(serialize_with = "doubts")]
    pub doubts: Vec<Doubt>,
    /// What happened, in words.
    pub story: Vec<String>,
    /// Who lost what to whom.
    pub lost_updates: Vec<Pair>,
}

/// What became of the rival while the holder stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rival {
    /// It got in, and stood before its WRITE.
    Stood {
        /// How long after the break.
        after: Duration,
        /// In which attempt.
        attempt: u32,
    },
    /// It did not get in.
    KeptOut {
        /// For how long.
        after: Duration,
    },
    /// Its call ended with an error.
    TurnedAway {
        /// How long after the break.
        after: Duration,
        /// The error.
        error: String,
    },
    /// Its call ended well, without coming by its WRITE.
    Ended {
        /// How long after the break.
        after: Duration,
    },
}

impl Rival {
    /// # Errors
    /// Its server's breaker kept it off the lock: that says nothing of the lock.
    pub(super) fn ended(after: Duration, end: Result<Receipt, Error>) -> Result<Self, String> {
        end.map_or_else(
            |error| kept_off(&error).map_or_else(|| Ok(Self::TurnedAway { after, error: error.to_string() }), Err),
            |_| Ok(Self::Ended { after }),
        )
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Stood { .. } => "STOOD",
            Self::KeptOut { .. } => "KEPT_OUT",
            Self::TurnedAway { .. } => "TURNED_AWAY",
            Self::Ended { .. } => "ENDED",
        }
    }
}

impl Report {
    pub(super) fn new(plan: &Plan, store: String) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            store,
            holder: plan.holder.address().to_owned(),
            rival: plan.rival.address().to_owned(),
            lease_ms: u64::try_from(plan.lease.as_millis()).unwrap_or(u64::MAX),
            opening: OPENING,
            amount: AMOUNT,
            cells: Vec::new(),
            halted: None,
        }
    }

    /// The strategies, in the order in which they were first played.
    pub fn strategies(&self) -> Vec<&str> {
        distinct(self.cells.iter().map(|cell| cell.strategy.as_str()))
    }

    /// What is known of a strategy after all its scenes, and what it promises; `None` when none was judged.
    pub fn verdict(&self, strategy: &str) -> Option<(Guarantee, Verdict)> {
        let cells = self.cells.iter().filter(|cell| cell.strategy == strategy);
        let verdicts = cells.flat_map(|cell| cell.played().map(|played| (cell.guarantee, played.verdict)));
        verdicts.max_by_key(|(_, verdict)| match verdict {
            Verdict::Clean => 0,
            Verdict::Inconclusive => 1,
            Verdict::Lost => 2,
        })
    }

    /// Whether every scene was played.
    pub fn is_complete(&self) -> bool {
        let all_played = |cell: &Cell| cell.places.iter().all(|place| matches!(place.outcome, Outcome::Played(_)));
        self.halted.is_none() && self.cells.iter().all(all_played)
    }
}

impl Cell {
    pub(super) fn new(death: &Death, strategy: &str, guarantee: Guarantee) -> Self {
        Self { death: death.name.clone(), strategy: strategy.to_owned(), guarantee, places: Vec::new() }
    }

    fn played(&self) -> impl Iterator<Item = &Played> {
        self.places.iter().filter_map(|place| match &place.outcome {
            Outcome::Played(played) => Some(&**played),
            Outcome::Failed(_) => None,
        })
    }

    /// The money lost in all its scenes; what was not played is not in it.
    pub fn lost(&self) -> Money {
        Money::from_minor(self.played().map(|played| played.lost.minor()).sum())
    }

    /// The figure of the cell and, in brackets, those of its places, unless they say nothing more.
    fn figure(&self) -> String {
        let words: Vec<String> = self.places.iter().map(Place::word).collect();
        let sum = match self.lost() {
            Money::ZERO if words.iter().any(|word| word == UNKNOWN) => UNKNOWN.to_owned(),
            Money::ZERO => "0".to_owned(),
            lost => lost.to_string(),
        };
        match words.as_slice() {
            words if words.iter().all(|word| *word == sum) => sum,
            [first, rest @ ..] if rest.iter().all(|word| word == first) => format!("{sum} ({first})"),
            words => format!("{sum} ({})", words.join(", ")),
        }
    }
}

const UNKNOWN: &str = "?";

impl Place {
    pub(super) fn new(phase: Phase, played: Result<Played, String>) -> Self {
        let outcome = played.map_or_else(Outcome::Failed, |played| Outcome::Played(Box::new(played)));
        Self { phase, outcome }
    }

    fn word(&self) -> String {
        let Outcome::Played(played) = &self.outcome else { return UNKNOWN.to_owned() };
        match (played.verdict, &played.rival) {
            (Verdict::Lost, _) => played.lost.to_string(),
            (Verdict::Inconclusive, _) => UNKNOWN.to_owned(),
            (Verdict::Clean, Rival::KeptOut { .. }) => "kept out".to_owned(),
            (Verdict::Clean, Rival::TurnedAway { .. }) => "turned away".to_owned(),
            (Verdict::Clean, _) if played.noticed => "noticed".to_owned(),
            (Verdict::Clean, _) => "0".to_owned(),
        }
    }
}

impl Played {
    pub(super) fn new(user_id: i64, facts: Facts, judgement: Judgement, story: Vec<String>) -> Self {
        Self {
            user_id,
            verdict: judgement.verdict,
            lost: judgement.lost,
            rival: facts.came,
            noticed: facts.noticed.is_some(),
            doubts: judgement.doubts,
            story,
            lost_updates: judgement.lost_updates.iter().map(pair).collect(),
        }
    }
}

/// A row for each death, a column for each strategy, and below it the sums.
pub fn table(report: &Report) -> String {
    let strategies = report.strategies();
    let mut table = plain(&[&["death"], strategies.as_slice()].concat());
    for death in distinct(report.cells.iter().map(|cell| cell.death.as_str())) {
        let cell =
            |strategy: &&str| report.cells.iter().find(|cell| cell.death == death && cell.strategy == **strategy);
        let figures = strategies.iter().map(|strategy| cell(strategy).map_or_else(|| "-".to_owned(), Cell::figure));
        table.add_row([Field::new(death)].into_iter().chain(figures.map(Field::new)));
    }
    let sum = |strategy: &&str| {
        let cells = report.cells.iter().filter(|cell| cell.strategy == **strategy);
        Money::from_minor(cells.map(|cell| cell.lost().minor()).sum()).to_string()
    };
    table.add_row([Field::new("in all")].into_iter().chain(strategies.iter().map(sum).map(Field::new)));
    aligned(&mut table, strategies.len() + 1);
    table.trim_fmt() + "\n"
}

/// The table, how to read it, what could not be played or judged, and the witnesses.
pub fn text(report: &Report) -> String {
    let lease = Duration::from_millis(report.lease_ms);
    let Report { store, holder, rival, opening, amount, .. } = report;
    let mut out = format!("{}\n{LEGEND}\n", table(report));
    let _ = writeln!(
        out,
        "Each scene: {opening} on {store}, {amount} taken by the holder on {holder} and by the rival on {rival}, lease {lease:?}."
    );
    for cell in &report.cells {
        for place in &cell.places {
            let _ = write!(out, "{}", witness(cell, place));
        }
    }
    if let Some(reason) = &report.halted {
        let _ = writeln!(out, "\nNot everything was played: {reason}");
    }
    out
}

/// The story of a scene that lost money, or why nothing is known of it; empty for the others, whose stories the JSON has.
fn witness(cell: &Cell, place: &Place) -> String {
    let heading = format!("\n{}, {}, before {}", cell.death, cell.strategy, phase_name(place.phase));
    match &place.outcome {
        Outcome::Failed(reason) => format!("{heading}: could not be played\n  {reason}\n"),
        Outcome::Played(played) if played.verdict == Verdict::Clean => String::new(),
        Outcome::Played(played) => {
            let heading = match played.verdict {
                Verdict::Inconclusive => format!("{heading}: {}", played.verdict),
                Verdict::Clean | Verdict::Lost => format!("{heading}: {} lost", played.lost),
            };
            let doubts = played.doubts.iter().map(|doubt| format!("doubt: {doubt}"));
            played.story.iter().cloned().chain(doubts).fold(heading + "\n", |out, line| out + "  " + &line + "\n")
        }
    }
}

/// The first of each.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names.fold(Vec::new(), |mut seen, name| {
        if !seen.contains(&name) {
            seen.push(name);
        }
        seen
    })
}

fn phase<S: Serializer>(phase: &Phase, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(phase_name(*phase))
}

fn rival<S: Serializer>(rival: &Rival, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rival.name())
}

fn doubts<S: Serializer>(doubts: &[Doubt], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(doubts.iter().map(ToString::to_string))
}
