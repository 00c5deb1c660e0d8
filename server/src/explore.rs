//! The schedule explorer: every interleaving of real operations on a real database, judged, and played again on demand.
//! It is stateless model checking over the service's own code (Godefroid, "Model Checking for Programming Languages
//! using VeriSoft", 1997): operations are held at gates, one at a time is let go, and each schedule is played from its
//! beginning on a fresh account. It knows no strategy by name, and refuses to conclude anything from time.

mod arguments;
mod finding;
mod outcome;
mod play;
mod report;
mod run;
mod schedule;
mod search;
mod stage;

use std::{io, path::PathBuf};

pub use self::{
    arguments::{Arguments, Instances, Task},
    finding::Finding,
    outcome::{Answer, Call, Outcome},
    play::{Play, Position},
    run::{Conclusion, Exploration, Keep},
    schedule::{Act, Crashes, Malformed, OPERATIONS_MOST, Part, Scene, Schedule, Step, Token, money},
    search::{Bounds, Coverage, Explored, Found, Onward, explore, replay},
    stage::Stage,
};
use crate::{app, error};

/// Why an exploration came to no end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service cannot be opened.
    #[error(transparent)]
    App(#[from] app::Error),
    /// The service or its database failed.
    #[error("the exploration is over: {0}")]
    Service(#[from] error::Error),
    /// The amounts are too large to be judged.
    #[error(transparent)]
    Overflow(#[from] zbl_loadgen::verdict::Overflow),
    /// A step that cannot be taken.
    #[error("step {step} is not possible after `{after}`; possible are: {possible}")]
    NotPossible {
        /// The step.
        step: Step,
        /// What came before it.
        after: Schedule,
        /// What could be done instead.
        possible: Schedule,
    },
    /// Operations that keep each other from ending.
    #[error("the operations have not ended after so many steps: {schedule}")]
    Endless {
        /// The steps.
        schedule: Schedule,
    },
    /// Operations that wait for each other, which no database has noticed.
    #[error("the operations wait for each other for good after `{schedule}`: a deadlock that nothing breaks")]
    Deadlocked {
        /// The steps so far.
        schedule: Schedule,
    },
    /// Operations that neither stand at a gate nor wait for a lock nor end.
    #[error(
        "operations {blocked:?} (from 0) neither go on nor wait for a lock after `{schedule}`; does something else use \
         the database?"
    )]
    Restless {
        /// The steps so far.
        schedule: Schedule,
        /// The operations.
        blocked: Vec<usize>,
    },
    /// The same steps lead to different places.
    #[error(
        "{times} schedules did not go as they had gone before, the last one at `{schedule}`; does something else use \
         the database?"
    )]
    NotDeterministic {
        /// How many.
        times: usize,
        /// Where the last of them went elsewhere.
        schedule: Schedule,
    },
    /// Any of these, and in which scene.
    #[error("{strategies}: {source}")]
    Scene {
        /// The scene's strategies.
        strategies: String,
        /// What went wrong.
        source: Box<Error>,
    },
    /// Output or the temporary directory failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The result could not be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Ctrl-C, twice.
    #[error("interrupted before there was a result")]
    Interrupted,
}
