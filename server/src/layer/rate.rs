//! Calls a second, of everybody together. The items of a DeductStream are counted one by one where they are read.

use std::sync::Arc;

use http::Request;
use tonic::{Status, body::Body};

use super::{Surround, method};
use crate::{limit::Limits, rpc::status};

/// Refuses what comes too fast.
#[derive(Clone)]
pub(super) struct RateLimit(pub(super) Arc<Limits>);

impl Surround for RateLimit {
    type Kept = ();

    fn before(&self, call: &mut Request<Body>) -> Result<(), Status> {
        if !method::is_limited(call.uri().path()) {
            return Ok(());
        }
        self.0.call().map_err(|error| status(&error))
    }
}
