//! The web lab: building the page that the server embeds, and its own checks. It says what this machine lacks for that; it
//! refuses to install Node, whose version is a matter between the machine and its owner.

use std::{fs, path::Path, process::Command, time::SystemTime};

use crate::{
    command::{Failure, answers, run as run_command, say, workspace},
    test::Foreign,
};

/// What building and driving the page takes, where Debian has it new enough.
pub(crate) const BROWSER: [Foreign; 3] = [
    Foreign { package: "nodejs", is_installed: || answers("node", &["--version"]) },
    Foreign { package: "npm", is_installed: || answers("npm", &["--version"]) },
    Foreign { package: "chromium", is_installed: || answers("chromium", &["--version"]) },
];

/// What Vite runs on.
const NODE: &str = "Node 20.19 or 22.12, or newer, with npm";

/// What the page is made of, from the root of the workspace. Of what is not named nothing is in it.
const SOURCES: [&str; 7] = [
    "proto/zbl",
    "web/src",
    "web/public",
    "web/proto",
    "web/index.html",
    "web/package-lock.json",
    "web/vite.config.ts",
];

/// Made of the contract, and so no source.
const GENERATED: &str = "generated";

/// Builds the page into `web/dist`, unless it is there and newer than what it is made of.
///
/// # Errors
/// [`Failure::Failed`] where Node is missing or too old, or the build fails.
pub(crate) fn build() -> Result<(), Failure> {
    if is_fresh(&workspace()) {
        say("the page is built already");
        return Ok(());
    }
    if let Some(lacking) = lacking() {
        return Err(Failure::Failed(lacking));
    }
    prepare()?;
    npm(&["run", "build"])
}

/// Runs one of the page's own checks, or says why it cannot be run on this machine.
pub(crate) fn check(script: &str) -> Result<(), Failure> {
    if let Some(lacking) = lacking() {
        say(&format!("{lacking}: `npm run {script}` of the page is left out"));
        return Ok(());
    }
    prepare()?;
    npm(&["run", script])
}

/// Installs the packages where they are missing or others are wanted by now, and generates the contract's TypeScript.
fn prepare() -> Result<(), Failure> {
    let web = workspace().join("web");
    // npm writes it when it is done.
    let installed = changed(&web.join("node_modules/.package-lock.json"));
    if installed.is_none() || installed < changed(&web.join("package-lock.json")) {
        npm(&["ci"])?;
    }
    npm(&["run", "generate"])
}

fn npm(arguments: &[&str]) -> Result<(), Failure> {
    run_command(Command::new("npm").args(arguments).current_dir(workspace().join("web")))
}

/// What this machine lacks to build the page.
fn lacking() -> Option<String> {
    let node = Command::new("node").arg("--version").output().ok().filter(|node| node.status.success());
    let Some(node) = node else { return Some(format!("node is not installed; the page needs {NODE}")) };
    let version = String::from_utf8_lossy(&node.stdout).trim().to_owned();
    if !is_new_enough(&version) {
        return Some(format!("node is {version}; the page needs {NODE}"));
    }
    (!answers("npm", &["--version"])).then(|| format!("npm is not installed; the page needs {NODE}"))
}

/// Whether a version, such as `v20.19.0`, is one that Vite runs on.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(20), Some(minor)) => minor >= 19,
        (Some(22), Some(minor)) => minor >= 12,
        (Some(major), Some(_)) => major > 22,
        _ => false,
    }
}

/// Whether the page is there and nothing it is made of was changed since.
fn is_fresh(root: &Path) -> bool {
    let Some(built) = changed(&root.join("web/dist/index.html")) else { return false };
    SOURCES.iter().all(|source| newest(&root.join(source)).is_some_and(|changed| changed <= built))
}

/// When a file was last changed; `None` where there is none.
fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// When anything at a path was last changed, added or removed.
fn newest(path: &Path) -> Option<SystemTime> {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    let below = below.filter(|entry| entry.file_name() != GENERATED).filter_map(|entry| newest(&entry.path()));
    changed(path).into_iter().chain(below).max()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use super::*;

    #[test]
    fn vite_runs_on_these() {
        for version in ["v20.19.0", "v20.20.2", "v22.12.0", "v23.0.0", "v24.1.0"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["", "v18.20.4", "v20.18.9", "v21.7.0", "v22.11.0", "node", "v22"] {
            assert!(!is_new_enough(version), "{version}");
        }
    }

    #[test]
    fn the_page_is_fresh_until_something_in_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let begin = SystemTime::now();
        let touch = |name: &str, seconds: u64| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = File::options().create(true).append(true).open(&path).unwrap();
            file.set_modified(begin + Duration::from_secs(seconds)).unwrap();
        };
        for source in ["proto/zbl/v1/a.proto", "web/src/panels/a.tsx", "web/public/a.svg", "web/proto/a.proto"] {
            touch(source, 0);
        }
        for source in ["web/index.html", "web/package-lock.json", "web/vite.config.ts"] {
            touch(source, 0);
        }
        assert!(!is_fresh(root), "it is not there");
        touch("web/dist/index.html", 60);
        assert!(is_fresh(root));
        touch("web/src/generated/a.ts", 120);
        assert!(is_fresh(root), "generated of what has not changed");
        touch("web/src/panels/a.tsx", 120);
        assert!(!is_fresh(root));
    }
}
