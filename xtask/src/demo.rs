//! `cargo xtask demo`: the demo needs nothing but Rust and a C compiler; its page needs Node as well, and is left out
//! where there is none.

use std::{os::unix::process::CommandExt as _, process::Command};

use crate::{
    command::{Failure, Profile, binaries, cargo, line, run as run_command, say},
    web,
};

/// Builds every program, so that the lines the demo prints can be pasted, and becomes `zbl-server demo`: Ctrl-C, the
/// terminal and the exit code are the demo's own.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    if let Err(failure) = web::build() {
        say(&format!("{}; without its page the demo goes on", failure.reason()));
    }
    run_command(&mut cargo(&["build", "--workspace", "--bins"]))?;
    let binaries = binaries(Profile::Debug);
    say(&format!("For its lines to paste: export PATH=\"{}:$PATH\"", binaries.display()));
    let mut command = Command::new(binaries.join("zbl-server"));
    command.arg("demo").args(arguments);
    say(&format!("$ {}", line(&command)));
    Err(Failure::Failed(format!("{}: {}", line(&command), command.exec())))
}
