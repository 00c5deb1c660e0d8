//! `timeline`: watches what operations do to accounts, line by line. Exit codes: 0 when the user or the limit ended it
//! or the reader of its output has gone, 1 when the server or the output failed, 2 for a usage error, 3 when the server
//! was never reached.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anstream::ColorChoice;
use clap::{Parser, ValueEnum};
use zbl_client::{
    Client, Paint, Start,
    watch::{View, WatchError, watch},
};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NEVER_REACHED: u8 = 3;

/// Shows what operations do to accounts, as it happens: one line per phase, in the order the phases began.
///
/// A phase longer than a tenth of a second appears late and is marked `<`. Times are milliseconds since the first line.
/// Each account's operations have lanes of their own; a lane's letter is the line's phase, `|` an operation in flight.
/// After a lost connection the stream resumes behind the last event seen.
#[derive(Parser)]
#[command(name = "timeline", version)]
struct Arguments {
    /// The server: http://HOST:PORT or HOST:PORT
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    addr: String,
    /// Only this account
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    user: Option<i64>,
    /// Begin with what the server still holds, not with what happens next
    #[arg(long)]
    retained: bool,
    /// Whether to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    color: Colour,
    /// End after this many spans
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { addr, user, retained, color, limit } = Arguments::parse();
    let client = match Client::connect_lazy(&addr) {
        Ok(client) => client,
        Err(error) => return complain(&error, USAGE),
    };
    match color {
        Colour::Auto => ColorChoice::Auto,
        Colour::Always => ColorChoice::Always,
        Colour::Never => ColorChoice::Never,
    }
    .write_global();
    let view = View { paint: Paint::suiting(&io::stdout()), limit };
    let start = if retained { Start::Retained } else { Start::Now };
    match watch(client.timeline(user, start), &addr, view, &mut io::stdout().lock()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(WatchError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error @ WatchError::Unreachable { .. }) => complain(&error, NEVER_REACHED),
        Err(error) => complain(&error, FAILED),
    }
}

/// Prints an error; where stderr is closed, the exit code alone tells.
fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(code)
}
