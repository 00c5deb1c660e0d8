//! What arrives behind the head of a call: it has to be there by the deadline, and what the transport itself finds wrong
//! with it is told with a reason like everything else. Looks into nothing: reading is the handlers'.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};

use super::{Deadline, Surround, method};
use crate::{
    error::Error,
    rpc::{named, status},
};

/// Waits for messages, but not for ever.
#[derive(Clone)]
pub(super) struct Messages;

impl Surround for Messages {
    /// Whether the call is one of ours, whose errors have reasons.
    type Kept = bool;

    fn before(&self, call: &mut Request<Body>) -> Result<bool, Status> {
        let path = call.uri().path();
        let own = method::is_own(path);
        // A caller who sends many messages has all the time between them; each is answered within one of its own.
        if !method::has_many_messages(path)
            && let Some(deadline) = call.extensions().get::<Deadline>().copied()
        {
            let body = std::mem::take(call.body_mut());
            *call.body_mut() = Body::new(Timed::new(body, deadline.message_by()));
        }
        Ok(own)
    }

    fn after(own: bool, answer: Response<Body>) -> Response<Body> {
        match Status::from_header_map(answer.headers()) {
            Some(refusal) if own => {
                let head = answer.headers();
                if head.contains_key(Status::GRPC_STATUS_DETAILS) { answer } else { named(refusal).into_http() }
            }
            _ => answer,
        }
    }
}

/// A body that ends with an error if it is not there in time.
pub(crate) struct Timed<B> {
    body: B,
    until: Pin<Box<Sleep>>,
}

impl<B> Timed<B> {
    /// The body, until then.
    pub(crate) fn new(body: B, until: Instant) -> Self {
        Self { body, until: Box::pin(sleep_until(until)) }
    }
}

impl<B> HttpBody for Timed<B>
where
    B: HttpBody<Data = Bytes, Error: Into<tower::BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = tower::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tower::BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(Box::new(status(&Error::Expired)))));
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
