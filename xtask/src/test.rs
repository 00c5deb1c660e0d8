//! `cargo xtask test`: every test of the workspace. A missing server is installed where that is allowed, and a failure
//! where it is not: the tests against it are never skipped. Those of the page need Node, and are left out without it.

use std::env;

use test_support::{MYSQL_URL_VARIABLE, MariaDb, RabbitMq, Redis};

use crate::{
    apt,
    command::{Failure, answers, cargo, run as run_command, say},
    web,
};

/// What the tests start beside the project's own programs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Foreign {
    /// What Debian calls it.
    pub(crate) package: &'static str,
    pub(crate) is_installed: fn() -> bool,
}

const MARIADB: Foreign = Foreign { package: "mariadb-server", is_installed: MariaDb::is_installed };
const REDIS: Foreign = Foreign { package: "redis-server", is_installed: Redis::is_installed };
const RABBITMQ: Foreign = Foreign { package: "rabbitmq-server", is_installed: RabbitMq::is_installed };
/// For a Redis whose clock is moved.
const CLOCK: Foreign = Foreign { package: "faketime", is_installed: Redis::can_move_clock };

/// For what is driven by curl alone, the end-to-end parts.
pub(crate) const CURL: Foreign = Foreign { package: "curl", is_installed: || answers("curl", &["--version"]) };

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut command = cargo(&["test", "--workspace"]);
    if !MariaDb::is_installed() && env::var_os(MYSQL_URL_VARIABLE).is_some() {
        say(&format!("MariaDB is not installed, but {MYSQL_URL_VARIABLE} names a server: leaving out the tests of"));
        say("test-support, which start one of their own");
        command.args(["--exclude", "test-support"]);
        ensure_installed(&[REDIS, CLOCK, RABBITMQ])?;
    } else {
        ensure_servers().map_err(|failure| {
            if MariaDb::is_installed() {
                return failure;
            }
            Failure::Failed(format!("{}; or name a MySQL server in {MYSQL_URL_VARIABLE}", failure.reason()))
        })?;
    }
    if arguments.is_empty() {
        web::check("test")?;
    }
    run_command(command.args(arguments))
}

/// Installs the servers that are missing through apt, or names the line that does.
pub(crate) fn ensure_servers() -> Result<(), Failure> {
    ensure_installed(&[MARIADB, REDIS, CLOCK, RABBITMQ])
}

/// The same for any of what the tests start.
pub(crate) fn ensure_installed(foreign: &[Foreign]) -> Result<(), Failure> {
    let missing = missing(foreign);
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("not installed, or not whole: {}", missing.join(", ")));
    apt::install(&missing)?;
    match self::missing(foreign).as_slice() {
        [] => Ok(()),
        broken => Err(Failure::Failed(format!("installed, yet its programs are not found: {}", broken.join(", ")))),
    }
}

/// The packages that this machine lacks.
fn missing(foreign: &[Foreign]) -> Vec<&'static str> {
    foreign.iter().filter(|one| !(one.is_installed)()).map(|one| one.package).collect()
}
