//! `timeline`: watches what operations do to accounts. Exit codes: 0 when the user, the limit or the recording ended it
//! or the reader of its output has gone, 1 when the server or the output failed, 2 for a usage error or a file that is
//! no recording, 3 when the server was never reached.

mod arguments;

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    process::ExitCode,
};

use zbl_client::{
    FlagsError,
    watch::{Feed, Intake, Recorder, Recording, RecordingError, WatchError, tui, watch},
};

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
            Self::Flags(_) | Self::Usage(_) | Self::File { .. } | Self::Recording(_) => USAGE,
            Self::Watch(WatchError::Recording(_)) => USAGE,
            Self::Watch(WatchError::Unreachable { .. }) => NEVER_REACHED,
            Self::Watch(_) => FAILED,
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.choose_colours();
    let output = arguments.output().map_err(Failure::Usage)?;
    let intake = intake(&arguments)?;
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

fn intake(arguments: &Arguments) -> Result<Intake, Failure> {
    let feed = match &arguments.replay {
        Some(path) => Feed::replay(&Recording::open(path)?, arguments.user, arguments.speed)?,
        None => {
            let clients = arguments.addr.iter().map(|address| arguments.connection.client(address));
            let clients = clients.collect::<Result<Vec<_>, _>>()?;
            Feed::live(&clients, arguments.user, &arguments.beginning())
        }
    };
    let recorder = arguments.record.as_deref().map(|path| {
        let recorder = Recorder::create(path, feed.addresses());
        recorder.map_err(|error| Failure::File { path: path.display().to_string(), error })
    });
    Ok(Intake { recorder: recorder.transpose()?, limit: arguments.limit, feed })
}
