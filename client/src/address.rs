//! Where a server is: `http://host:port` or `host:port`, and nothing else.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Uri};

/// A host that does not answer within this is down: loopback and data-centre links take milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a silent connection is probed, and how long the answer may take: a vanished host is noticed in seconds,
/// not when TCP gives up after many minutes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a text is not a server address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is not a server address: {problem}; give http://HOST:PORT or HOST:PORT, such as 127.0.0.1:50051")]
pub struct AddressError {
    /// What was given.
    pub address: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A channel to `address` that connects when it is first used, and again whenever the connection is lost.
pub(crate) fn channel(address: &str) -> Result<Channel, AddressError> {
    let endpoint = endpoint(address).map_err(|problem| AddressError { address: address.to_owned(), problem })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .connect_lazy())
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
    if uri.scheme_str() != Some("http") {
        return Err("only http is spoken");
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
            ("https://127.0.0.1:50051", "only http is spoken"),
            ("mysql://127.0.0.1:3306", "only http is spoken"),
            ("127.0.0.1:50051/x", "it has a path"),
            ("host name:1", "it is not a URL"),
        ] {
            let error = channel(address).expect_err(address);
            assert_eq!((error.problem, error.address.as_str()), (problem, address));
        }
    }
}
