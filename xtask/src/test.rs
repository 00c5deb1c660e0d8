//! `cargo xtask test`: every test of the workspace. A missing server is installed where that is allowed, and a failure
//! where it is not: the tests against it are never skipped.

use std::env;

use test_support::{MYSQL_URL_VARIABLE, MariaDb, Redis};

use crate::{
    apt,
    command::{Failure, cargo, run as run_command, say},
};

/// What the tests start beside the project's own programs.
#[derive(Debug, Clone, Copy)]
struct Server {
    /// What Debian calls it.
    package: &'static str,
    is_installed: fn() -> bool,
}

const MARIADB: Server = Server { package: "mariadb-server", is_installed: MariaDb::is_installed };
const REDIS: Server = Server { package: "redis-server", is_installed: Redis::is_installed };
/// For a Redis whose clock is moved.
const CLOCK: Server = Server { package: "faketime", is_installed: Redis::can_move_clock };

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut command = cargo(&["test", "--workspace"]);
    if !MariaDb::is_installed() && env::var_os(MYSQL_URL_VARIABLE).is_some() {
        say(&format!("MariaDB is not installed, but {MYSQL_URL_VARIABLE} names a server: leaving out the tests of"));
        say("test-support, which start one of their own");
        command.args(["--exclude", "test-support"]);
        ensure(&[REDIS, CLOCK])?;
    } else {
        ensure_servers().map_err(|failure| {
            if MariaDb::is_installed() {
                return failure;
            }
            Failure::Failed(format!("{}; or name a MySQL server in {MYSQL_URL_VARIABLE}", failure.reason()))
        })?;
    }
    run_command(command.args(arguments))
}

/// Installs the servers that are missing through apt, or names the line that does.
pub(crate) fn ensure_servers() -> Result<(), Failure> {
    ensure(&[MARIADB, REDIS, CLOCK])
}

fn ensure(servers: &[Server]) -> Result<(), Failure> {
    let missing = missing(servers);
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("not installed, or not whole: {}", missing.join(", ")));
    apt::install(&missing)?;
    match self::missing(servers).as_slice() {
        [] => Ok(()),
        broken => Err(Failure::Failed(format!("installed, yet its programs are not found: {}", broken.join(", ")))),
    }
}

/// The packages of the servers that this machine lacks.
fn missing(servers: &[Server]) -> Vec<&'static str> {
    servers.iter().filter(|server| !(server.is_installed)()).map(|server| server.package).collect()
}
