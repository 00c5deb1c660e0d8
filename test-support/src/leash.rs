//! Ties a server and its directory to the life of this process: both go when it ends, even by SIGKILL.
//!
//! A shell holds the reading end of a pipe whose writing end only this process has. However this process ends, the pipe
//! closes, and the shell kills the server and removes the directory. It runs in a process group of its own, so that a
//! Ctrl-C in the terminal does not take it along before its work is done.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::Error;

/// Waits for the pipe to close, then cleans up `$1`. The mark goes first: a server that has not written its id by the
/// time the id is looked for finds the mark gone and does not start. A dying server may still make a file, hence the
/// few tries.
const WATCH: &str = r#"
cat >/dev/null
rm -f "$1/mark"
if [ -s "$1/pid" ]; then kill -9 "$(cat "$1/pid")" 2>/dev/null; fi
for _ in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && exit 0; sleep 1; done
"#;

/// Writes its id into `$1`, looks for the mark, and becomes the server.
const LAUNCH: &str = r#"echo $$ >"$1/pid" && [ -e "$1/mark" ] && shift && exec "$@""#;

/// A temporary directory, and the shell that outlives this process to remove it.
#[derive(Debug)]
pub(crate) struct Leash {
    directory: TempDir,
    watcher: Child,
}

impl Leash {
    /// Makes the directory and starts the watching shell.
    pub(crate) fn new(prefix: &str) -> Result<Self, Error> {
        let directory =
            tempfile::Builder::new().prefix(prefix).tempdir().map_err(Error::system("making a temporary directory"))?;
        fs::write(directory.path().join("mark"), "").map_err(Error::system("marking the temporary directory"))?;
        let watcher = Command::new("sh")
            .args([OsStr::new("-c"), OsStr::new(WATCH), OsStr::new("watch"), directory.path().as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::system("starting sh to watch over the temporary directory"))?;
        Ok(Self { directory, watcher })
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command that runs `program` tied to this leash; its arguments are still to be added. One at a time.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", LAUNCH, "launch"]).arg(self.directory()).arg(program).process_group(0);
        command
    }

    /// Sends the server a signal, by its name without SIG. A server that was forgotten gets none.
    pub(crate) fn signal(&self, name: &str) -> Result<(), Error> {
        let doing = || format!("sending SIG{name} to the server");
        let pid = fs::read_to_string(self.directory().join("pid")).map_err(Error::system(doing()))?;
        let pid = pid.trim_end();
        if pid.is_empty() {
            return Err(Error::System { doing: doing(), reason: "it does not run".into() });
        }
        let kill = Command::new("kill").args([&format!("-{name}"), pid]).output().map_err(Error::system(doing()))?;
        if kill.status.success() {
            return Ok(());
        }
        Err(Error::System { doing: doing(), reason: String::from_utf8_lossy(&kill.stderr).trim().to_owned() })
    }

    /// Forgets the server that was started: it is dead, and its id may soon be another's.
    pub(crate) fn release(&self) -> Result<(), Error> {
        fs::write(self.directory().join("pid"), "").map_err(Error::system("forgetting a dead server's id"))
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // Closing the pipe sets the shell to work; the directory is gone when it has ended.
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}
