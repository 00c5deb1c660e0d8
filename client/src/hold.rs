//! An operation held before one of its phases by a server's lab. It owns the stream that keeps it there: dropping it lets
//! the operation go on.

use tonic::{Status, Streaming};
use zbl_proto::v1::{self, hold_operation_response::Event};

use crate::Error;

/// A hold, as [`crate::Client::hold`] puts it in place. The server lets go by itself after five minutes.
#[derive(Debug)]
pub struct Hold(Streaming<v1::HoldOperationResponse>);

impl Hold {
    /// A hold whose first message says that it is in place.
    pub(crate) async fn armed(mut events: Streaming<v1::HoldOperationResponse>) -> Result<Self, Error> {
        match next(&mut events).await? {
            Event::Armed(_) => Ok(Self(events)),
            Event::Arrived(_) => Err(Error::broken_answer("an operation arrived at a hold that was not in place")),
        }
    }

    /// Returns when the operation stands there, with the number of its attempt, from 1. It arrives once. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// Any [`Error`]; the operation is not held any more.
    pub async fn arrived(&mut self) -> Result<u32, Error> {
        match next(&mut self.0).await? {
            Event::Arrived(arrived) => {
                u32::try_from(arrived.attempt).map_err(|_| Error::broken_answer("the attempt is negative"))
            }
            Event::Armed(_) => Err(Error::broken_answer("a hold was put in place twice")),
        }
    }
}

async fn next(events: &mut Streaming<v1::HoldOperationResponse>) -> Result<Event, Error> {
    let message = events.message().await.map_err(|status| Error::from_status(&status))?;
    let message = message.ok_or_else(|| Error::from_status(&Status::unavailable("the server ended the hold")))?;
    message.event.ok_or_else(|| Error::broken_answer("a hold's event is empty"))
}
