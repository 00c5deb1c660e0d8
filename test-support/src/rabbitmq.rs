//! A private RabbitMQ server: own directory, own loopback ports, own port mapper, no system configuration. It keeps what
//! it confirmed through a kill, and nothing of it is left when the test ends.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use crate::{
    Error, Process,
    leash::Leash,
    poll::{free_port, on_free_port},
    poll_until,
    program::find_program,
};

/// A start takes some eight seconds of one processor; a loaded machine needs many times that.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// The port mapper starts at once; a loaded machine needs more.
const MAPPER_TIMEOUT: Duration = Duration::from_secs(30);
/// The kernel stops a process at once, unless it is busy in the kernel.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A server on loopback that is ready greets within milliseconds; a loaded machine needs more.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Where Debian keeps the server itself. What it puts on the PATH changes the user first, and reads the configuration of
/// the system's own server.
const DEBIAN_SCRIPT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const SERVER_MISSING: Error =
    Error::Missing { what: "RabbitMQ server", fix: "apt-get install -y --no-install-recommends rabbitmq-server" };

/// How a client begins, in AMQP 0-9-1. The server answers with a method (frame type 1).
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
const METHOD_FRAME: u8 = 1;

/// What the virtual machine is given: loopback only, one scheduler, which does not spin while it waits, and no terminal.
const MACHINE_OPTIONS: &str = "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none -noinput";

/// A running private server. Dropping it, or the end of this process, kills it and removes its directory.
#[derive(Debug)]
pub struct RabbitMq {
    // Declared, and so dropped, before the leash: the server dies before its directory goes.
    server: Process,
    leash: Leash,
    /// Erlang programs find each other through it; the system's own, if there is one, is left alone.
    _mapper: Process,
    _mapper_leash: Leash,
    setup: Setup,
    port: u16,
}

/// What a server is started with, and started again.
#[derive(Debug)]
struct Setup {
    program: PathBuf,
    mapper_port: u16,
}

impl RabbitMq {
    /// Starts an empty server and waits until it takes connections.
    ///
    /// # Errors
    /// [`Error::Missing`] names the package to install; [`Error::NotReady`] quotes the server's last output.
    pub fn start() -> Result<Self, Error> {
        let program = find_server()?;
        let mapper_leash = Leash::new("zbl-epmd-")?;
        let (mapper_port, mapper) = on_free_port(|port| launch_mapper(&mapper_leash, port))?;
        let leash = Leash::new("zbl-rabbitmq-")?;
        let setup = Setup { program, mapper_port };
        let (port, server) = on_free_port(|port| setup.launch(&leash, port))?;
        Ok(Self { server, leash, _mapper: mapper, _mapper_leash: mapper_leash, setup, port })
    }

    /// The one server that the tests of this process share, started by the first that asks. Nobody kills or pauses it;
    /// each test has queues of its own.
    ///
    /// # Errors
    /// As [`RabbitMq::start`], the same for every caller.
    pub fn shared() -> Result<&'static Self, Error> {
        static SHARED: OnceLock<Result<RabbitMq, Error>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    /// Whether this machine has what [`RabbitMq::start`] needs.
    pub fn is_installed() -> bool {
        find_server().is_ok() && find_mapper().is_ok()
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("amqp://{}", self.addr())
    }

    /// Where the server listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The operating system's id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Where the server keeps everything.
    pub fn directory(&self) -> &Path {
        self.leash.directory()
    }

    /// Runs one command of `rabbitmqctl` against the server and returns what it prints. It takes some seconds.
    ///
    /// # Errors
    /// [`Error::System`] with what it said when it failed.
    pub fn control(&self, words: &[&str]) -> Result<String, Error> {
        let doing = || format!("rabbitmqctl {}", words.join(" "));
        let mut command = Command::new(self.setup.program.with_file_name("rabbitmqctl"));
        self.setup.surround(&mut command, self.leash.directory());
        let output = command.arg("--quiet").args(words).output().map_err(Error::system(doing()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::System { doing: doing(), reason: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }

    /// Kills the server as `kill -9` does and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::System`] when the operating system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.server.kill()?;
        self.leash.release()
    }

    /// Kills the server when it still runs, and starts it again, on the same port and with what it had on disk.
    ///
    /// # Errors
    /// [`Error::NotReady`] when it does not come back, for example because another process has taken the port.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill()?;
        self.server = self.setup.launch(&self.leash, self.port)?;
        Ok(())
    }

    /// Stops the server in its tracks, as `kill -STOP` does: connections stay, and nothing is answered until
    /// [`RabbitMq::resume`]. It has stopped when this returns.
    ///
    /// # Errors
    /// [`Error::System`] when the server does not run, [`Error::TimedOut`] when it has not stopped within 10 seconds.
    pub fn pause(&self) -> Result<(), Error> {
        self.leash.signal("STOP")?;
        poll_until(PAUSE_TIMEOUT, || self.server.is_stopped().then_some(()))
            .ok_or_else(|| Error::TimedOut { what: "stopping a RabbitMQ server".into(), waited: PAUSE_TIMEOUT })
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
    /// Starts the server and waits until it takes connections.
    fn launch(&self, leash: &Leash, port: u16) -> Result<Process, Error> {
        let directory = leash.directory();
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\n\
             log.console.level = info\n\
             # Tests keep little, and share the disk with much else.\n\
             disk_free_limit.absolute = 1MB\n\
             raft.wal_max_size_bytes = 33554432\n"
        );
        write(&directory.join("rabbitmq.conf"), &config)?;
        write(&directory.join("plugins"), "[].")?;
        let mut server = Process::spawn(self.command(leash, free_port()?))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Its own word first: another server may have the port.
        server.wait_for_line("Server startup complete", START_TIMEOUT)?;
        server.wait_until_ready(&format!("a greeting on {address}"), START_TIMEOUT, |_| greets(address))?;
        Ok(server)
    }

    fn command(&self, leash: &Leash, distribution_port: u16) -> Command {
        let directory = leash.directory();
        let mut command = leash.command(&self.program);
        self.surround(&mut command, directory);
        command.env("RABBITMQ_DIST_PORT", distribution_port.to_string());
        command.env("RABBITMQ_MNESIA_BASE", directory.join("data"));
        command.env("RABBITMQ_LOG_BASE", directory.join("log")).env("RABBITMQ_LOGS", "-");
        command.env("RABBITMQ_CONFIG_FILE", directory.join("rabbitmq.conf"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", directory.join("plugins"));
        command.env("RABBITMQ_PID_FILE", directory.join("rabbitmq.pid"));
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", MACHINE_OPTIONS);
        // Has the script become the server, rather than wait for it: whoever is killed or stopped is then the server.
        command.env("RABBITMQ_ALLOW_INPUT", "1");
        command
    }

    /// What the server and its tools have to agree on.
    fn surround(&self, command: &mut Command, directory: &Path) {
        // The cookie is kept at home.
        command.env("HOME", directory).env("RABBITMQ_NODENAME", "zbl@localhost");
        command.env("ERL_EPMD_ADDRESS", "127.0.0.1").env("ERL_EPMD_PORT", self.mapper_port.to_string());
        command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
    }
}

/// Starts a port mapper that ends with this process.
fn launch_mapper(leash: &Leash, port: u16) -> Result<Process, Error> {
    let mut command = leash.command(&find_mapper()?);
    command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
    let mut mapper = Process::spawn(command)?;
    mapper.wait_for_port(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), MAPPER_TIMEOUT)?;
    Ok(mapper)
}

fn find_server() -> Result<PathBuf, Error> {
    let script = PathBuf::from(DEBIAN_SCRIPT);
    if script.is_file() { Ok(script) } else { find_program("rabbitmq-server").ok_or(SERVER_MISSING) }
}

/// It comes with Erlang, which the server's package brings along.
fn find_mapper() -> Result<PathBuf, Error> {
    find_program("epmd").ok_or(SERVER_MISSING)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::system(format!("writing {}", path.display())))
}

/// Whether a server answers the way a client begins.
fn greets(address: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&address, GREETING_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(GREETING_TIMEOUT)).ok()?;
    stream.write_all(PROTOCOL_HEADER).ok()?;
    let mut kind = [0];
    stream.read_exact(&mut kind).ok()?;
    (kind == [METHOD_FRAME]).then_some(())
}
