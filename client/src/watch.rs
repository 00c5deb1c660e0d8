//! The watcher: what servers tell of their operations, live or from a recording, in the form that suits its reader. Owns
//! the way from arrival to text and when to stop; refuses to hide anything: lost connections, gaps and restarts are
//! shown too.

mod arrival;
mod board;
mod clocks;
mod feed;
mod line;
mod order;
mod perfetto;
mod recording;
mod render;
#[cfg(test)]
mod sample;
mod since;
mod transcript;
pub mod tui;

use std::{
    future::pending,
    io::{self, Write},
    time::Duration,
};

use tokio::{signal, time::sleep};

pub use self::{
    arrival::{Arrival, News},
    feed::{Beginning, Feed, Speed},
    recording::{Recorder, Recording, RecordingError},
    render::Format,
    since::Since,
};
use crate::Error;

/// The silence after which what is held back for its order is shown: nothing earlier is likely to come.
const QUIET: Duration = Duration::from_millis(100);

/// Why watching ended, other than by the user's wish.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A server never answered.
    #[error(
        "no server at {address} after {} tries ({error}); is zbl-server running, and --addr right?",
        feed::FIRST_TRIES
    )]
    Unreachable {
        /// Where it should be.
        address: String,
        /// Why the last try failed.
        error: Error,
    },
    /// A server refuses to stream.
    #[error("the server refuses: {0}")]
    Refused(#[from] Error),
    /// The file to replay is none.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The recording cannot be written.
    #[error("cannot write the recording: {0}")]
    Recorder(io::Error),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// What is watched: a feed, how much of it, and where it is kept.
#[derive(Debug)]
pub struct Intake {
    /// Where arrivals come from.
    pub feed: Feed,
    /// Where they are recorded, if anywhere.
    pub recorder: Option<Recorder>,
    /// How many spans are still wanted; `None` for no end.
    pub limit: Option<u64>,
}

impl Intake {
    /// Waits for the next arrivals and appends them to `batch`; appends none at the end. Dropping the future loses
    /// nothing.
    async fn next_batch(&mut self, batch: &mut Vec<Arrival>) -> Result<(), WatchError> {
        let known = batch.len();
        if self.limit == Some(0) {
            return Ok(());
        }
        self.feed.next_batch(batch).await?;
        if let Some(left) = &mut self.limit {
            let wanted = batch[known..].iter().position(|arrival| {
                *left -= u64::from(arrival.is_span());
                *left == 0
            });
            batch.truncate(wanted.map_or(batch.len(), |last| known + last + 1));
        }
        match &mut self.recorder {
            Some(recorder) => recorder.add(&batch[known..]).map_err(WatchError::Recorder),
            None => Ok(()),
        }
    }
}

/// Writes what is watched to `out` until it ends, the limit is reached, SIGINT or SIGTERM comes, or an error.
///
/// # Errors
/// [`WatchError`]; a broken pipe among them, which usually only means that the reader has seen enough.
pub async fn watch(intake: &mut Intake, format: Format, out: &mut impl Write) -> Result<(), WatchError> {
    let mut renderer = format.renderer(intake.feed.addresses());
    let mut interrupted = std::pin::pin!(interrupted());
    let (mut batch, mut text) = (Vec::new(), String::new());
    let ended = loop {
        tokio::select! {
            received = intake.next_batch(&mut batch) => {
                let last = received.is_err() || batch.is_empty();
                for arrival in batch.drain(..) {
                    renderer.take(arrival, &mut text);
                }
                if last {
                    break received;
                }
            }
            () = sleep(QUIET), if renderer.is_holding() => renderer.settle(&mut text),
            () = &mut interrupted => break Ok(()),
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        text.clear();
    };
    // Also after an error: what is held back is shown, and a trace is closed.
    renderer.finish(&mut text);
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ended.and(written.map_err(WatchError::Output))
}

/// Waits for SIGINT or, where there is such a thing, SIGTERM.
async fn interrupted() {
    let interrupted = async {
        // Where no handler can be installed, the default action ends the process.
        if signal::ctrl_c().await.is_err() {
            pending::<()>().await;
        }
    };
    #[cfg(unix)]
    if let Ok(mut terminated) = signal::unix::signal(signal::unix::SignalKind::terminate()) {
        tokio::select! {
            () = interrupted => {}
            _ = terminated.recv() => {}
        }
        return;
    }
    interrupted.await;
}
