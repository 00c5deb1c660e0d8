//! Asks a running server whether it is serving, as an orchestrator would: `zbl-server healthcheck`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::time::timeout;
use tonic::transport::{Endpoint, Error as TransportError};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// How long the whole question may take: below the usual three seconds of a container's health check.
const DEADLINE: Duration = Duration::from_secs(2);

/// Why a server does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// Nobody answers at the address.
    #[error("nothing answers at {0}")]
    Unreachable(SocketAddr, #[source] TransportError),
    /// The answer is an error.
    #[error("{0} refuses the question")]
    Refused(SocketAddr, #[source] Box<tonic::Status>),
    /// The answer is another than SERVING.
    #[error("{0} says {1}")]
    NotServing(SocketAddr, &'static str),
    /// The answer does not come.
    #[error("{0} gave no answer within {seconds} s", seconds = DEADLINE.as_secs())]
    Silent(SocketAddr),
}

/// Succeeds if the server bound to `bind` says SERVING through `grpc.health.v1` within two seconds.
///
/// # Errors
/// [`Unhealthy`] names the address that was asked and what came back.
pub async fn probe(bind: SocketAddr) -> Result<(), Unhealthy> {
    let address = reachable(bind);
    timeout(DEADLINE, ask(address)).await.unwrap_or(Err(Unhealthy::Silent(address)))
}

async fn ask(address: SocketAddr) -> Result<(), Unhealthy> {
    let unreachable = |error| Unhealthy::Unreachable(address, error);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(unreachable)?;
    let mut client = HealthClient::new(endpoint.connect().await.map_err(unreachable)?);
    // The empty service name asks about the server as a whole.
    let answer = client.check(HealthCheckRequest { service: String::new() }).await;
    let status = answer.map_err(|status| Unhealthy::Refused(address, Box::new(status)))?.into_inner().status();
    if status == ServingStatus::Serving { Ok(()) } else { Err(Unhealthy::NotServing(address, status.as_str_name())) }
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
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic_health::server::{HealthReporter, health_reporter};

    use super::*;

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
        assert_eq!(error, format!("127.0.0.1:{} says NOT_SERVING", wildcard.port()));
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
