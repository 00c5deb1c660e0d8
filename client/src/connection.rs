//! Connections to a server: made over TCP, with TLS where the address says https, or handed in by whoever holds the other
//! end. Owns how long connecting may take, and says what stood in the way.

use std::{fmt, io, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// A host that does not answer within this is down: loopback and data-centre links take milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What bytes go through.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection, however it was made.
pub type Connection = Box<dyn Wire>;

/// Makes connections whose other end is in this process.
pub type Inside = dyn Fn() -> io::Result<DuplexStream> + Send + Sync;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("cannot connect to {0}: {1}")]
    Tcp(String, #[source] io::Error),
    #[error("no secure connection to {0}: {1}")]
    Tls(String, #[source] io::Error),
    #[error("no connection to {0} within {CONNECT_TIMEOUT:?}")]
    Late(String),
}

/// The way to a server.
#[derive(Clone)]
pub(crate) struct Route {
    /// Host and port, or the name of what is in this process.
    pub(crate) authority: String,
    pub(crate) medium: Medium,
}

/// What the way goes through.
#[derive(Clone)]
pub(crate) enum Medium {
    Tcp,
    Tls(Arc<ClientConfig>, ServerName<'static>),
    Inside(Arc<Inside>),
}

impl Route {
    /// Connects.
    pub(crate) async fn dial(&self) -> Result<Connection, DialError> {
        let late = |_| DialError::Late(self.authority.clone());
        timeout(CONNECT_TIMEOUT, self.connect()).await.map_err(late)?
    }

    async fn connect(&self) -> Result<Connection, DialError> {
        let unreachable = |error| DialError::Tcp(self.authority.clone(), error);
        let tcp = async || {
            let stream = TcpStream::connect(&self.authority).await?;
            // A call must not wait for the next one to fill a packet.
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        match &self.medium {
            Medium::Tcp => Ok(Box::new(tcp().await.map_err(unreachable)?)),
            Medium::Inside(inside) => Ok(Box::new(inside().map_err(unreachable)?)),
            Medium::Tls(config, name) => {
                let stream = tcp().await.map_err(unreachable)?;
                let secured = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await;
                Ok(Box::new(secured.map_err(|error| DialError::Tls(self.authority.clone(), error))?))
            }
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let medium = match self.medium {
            Medium::Tcp => "TCP",
            Medium::Tls(..) => "TLS",
            Medium::Inside(_) => "this process",
        };
        write!(f, "{} by {medium}", self.authority)
    }
}
