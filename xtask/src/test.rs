//! `cargo xtask test`: every test of the workspace. A missing MariaDB is installed where that is allowed, and a failure
//! where it is not: the tests against it are never skipped.

use std::{env, fs, io::Write as _, os::unix::fs::OpenOptionsExt as _};

use test_support::{MYSQL_URL_VARIABLE, MariaDb};

use crate::{
    apt,
    command::{Failure, cargo, run as run_command, say},
};

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut command = cargo(&["test", "--workspace"]);
    if !MariaDb::is_installed() {
        if env::var_os(MYSQL_URL_VARIABLE).is_some() {
            say(&format!(
                "MariaDB is not installed, but {MYSQL_URL_VARIABLE} names a server: leaving out the tests of"
            ));
            say("test-support, which start one of their own");
            command.args(["--exclude", "test-support"]);
        } else {
            ensure_mariadb()?;
        }
    }
    run_command(command.args(arguments))
}

/// Installs MariaDB through apt, or names the line that does.
pub(crate) fn ensure_mariadb() -> Result<(), Failure> {
    if MariaDb::is_installed() {
        return Ok(());
    }
    say("MariaDB is not installed");
    let _no_start = ServiceStartPrevented::new();
    apt::install("mariadb-server").map_err(|failure| {
        let reason = failure.reason();
        Failure::Failed(format!("{reason}; or name a MySQL server in {MYSQL_URL_VARIABLE}"))
    })?;
    if MariaDb::is_installed() {
        return Ok(());
    }
    Err(Failure::Failed("mariadb-server is installed, yet mariadbd, mariadb-install-db or mariadb is not found".into()))
}

/// Keeps a package from starting its service while this lives: the tests start servers of their own.
struct ServiceStartPrevented;

impl ServiceStartPrevented {
    /// Debian asks this program before it starts a service; 101 means no.
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    /// `None` where the machine has a policy of its own, which then counts.
    fn new() -> Option<Self> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o755);
        let mut file = options.open(Self::POLICY).ok()?;
        let guard = Self;
        file.write_all(b"#!/bin/sh\nexit 101\n").ok()?;
        Some(guard)
    }
}

impl Drop for ServiceStartPrevented {
    fn drop(&mut self) {
        let _ = fs::remove_file(Self::POLICY);
    }
}
