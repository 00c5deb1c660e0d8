//! A connection to the broker, kept: made in the background, declared upon, watched, and made again when it is lost.
//! Knows nothing of messages.

use std::{
    fmt,
    future::Future,
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties, Error, ErrorKind, Event, tcp::AMQPUriTcpExt, uri::AMQPUri,
};
use rand::Rng;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};
use url::Url;

use super::topology::Topology;

/// How long a connection may take to come about, the handshake and the queues included. A broker that has just begun
/// to listen is slow for a moment.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the broker may take to answer a question on a connection that stands.
const ANSWER: Duration = Duration::from_secs(5);

/// How often, in seconds, each side shows that it lives, unless the URL says otherwise (`?heartbeat=`). A silent broker
/// is given up after twice that; RabbitMQ advises against less than five.
const HEARTBEAT: u16 = 5;

/// How often a connection is looked at besides, should its end not have been told.
const LOOK: Duration = Duration::from_secs(1);

/// The pause before the first new attempt to connect, at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whether messages can be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Connected, and the queues are there.
    Up,
    /// Not so, or the broker takes no messages.
    Down {
        /// Why, and what to do where that is known.
        reason: String,
    },
}

/// What there is of a connection.
#[derive(Clone)]
enum Standing {
    /// The first attempt is under way.
    Opening,
    Up(Arc<Connection>),
    Down(String),
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => f.write_str("Opening"),
            Self::Up(_) => f.write_str("Up"),
            Self::Down(reason) => write!(f, "Down({reason})"),
        }
    }
}

/// Where to connect to, and under what name.
pub(super) struct Target {
    uri: AMQPUri,
    name: String,
}

impl Target {
    /// # Errors
    /// What is wrong with the URL, which is not repeated: it may hold a password.
    pub(super) fn new(url: &str, name: &str) -> Result<Self, String> {
        let mut uri: AMQPUri = url.parse().map_err(|error| format!("not an AMQP URL: {error}"))?;
        // Written `amqp://host/`, the default virtual host is meant, and not the one that has no name.
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        // The driver reads an IPv6 address as no host, and takes that for localhost.
        if let Some(host) = Url::parse(url).ok().as_ref().and_then(Url::host_str) {
            host.trim_matches(['[', ']']).clone_into(&mut uri.authority.host);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self { uri, name: name.to_owned() })
    }
}

/// A connection that is kept. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Link {
    standing: watch::Receiver<Standing>,
    keeper: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Link {
    /// Begins to connect.
    pub(super) fn open(target: Target, topology: Arc<Topology>) -> Self {
        let (tell, standing) = watch::channel(Standing::Opening);
        let keeper = tokio::spawn(keep(target, topology, tell)).abort_handle();
        Self { standing, keeper }
    }

    /// How it stands.
    pub(super) fn state(&self) -> LinkState {
        match &*self.standing.borrow() {
            Standing::Up(_) => LinkState::Up,
            Standing::Down(reason) => LinkState::Down { reason: reason.clone() },
            Standing::Opening => LinkState::Down { reason: "not connected to the broker yet".to_owned() },
        }
    }

    /// The connection. Waits only for the first attempt to come to an end.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, String> {
        let mut standing = self.standing.clone();
        match standing.wait_for(|now| !matches!(now, Standing::Opening)).await.as_deref() {
            Ok(Standing::Up(connection)) => Ok(Arc::clone(connection)),
            Ok(Standing::Down(reason)) => Err(reason.clone()),
            Ok(Standing::Opening) | Err(_) => Err("the connection to the broker is not kept any more".to_owned()),
        }
    }

    /// Waits for a connection, however long it takes.
    pub(super) async fn up(&self) -> Arc<Connection> {
        let mut standing = self.standing.clone();
        loop {
            if let Standing::Up(connection) = &*standing.borrow_and_update() {
                return Arc::clone(connection);
            }
            if standing.changed().await.is_err() {
                // Not while the link lives, and it is borrowed here.
                return std::future::pending().await;
            }
        }
    }
}

/// Connects, watches and connects again.
async fn keep(target: Target, topology: Arc<Topology>, tell: watch::Sender<Standing>) {
    let mut pause = Pause::new();
    loop {
        let reason = match connect(&target, &topology).await {
            Ok((connection, socket)) => {
                tracing::info!(connection = target.name, "connected to the broker");
                pause = Pause::new();
                let connection = Arc::new(connection);
                let reason = watch(&connection, &tell).await;
                socket.shut();
                reason
            }
            Err(reason) => reason,
        };
        let was_down = matches!(&*tell.borrow(), Standing::Down(before) if *before == reason);
        if !was_down {
            tracing::warn!(connection = target.name, "no connection to the broker: {reason}");
        }
        tell.send_replace(Standing::Down(reason));
        sleep(pause.next()).await;
    }
}

/// Makes a connection and the queues.
async fn connect(target: &Target, topology: &Topology) -> Result<(Connection, Socket), String> {
    let attempt = Attempt(Socket::default());
    let kept = attempt.0.clone();
    let properties = ConnectionProperties::default().with_connection_name(target.name.as_str().into());
    let runtime = lapin::runtime::default_runtime().map_err(|error| said(&error))?;
    let shaking_hands = Connection::connector(
        target.uri.clone(),
        runtime,
        async move |uri, runtime| {
            let connected = timeout(CONNECT, uri.connect_async(&runtime)).await;
            let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                kept.keep(plain.get_ref().as_fd().try_clone_to_owned()?.into());
            }
            Ok(stream)
        },
        properties,
    );
    let made = async {
        let connection = Box::pin(shaking_hands).await.map_err(|error| said(&error))?;
        topology.declare(&connection).await.map(|()| connection)
    };
    match timeout(CONNECT, made).await {
        Ok(Ok(connection)) => Ok((connection, attempt.succeeded())),
        Ok(Err(reason)) => Err(reason),
        Err(_) => Err(format!("the broker did not answer within {CONNECT:?}")),
    }
}

/// Tells of the connection until it is lost, and returns why it was.
async fn watch(connection: &Arc<Connection>, tell: &watch::Sender<Standing>) -> String {
    let mut events = Box::pin(connection.events_listener());
    tell.send_replace(Standing::Up(Arc::clone(connection)));
    loop {
        // The end of a channel is told here as well, and does not end the connection.
        let event = timeout(LOOK, events.next()).await;
        if !connection.status().connected() {
            return match event {
                Ok(Some(Event::Error(error))) => said(&error),
                _ => "the connection was lost".to_owned(),
            };
        }
        match event {
            Ok(Some(Event::ConnectionBlocked(reason))) => {
                let reason = format!("the broker takes no messages now ({reason}): give it memory or disk space");
                tracing::warn!("{reason}");
                tell.send_replace(Standing::Down(reason));
            }
            Ok(Some(Event::ConnectionUnblocked)) => {
                tell.send_replace(Standing::Up(Arc::clone(connection)));
            }
            Ok(None) => return "the connection was closed".to_owned(),
            _ => {}
        }
    }
}

/// Bounds the wait for an answer on a connection that stands.
pub(super) async fn answered<T>(answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(format!("the broker did not answer within {ANSWER:?}")))
}

/// What the driver or the broker said, and what to do where that is known.
pub(super) fn said(error: &Error) -> String {
    match error.kind() {
        ErrorKind::IOError(error) => format!("cannot reach the broker: {error}"),
        ErrorKind::ProtocolError(refusal) => {
            let text = refusal.get_message();
            match refusal.get_id() {
                403 => format!("the broker refuses the user ({text}): check user and password in --amqp-url"),
                530 => format!("the broker refuses the virtual host ({text}): check the path of --amqp-url"),
                _ => format!("the broker refused: {text}"),
            }
        }
        _ => error.to_string(),
    }
}

/// The socket under a connection, to end it by. The driver waits for ever for a handshake that does not go on (a broker
/// that is stopped), in a thread of its own: each attempt would leave one behind.
#[derive(Clone, Debug, Default)]
struct Socket(Arc<Mutex<Option<TcpStream>>>);

impl Socket {
    fn keep(&self, stream: TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    fn shut(&self) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It may have been closed by the other side.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// An attempt to connect. Dropped before it has succeeded, it ends the socket.
struct Attempt(Socket);

impl Attempt {
    fn succeeded(mut self) -> Socket {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.shut();
    }
}

/// The growing pause between attempts, drawn from half to the whole of it, so that servers which lost the same broker do
/// not come back all at once.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Pause {
    pub(crate) fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        half_to_whole(pause)
    }
}

/// A duration drawn from half to the whole of this one.
pub(super) fn half_to_whole(whole: Duration) -> Duration {
    rand::rng().random_range(whole / 2..=whole)
}
