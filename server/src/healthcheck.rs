//! Asks a running server whether it is serving, as an orchestrator would: `zbl-server healthcheck`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::Args;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::transport::{Endpoint, Error as TransportError, Uri};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tower::service_fn;
use zbl_client::{Client, ConnectionFlags, FlagsError};

use crate::config::Config;

/// How long the whole question may take: below the usual three seconds of a container's health check.
const DEADLINE: Duration = Duration::from_secs(2);

/// What to ask, and how to get there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Question {
    /// The server, as http://HOST:PORT or https://HOST:PORT; --grpc-addr when left out, by https if --tls-cert is set
    #[arg(long, value_name = "ADDR")]
    addr: Option<String>,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// Why a server does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It cannot be asked like this.
    #[error(transparent)]
    Flags(#[from] FlagsError),
    /// Nobody answers at the address, or not as who they should be.
    #[error("nothing answers at {0}")]
    Unreachable(String, #[source] TransportError),
    /// The answer is an error.
    #[error("{0} refuses the question")]
    Refused(String, #[source] Box<tonic::Status>),
    /// The answer is another than SERVING.
    #[error("{0} says {1}")]
    NotServing(String, &'static str),
    /// The answer does not come.
    #[error("{0} gave no answer within {seconds} s", seconds = DEADLINE.as_secs())]
    Silent(String),
}

impl Question {
    /// Succeeds if the server, or the one that this configuration would start, says SERVING through `grpc.health.v1`
    /// within two seconds.
    ///
    /// # Errors
    /// [`Unhealthy`] names the address that was asked and what came back.
    pub async fn ask(&self, config: &Config) -> Result<(), Unhealthy> {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let address = self.addr.clone().unwrap_or_else(|| format!("{scheme}://{}", reachable(config.grpc_addr)));
        let client = self.connection.client(&address)?;
        timeout(DEADLINE, asked(address.clone(), client)).await.unwrap_or(Err(Unhealthy::Silent(address)))
    }
}

async fn asked(address: String, client: Client) -> Result<(), Unhealthy> {
    let unreachable = |error| Unhealthy::Unreachable(address.clone(), error);
    let endpoint = Endpoint::from(client.uri().clone());
    let dial = service_fn(move |_: Uri| {
        let client = client.clone();
        async move { client.dial().await.map(TokioIo::new) }
    });
    let mut client = HealthClient::new(endpoint.connect_with_connector(dial).await.map_err(unreachable)?);
    // The empty service name asks about the server as a whole.
    let answer = client.check(HealthCheckRequest { service: String::new() }).await;
    let answer = answer.map_err(|status| Unhealthy::Refused(address.clone(), Box::new(status)))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(Unhealthy::NotServing(address, other.as_str_name())),
    }
}

/// The address to call a server at: a wildcard bind is called on its own family's loopback.
#[must_use]
pub fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, path::Path};

    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic_health::server::{HealthReporter, health_reporter};

    use super::*;
    use crate::cli::Invocation;

    async fn probe(bind: SocketAddr) -> Result<(), Unhealthy> {
        let words = ["zbl-server".to_owned(), format!("--grpc-addr={bind}")].map(OsString::from);
        let config = Invocation::parse(words, &|_| None, Path::new("/nowhere")).unwrap().config;
        Question::default().ask(&config).await
    }

    async fn serve() -> (SocketAddr, HealthReporter) {
        let (reporter, service) = health_reporter();
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (address, reporter)
    }

    #[tokio::test]
    async fn serving_is_healthy_and_the_rest_is_not() {
        let (wildcard, reporter) = serve().await;
        probe(wildcard).await.unwrap();
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        let error = probe(wildcard).await.expect_err("not serving").to_string();
        assert_eq!(error, format!("http://127.0.0.1:{} says NOT_SERVING", wildcard.port()));
    }

    #[tokio::test]
    async fn an_empty_port_is_unhealthy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(probe(address).await, Err(Unhealthy::Unreachable(..))));
    }

    #[tokio::test]
    async fn a_port_that_never_answers_is_unhealthy() {
        // Connections wait in the backlog; nobody accepts them.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::time::pause();
        assert!(matches!(probe(address).await, Err(Unhealthy::Silent(_))));
    }

    #[test]
    fn wildcards_are_asked_on_loopback() {
        for (bind, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(reachable(bind.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
