//! `cargo xtask demo`: the demo needs nothing but Rust and a C compiler.

use std::os::unix::process::CommandExt as _;

use crate::command::{Failure, cargo, line, say};

/// Becomes `cargo run … demo`, so that Ctrl-C, the terminal and the exit code are the demo's own.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut command = cargo(&["run", "--package", "zbl-server", "--bin", "zbl-server", "--", "demo"]);
    command.args(arguments);
    say(&format!("$ {}", line(&command)));
    Err(Failure::Failed(format!("{}: {}", line(&command), command.exec())))
}
