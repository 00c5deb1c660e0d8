//! `cargo xtask test`: every test of the workspace. A missing MariaDB is installed where that is allowed, and a failure
//! where it is not: the tests against it are never skipped.

use std::{env, fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, process::Command};

use test_support::{MYSQL_URL_VARIABLE, MariaDb};

use crate::command::{Failure, answers, cargo, run as run_command, say};

const INSTALL: &str = "apt-get update && apt-get install -y --no-install-recommends mariadb-server";

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
    if !answers("apt-get", &["--version"]) {
        return Err(Failure::Failed(format!(
            "MariaDB is not installed and this machine has no apt-get: install MariaDB's server and client, \
             or name a MySQL server in {MYSQL_URL_VARIABLE}"
        )));
    }
    if !is_root() {
        return Err(Failure::Failed(format!("MariaDB is not installed; run: sudo sh -c '{INSTALL}'")));
    }
    say("MariaDB is not installed");
    let _no_start = ServiceStartPrevented::new();
    let mut install = Command::new("sh");
    run_command(install.args(["-c", INSTALL]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    if MariaDb::is_installed() {
        return Ok(());
    }
    Err(Failure::Failed("mariadb-server is installed, yet mariadbd, mariadb-install-db or mariadb is not found".into()))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
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
