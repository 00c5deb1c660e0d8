//! Who may make a call: see `access.rs`. Health is told to everybody, since who asks for it is the machine that runs us.

use http::Request;
use tonic::{Status, body::Body};
use zbl_proto::v1::lab_service_server;

use super::{Surround, method};
use crate::{access::Access, rpc::status};

/// The door.
#[derive(Clone)]
pub(super) struct Authentication(pub(super) Access);

impl Surround for Authentication {
    type Kept = ();

    fn before(&self, call: &mut Request<Body>) -> Result<(), Status> {
        let checked = match method::service_of(call.uri().path()) {
            tonic_health::pb::health_server::SERVICE_NAME => Ok(()),
            lab_service_server::SERVICE_NAME => self.0.check_lab(call.headers()),
            _ => self.0.check(call.headers()),
        };
        checked.map_err(|error| status(&error))
    }
}
