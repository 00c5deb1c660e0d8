//! The command line: what can be asked, and what each ending is called in exit codes.

use std::process::ExitCode;

mod args;
mod bench;
mod lockdeath;
mod output;
mod progress;
mod report;
mod runs;
mod soak;

pub(crate) use args::{Cli, Command};
use zbl_client::{Client, FlagsError};
use zbl_loadgen::attack::AttackError;
use zbl_loadgen::bench::{BenchError, SeriesError};
use zbl_loadgen::expectation::Conclusion;
use zbl_loadgen::lockdeath::LockDeathError;
use zbl_loadgen::soak::SoakError;
use zbl_loadgen::verdict::Verdict;
use zbl_trace::{StartError, Tracer, Traces};

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
    /// A figure is not what was asked for.
    ThresholdFailed = 11,
    /// A verdict could not be reached.
    Inconclusive = 12,
}

impl Ending {
    /// The same, and something else that went wrong; it does not hide a loss that is proven and not expected.
    pub(crate) fn and_also(self, verdict: Option<Verdict>, other: Self) -> Self {
        match (self, verdict) {
            (Self::NotAsExpected, Some(Verdict::Lost)) => self,
            _ => self.or_worse(other),
        }
    }

    /// The worse of two: first what was not carried out, then what is wrong, then what is not known, then what is slow.
    pub(crate) fn or_worse(self, other: Self) -> Self {
        let gravity = |ending: &Self| match ending {
            Self::AsExpected => 0,
            Self::ThresholdFailed => 1,
            Self::Inconclusive => 2,
            Self::NotAsExpected => 3,
            Self::Aborted => 4,
            Self::Usage => 5,
        };
        std::cmp::max_by_key(other, self, gravity)
    }
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
    Flags(#[from] FlagsError),
    #[error(transparent)]
    Attack(#[from] AttackError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Soak(#[from] SoakError),
    #[error("cannot write the result to {path}: {source}; name a file that can be written with {flag}")]
    Output { path: String, flag: &'static str, source: std::io::Error },
    #[error("cannot print the result: {0}")]
    Print(std::io::Error),
    #[error("there is nothing to compare: the server has no strategy that is available; `loadgen attack` says why")]
    NothingToCompare,
    #[error(transparent)]
    LockDeath(#[from] LockDeathError),
    #[error(transparent)]
    Deaths(#[from] lockdeath::LockDeathFailure),
    #[error(transparent)]
    Report(#[from] report::ReportFailure),
    #[error("{0}; see --otlp-endpoint")]
    Traces(#[from] StartError),
    #[error("interrupted before the run was settled; nothing is known about it")]
    Interrupted,
}

impl Failure {
    /// Says what went wrong, and how the program ends for it.
    pub(crate) fn tell(&self) -> Ending {
        // With standard error gone there is nobody left to tell.
        let _ = output::to_stderr(&format!("error: {self}\n"));
        match self {
            Self::Flags(_)
            | Self::Report(_)
            | Self::Traces(_)
            | Self::Deaths(_)
            | Self::LockDeath(LockDeathError::OneServer(_))
            | Self::NothingToCompare
            | Self::Output { .. }
            | Self::Soak(SoakError::NoStrategy | SoakError::Bench(BenchError::Plan(_)))
            | Self::Bench(BenchError::Plan(_) | BenchError::Series(SeriesError::Log(_))) => Ending::Usage,
            Self::Attack(error)
            | Self::Bench(BenchError::Setup(error))
            | Self::Soak(SoakError::Bench(BenchError::Setup(error)))
            | Self::LockDeath(LockDeathError::Setup(error)) => of_attack(error),
            Self::Bench(_) | Self::Soak(_) | Self::Print(_) | Self::Interrupted => Ending::Aborted,
        }
    }
}

/// Whether another command would help.
const fn of_attack(error: &AttackError) -> Ending {
    match error {
        AttackError::Workload(_)
        | AttackError::NoServer
        | AttackError::UnknownStrategy { .. }
        | AttackError::StrategyUnavailable { .. }
        | AttackError::Overflow(_) => Ending::Usage,
        _ => Ending::Aborted,
    }
}

/// Carries a command out, and has its traces sent.
pub(crate) async fn run(cli: Cli) -> Result<Ending, Failure> {
    let traces = cli.traces.start()?;
    let ended = carry_out(cli.command, traces.as_ref().map(Traces::tracer)).await;
    if let Some(traces) = traces {
        traces.stop().await;
    }
    ended
}

async fn carry_out(command: Command, tracer: Option<&Tracer>) -> Result<Ending, Failure> {
    match command {
        Command::Attack(args) => runs::attack(args, tracer).await,
        Command::Compare(args) => runs::compare(args, tracer).await,
        Command::Bench(args) => bench::bench(*args, tracer).await,
        Command::Soak(args) => soak::soak(args, tracer).await,
        Command::Report(args) => report::report(&args),
        Command::Lockdeath(args) => Box::pin(lockdeath::lockdeath(args, tracer)).await,
    }
}

/// Clients whose calls begin traces, where there is somebody to send them to; a parent that nobody has is none.
fn traced(clients: Vec<Client>, tracer: Option<&Tracer>) -> Vec<Client> {
    let Some(tracer) = tracer else { return clients };
    clients.into_iter().map(|client| client.with_tracer(tracer.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::Ending::{Aborted, AsExpected, Inconclusive, NotAsExpected, ThresholdFailed, Usage};
    use clap::Parser;
    use zbl_client::Client;
    use zbl_trace::Traces;

    use super::{Cli, Verdict, traced};

    #[test]
    fn a_proven_loss_is_not_hidden_by_how_the_run_ended() {
        for other in [Aborted, Usage, ThresholdFailed] {
            assert_eq!(NotAsExpected.and_also(Some(Verdict::Lost), other), NotAsExpected);
        }
        // Of a run that was to lose and was cut short nothing is proven.
        assert_eq!(NotAsExpected.and_also(Some(Verdict::Clean), Aborted), Aborted);
        assert_eq!(AsExpected.and_also(Some(Verdict::Lost), Aborted), Aborted);
        assert_eq!(AsExpected.and_also(None, Aborted), Aborted);
    }

    #[tokio::test]
    async fn calls_begin_traces_where_there_is_somebody_to_send_them_to() {
        for (flags, expected) in [(&[][..], false), (&["--otlp-endpoint", "http://127.0.0.1:1"], true)] {
            let cli = Cli::try_parse_from(["loadgen", "attack"].iter().chain(flags)).unwrap();
            let traces = cli.traces.start().unwrap();
            let clients = traced(vec![Client::connect_lazy("a:1").unwrap()], traces.as_ref().map(Traces::tracer));
            assert_eq!(clients[0].tracer().is_some(), expected, "{flags:?}");
        }
    }

    #[test]
    fn the_worst_decides_in_whatever_order_it_comes() {
        let ascending = [AsExpected, ThresholdFailed, Inconclusive, NotAsExpected, Aborted];
        for (index, better) in ascending.iter().enumerate() {
            for worse in &ascending[index..] {
                assert_eq!((better.or_worse(*worse), worse.or_worse(*better)), (*worse, *worse));
            }
        }
    }
}
