//! Running other programs in the workspace, and saying what is run.

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::Command,
};

/// Why a command of `cargo xtask` did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was called in a way it does not know.
    Usage(String),
    /// What it ran, or what it checked, failed.
    Failed(String),
}

impl Failure {
    /// What to tell the caller.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Usage(reason) | Self::Failed(reason) => reason,
        }
    }
}

impl From<test_support::Error> for Failure {
    fn from(error: test_support::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Prints lines. A reader that has gone away does not matter: the exit code still tells.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", text.trim_end());
}

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// How the programs were built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For checking them.
    Debug,
    /// For measuring them.
    Release,
}

/// Where the programs are that were built in this profile.
pub(crate) fn binaries(profile: Profile) -> PathBuf {
    target().join(match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    })
}

/// The cargo that runs this, with arguments, in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(arguments).current_dir(workspace());
    command
}

/// Says what is run, runs it, and fails as it fails.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let line = line(command);
    say(&format!("$ {line}"));
    let status = command.status().map_err(|error| Failure::Failed(format!("{line}: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::Failed(format!("{line}: {status}"))) }
}

/// Whether a program answers when it is asked for its version, or however `arguments` ask.
pub(crate) fn answers(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    command.get_args().fold(program, |line, argument| line + " " + &argument.to_string_lossy())
}
