//! Counts every call and times it, from its head to the last of its answer; there its span ends too.

use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use tonic::{Code, Status, body::Body};
use zbl_trace::Span;

use super::{
    Surround,
    method::{Counted, counted},
};
use crate::call::Call;

/// Counts and times.
#[derive(Clone)]
pub(super) struct Measure;

impl Surround for Measure {
    type Kept = Handling;

    fn before(&self, call: &mut Request<Body>) -> Result<Handling, Status> {
        let span = call.extensions().get().map(|call: &Call| call.span().clone());
        Ok(Handling::begin(counted(call.uri().path()), span))
    }

    fn after(handling: Handling, answer: Response<Body>) -> Response<Body> {
        // A refusal is all head.
        if answer.headers().contains_key(Status::GRPC_STATUS) {
            handling.end(answer.headers());
            return answer;
        }
        let mut handling = Some(handling);
        answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(handling) = handling.take()
                {
                    handling.end(trailers);
                }
                frame
            }))
        })
    }
}

/// A call under way. Dropped without an end, it was cut off by its caller or with its connection.
pub(super) struct Handling {
    counted: &'static Counted,
    span: Option<Span>,
    began: Instant,
    code: Code,
}

impl Handling {
    fn begin(counted: &'static Counted, span: Option<Span>) -> Self {
        counted.started.increment(1);
        Self { counted, span, began: Instant::now(), code: Code::Cancelled }
    }

    /// Ended, as these trailers say.
    fn end(mut self, trailers: &HeaderMap) {
        let status = trailers.get(Status::GRPC_STATUS);
        self.code = status.map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes()));
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.counted.handled(self.code).increment(1);
        self.counted.handling.record(self.began.elapsed().as_secs_f64());
        if let Some(span) = &self.span {
            span.end_call(self.code.into());
        }
    }
}
