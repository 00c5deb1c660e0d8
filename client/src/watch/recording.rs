//! Recordings: what arrived at a watcher, in a file that a later watcher is fed from. The first line names the format,
//! its version and the servers; each further line is one [`Arrival`]. A file that is cut off, foreign or of another
//! version is refused as a whole, before anything of it is shown.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Lines, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::arrival::Arrival;

const FORMAT: &str = "zbl-timeline";

/// Grows by one whenever an older watcher could not read the file or would show it wrongly.
const VERSION: u32 = 1;

/// The longest line read: a race with all its victims has some three thousand bytes. It keeps a foreign file without
/// line ends from being read into memory whole.
const LONGEST_LINE: u64 = 1 << 16;

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    /// What the arrivals' `source` points into.
    addresses: Vec<String>,
}

/// Why a file is not a recording.
#[derive(Debug, thiserror::Error)]
#[error("{} is not a recording this watcher can replay: {problem}; make one with timeline --record FILE", path.display())]
pub struct RecordingError {
    path: PathBuf,
    problem: String,
}

/// A recording being made.
#[derive(Debug)]
pub struct Recorder {
    file: BufWriter<File>,
    line: String,
}

impl Recorder {
    /// Begins a recording of what comes from `addresses`, in place of what the file held.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(path: &Path, addresses: &[String]) -> io::Result<Self> {
        let header = Header { format: FORMAT.to_owned(), version: VERSION, addresses: addresses.to_vec() };
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{}", serde_json::to_string(&header)?)?;
        Ok(Self { file, line: String::new() })
    }

    /// Adds arrivals; all of them are in the file when this returns, so that a killed watcher leaves a whole recording.
    pub(super) fn add(&mut self, arrivals: &[Arrival]) -> io::Result<()> {
        for arrival in arrivals {
            self.line.clear();
            arrival.write(&mut self.line);
            self.file.write_all(self.line.as_bytes())?;
        }
        self.file.flush()
    }
}

/// A recording to replay, found to be whole.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    addresses: Vec<String>,
}

impl Recording {
    /// Opens a recording and reads it through once.
    ///
    /// # Errors
    /// [`RecordingError`] names the line that breaks the format, and how.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let mut reader = Reader::open(path)?;
        for arrival in &mut reader {
            arrival?;
        }
        Ok(Self { path: path.to_owned(), addresses: reader.addresses })
    }

    /// The servers recorded.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The arrivals, in order.
    pub(super) fn arrivals(&self) -> Result<Reader, RecordingError> {
        Reader::open(&self.path)
    }
}

/// Reads a recording line by line.
pub(super) struct Reader {
    path: PathBuf,
    lines: Numbered,
    addresses: Vec<String>,
}
