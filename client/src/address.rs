//! Where a server is: `http://host:port`, `https://host:port` or `host:port`, and nothing else.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::{
    connection::{Medium, Route},
    credentials::{Credentials, CredentialsError},
};

/// How often a silent connection is probed, and how long the answer may take: a vanished host is noticed in seconds,
/// not when TCP gives up after many minutes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a text is not a server address, or not with these credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address:?} is not a server address: {problem}; give http://HOST:PORT, https://HOST:PORT or HOST:PORT, such as 127.0.0.1:50051"
)]
pub struct AddressError {
    /// What was given.
    pub address: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A server, and the way there.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    endpoint: Endpoint,
    pub(crate) route: Route,
}

impl Server {
    /// The server at an address.
    pub(crate) fn at(address: &str, credentials: &Credentials) -> Result<Self, AddressError> {
        let wrong = |problem: &str| AddressError { address: address.to_owned(), problem: problem.to_owned() };
        let endpoint = endpoint(address).map_err(wrong)?;
        let uri = endpoint.uri();
        let medium = if uri.scheme_str() == Some("https") {
            let tls = credentials.tls(uri.host().unwrap_or_default());
            let (config, name) = tls.map_err(|error: CredentialsError| wrong(&error.to_string()))?;
            Medium::Tls(config, name)
        } else if credentials.are_for_tls() {
            return Err(wrong("it is not encrypted, and certificates are given"));
        } else {
            Medium::Tcp
        };
        Ok(Self { route: Route { authority: authority(address).to_owned(), medium }, endpoint })
    }

    /// The server at the other end of connections that are handed in.
    pub(crate) fn inside(name: &'static str, route: Route) -> Self {
        Self { endpoint: Endpoint::from_static(name), route }
    }

    /// A channel that connects when it is first used, and again whenever the connection is lost.
    pub(crate) fn channel(&self) -> Channel {
        let route = self.route.clone();
        let dial = service_fn(move |_: Uri| {
            let route = route.clone();
            async move { route.dial().await.map(TokioIo::new) }
        });
        let endpoint = self.endpoint.clone();
        endpoint
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .connect_with_connector_lazy(dial)
    }

    /// Its scheme, host and port.
    pub(crate) fn uri(&self) -> &Uri {
        self.endpoint.uri()
    }
}

/// The host and port of an address that is one.
pub(crate) fn authority(address: &str) -> &str {
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    bare.strip_suffix('/').unwrap_or(bare)
}

fn endpoint(address: &str) -> Result<Endpoint, &'static str> {
    if address.is_empty() {
        return Err("it is empty");
    }
    let text = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let uri: Uri = text.parse().map_err(|_| "it is not a URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("only http and https are spoken");
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("the host is missing");
    }
    match uri.port_u16() {
        None => return Err("the port is missing or not a number up to 65535"),
        Some(0) => return Err("port 0 cannot be connected to"),
        Some(_) => {}
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("it has a path");
    }
    Endpoint::from_shared(text).map_err(|_| "it is not a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(address: &str) -> Result<Server, AddressError> {
        Server::at(address, &Credentials::default())
    }

    #[tokio::test]
    async fn takes_urls_and_bare_addresses() {
        for address in
            ["127.0.0.1:50051", "http://127.0.0.1:50051", "http://localhost:1/", "[::1]:50051", "db-1.local:65535"]
        {
            assert!(channel(address).is_ok(), "{address:?}");
        }
    }

    #[tokio::test]
    async fn names_what_is_wrong() {
        for (address, problem) in [
            ("", "it is empty"),
            ("127.0.0.1", "the port is missing or not a number up to 65535"),
            ("127.0.0.1:", "the port is missing or not a number up to 65535"),
            ("127.0.0.1:99999", "the port is missing or not a number up to 65535"),
            ("127.0.0.1:0", "port 0 cannot be connected to"),
            (":50051", "the host is missing"),
            ("mysql://127.0.0.1:3306", "only http and https are spoken"),
            ("127.0.0.1:50051/x", "it has a path"),
            ("host name:1", "it is not a URL"),
        ] {
            let error = channel(address).expect_err(address);
            assert_eq!((error.problem.as_str(), error.address.as_str()), (problem, address));
        }
    }
}
