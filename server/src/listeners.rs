//! The ports of the server, bound before anything else is started: a port in use should be the first thing said.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::config::Config;

/// The two bound ports. With port 0 in the configuration, these know the real one.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For HTTP.
    pub http: TcpListener,
}

/// Where the ports really are, which a configured port 0 does not tell.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another with {flag}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The flag that says which.
    pub flag: &'static str,
    /// What the system says.
    pub source: io::Error,
}

impl Listeners {
    /// Binds both ports.
    ///
    /// # Errors
    /// [`BindError`], for the first of them that is in use or not this machine's.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        Ok(Self {
            grpc: bind(config.grpc_addr, "--grpc-addr").await?,
            http: bind(config.http_addr, "--http-addr").await?,
        })
    }
}

impl Listeners {
    /// Where the ports really are.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses { grpc: self.grpc.local_addr()?, http: self.http.local_addr()? })
    }
}

pub(crate) async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, flag, source })
}
