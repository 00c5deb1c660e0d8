//! Where an export goes: standard output, or a file that appears under its name when it is complete, and not before.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;
use tokio::io::{AsyncWriteExt, Stdout, stdout};

use super::Error;

/// An output under way. Dropped before [`Self::complete`], a file leaves nothing behind.
pub(super) enum Sink {
    Stdout(Stdout),
    File { partial: NamedTempFile, path: PathBuf },
}

impl Sink {
    /// Standard output where no file is named. The part of a file lies beside it: only there it can be renamed.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::Stdout(stdout())) };
        let failed = |reason| Error::Output { path: path.to_owned(), reason };
        // Renaming would put a file in the place of a device, or of a pipe that somebody reads.
        if path.exists() && !path.is_file() {
            return Err(failed(io::Error::other("it is there and not a file; to pipe, leave --output out")));
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let partial = tempfile::Builder::new().prefix(".zbl-export-").tempfile_in(directory).map_err(failed)?;
        Ok(Self::File { partial, path: path.to_owned() })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Stdout(stdout) => Ok(stdout.write_all(bytes).await?),
            Self::File { partial, path } => partial.write_all(bytes).map_err(|reason| output(path, reason)),
        }
    }

    /// Puts the file in its place, when it is on the disk.
    pub(super) async fn complete(self) -> Result<(), Error> {
        match self {
            Self::Stdout(mut stdout) => Ok(stdout.flush().await?),
            Self::File { partial, path } => {
                partial.as_file().sync_all().map_err(|reason| output(&path, reason))?;
                partial.persist(&path).map(drop).map_err(|refused| output(&path, refused.error))
            }
        }
    }
}

fn output(path: &Path, reason: io::Error) -> Error {
    Error::Output { path: path.to_owned(), reason }
}
