//! `cargo xtask`: the project's own commands. It finds the command, runs it, and passes its verdict on; it refuses words
//! it does not know (exit 2). What a command checks is in the command's own file.

mod apt;
mod bench;
mod command;
mod demo;
mod e2e;
mod lint;
mod stage;
mod test;
mod web;

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

const TASKS: [Task; 7] = [
    Task {
        name: "demo",
        arguments: "[ARG…]",
        summary: "build the page and the programs and run `zbl-server demo ARG…`: see money lost, see why, see it cured",
        run: demo::run,
    },
    Task {
        name: "test",
        arguments: "[ARG…]",
        summary: "make sure MariaDB (or ZBL_TEST_MYSQL_URL), Redis and RabbitMQ are there, then `cargo test --workspace ARG…`; without ARG the page's tests, too",
        run: test::run,
    },
    Task {
        name: "lint",
        arguments: "",
        summary: "format, house rules, clippy, documentation, dependencies, the page",
        run: lint::run,
    },
    Task {
        name: "e2e",
        arguments: "[PART…] [--no-grpcurl] [--list]",
        summary: "drive the real binaries from outside, every part or the named ones; --list names them",
        run: e2e::run,
    },
    Task {
        name: "abuse",
        arguments: "[--minutes N]",
        summary: "the e2e part of that name for ten minutes, or N: whether memory stays flat takes its time to tell",
        run: e2e::abuse,
    },
    Task {
        name: "web-soak",
        arguments: "[--minutes N]",
        summary: "the page under load for ten minutes, or N: whether a tab's memory stays flat takes its time to tell",
        run: e2e::web_soak,
    },
    Task {
        name: "bench",
        arguments: "[--quick] [--json FILE]",
        summary: "measure every strategy and write docs/PERFORMANCE.md; --quick: about five minutes after the build",
        run: bench::run,
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
    if name == "help" || asks_for_help(name) {
        say(&help());
        return Ok(());
    }
    let task = TASKS.iter().find(|task| task.name == name);
    let task = task.ok_or_else(|| Failure::Usage(format!("there is no command {name:?}")))?;
    if arguments.first().is_some_and(|argument| asks_for_help(argument)) {
        say(&format!("Usage: cargo xtask {}\n\n{}", task.line(), task.summary));
        return Ok(());
    }
    (task.run)(arguments)
}

fn asks_for_help(argument: &str) -> bool {
    matches!(argument, "--help" | "-h")
}

fn help() -> String {
    let tasks = TASKS.iter().map(|task| format!("\n  {}\n      {}\n", task.line(), task.summary));
    "Usage: cargo xtask COMMAND\n".to_owned() + &tasks.collect::<String>()
}

impl Task {
    /// How it is called.
    fn line(&self) -> String {
        [self.name, self.arguments].join(" ").trim_end().to_owned()
    }
}
