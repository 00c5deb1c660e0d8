//! One line for `sh`: run, bounded by time, and what it said when it failed. What it leaves in the background goes on,
//! whatever becomes of us.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

/// A server that is restarted is back within a few seconds, on a loaded machine too.
const TIME_MOST: Duration = Duration::from_secs(30);

/// What is kept of a line's words, in bytes: enough for the message of a program that failed.
const WORDS_MOST: u64 = 1_000;

/// Why a line did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It could not be run.
    #[error("cannot run sh: {0}")]
    NotRun(#[from] io::Error),
    /// It was not done in time, and was ended.
    #[error("`{line}` was not done within {TIME_MOST:?}: {words}")]
    TooLong {
        /// The line.
        line: String,
        /// What it had said.
        words: String,
    },
    /// It failed.
    #[error("`{line}` ended with {how}: {words}")]
    Failed {
        /// The line.
        line: String,
        /// Its exit status.
        how: std::process::ExitStatus,
        /// What it had said.
        words: String,
    },
}

/// Runs a line to its end, with further variables.
///
/// # Errors
/// [`LineError`] when it fails or takes longer than 30 s; it is killed then, with what it had started in the foreground.
pub(super) async fn run(line: &str, variables: &[(&str, &str)]) -> Result<(), LineError> {
    // Not a pipe: what goes on in the background would keep it open, and die of writing into it once it is closed.
    let mut said = Said::new()?;
    let mut command = Command::new("sh");
    // With -e: what is to be broken must not seem to be, because the last of several commands succeeded.
    command.args(["-ec", line]).envs(variables.iter().copied());
    // A group of its own: Ctrl-C is for us, who then mend what is broken.
    command.stdin(Stdio::null()).stdout(said.writer()?).stderr(said.writer()?).process_group(0).kill_on_drop(true);
    let mut shell = command.spawn()?;
    let group = shell.id();
    let Ok(ended) = timeout(TIME_MOST, shell.wait()).await else {
        kill(group).await;
        return Err(LineError::TooLong { line: line.trim().to_owned(), words: said.words() });
    };
    let how = ended?;
    if how.success() {
        return Ok(());
    }
    Err(LineError::Failed { line: line.trim().to_owned(), how, words: said.words() })
}

/// Ends whatever the line still has in the foreground.
async fn kill(group: Option<u32>) {
    let Some(group) = group else { return };
    // Whoever has ended meanwhile needs no killing.
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status().await;
}

/// What a line says: a file that has no name any more.
struct Said(File);

impl Said {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("loadgen-line-{}", Uuid::new_v4()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(Self(file))
    }

    fn writer(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// The last of it, on one line.
    fn words(&mut self) -> String {
        let mut words = Vec::new();
        let length = self.0.metadata().map_or(0, |file| file.len());
        let from = io::SeekFrom::Start(length.saturating_sub(WORDS_MOST));
        // What cannot be read back was not said.
        let _ = self.0.seek(from).and_then(|_| (&self.0).take(WORDS_MOST).read_to_end(&mut words));
        let words = String::from_utf8_lossy(&words);
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.is_empty() { "it said nothing".to_owned() } else { words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_finds_its_variables_and_its_failure_is_told() {
        run("test \"$ZBL_USER_ID\" = 7", &[("ZBL_USER_ID", "7")]).await.unwrap();
        let error = run("echo out; echo gone >&2; exit 3", &[]).await.unwrap_err().to_string();
        assert_eq!(error, "`echo out; echo gone >&2; exit 3` ended with exit status: 3: out gone");
        let silent = run("false\ntrue", &[]).await.unwrap_err().to_string();
        assert!(silent.ends_with("it said nothing"), "{silent}");
    }

    #[tokio::test]
    async fn what_goes_on_in_the_background_is_not_waited_for() {
        let line = run("sleep 600 & echo $!; exit 1", &[]);
        let error = timeout(Duration::from_secs(20), line).await.unwrap().unwrap_err().to_string();
        let sleeper = error.rsplit(' ').next().unwrap();
        // It is there to be ended.
        run(&format!("kill {sleeper}"), &[]).await.unwrap();
    }
}
