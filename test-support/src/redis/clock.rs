//! A clock of a server's own, by libfaketime: it reads the clock's distance from the true time out of a file whenever
//! the server looks at the time.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::Error;

/// Debian's Redis has jemalloc as its allocator, which asks for the time while it makes itself ready; libfaketime then
/// allocates, and the two wait for each other for ever. The C library's second allocator, put in front, asks nobody.
const ALLOCATOR: &str = "libc_malloc_debug.so.0";
/// Where the C library keeps shared memory and semaphores.
const SHARED_MEMORY: &str = "/dev/shm";

/// How far the clock is ahead, and the file that says so.
#[derive(Debug)]
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
    ahead: Mutex<Duration>,
}

impl Clock {
    /// A clock that shows the true time; its file is in `directory`.
    pub(super) fn new(directory: &Path) -> Result<Self, Error> {
        let clock = Self { library: find_library()?, file: directory.join("clock"), ahead: Mutex::default() };
        clock.jump(Duration::ZERO).map_err(Error::system("making a movable clock"))?;
        Ok(clock)
    }

    /// Moves it ahead.
    pub(super) fn jump(&self, by: Duration) -> io::Result<()> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ahead.saturating_add(by);
        // Put in place whole: the server may read it at any moment.
        let draft = self.file.with_extension("next");
        fs::write(&draft, format!("+{}.{:09}", next.as_secs(), next.subsec_nanos()))?;
        fs::rename(draft, &self.file)?;
        *ahead = next;
        Ok(())
    }

    /// Lets `command` live by this clock.
    pub(super) fn give_to(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", format!("{ALLOCATOR}:{}", self.library.display()))
            // It would count before the file.
            .env_remove("FAKETIME")
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            // Read at each look at the clock, not every ten seconds.
            .env("FAKETIME_NO_CACHE", "1")
            // A clock that is set does not carry the monotonic one along.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            // The decimal point is a point.
            .env("LC_ALL", "C");
    }

    /// Removes the names of what libfaketime shares between a process and its children, for one that has started: it
    /// needs them no more, and would leave them behind when it is killed.
    pub(super) fn forget_shared_names(pid: u32) {
        for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
            // There are none where it shares in another way.
            let _ = fs::remove_file(Path::new(SHARED_MEMORY).join(name));
        }
    }
}

/// Finds the library where Debian and others keep it.
pub(super) fn find_library() -> Result<PathBuf, Error> {
    const NAME: &str = "faketime/libfaketime.so.1";
    let architectures = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    architectures
        .chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/lib64"), PathBuf::from("/usr/local/lib")])
        .map(|directory| directory.join(NAME))
        .find(|library| library.is_file())
        .ok_or(Error::Missing { what: "libfaketime", fix: "apt-get install -y faketime" })
}
