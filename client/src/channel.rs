//! What calls go over: a channel on which each shows the token, where there is one, and has a span of its own, where there is
//! a tracer; it tells the server which.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service},
    transport::{Channel, Error},
};
use zbl_trace::{Span, Tracer};

use crate::credentials::Bearer;

/// A channel, and what is added to each call.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(crate) channel: Channel,
    pub(crate) bearer: Bearer,
    /// What begins their spans.
    pub(crate) tracer: Option<Tracer>,
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(bearer) = self.bearer.header() {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        let Some(tracer) = &self.tracer else { return Box::pin(self.channel.call(request)) };
        let calling = Calling(tracer.begin_call(request.uri().path().trim_start_matches('/').to_owned()));
        calling.0.context().write(request.headers_mut());
        let answer = self.channel.call(request);
        Box::pin(async move {
            let answer = match answer.await {
                Ok(answer) => answer,
                Err(error) => {
                    calling.end_with(Code::Unavailable);
                    return Err(error);
                }
            };
            // A refusal is all head.
            if answer.headers().contains_key(Status::GRPC_STATUS) {
                calling.end(answer.headers());
                return Ok(answer);
            }
            Ok(answer.map(|body| Body::new(Answered { body, calling })))
        })
    }
}

/// A call under way; dropped without an end, it was given up.
struct Calling(Span);

impl Calling {
    /// Ended, as these trailers say.
    fn end(&self, trailers: &HeaderMap) {
        let status = trailers.get(Status::GRPC_STATUS);
        self.end_with(status.map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes())));
    }

    fn end_with(&self, code: Code) {
        self.0.end_call(code.into());
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.end_with(Code::Cancelled);
    }
}

/// The body of an answer, whose trailers say how the call ended.
struct Answered {
    body: Body,
    calling: Calling,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.calling.end(trailers);
                }
            }
            Poll::Ready(Some(Err(status))) => self.calling.end_with(status.code()),
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
