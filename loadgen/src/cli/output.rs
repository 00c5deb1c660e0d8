//! Where results go: text for people, JSON for scripts. A reader that has gone away is no error.

use std::fs::File;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use super::Failure;

/// Where the JSON goes.
pub(crate) enum Json {
    Nowhere,
    Stdout,
    File(String),
}

impl Json {
    /// Understands `--json`. A file that cannot be written is refused now, not after the attack, and emptied, so that an
    /// earlier result is not taken for that of a run that failed.
    pub(crate) fn open(destination: Option<&str>) -> Result<Self, Failure> {
        match destination {
            None => Ok(Self::Nowhere),
            Some("-") => Ok(Self::Stdout),
            Some(path) => {
                create(path, "--json")?;
                Ok(Self::File(path.to_owned()))
            }
        }
    }

    /// Shows a result: `text` where people look, `value` where the JSON goes. Where one of them fails, the other is shown
    /// all the same: measuring took longer than this.
    pub(crate) fn show(&self, text: &str, value: &impl Serialize) -> Result<(), Failure> {
        let text = printable(text);
        match self {
            Self::Nowhere => to_stdout(&text),
            Self::Stdout => {
                let told = to_stderr(&text);
                to_stdout(&json(value).map_err(Failure::Print)?)?;
                told
            }
            Self::File(path) => {
                let written = json(value).and_then(|json| File::create(path)?.write_all(json.as_bytes()));
                let told = to_stdout(&text);
                written.map_err(|source| Failure::Output { path: path.clone(), flag: "--json", source })?;
                told
            }
        }
    }
}

/// Creates the file that `flag` names.
pub(crate) fn create(path: &str, flag: &'static str) -> Result<File, Failure> {
    File::create(path).map_err(|source| Failure::Output { path: path.to_owned(), flag, source })
}

fn json(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// A text without what would move a terminal's cursor: servers name their strategies as they like.
pub(crate) fn printable(text: &str) -> String {
    text.replace(|character: char| character.is_control() && character != '\n', "?")
}

/// Prints to standard output.
pub(crate) fn to_stdout(text: &str) -> Result<(), Failure> {
    put(io::stdout().lock(), text)
}

/// Prints to standard error.
pub(crate) fn to_stderr(text: &str) -> Result<(), Failure> {
    put(io::stderr().lock(), text)
}

fn put(mut to: impl Write, text: &str) -> Result<(), Failure> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Print(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_moves_no_cursor() {
        assert_eq!(printable("a\u{1b}[2J\r\n  b\u{9b}"), "a?[2J?\n  b?");
    }
}
