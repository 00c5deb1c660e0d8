//! Calls at a time. A call takes room until its answer begins. Of a stream that follows it each item takes room of its own
//! (`rpc/deduct_stream.rs`), or it is one of the few that watch (`rpc/timeline.rs`, `rpc/follow.rs`). Those of health and
//! reflection, which whoever reaches the port may open, have room of their own until they end.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use tonic::{Status, body::Body};

use super::{Surround, method};
use crate::{
    limit::{Limits, Room},
    rpc::status,
};

/// Sheds what there is no room for.
#[derive(Clone)]
pub(super) struct Concurrency(pub(super) Arc<Limits>);

/// What a call takes up.
pub(super) enum Taken {
    /// Nothing that is counted here.
    Nothing,
    /// Room until its answer begins.
    UntilAnswered(#[expect(dead_code, reason = "held for its drop")] Room),
    /// Room until its answer ends.
    UntilEnded(Room),
}

impl Surround for Concurrency {
    type Kept = Taken;

    fn before(&self, call: &mut Request<Body>) -> Result<Taken, Status> {
        let path = call.uri().path();
        let taken = if method::is_limited(path) {
            self.0.enter().map(Taken::UntilAnswered)
        } else if method::is_stream_of_strangers(path) {
            self.0.watch_from_outside().map(Taken::UntilEnded)
        } else {
            Ok(Taken::Nothing)
        };
        taken.map_err(|error| status(&error))
    }

    fn after(taken: Taken, answer: Response<Body>) -> Response<Body> {
        match taken {
            Taken::UntilEnded(room) => answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    // It goes with the body.
                    let _held = &room;
                    frame
                }))
            }),
            Taken::Nothing | Taken::UntilAnswered(_) => answer,
        }
    }
}
