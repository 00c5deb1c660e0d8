//! A process under test: its output is captured, every wait is bounded, and it is killed when the handle is dropped.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::{Error, poll_until};

/// How much output is kept: the newest lines, enough for the reports and tables the project prints.
const LINES_KEPT: usize = 10_000;
/// How much output an error quotes.
const LINES_QUOTED: usize = 30;
/// A killed process is gone within milliseconds; only the kernel can be late.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// What an ended process had printed is in the pipe already.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// A connect to loopback is answered at once or never.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A running (or ended) child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Lines,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Process {
    /// Starts `command`. Both its outputs are captured line by line; it inherits no standard input.
    ///
    /// # Errors
    /// [`Error::System`] when it cannot be started.
    pub fn spawn(mut command: Command) -> Result<Self, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::system(format!("starting {name}")))?;
        let lines = Lines::default();
        let readers = [
            child.stdout.take().map(|pipe| capture(pipe, Arc::clone(&lines))),
            child.stderr.take().map(|pipe| capture(pipe, Arc::clone(&lines))),
        ];
        Ok(Self { name, child, lines, readers: readers.into_iter().flatten().collect() })
    }

    /// The operating system's id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far, both outputs together (the newest 10 000 lines).
    pub fn output(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether it has been stopped, as `kill -STOP` does, as Linux shows it.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The state is the first field behind the name, which is in brackets and may hold anything.
        stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
    }

    /// Waits for a printed line that contains `text` and returns it.
    ///
    /// # Errors
    /// [`Error::NotReady`] when the process ends first or says nothing like it within `timeout`.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<String, Error> {
        self.wait_until_ready(&format!("a line with {text:?}"), timeout, |lines| {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// Waits until somebody listens on `address`.
    ///
    /// # Errors
    /// [`Error::NotReady`] when the process ends first or nobody listens within `timeout`.
    pub fn wait_for_port(&mut self, address: SocketAddr, timeout: Duration) -> Result<(), Error> {
        self.wait_until_ready(&format!("a listener on {address}"), timeout, |_| {
            TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok().map(drop)
        })
    }

    /// Waits until `probe` answers, giving up as soon as the process has ended.
    pub(crate) fn wait_until_ready<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut probe: impl FnMut(&Lines) -> Option<T>,
    ) -> Result<T, Error> {
        let answer = poll_until(timeout, || {
            let ended = !self.is_running();
            if ended {
                self.drain_output();
            }
            // The probe comes second, so that the last words of a process that has ended still count.
            match probe(&self.lines) {
                Some(answer) => Some(Ok(answer)),
                None => ended.then_some(Err("ended before")),
            }
        });
        answer.unwrap_or(Err("did not show within the time")).map_err(|how| Error::NotReady {
            what: format!("{} (process {}) {how}: {what}, waited {timeout:?}", self.name, self.pid()),
            output: self.last_lines(),
        })
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// [`Error::NotReady`] when it has not within `timeout`; it goes on running.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus, Error> {
        let status = poll_until(timeout, || self.child.try_wait().transpose());
        match status {
            Some(Ok(status)) => {
                self.drain_output();
                Ok(status)
            }
            Some(Err(error)) => Err(Error::system(format!("waiting for {}", self.name))(error)),
            None => Err(Error::NotReady {
                what: format!("{} (process {}) still runs after {timeout:?}", self.name, self.pid()),
                output: self.last_lines(),
            }),
        }
    }

    /// Kills it at once, as `kill -9` does, and waits until it is gone. One that has ended is left as it is.
    ///
    /// # Errors
    /// [`Error::System`] when the operating system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.child.kill().map_err(Error::system(format!("killing {}", self.name)))?;
        self.wait(KILL_TIMEOUT).map(drop)
    }

    /// Asks it to end, as `kill -TERM` does, and waits until it has.
    ///
    /// # Errors
    /// [`Error::System`] when it cannot be asked, [`Error::NotReady`] when it has not ended within `timeout`.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus, Error> {
        if self.is_running() {
            let mut kill = Command::new("kill");
            kill.args(["-TERM", &self.pid().to_string()]);
            kill.status().map_err(Error::system("running kill -TERM"))?;
        }
        self.wait(timeout)
    }

    fn last_lines(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = lines.len().saturating_sub(LINES_QUOTED);
        lines.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Waits for the last words of a process that has ended; not for ever, for a child of its own may hold the pipes.
    fn drain_output(&self) {
        let _ = poll_until(DRAIN_TIMEOUT, || self.readers.iter().all(thread::JoinHandle::is_finished).then_some(()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, which is all that is wanted.
        let _ = self.kill();
    }
}

/// Keeps the newest lines of `pipe`, until the process closes it.
fn capture(pipe: impl Read + Send + 'static, lines: Lines) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LINES_KEPT {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(&line).into_owned());
        }
    })
}
