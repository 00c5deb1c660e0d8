//! Who may make a call: see `access.rs`. Health is told to everybody, since who asks for it is the machine that runs us.
//!
//! And what is a call: behind TLS browsers reach this port too, and let any web page post plain text to it without asking
//! first. What they ask about first is every content type of gRPC.

use http::{Method, Request, header::CONTENT_TYPE};
use tonic::{Status, body::Body};
use zbl_proto::v1::lab_service_server;

use super::{Surround, method};
use crate::{access::Access, error::Error, rpc::status};

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
        checked.and_then(|()| is_a_call(call)).map_err(|error| status(&error))
    }
}

fn is_a_call(call: &Request<Body>) -> Result<(), Error> {
    let of_grpc = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if call.method() == Method::POST && call.headers().get(CONTENT_TYPE).is_some_and(of_grpc) {
        return Ok(());
    }
    Err(Error::Malformed("a call is a POST with the content type application/grpc".to_owned()))
}
