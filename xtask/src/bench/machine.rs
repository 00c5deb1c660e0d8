//! What the figures were measured on: figures without their machine say nothing.

use std::{
    fs,
    io::{self, Seek as _, SeekFrom, Write as _},
    process::Command,
    thread,
    time::Instant,
};

use serde::Serialize;

use super::figures::Spread;
use crate::command::{Failure, workspace};

/// How many flushes are timed: a second or less on a disk that takes milliseconds.
const FLUSHES: usize = 200;
/// What is written before each: a commit of a few deductions.
const WRITTEN: [u8; 4096] = [0x5a; 4096];

/// The machine, and what was built on it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// What this process may use.
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) compiler: String,
    /// What was measured; ends in `-dirty` when the working tree held more than the commit.
    pub(crate) commit: String,
    /// The day of the run, in UTC.
    pub(crate) date: String,
    /// How long it takes until 4 KiB are on the disk that the private database is on, in milliseconds.
    pub(crate) flush_ms: Spread,
}

impl Machine {
    pub(crate) fn describe() -> Result<Self, Failure> {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = field(&file("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
        let describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
        Ok(Self {
            processor: field(&file("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory.unwrap_or_default() / 1024,
            kernel: format!("Linux {}", file("/proc/sys/kernel/osrelease").trim()),
            compiler: first_line("rustc", &["--version"]),
            commit: first_line("git", &describe),
            date: first_line("date", &["--utc", "+%Y-%m-%d"]),
            flush_ms: flush_ms().map_err(|error| Failure::Failed(format!("timing flushes: {error}")))?,
        })
    }
}

/// The value of the first `name: value` line, as the files in `/proc` have them.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
}

/// What a program says of itself; a program that is not there is "unknown".
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(workspace()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// Writes and flushes where temporary files live, which is where the private database is.
fn flush_ms() -> io::Result<Spread> {
    let mut file = tempfile::tempfile()?;
    let mut measured = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        // Always the same block, as the log of a database reuses its file: no time goes into making the file longer.
        file.seek(SeekFrom::Start(0))?;
        let began = Instant::now();
        file.write_all(&WRITTEN)?;
        file.sync_data()?;
        measured.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Spread::of(measured).ok_or_else(|| io::Error::other("no flush was timed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemFree:  1 kB\nMemTotal:   2048 kB\nmodel name\t: Some(R) CPU: fast\n";
        assert_eq!(field(text, "MemTotal"), Some("2048 kB"));
        assert_eq!(field(text, "model name"), Some("Some(R) CPU: fast"));
        assert_eq!(field(text, "Mem"), None);
    }

    #[test]
    fn a_flush_takes_time() {
        let spread = flush_ms().unwrap();
        assert!(0.0 < spread.min && spread.min <= spread.median && spread.median <= spread.max, "{spread:?}");
    }
}
