//! The house rules that no other tool knows: how long a file may be, how it opens, and which crates stay in which rooms.
//! They are read off the source text, line by line; a comment may name what it likes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::command::{Failure, say, workspace};

/// A file longer than this holds more than one thing (the aim is 400).
const LINES_MAX: usize = 500;

/// A library that only some parts of the product may speak of; a crate whose name goes on with an underscore
/// (`tonic_types`) belongs to it as well. Tests may speak of anything: they impersonate what the code talks to.
struct Confined {
    library: &'static str,
    rooms: &'static [&'static str],
}

const CONFINED: [Confined; 3] = [
    Confined {
        library: "tonic",
        rooms: &[
            "proto/",
            "client/",
            "server/src/rpc",
            "server/src/layer",
            "server/src/app",
            // A gRPC client of its own, outside the service.
            "server/src/healthcheck.rs",
            // It impersonates a collector, for tests.
            "test-support/src/collector.rs",
        ],
    },
    Confined { library: "diesel", rooms: &["server/src/store"] },
    Confined { library: "lapin", rooms: &["server/src/queue", "xtask/src/e2e/queue"] },
];

/// Reads every Rust file of the workspace and names each breach.
pub(crate) fn check() -> Result<(), Failure> {
    say("$ tidy");
    let root = workspace();
    let mut breaches = Vec::new();
    for file in rust_files(&root).map_err(|error| Failure::Failed(format!("reading the source: {error}")))? {
        let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).map_err(|error| Failure::Failed(format!("reading {name}: {error}")))?;
        breaches.extend(breaches_of(&name, &text));
    }
    breaches.extend(left_out_of_the_image(&root)?);
    breaches.iter().for_each(|breach| say(breach));
    if breaches.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("tidy: {} breaches", breaches.len()))) }
}

/// Members of the workspace that `.dockerignore` keeps from the image's build, which then cannot even begin.
fn left_out_of_the_image(root: &Path) -> Result<Vec<String>, Failure> {
    let read = |name: &str| {
        fs::read_to_string(root.join(name)).map_err(|error| Failure::Failed(format!("reading {name}: {error}")))
    };
    let (manifest, let_in) = (read("Cargo.toml")?, read(".dockerignore")?);
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")?.strip_suffix(']'));
    let members = members.ok_or_else(|| Failure::Failed("Cargo.toml names no members in one line".into()))?;
    let members = members.split(',').map(|member| member.trim().trim_matches('"'));
    let left_out = members.filter(|member| !let_in.lines().any(|line| line.strip_prefix('!') == Some(*member)));
    Ok(left_out.map(|member| format!(".dockerignore: let {member} in, it is a member of the workspace")).collect())
}

/// Every `.rs` file of the workspace's crates, in order of path.
fn rust_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind, name) = (entry.path(), entry.file_type()?, entry.file_name());
            let is_foreign = name == "target" || name == "node_modules" || name.to_string_lossy().starts_with('.');
            if kind.is_dir() && !is_foreign {
                directories.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What is wrong with one file, each breach with its place.
fn breaches_of(name: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let count = text.lines().count();
    if count > LINES_MAX {
        breaches.push(format!("{name}: {count} lines; split it, the most is {LINES_MAX}"));
    }
    if name.ends_with("/mod.rs") {
        breaches.push(format!("{name}: name it after its directory, beside it"));
    }
    if !text.starts_with("//!") {
        breaches.push(format!("{name}:1: open it with `//!`: what it owns and what it refuses"));
    }
    for Confined { library, rooms } in &CONFINED {
        if is_test(name) || rooms.iter().any(|room| name.starts_with(room)) {
            continue;
        }
        let uses = text.lines().enumerate().filter(|(_, line)| !is_comment(line) && names_crate(line, library));
        breaches.extend(uses.map(|(index, _)| format!("{name}:{}: {library} stays in {}", index + 1, rooms.join(" "))));
    }
    breaches
}

fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether a line has a path that begins with the crate or one of its family: `tonic::…`, `tonic_types::…`.
fn names_crate(line: &str, library: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(library).any(|(at, _)| {
        let begins_word = !line[..at].ends_with(is_word);
        let rest = &line[at + library.len()..];
        let is_family = rest.starts_with(':') || rest.starts_with('_');
        begins_word && is_family && rest.trim_start_matches(is_word).starts_with("::")
    })
}

#[cfg(test)]
mod tests;
