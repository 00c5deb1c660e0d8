//! Where the binaries run: built once, in a scratch directory, without the caller's settings, every start and end
//! bounded by time.

use std::{
    env,
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{self, Command},
    time::Duration,
};

use test_support::{Process, free_port, poll_until};

use crate::command::{Failure, Profile, binaries, line, target};

/// A debug build that migrates an empty database on a loaded machine is up in a few seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The built binaries and a directory to leave files in, removed at the end.
#[derive(Debug)]
pub(crate) struct Stage {
    binaries: PathBuf,
    scratch: PathBuf,
}

/// How a binary ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What was run.
    pub(crate) line: String,
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Both outputs.
    pub(crate) output: String,
}

impl Ended {
    /// Fails, with the output, unless the binary ended with `code`.
    pub(crate) fn expect(self, code: i32) -> Result<Self, Failure> {
        if self.code == Some(code) {
            return Ok(self);
        }
        Err(Failure::Failed(format!("{}: exit {:?}, expected {code}\n{}", self.line, self.code, self.output)))
    }

    /// Fails unless every text is in the output.
    pub(crate) fn saying(self, texts: &[&str]) -> Result<Self, Failure> {
        match texts.iter().find(|text| !self.output.contains(**text)) {
            None => Ok(self),
            Some(missing) => {
                Err(Failure::Failed(format!("{}: {missing:?} is not in its output\n{}", self.line, self.output)))
            }
        }
    }
}

impl Stage {
    /// A stage for the binaries that were built in this profile.
    pub(crate) fn new(profile: Profile) -> Result<Self, Failure> {
        let scratch = target().join("stage").join(process::id().to_string());
        fs::create_dir_all(&scratch).map_err(|error| Failure::Failed(format!("{}: {error}", scratch.display())))?;
        Ok(Self { binaries: binaries(profile), scratch })
    }

    /// A path in the scratch directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The URL of an SQLite file in the scratch directory.
    pub(crate) fn sqlite_url(&self, name: &str) -> String {
        format!("sqlite://{}", self.path(name).display())
    }

    /// A binary with arguments. What the caller has set for the project does not reach it.
    pub(crate) fn command(&self, binary: &str, arguments: &[&str]) -> Command {
        let mut command = self.foreign(self.binaries.join(binary));
        command.args(arguments).env_remove("DATABASE_URL");
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ZBL_")) {
            command.env_remove(name);
        }
        command
    }

    /// A program that is not the project's.
    pub(crate) fn foreign(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.scratch);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, command: Command, timeout: Duration) -> Result<Ended, Failure> {
        let line = line(&command);
        let mut process = Process::spawn(command)?;
        let status = process.wait(timeout)?;
        Ok(Ended { line, code: status.code(), output: process.output() })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.scratch);
        // Goes with the last run that uses it.
        let _ = self.scratch.parent().map(fs::remove_dir);
    }
}

/// A running `zbl-server serve`.
#[derive(Debug)]
pub(crate) struct Server<'a> {
    stage: &'a Stage,
    arguments: Vec<String>,
    process: Process,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl<'a> Server<'a> {
    /// Starts a server on free ports and waits until it says that it serves.
    pub(crate) fn start(stage: &'a Stage, database_url: &str) -> Result<Self, Failure> {
        Self::start_with(stage, database_url, &[])
    }

    /// The same, with further settings.
    pub(crate) fn start_with(stage: &'a Stage, database_url: &str, settings: &[&str]) -> Result<Self, Failure> {
        let (grpc, http) = (loopback(free_port()?), loopback(free_port()?));
        let arguments: Vec<String> = ["serve", "--grpc-addr", &grpc.to_string(), "--http-addr", &http.to_string()]
            .into_iter()
            .chain(["--database-url", database_url])
            .chain(settings.iter().copied())
            .map(str::to_owned)
            .collect();
        let process = launch(stage, &arguments, grpc)?;
        Ok(Self { stage, arguments, process, grpc, http })
    }

    /// Where it serves gRPC.
    pub(crate) fn address(&self) -> SocketAddr {
        self.grpc
    }

    /// Where it serves HTTP.
    pub(crate) fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// The operating system's id of the server.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has printed.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.process.kill()?)
    }

    /// `kill -TERM`; returns the exit code.
    pub(crate) fn terminate(&mut self, timeout: Duration) -> Result<Option<i32>, Failure> {
        Ok(self.process.terminate(timeout)?.code())
    }

    /// Waits until it ends by itself; returns the exit code.
    pub(crate) fn terminated(&mut self, timeout: Duration) -> Result<Option<i32>, Failure> {
        Ok(self.process.wait(timeout)?.code())
    }

    /// Starts it again as it was, on the same ports.
    pub(crate) fn restart(&mut self) -> Result<(), Failure> {
        self.process = launch(self.stage, &self.arguments, self.grpc)?;
        Ok(())
    }
}

fn launch(stage: &Stage, arguments: &[String], grpc: SocketAddr) -> Result<Process, Failure> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut process = Process::spawn(stage.command("zbl-server", &arguments))?;
    process.wait_for_port(grpc, READY_TIMEOUT)?;
    let address = grpc.to_string();
    let is_healthy = || {
        let status = stage.command("zbl-server", &["healthcheck", "--grpc-addr", &address]).output().ok()?.status;
        status.success().then_some(())
    };
    match poll_until(READY_TIMEOUT, is_healthy) {
        Some(()) => Ok(process),
        None => Err(Failure::Failed(format!("{address} does not become healthy:\n{}", process.output()))),
    }
}

/// A loopback address.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A path as a command-line argument.
pub(crate) fn argument(path: &Path) -> String {
    path.display().to_string()
}
