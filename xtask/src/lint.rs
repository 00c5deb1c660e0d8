//! `cargo xtask lint`: everything a machine can say about the source. Every check runs, and each that fails is named at
//! the end.

mod tidy;

use crate::{
    command::{Failure, answers, cargo, run as run_command, say},
    web,
};

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    if let Some(argument) = arguments.first() {
        return Err(Failure::Usage(format!("lint takes no arguments, not {argument:?}")));
    }
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    let mut checks = vec![
        run_command(&mut cargo(&["fmt", "--all", "--check"])),
        tidy::check(),
        run_command(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        run_command(&mut doc),
        web::check("check"),
    ];
    if answers("cargo", &["deny", "--version"]) {
        checks.push(run_command(&mut cargo(&["deny", "check", "licenses", "bans", "sources"])));
    } else {
        say("cargo-deny is not installed: licences, bans and sources are not checked (cargo install cargo-deny)");
    }
    let failures: Vec<String> =
        checks.into_iter().filter_map(Result::err).map(|failure| failure.reason().to_owned()).collect();
    if failures.is_empty() {
        say("lint: clean");
        return Ok(());
    }
    Err(Failure::Failed(failures.join("\n")))
}
