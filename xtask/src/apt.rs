//! Installing a Debian package, where that is allowed; where it is not, the line that does is named.

use std::process::Command;

use crate::command::{Failure, answers, run as run_command};

/// The longest an installation may take, as `timeout` reads it: minutes on a slow mirror, never for ever.
const TIME_LIMIT: &str = "10m";

/// Installs a package.
pub(crate) fn install(package: &str) -> Result<(), Failure> {
    let line = format!("apt-get update && apt-get install -y --no-install-recommends {package}");
    if !answers("apt-get", &["--version"]) {
        return Err(Failure::Failed(format!(
            "this machine has no apt-get: install what Debian calls {package} in its own way"
        )));
    }
    if !is_root() {
        return Err(Failure::Failed(format!("run: sudo sh -c '{line}'")));
    }
    let mut install = Command::new("timeout");
    run_command(install.args([TIME_LIMIT, "sh", "-c", &line]).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
