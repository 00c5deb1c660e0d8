//! `loadgen`: attacks an account service and says what was lost. The program is this: read the command, make the runs,
//! show the results, and let the exit code tell scripts what the text tells people.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(cli::Cli::parse()).await.unwrap_or_else(|failure| failure.tell()).into()
}
