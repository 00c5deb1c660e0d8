//! Calls at a time. A call takes room until its answer begins. Of a stream that follows it each item takes room of its own
//! (`rpc/deduct_stream.rs`), or it is one of the few that watch (`rpc/timeline.rs`).

use std::sync::Arc;

use http::Request;
use tonic::{Status, body::Body};

use super::{Surround, method};
use crate::{
    limit::{Limits, Room},
    rpc::status,
};

/// Sheds what there is no room for.
#[derive(Clone)]
pub(super) struct Concurrency(pub(super) Arc<Limits>);

impl Surround for Concurrency {
    type Kept = Option<Room>;

    fn before(&self, call: &mut Request<Body>) -> Result<Option<Room>, Status> {
        if !method::is_limited(call.uri().path()) {
            return Ok(None);
        }
        self.0.enter().map(Some).map_err(|error| status(&error))
    }
}
