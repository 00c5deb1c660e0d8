//! `timeline`: watches what operations do to accounts. Exit codes: 0 when the user, the limit or the recording ended it
//! or the reader of its output has gone, 1 when the server or the output failed, 2 for a usage error or a file that is
//! no recording, 3 when the server was never reached.

mod arguments;

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    process::{self, ExitCode},
};

use zbl_client::{
    FlagsError,
    watch::{Feed, Intake, Recorder, Recording, RecordingError, WatchError, tui, watch},
};
use zbl_trace::{Program, StartError, Tracer, Traces};

use crate::arguments::{Arguments, Output};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NEVER_REACHED: u8 = 3;

/// Why the program ends with an error.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Flags(#[from] FlagsError),
    #[error("{0}")]
    Usage(String),
    #[error("cannot write {path}: {error}")]
    File { path: String, error: io::Error },
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("{0}; see --otlp-endpoint")]
    Traces(#[from] StartError),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let code = match run(Arguments::checked()).await {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Watch(WatchError::Output(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // Where stderr is closed, the exit code alone tells.
            let _ = writeln!(io::stderr(), "error: {error}");
            error.code()
        }
    };
    ExitCode::from(code)
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Flags(_) | Self::Usage(_) | Self::File { .. } | Self::Recording(_) | Self::Traces(_) => USAGE,
            Self::Watch(WatchError::Recording(_)) => USAGE,
            Self::Watch(WatchError::Unreachable { .. }) => NEVER_REACHED,
            Self::Watch(_) => FAILED,
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.choose_colours();
    let output = arguments.output().map_err(Failure::Usage)?;
    let program = Program { name: "timeline", version: env!("CARGO_PKG_VERSION"), instance: process::id().to_string() };
    let traces = Traces::start(program, arguments.otlp_endpoint.as_ref(), arguments.trace_sample)?;
    // A parent that nobody has is none: without an endpoint the servers decide.
    let tracer = arguments.otlp_endpoint.is_some().then(|| traces.tracer());
    let mut intake = intake(&arguments, tracer)?;
    let shown = show(&mut intake, output).await;
    intake.feed.stop().await;
    traces.stop().await;
    shown
}

async fn show(intake: &mut Intake, output: Output) -> Result<(), Failure> {
    match output {
        Output::Terminal(paint) => tui::show(intake, paint).await?,
        Output::Stdout(format) => watch(intake, format, &mut BufWriter::new(io::stdout().lock())).await?,
        Output::File(format, path) => {
            let file =
                File::create(&path).map_err(|error| Failure::File { path: path.display().to_string(), error })?;
            watch(intake, format, &mut BufWriter::new(file)).await?;
        }
    }
    Ok(())
}

fn intake(arguments: &Arguments, tracer: Option<&Tracer>) -> Result<Intake, Failure> {
    let feed = match &arguments.replay {
        Some(path) => Feed::replay(&Recording::open(path)?, arguments.user, arguments.speed)?,
        None => {
            let client = |address: &String| {
                let client = arguments.connection.client(address)?;
                Ok(match tracer {
                    Some(tracer) => client.with_tracer(tracer.clone()),
                    None => client,
                })
            };
            let clients = arguments.addr.iter().map(client).collect::<Result<Vec<_>, FlagsError>>()?;
            Feed::live(&clients, arguments.user, &arguments.beginning())
        }
    };
    let recorder = arguments.record.as_deref().map(|path| {
        let recorder = Recorder::create(path, feed.addresses());
        recorder.map_err(|error| Failure::File { path: path.display().to_string(), error })
    });
    Ok(Intake { recorder: recorder.transpose()?, limit: arguments.limit, feed })
}
