//! A private Redis server: own directory, own loopback port, no system configuration, nothing kept on disk. What it
//! holds is gone when it is killed, and nothing of it is left when the test ends.

mod clock;
mod lines;
mod reply;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use crate::{Error, Process, leash::Leash, poll::on_free_port, poll_until, program::find_program};
use clock::Clock;

/// A start takes some hundredths of a second; a loaded machine needs more.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The kernel stops a process at once, unless it is busy in the kernel.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A server on loopback answers within milliseconds, unless it is stopped; a loaded machine needs more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Private and forgetful. Everything here is known to Redis 6.2.
const SERVER_OPTIONS: [&str; 14] = [
    "--bind",
    "127.0.0.1",
    "--daemonize",
    "no",
    "--supervised",
    "no",
    "--save",
    "",
    "--appendonly",
    "no",
    // A replica is served at once: by default a master waits some seconds for others to join in.
    "--repl-diskless-sync",
    "yes",
    "--repl-diskless-sync-delay",
    "0",
];

/// A running private server. Dropping it, or the end of this process, kills it and removes its directory.
#[derive(Debug)]
pub struct Redis {
    // Declared, and so dropped, before the leash: the server dies before its directory goes.
    server: Process,
    leash: Leash,
    setup: Setup,
    port: u16,
}

/// What a server is started with, and started again.
#[derive(Debug)]
struct Setup {
    program: PathBuf,
    options: Vec<String>,
    clock: Option<Clock>,
}

impl Redis {
    /// Starts an empty server and waits until it answers.
    ///
    /// # Errors
    /// [`Error::Missing`] names the package to install; [`Error::NotReady`] quotes the server's last output.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&[])
    }

    /// The same with further command-line options, each word by itself: `["--replicaof", "127.0.0.1", "6380"]`.
    ///
    /// # Errors
    /// As [`Redis::start`]; an option that the server does not know shows as [`Error::NotReady`].
    pub fn start_with(options: &[&str]) -> Result<Self, Error> {
        let options = options.iter().map(ToString::to_string).collect();
        Self::start_as(Leash::new("zbl-redis-")?, Setup { program: find_server()?, options, clock: None })
    }

    /// The same with a clock of its own, which [`Redis::jump`] moves. The clock starts at the true time; what Redis
    /// measures by the monotonic clock is not moved with it.
    ///
    /// # Errors
    /// As [`Redis::start`]; [`Error::Missing`] where libfaketime is not installed.
    pub fn start_with_movable_clock() -> Result<Self, Error> {
        let program = find_server()?;
        let leash = Leash::new("zbl-redis-")?;
        let clock = Clock::new(leash.directory())?;
        Self::start_as(leash, Setup { program, options: Vec::new(), clock: Some(clock) })
    }

    fn start_as(leash: Leash, setup: Setup) -> Result<Self, Error> {
        let (port, server) = on_free_port(|port| setup.launch(&leash, port))?;
        Ok(Self { server, leash, setup, port })
    }

    /// The one server that the tests of this process share, started by the first that asks. Nobody kills, pauses or
    /// flushes it; each test has keys of its own.
    ///
    /// # Errors
    /// As [`Redis::start`], the same for every caller.
    pub fn shared() -> Result<&'static Self, Error> {
        static SHARED: OnceLock<Result<Redis, Error>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    /// Whether this machine has what [`Redis::start`] needs.
    pub fn is_installed() -> bool {
        find_server().is_ok()
    }

    /// Whether this machine has what [`Redis::start_with_movable_clock`] needs besides.
    pub fn can_move_clock() -> bool {
        clock::find_library().is_ok()
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Where the server listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The operating system's id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Runs one command on a connection of its own and returns the reply as text: an integer in digits, nothing as "",
    /// the parts of an array in a line each.
    ///
    /// # Errors
    /// [`Error::Redis`] with the server's refusal, [`Error::System`] when no answer comes within 5 seconds, or none at
    /// all.
    pub fn command(&self, words: &[&str]) -> Result<String, Error> {
        reply::ask(self.addr(), words, ANSWER_TIMEOUT)
    }

    /// Moves the clock of a server that was started with a movable one; live keys expire by it from now on. It stays
    /// moved over a restart.
    ///
    /// # Errors
    /// [`Error::System`] when the server has the machine's clock, or the new time cannot be set.
    pub fn jump(&self, by: Duration) -> Result<(), Error> {
        let doing = "moving the clock of a Redis server";
        match &self.setup.clock {
            Some(clock) => clock.jump(by).map_err(Error::system(doing)),
            None => {
                Err(Error::System { doing: doing.into(), reason: "it was not started with a movable clock".into() })
            }
        }
    }

    /// Kills the server as `kill -9` does and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::System`] when the operating system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.server.kill()?;
        self.leash.release()
    }

    /// Kills the server when it still runs, and starts it again, empty, on the same port.
    ///
    /// # Errors
    /// [`Error::NotReady`] when it does not come back, for example because another process has taken the port.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill()?;
        self.server = self.setup.launch(&self.leash, self.port)?;
        Ok(())
    }

    /// Stops the server in its tracks, as `kill -STOP` does: connections stay, and nothing is answered until
    /// [`Redis::resume`]. It has stopped when this returns.
    ///
    /// # Errors
    /// [`Error::System`] when the server does not run, [`Error::TimedOut`] when it has not stopped within 10 seconds.
    pub fn pause(&self) -> Result<(), Error> {
        self.leash.signal("STOP")?;
        poll_until(PAUSE_TIMEOUT, || self.server.is_stopped().then_some(()))
            .ok_or_else(|| Error::TimedOut { what: "stopping a Redis server".into(), waited: PAUSE_TIMEOUT })
    }

    /// Lets a paused server go on, with all that has arrived for it in the meantime.
    ///
    /// # Errors
    /// [`Error::System`] when the server does not run.
    pub fn resume(&self) -> Result<(), Error> {
        self.leash.signal("CONT")
    }
}

impl Setup {
    /// Starts the server and waits until it answers.
    fn launch(&self, leash: &Leash, port: u16) -> Result<Process, Error> {
        let mut server = Process::spawn(self.command(leash, port))?;
        let pid = server.pid();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        server.wait_until_ready(&format!("an answer on {address}"), START_TIMEOUT, |_| answers(address, pid))?;
        if self.clock.is_some() {
            Clock::forget_shared_names(pid);
        }
        Ok(server)
    }

    fn command(&self, leash: &Leash, port: u16) -> Command {
        let mut command = leash.command(&self.program);
        command.args(SERVER_OPTIONS).arg("--port").arg(port.to_string()).arg("--dir").arg(leash.directory());
        command.args(&self.options);
        if let Some(clock) = &self.clock {
            clock.give_to(&mut command);
        }
        command
    }
}

fn find_server() -> Result<PathBuf, Error> {
    find_program("redis-server").ok_or(Error::Missing { what: "Redis server", fix: "apt-get install -y redis-server" })
}

/// Whether a server that is ready answers on `address`, and it is the one with this id and not another that has the port.
fn answers(address: SocketAddr, pid: u32) -> Option<()> {
    let is_ready = reply::ask(address, &["PING"], ANSWER_TIMEOUT).ok()? == "PONG";
    let about = reply::ask(address, &["INFO", "server"], ANSWER_TIMEOUT).ok()?;
    let is_own = about.lines().any(|line| line.trim_end() == format!("process_id:{pid}"));
    (is_ready && is_own).then_some(())
}
