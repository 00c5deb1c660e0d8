//! `cargo xtask`: the project's own commands. It finds the tool, runs it in the workspace, and passes its verdict on; it
//! refuses words it does not know (exit 2). What a command checks is in the command's own file.

mod command;
mod demo;
mod e2e;
mod lint;
mod test;

use std::{env, process::ExitCode};

use crate::command::{Failure, say};

/// A command of `cargo xtask`.
struct Task {
    name: &'static str,
    /// The arguments it takes, as the help shows them.
    arguments: &'static str,
    summary: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

const TASKS: [Task; 4] = [
    Task {
        name: "demo",
        arguments: "[ARG…]",
        summary: "build the server and run `zbl-server demo ARG…`: see money lost, see why, see it cured",
        run: demo::run,
    },
    Task {
        name: "test",
        arguments: "[ARG…]",
        summary: "make sure MariaDB is installed (or ZBL_TEST_MYSQL_URL set), then `cargo test --workspace ARG…`",
        run: test::run,
    },
    Task {
        name: "lint",
        arguments: "",
        summary: "format, house rules, clippy, documentation, dependencies",
        run: lint::run,
    },
    Task {
        name: "e2e",
        arguments: "[PART…] [--no-grpcurl] [--list]",
        summary: "drive the real binaries from outside, every part or the named ones",
        run: e2e::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(failure.reason());
            if let Failure::Usage(_) = failure {
                say(&format!("\n{}", help()));
                return ExitCode::from(2);
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some((name, arguments)) = arguments.split_first() else {
        return Err(Failure::Usage("which command?".into()));
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        say(&help());
        return Ok(());
    }
    let task = TASKS.iter().find(|task| task.name == name);
    let task = task.ok_or_else(|| Failure::Usage(format!("there is no command {name:?}")))?;
    (task.run)(arguments)
}

fn help() -> String {
    let mut help = String::from("Usage: cargo xtask COMMAND\n");
    for Task { name, arguments, summary, .. } in TASKS {
        help += &format!("\n  {name} {arguments}\n      {summary}\n");
    }
    help
}
