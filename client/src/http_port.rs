//! A server's HTTP port, for those who speak HTTP/1.1 there themselves: how to connect, and what to show.

use std::sync::Arc;

use http::HeaderValue;

use crate::{
    AddressError, Connection, Credentials, Error,
    address::Server,
    connection::{Medium, Route},
    credentials::Bearer,
};

/// The protocol that is asked for behind TLS.
const ALPN: &[u8] = b"http/1.1";

/// The HTTP port of a server.
#[derive(Clone, Debug)]
pub struct HttpPort {
    address: String,
    route: Route,
    bearer: Bearer,
}

impl HttpPort {
    /// The port at `http://host:port`, `https://host:port` or `host:port`.
    ///
    /// # Errors
    /// [`AddressError`], also where the address and the credentials do not go together.
    pub fn at(address: &str, credentials: &Credentials) -> Result<Self, AddressError> {
        let mut route = Server::at(address, credentials)?.route;
        if let Medium::Tls(config, _) = &mut route.medium {
            Arc::make_mut(config).alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(Self { address: address.to_owned(), route, bearer: credentials.bearer().clone() })
    }

    /// Connects.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn dial(&self) -> Result<Connection, Error> {
        self.route.dial().await.map_err(Error::lost)
    }

    /// The address as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The host and port of the address, as a request names them.
    pub fn authority(&self) -> &str {
        &self.route.authority
    }

    /// The `authorization` of requests, where there is a token.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.bearer.header()
    }
}
