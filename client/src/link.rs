//! The link of a stream that outlives its connection: when it is tried again, and what no reconnection would cure. It
//! refuses to know what streams through it, and from where to resume.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Response, Status, Streaming};
use zbl_proto::Reason;

use crate::{Backoff, Error};

/// The pause before the first reconnection: a restarting server is back within a fraction of a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between reconnections: nothing is lost meanwhile, but it comes late, and people watch.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A stream, or when it will be opened again.
#[derive(Debug)]
pub(crate) struct Link<M> {
    state: State<M>,
    backoff: Backoff,
}

#[derive(Debug)]
enum State<M> {
    Down { until: Instant },
    Up(Box<Streaming<M>>),
}

/// What became of a link.
pub(crate) enum Linked<M> {
    /// It has to be opened; the time for it has come.
    Open,
    /// A message came.
    Message(M),
    /// It was lost.
    Lost(Error),
}

impl<M> Link<M> {
    /// One that is to be opened at once.
    pub(crate) fn new() -> Self {
        Self { state: State::Down { until: Instant::now() }, backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) }
    }

    /// Waits for whatever is next. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Linked<M> {
        match &mut self.state {
            State::Down { until } => {
                tokio::time::sleep_until(*until).await;
                Linked::Open
            }
            State::Up(stream) => match stream.message().await {
                Ok(Some(message)) => {
                    self.backoff.reset();
                    Linked::Message(message)
                }
                Ok(None) => Linked::Lost(Error::from_status(&Status::unavailable("the server ended the stream"))),
                Err(status) => Linked::Lost(Error::from_status(&status)),
            },
        }
    }

    /// Opens it by a call, which is given `deadline` to be answered.
    ///
    /// # Errors
    /// Why it is not open; [`Self::lose`] says whether it is tried again.
    pub(crate) async fn open(
        &mut self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<Streaming<M>>, Status>>,
    ) -> Result<(), Error> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(answer)) => self.state = State::Up(Box::new(answer.into_inner())),
            Ok(Err(status)) => return Err(Error::from_status(&status)),
            Err(_) => return Err(Error::no_answer_within(deadline)),
        }
        Ok(())
    }

    /// It is lost, or could not be opened: when it is tried again, from now.
    ///
    /// # Errors
    /// The same error, where no reconnection would cure it.
    pub(crate) fn lose(&mut self, error: Error) -> Result<(Error, Duration), Error> {
        // A call is not repeated into a server that sheds load; a stream that waits longer each time may be.
        let shed = matches!(error.reason(), Some(Reason::Overloaded | Reason::RateLimited));
        if !error.is_transient() && !shed {
            return Err(error);
        }
        let retry_in = self.backoff.pause();
        self.state = State::Down { until: Instant::now() + retry_in };
        Ok((error, retry_in))
    }
}
