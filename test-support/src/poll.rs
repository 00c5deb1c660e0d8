//! Waiting for a condition, bounded by time. Nothing here waits for time to pass as such.

use std::{
    net::{Ipv4Addr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Process};

/// Short against every start-up this waits for, long enough to leave the processor to the one that is starting.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Another process can take the free port before the server does; three times in a row is no accident.
const START_ATTEMPTS: usize = 3;

/// Asks `probe` again and again until it answers, for at most `timeout` (and once, however short that is).
pub fn poll_until<T>(timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let answer = probe();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        #[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition; no runtime here")]
        thread::sleep(POLL_INTERVAL);
    }
}

/// A loopback port that nobody listened on a moment ago. Another process may take it first: who uses it must be ready
/// to be told that it is in use.
///
/// # Errors
/// [`Error::System`] when no port is left.
pub fn free_port() -> Result<u16, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::system("finding a free port"))
}

/// Starts a server on a free port, and on another one when it finds its port in use. The last error is the one told.
pub(crate) fn on_free_port(launch: impl Fn(u16) -> Result<Process, Error>) -> Result<(u16, Process), Error> {
    let mut attempt = 1;
    loop {
        let port = free_port()?;
        match launch(port) {
            Err(Error::NotReady { output, .. }) if output.contains("in use") && attempt < START_ATTEMPTS => {
                attempt += 1;
            }
            started => return started.map(|server| (port, server)),
        }
    }
}
