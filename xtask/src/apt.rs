//! Installing Debian packages, where that is allowed; where it is not, the line that does is named. No service is
//! started: the tests start servers of their own.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, process::Command};

use crate::command::{Failure, answers, run as run_command};

/// The longest an installation may take, as `timeout` reads it: minutes on a slow mirror, never for ever.
const TIME_LIMIT: &str = "10m";

/// Installs packages, all at once.
pub(crate) fn install(packages: &[&str]) -> Result<(), Failure> {
    let packages = packages.join(" ");
    let line = format!("apt-get update && apt-get install -y --no-install-recommends {packages}");
    if !answers("apt-get", &["--version"]) {
        return Err(Failure::Failed(format!(
            "this machine has no apt-get: install what Debian calls {packages} in its own way"
        )));
    }
    if !is_root() {
        return Err(Failure::Failed(format!("run: sudo sh -c '{line}'")));
    }
    let _no_start = ServiceStartPrevented::new();
    let mut install = Command::new("timeout");
    run_command(install.args([TIME_LIMIT, "sh", "-c", &line]).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Keeps a package from starting its service while this lives.
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
