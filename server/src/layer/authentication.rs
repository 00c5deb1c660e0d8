//! Who may make a call. The lab asks for a token, or is closed; accounts are open to whoever reaches the port.

use http::Request;
use tonic::{Status, body::Body};
use zbl_proto::v1::lab_service_server;

use super::{Surround, method};
use crate::rpc::{LabAccess, status};

/// The door of the lab.
#[derive(Clone)]
pub(super) struct Authentication(pub(super) LabAccess);

impl Surround for Authentication {
    type Kept = ();

    fn before(&self, call: &mut Request<Body>) -> Result<(), Status> {
        if method::service_of(call.uri().path()) != lab_service_server::SERVICE_NAME {
            return Ok(());
        }
        self.0.check(call.headers()).map_err(|error| status(&error))
    }
}
