//! The command line of `timeline`.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use anstream::ColorChoice;
use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use zbl_client::{
    ConnectionFlags, Paint,
    watch::{Beginning, Format, Since, Speed},
};
use zbl_trace::{Endpoint, Ratio};

/// Shows what operations do to accounts, as it happens: lanes on a terminal, in a pipe one line per phase, in the order
/// the phases began.
///
/// A phase longer than a tenth of a second appears late and is marked `<`. Times are milliseconds since the first line.
/// Each account's operations have lanes of their own; a lane's letter is the line's phase, `|` an operation in flight.
/// After a lost connection the stream resumes behind the last event seen.
///
/// Several servers (--addr given more than once) are merged into one picture. Their clocks are not comparable: each is
/// placed where its first span arrived, and moved later where an account's versions show that it must be.
#[derive(Parser)]
#[command(name = "timeline", version)]
pub(crate) struct Arguments {
    /// A server: http://HOST:PORT, https://HOST:PORT or HOST:PORT; may be given more than once
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    pub(crate) addr: Vec<String>,
    /// Only this account
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) user: Option<i64>,
    /// Begin with what the server still holds, not with what happens next
    #[arg(long, conflicts_with = "since")]
    retained: bool,
    /// Begin with what the server still holds behind this: an age such as 30s, counted back from the newest event held;
    /// a sequence; or EPOCH:SEQUENCE, where the server tells what is missing
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
    /// How to show it, and in which file (without one: on standard output). line: text. ndjson: a JSON object per arrival;
    /// "source" counts the servers from 0, 64-bit integers are numbers. perfetto: a trace for ui.perfetto.dev, complete
    /// when this ends
    #[arg(short, long, num_args = 1..=2, value_names = ["FORMAT", "FILE"])]
    output: Option<Vec<String>>,
    /// One line per phase also on a terminal
    #[arg(long, conflicts_with = "output")]
    plain: bool,
    /// Keep what arrives in this file, for --replay
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub(crate) record: Option<PathBuf>,
    /// Show a recording instead of a server
    #[arg(long, value_name = "FILE", conflicts_with_all = ["addr", "retained", "since"])]
    pub(crate) replay: Option<PathBuf>,
    /// How many times as fast as it was recorded; 0 or max: without a pause
    #[arg(long, value_name = "X", requires = "replay", default_value = "1", value_parser = speed)]
    pub(crate) speed: Speed,
    /// Whether to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    color: Colour,
    /// Send spans of its own calls to this collector, by OTLP over gRPC, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    pub(crate) otlp_endpoint: Option<Endpoint>,
    /// With --otlp-endpoint, how many of its calls are recorded in traces, here and by the servers: from 0 (none) to 1
    /// (all)
    #[arg(long, value_name = "RATIO", default_value_t = Ratio::ALL)]
    pub(crate) trace_sample: Ratio,
    /// End after this many spans
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: ConnectionFlags,
}

#[derive(Clone, Copy, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

/// Where the timeline goes.
pub(crate) enum Output {
    Terminal(Paint),
    Stdout(Format),
    File(Format, PathBuf),
}

impl Arguments {
    /// Parses the command line and checks what one flag says against another; ends the process with exit code 2 when
    /// they disagree.
    pub(crate) fn checked() -> Self {
        let arguments = Self::parse();
        if let Err(problem) = arguments.output().map(drop).and_then(|()| arguments.check_since()) {
            Self::command().error(ErrorKind::ValueValidation, problem).exit();
        }
        arguments
    }

    fn check_since(&self) -> Result<(), String> {
        match &self.since {
            Some(Since::Sequence(_) | Since::Position(_)) if self.addr.len() > 1 => {
                Err("a sequence belongs to one server: give --since an age when there is more than one --addr"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Makes `--color` the choice for every stream.
    pub(crate) fn choose_colours(&self) {
        match self.color {
            Colour::Auto => ColorChoice::Auto,
            Colour::Always => ColorChoice::Always,
            Colour::Never => ColorChoice::Never,
        }
        .write_global();
    }

    /// Where a live feed begins.
    pub(crate) fn beginning(&self) -> Beginning {
        match &self.since {
            Some(since) => Beginning::Since(since.clone()),
            None if self.retained => Beginning::Retained,
            None => Beginning::Now,
        }
    }

    /// Where the timeline goes.
    ///
    /// # Errors
    /// Names the formats there are.
    pub(crate) fn output(&self) -> Result<Output, String> {
        let mut given = self.output.iter().flatten();
        let Some(format) = given.next().map(String::as_str) else { return Ok(self.unasked()) };
        let file = given.next().map(PathBuf::from);
        let paint = if file.is_some() { Paint::Plain } else { Paint::suiting(&io::stdout()) };
        let format = match format {
            "line" => Format::Line(paint),
            "ndjson" => Format::Ndjson,
            "perfetto" => Format::Perfetto,
            other => return Err(format!("there is no output {other:?}: give line, ndjson or perfetto")),
        };
        Ok(file.map_or(Output::Stdout(format), |file| Output::File(format, file)))
    }
}

impl Arguments {
    /// Lanes on a terminal that can show them, else lines.
    fn unasked(&self) -> Output {
        let paint = Paint::suiting(&io::stdout());
        // A terminal without a cursor to move; it is the terminal's description, not the program's configuration.
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if self.plain || dumb || !io::stdout().is_terminal() {
            Output::Stdout(Format::Line(paint))
        } else {
            Output::Terminal(paint)
        }
    }
}

fn speed(text: &str) -> Result<Speed, String> {
    match text.parse::<f64>() {
        _ if text == "max" => Ok(Speed::Unpaced),
        Ok(0.0) => Ok(Speed::Unpaced),
        Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
        _ => Err("give a number above 0, or 0 or max for no pause".to_owned()),
    }
}
