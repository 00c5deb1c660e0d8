//! How operations and answers are exchanged on one connection, whatever they travel in.

use std::task::{Context, Poll};

use tokio::time::Instant;
use zbl_client::Error;

use super::operation::{Answer, Operation};

/// An operation that was answered, or has failed.
pub(super) struct Ended {
    pub(super) operation: Operation,
    pub(super) outcome: Result<Answer, Error>,
}

/// What a connection has to say.
pub(super) enum Event {
    Ended(Ended),
    /// Another operation can be sent.
    Room,
}

/// Whether more is to be sent than the connection had room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backlog {
    None,
    Waiting,
}

/// A connection that operations are sent on.
pub(super) trait Exchange: Send {
    /// Whether an operation can be sent now; where not, [`Exchange::poll_event`] tells when.
    ///
    /// # Errors
    /// The connection is lost.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>>;

    /// Sends an operation; [`Exchange::poll_room`] has said that it can be.
    ///
    /// # Errors
    /// The connection is lost, and the operation was not sent.
    fn send(&mut self, operation: Operation, now: Instant) -> Result<(), Error>;

    /// The next event.
    ///
    /// # Errors
    /// The connection is lost.
    fn poll_event(&mut self, context: &mut Context<'_>, backlog: Backlog) -> Poll<Result<Event, Error>>;

    /// Gives up what was sent more than the deadline ago: it ends as unanswered.
    fn expire(&mut self, now: Instant);

    /// The operations that were sent and have not ended.
    fn abandon(self) -> Vec<Operation>;
}
