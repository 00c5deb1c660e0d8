//! Recordings: what arrived at a watcher, in a file that a later watcher is fed from. The first line names the format,
//! its version and the servers; each further line is one [`Arrival`]. A file that is cut off, foreign or of another
//! version is refused as a whole, before anything of it is shown.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
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
    file: BufReader<File>,
    line_number: u64,
    addresses: Vec<String>,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, RecordingError> {
        let refusal = |problem| RecordingError { path: path.to_owned(), problem };
        let file = File::open(path).map_err(|error| refusal(error.to_string()))?;
        let mut reader =
            Self { path: path.to_owned(), file: BufReader::new(file), line_number: 0, addresses: Vec::new() };
        let first = reader.line()?.ok_or_else(|| refusal("it is empty".to_owned()))?;
        let header: Header = serde_json::from_slice(&first)
            .map_err(|_| refusal(format!("its first line is not the header of a {FORMAT} file")))?;
        if header.format != FORMAT {
            return Err(refusal(format!("its format is {:?}, not {FORMAT:?}", header.format)));
        }
        if header.version != VERSION {
            return Err(refusal(format!(
                "its version is {}, and this watcher reads version {VERSION}",
                header.version
            )));
        }
        reader.addresses = header.addresses;
        Ok(reader)
    }

    /// The next line; `None` at the end of the file.
    fn line(&mut self) -> Result<Option<Vec<u8>>, RecordingError> {
        let mut line = Vec::new();
        let read = self.file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        read.map_err(|error| self.refusal(&error.to_string()))?;
        if line.is_empty() {
            return Ok(None);
        }
        self.line_number += 1;
        match line.last() {
            Some(b'\n') => Ok(Some(line)),
            _ if line.len() as u64 == LONGEST_LINE => {
                Err(self.refusal(&format!("line {} is longer than {LONGEST_LINE} bytes", self.line_number)))
            }
            _ => Err(self.refusal(&format!("it is cut off in line {}", self.line_number))),
        }
    }

    fn arrival(&mut self) -> Result<Option<Arrival>, RecordingError> {
        let Some(line) = self.line()? else { return Ok(None) };
        let number = self.line_number;
        let arrival: Arrival = serde_json::from_slice(&line)
            .map_err(|error| self.refusal(&format!("line {number} is not an arrival ({error})")))?;
        if arrival.source >= self.addresses.len() {
            return Err(self.refusal(&format!("line {number} comes from a server the header does not name")));
        }
        Ok(Some(arrival))
    }

    fn refusal(&self, problem: &str) -> RecordingError {
        RecordingError { path: self.path.clone(), problem: problem.to_owned() }
    }
}

impl Iterator for Reader {
    type Item = Result<Arrival, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.arrival().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{arrival::News, sample};

    fn arrivals() -> Vec<Arrival> {
        let news = sample::lost_update().into_iter().map(News::Event);
        (1..).zip(news).map(|(arrived_us, news)| Arrival { arrived_us, source: 0, news }).collect()
    }

    #[test]
    fn what_is_recorded_is_read_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut recorder = Recorder::create(file.path(), &["127.0.0.1:50051".to_owned()]).unwrap();
        recorder.add(&arrivals()).unwrap();

        let recording = Recording::open(file.path()).unwrap();
        assert_eq!(recording.addresses(), ["127.0.0.1:50051"]);
        let read: Vec<_> = recording.arrivals().unwrap().map(Result::unwrap).collect();
        assert_eq!(read, arrivals());
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let header = r#"{"format":"zbl-timeline","version":1,"addresses":["a:1"]}"#;
        let connected =
            |source| format!("{header}\n{{\"arrived_us\":1,\"source\":{source},\"connected\":{{\"after\":null}}}}\n");
        let whole = connected(0);
        for (content, problem) in [
            (String::new(), "it is empty"),
            ("PK\u{3}\u{4} not text\n".to_owned(), "its first line is not the header"),
            ("[]\n".to_owned(), "its first line is not the header"),
            (header.replace("zbl-timeline", "har") + "\n", "its format is \"har\""),
            (header.replace(":1,", ":2,") + "\n", "its version is 2"),
            (header.to_owned(), "it is cut off in line 1"),
            (whole[..whole.len() - 7].to_owned(), "it is cut off in line 2"),
            (connected(1), "line 2 comes from a server the header does not name"),
            (whole.clone() + "{}\n", "line 3 is not an arrival"),
            ("x".repeat(1 << 17), "line 1 is longer than 65536 bytes"),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), content).unwrap();
            let error = Recording::open(file.path()).unwrap_err().to_string();
            assert!(error.contains(problem), "{error} lacks {problem}");
        }
        assert!(Recording::open(Path::new("/no/such/file")).unwrap_err().to_string().contains("/no/such/file"));
    }
}
