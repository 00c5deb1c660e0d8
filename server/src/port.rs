//! A port: connections as they come in, before anything is known of what they want. Owns how many there may be, how long
//! one may take to say what it wants, and TLS. What goes wrong with one connection ends that connection, never the port.

mod connection;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use metrics::{Counter, counter, gauge};
use tokio::{
    io::DuplexStream,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};
use zbl_client::Wire;

pub(crate) use self::connection::Connection;
use self::connection::Until;
use crate::tls::{Certificates, Protocols};

/// Connections that are ready and not taken yet: they are taken at once, so this is a hand-over and no queue.
const READY: usize = 16;

/// How long to wait when the system has no room for another connection: what there is must end first.
const PAUSE: Duration = Duration::from_secs(1);

/// What a port is opened with.
pub(crate) struct Settings {
    /// Its name in metrics and logs.
    pub(crate) name: &'static str,
    /// The most connections at a time; more are closed as soon as they are made.
    pub(crate) most: u32,
    /// How long one may take to say what it wants.
    pub(crate) patience: Duration,
    /// TLS, where it is spoken.
    pub(crate) tls: Option<(Certificates, Protocols)>,
    /// Becomes true when the server is to stop: who has said nothing by then is not waited for.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Makes connections to a port from within this process. They need no TLS: nobody else can make one.
#[derive(Clone, Debug)]
pub struct BackDoor(mpsc::Sender<DuplexStream>);

impl BackDoor {
    /// How many bytes may be under way in each direction: about what a socket holds.
    const PIPE: usize = 256 * 1024;

    /// Another connection.
    ///
    /// # Errors
    /// The port is closed.
    pub(crate) fn enter(&self) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(Self::PIPE);
        self.0.try_send(far).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(near)
    }
}

/// Opens a port: its connections, until their receiver is dropped, and a way in from this process.
pub(crate) fn open(listener: TcpListener, settings: Settings) -> (mpsc::Receiver<Connection>, BackDoor) {
    let (ready, taken) = mpsc::channel(READY);
    let (back_door, visitors) = mpsc::channel(READY);
    let port = Arc::new(Port {
        room: Arc::new(Semaphore::new(settings.most as usize)),
        full: counter!("connections_refused_total", "port" => settings.name, "cause" => "full"),
        failed: counter!("connections_refused_total", "port" => settings.name, "cause" => "handshake"),
        settings,
        ready,
    });
    tokio::spawn(port.accept(listener, visitors));
    (taken, BackDoor(back_door))
}

impl Settings {
    /// Ends when a connection has had the time to say what it wants.
    fn opening(&self) -> Until {
        let (patience, mut stopping) = (self.patience, self.stopping.clone());
        Box::pin(async move {
            let _ = timeout(patience, stopping.wait_for(|stopping| *stopping)).await;
        })
    }
}

struct Port {
    settings: Settings,
    room: Arc<Semaphore>,
    full: Counter,
    failed: Counter,
    ready: mpsc::Sender<Connection>,
}

impl Port {
    /// Takes connections for as long as somebody wants them.
    async fn accept(self: Arc<Self>, listener: TcpListener, mut visitors: mpsc::Receiver<DuplexStream>) {
        loop {
            tokio::select! {
                () = self.ready.closed() => return,
                Some(visitor) = visitors.recv() => {
                    let _ = self.ready.send(Connection::new(Box::new(visitor), None)).await;
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.welcome(stream, peer),
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        tracing::warn!(port = self.settings.name, "no room for another connection: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// Sees a connection through to where it can be served, in a task of its own.
    fn welcome(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            // Dropped, and so closed: a caller who is told at once can go elsewhere.
            self.full.increment(1);
            tracing::debug!(port = self.settings.name, %peer, "closed: there are {} connections", self.settings.most);
            return;
        };
        let port = Arc::clone(self);
        tokio::spawn(async move {
            match timeout(port.settings.patience, port.secured(stream)).await {
                Ok(Ok(wire)) => {
                    let room = Room::new(room, port.settings.name);
                    let connection = Connection::new(wire, Some((room, port.settings.opening())));
                    let _ = port.ready.send(connection).await;
                }
                Ok(Err(error)) => port.turn_away(peer, &error.to_string()),
                Err(_) => port.turn_away(peer, "it took too long"),
            }
        });
    }

    async fn secured(&self, stream: TcpStream) -> io::Result<Box<dyn Wire>> {
        // An answer must not wait for the next one to fill a packet.
        stream.set_nodelay(true)?;
        match &self.settings.tls {
            None => Ok(Box::new(stream)),
            Some((certificates, protocols)) => Ok(Box::new(certificates.acceptor(*protocols).accept(stream).await?)),
        }
    }

    fn turn_away(&self, peer: SocketAddr, why: &str) {
        self.failed.increment(1);
        tracing::debug!(port = self.settings.name, %peer, "the handshake failed: {why}");
    }
}

/// A connection's place among those there may be.
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
    port: &'static str,
}

impl Room {
    fn new(permit: OwnedSemaphorePermit, port: &'static str) -> Self {
        gauge!("connections", "port" => port).increment(1);
        Self { _permit: permit, port }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        gauge!("connections", "port" => self.port).decrement(1);
    }
}

/// Whether only the connection that was to be accepted is lost.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
