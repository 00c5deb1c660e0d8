//! The command line: what can be asked, and what each ending is called in exit codes.

use std::process::ExitCode;

mod args;
mod output;
mod progress;
mod runs;

pub(crate) use args::{Cli, Command};
use zbl_client::AddressError;
use zbl_loadgen::attack::AttackError;
use zbl_loadgen::expectation::Conclusion;

/// How the program ends; the numbers are part of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Every verdict is the expected one.
    AsExpected = 0,
    /// The command cannot be carried out as it was given.
    Usage = 2,
    /// The server was never reached, or the run did not come to its end.
    Aborted = 3,
    /// A verdict is not the expected one.
    NotAsExpected = 10,
    /// A verdict could not be reached.
    Inconclusive = 12,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}

impl From<Conclusion> for Ending {
    fn from(conclusion: Conclusion) -> Self {
        match conclusion {
            Conclusion::AsExpected => Self::AsExpected,
            Conclusion::NotAsExpected => Self::NotAsExpected,
            Conclusion::Inconclusive => Self::Inconclusive,
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Attack(#[from] AttackError),
    #[error("cannot write the result to {path}: {source}; name a file that can be written with --json")]
    Output { path: String, source: std::io::Error },
    #[error("cannot print the result: {0}")]
    Print(std::io::Error),
    #[error("there is nothing to compare: the server has no strategy that is available; `loadgen attack` says why")]
    NothingToCompare,
    #[error("interrupted before the run was settled; nothing is known about it")]
    Interrupted,
}

impl Failure {
    /// Says what went wrong, and how the program ends for it.
    pub(crate) fn tell(&self) -> Ending {
        // With standard error gone there is nobody left to tell.
        let _ = output::to_stderr(&format!("error: {self}\n"));
        match self {
            Self::Address(_)
            | Self::NothingToCompare
            | Self::Output { .. }
            | Self::Attack(
                AttackError::Workload(_)
                | AttackError::NoServer
                | AttackError::UnknownStrategy { .. }
                | AttackError::StrategyUnavailable { .. }
                | AttackError::Overflow(_),
            ) => Ending::Usage,
            Self::Attack(_) | Self::Print(_) | Self::Interrupted => Ending::Aborted,
        }
    }
}

/// Carries a command out.
pub(crate) async fn run(command: Command) -> Result<Ending, Failure> {
    match command {
        Command::Attack(args) => runs::attack(args).await,
        Command::Compare(args) => runs::compare(args).await,
    }
}
