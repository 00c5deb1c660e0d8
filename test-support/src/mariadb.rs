//! A private MariaDB (or MySQL) server: own directory, own loopback port, no system configuration, root without a
//! password. It keeps what a commit promises (every commit is flushed), and nothing of it is left when the test ends.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use crate::{
    Error, Process,
    database::{MysqlUrl, find_client},
    leash::Leash,
    poll::on_free_port,
    program::find_program,
};

/// An empty data directory is made in under a second; a loaded machine with a slow disk needs more.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A start takes half a second, recovery after a kill a little more; a loaded machine with a slow disk needs more.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A server that listens greets at once, unless it is still starting.
const GREETING_TIMEOUT: Duration = Duration::from_millis(500);
/// The first byte of the first packet of a server that takes connections: protocol version 10.
const HANDSHAKE_V10: u8 = 0x0a;
const SERVER_MISSING: Error = Error::Missing {
    what: "MariaDB or MySQL server",
    fix: "apt-get install -y mariadb-server (or name a running one in ZBL_TEST_MYSQL_URL)",
};

/// Lets root in over TCP, where MySQL made it for the local socket only. Run by the server at every start.
const INIT_SQL: &str = "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';\n\
                        GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n";

/// Private, safe and quiet. `loose` marks what only some versions know.
const SERVER_OPTIONS: [&str; 7] = [
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    // The promise under test: a commit that was acknowledged survives a kill.
    "--innodb-flush-log-at-trx-commit=1",
    // Many tests share one server, each with pools of its own.
    "--max-connections=512",
    // The links are loopback, and the cutting proxy reads them.
    "--loose-skip-ssl",
    "--loose-auto-generate-certs=OFF",
    "--loose-mysqlx=OFF",
];

/// Small, besides: what tests want.
const TEST_OPTIONS: [&str; 4] = [
    "--innodb-buffer-pool-size=64M",
    "--loose-innodb-log-file-size=16M",
    "--loose-aria-log-file-size=8M",
    "--skip-log-bin",
];

/// A running private server. Dropping it, or the end of this process, kills it and removes its directory.
#[derive(Debug)]
pub struct MariaDb {
    // Declared, and so dropped, before the leash: the server dies before its directory goes.
    server: Process,
    leash: Leash,
    program: PathBuf,
    flavour: Flavour,
    options: &'static [&'static str],
    port: u16,
}

impl MariaDb {
    /// Makes an empty server as small as tests want it, and waits until it takes connections.
    ///
    /// # Errors
    /// [`Error::Missing`] names the package to install; [`Error::NotReady`] quotes the server's last output.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&TEST_OPTIONS)
    }

    /// The same with these command-line options in place of the small ones; what they do not name is as the server's own
    /// defaults have it, the binary log included. Every commit is flushed all the same.
    ///
    /// # Errors
    /// As [`MariaDb::start`]; an option that the server does not know shows as [`Error::NotReady`].
    pub fn start_with(options: &'static [&'static str]) -> Result<Self, Error> {
        let (program, flavour) = find_server()?;
        let leash = Leash::new("zbl-mariadb-")?;
        install(&leash, &program, flavour)?;
        let (port, server) = on_free_port(|port| launch(&leash, &program, flavour, options, port))?;
        let database = Self { server, leash, program, flavour, options, port };
        database.check_identity()?;
        Ok(database)
    }

    /// Whether this machine has what [`MariaDb::start`] and the queries need.
    pub fn is_installed() -> bool {
        let server = find_server().and_then(|(program, flavour)| installer(&program, flavour));
        server.is_ok() && find_client().is_ok()
    }

    /// The one server that the tests of this process share, started by the first that asks.
    ///
    /// # Errors
    /// As [`MariaDb::start`], the same for every caller.
    pub fn shared() -> Result<&'static Self, Error> {
        static SHARED: OnceLock<Result<MariaDb, Error>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    /// The URL of a database on this server.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@{}/{database}", self.addr())
    }

    /// Where the server listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The operating system's id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Makes an empty database; fails when there is one of that name.
    ///
    /// # Errors
    /// [`Error::Sql`] with the server's refusal, [`Error::Missing`] names the package to install.
    pub fn create_database(&self, name: &str) -> Result<(), Error> {
        self.query(&format!("CREATE DATABASE `{name}`")).map(drop)
    }

    /// Runs statements as root, outside any database, and returns the rows: `NULL` is the text "NULL", and a tab, a line
    /// feed or a backslash inside a value comes as `\t`, `\n`, `\\`.
    ///
    /// # Errors
    /// [`Error::Sql`] with the server's refusal, [`Error::Missing`] names the package to install.
    pub fn query(&self, sql: &str) -> Result<Vec<Vec<String>>, Error> {
        MysqlUrl::root_at(self.addr()).query(sql)
    }

    /// Kills the server as `kill -9` does and waits until it is gone. Its files stay for [`MariaDb::restart`].
    ///
    /// # Errors
    /// [`Error::System`] when the operating system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.server.kill()?;
        self.leash.release()
    }

    /// Kills the server when it still runs, and starts it again with the same files on the same port.
    ///
    /// # Errors
    /// [`Error::NotReady`] when it does not come back, for example because another process has taken the port.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill()?;
        self.server = launch(&self.leash, &self.program, self.flavour, self.options, self.port)?;
        self.check_identity()
    }

    /// Makes sure that the server which answers on the port is this one, and that it lets root in.
    fn check_identity(&self) -> Result<(), Error> {
        let sql = "SELECT @@datadir";
        let rows = self.query(sql)?;
        let own = self.leash.directory().to_string_lossy();
        if rows.concat().concat().contains(own.as_ref()) {
            return Ok(());
        }
        Err(Error::Sql { sql: sql.into(), reason: format!("{rows:?}: another server answers on {}", self.addr()) })
    }
}

/// Which of the two families a server program belongs to: they make an empty data directory in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    MariaDb,
    MySql,
}

/// Finds `mariadbd`, or else whatever `mysqld` there is.
fn find_server() -> Result<(PathBuf, Flavour), Error> {
    if let Some(program) = find_program("mariadbd") {
        return Ok((program, Flavour::MariaDb));
    }
    let program = find_program("mysqld").ok_or(SERVER_MISSING)?;
    let version = Command::new(&program)
        .arg("--version")
        .output()
        .map_err(Error::system(format!("asking {} for its version", program.display())))?;
    let is_mariadb = String::from_utf8_lossy(&version.stdout).contains("MariaDB");
    Ok((program, if is_mariadb { Flavour::MariaDb } else { Flavour::MySql }))
}

/// The program that makes an empty data directory: MySQL's server does it itself.
fn installer(program: &Path, flavour: Flavour) -> Result<PathBuf, Error> {
    match flavour {
        Flavour::MariaDb => find_program("mariadb-install-db").or_else(|| find_program("mysql_install_db")),
        Flavour::MySql => Some(program.to_path_buf()),
    }
    .ok_or(SERVER_MISSING)
}

/// Makes an empty data directory in which root has no password.
fn install(leash: &Leash, program: &Path, flavour: Flavour) -> Result<(), Error> {
    let directory = leash.directory();
    fs::write(directory.join("init.sql"), INIT_SQL).map_err(Error::system("writing init.sql"))?;
    let mut command = leash.command(&installer(program, flavour)?);
    match flavour {
        Flavour::MariaDb => {
            command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
            command.args(["--loose-innodb-log-file-size=16M", "--loose-aria-log-file-size=8M"])
        }
        // It would make certificates here, and the server then offer TLS, which hides a COMMIT from the cutting proxy.
        Flavour::MySql => command.args(["--no-defaults", "--initialize-insecure", "--auto-generate-certs=OFF"]),
    };
    command.arg("--skip-name-resolve").args(directory_options(directory, flavour)?);
    let mut process = Process::spawn(command)?;
    let status = process.wait(INSTALL_TIMEOUT)?;
    leash.release()?;
    if status.success() {
        return Ok(());
    }
    Err(Error::NotReady { what: format!("making a data directory: {status}"), output: process.output() })
}

/// Starts the server and waits for its greeting.
fn launch(leash: &Leash, program: &Path, flavour: Flavour, options: &[&str], port: u16) -> Result<Process, Error> {
    let file = |name: &str| leash.directory().join(name).display().to_string();
    let mut command = leash.command(program);
    command.arg("--no-defaults").args(directory_options(leash.directory(), flavour)?);
    command.args(SERVER_OPTIONS).args(options);
    command.arg(format!("--port={port}"));
    command.arg(format!("--socket={}", file("socket")));
    command.arg(format!("--pid-file={}", file("server.pid")));
    command.arg(format!("--init-file={}", file("init.sql")));
    let mut server = Process::spawn(command)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    server.wait_until_ready(&format!("a MySQL greeting on {address}"), START_TIMEOUT, |_| greeting(address))?;
    Ok(server)
}

/// The data directory, and the account that owns it: the server refuses to run as root unless told to. Temporary files
/// have a place of their own, for a starting server deletes those of every other server it finds beside its own.
fn directory_options(directory: &Path, flavour: Flavour) -> Result<Vec<String>, Error> {
    let owner = directory.metadata().map_err(Error::system("reading the temporary directory's owner"))?.uid();
    let temporary = directory.join("tmp");
    fs::create_dir_all(&temporary).map_err(Error::system("making the server's temporary directory"))?;
    let mut options =
        vec![format!("--datadir={}", directory.join("data").display()), format!("--tmpdir={}", temporary.display())];
    if owner == 0 {
        options.push("--user=root".into());
    }
    if flavour == Flavour::MySql {
        // No file leaves the server. Built with a directory for that, MySQL will not start where it is missing, as beside
        // Debian's bare mysql-server-core; MariaDB would take NULL for a path.
        options.push("--secure-file-priv=NULL".into());
    }
    Ok(options)
}

/// Reads the first packet of a connection: four bytes of header, then the protocol version, or 0xff and an error.
fn greeting(address: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&address, GREETING_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(GREETING_TIMEOUT)).ok()?;
    let mut head = [0_u8; 5];
    stream.read_exact(&mut head).ok()?;
    (head[4] == HANDSHAKE_V10).then_some(())
}
