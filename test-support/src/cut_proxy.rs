//! A TCP proxy in front of a MySQL server that can cut the link around a COMMIT: before the server sees it, behind it,
//! when the server has committed and the client will never be told, or while it is on its way. It follows the packets on
//! the way to the server and changes none; what it does not cut, it passes on untouched. TLS and compression would hide
//! the COMMIT from it.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use crate::{Error, database::MysqlUrl};

/// More than any pool under test holds; further connections are closed at once.
const LINKS_MAX: usize = 256;
/// A command no longer than this is looked at: "COMMIT" in any dress, or one change with its COMMIT behind it.
const COMMIT_LENGTH_MAX: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server answers a COMMIT within a few flushes of its disk; a loaded machine with a slow disk needs more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const COM_QUERY: u8 = 0x03;
/// What stands before the text when the client can send query attributes and sends none.
const NO_QUERY_ATTRIBUTES: [u8; 2] = [0, 1];

/// On which side of a COMMIT the link is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never sees the COMMIT, and rolls back.
    BeforeCommit,
    /// The server commits and answers; the answer never arrives.
    BehindCommit,
    /// The client's side is lost while the COMMIT is on its way: the server keeps the transaction open, with its locks,
    /// and commits when [`CutProxy::release_held`] lets the COMMIT arrive. The test says when, for only the test knows
    /// who is to have met those locks by then.
    InFlight,
}

/// What happens to a connection that is made from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewConnections {
    /// It is passed on to the server.
    Pass,
    /// It is closed at once, as by a server that has gone.
    Refuse,
}

/// The proxy. It listens on a free loopback port; dropping it cuts everything and waits for its threads.
#[derive(Debug)]
pub struct CutProxy {
    upstream: MysqlUrl,
    address: SocketAddr,
    switch: Arc<Switch>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl CutProxy {
    /// Starts a proxy in front of the server that `upstream` (a `mysql://` URL) names.
    ///
    /// # Errors
    /// [`Error::Url`], or [`Error::System`] when the host has no address or no port is free.
    pub fn start(upstream: &str) -> Result<Self, Error> {
        let upstream = MysqlUrl::parse(upstream)?;
        let server = upstream.address()?;
        let doing = "opening the cutting proxy's port";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::system(doing))?;
        let address = listener.local_addr().map_err(Error::system(doing))?;
        let switch = Arc::new(Switch::default());
        let acceptor = {
            let switch = Arc::clone(&switch);
            thread::spawn(move || accept(&listener, server, &switch))
        };
        Ok(Self { upstream, address, switch, acceptor: Some(acceptor) })
    }

    /// Where the proxy listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a database behind the proxy, with the account of the upstream URL.
    pub fn url(&self, database: &str) -> String {
        self.upstream.with_address(self.address).with_database(database).to_string()
    }

    /// Cuts the links of the next `times` COMMITs, in place of what was armed before; 0 disarms.
    pub fn arm(&self, cut: Cut, times: u32) {
        self.switch.lock().armed = (times > 0).then_some((cut, times));
    }

    /// How many links were cut around a COMMIT since the start. Each is counted when its COMMIT comes,
    /// before its client can see it closed.
    pub fn cuts(&self) -> u32 {
        self.switch.lock().cuts
    }

    /// Lets every COMMIT that is held [`Cut::InFlight`] arrive, and returns how many of them the server has answered. By
    /// then they have taken effect, and their links are closed.
    pub fn release_held(&self) -> usize {
        // Taken out first: the links that this waits for need the switch.
        let held = std::mem::take(&mut self.switch.lock().held);
        held.into_iter().filter_map(|commit| commit.arrive().ok()).count()
    }

    /// Closes every live link, wherever it is, and returns how many there were. A COMMIT in flight never arrives then,
    /// and the server rolls back.
    pub fn drop_all(&self) -> usize {
        let state = self.switch.lock();
        state.links.values().for_each(Link::close);
        state.links.len()
    }

    /// Says what happens to new connections. To lose the backend altogether, refuse first and then drop all.
    pub fn set_new_connections(&self, new_connections: NewConnections) {
        self.switch.lock().new_connections = new_connections;
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.switch.lock().stopping = true;
        self.drop_all();
        // Wakes the acceptor, which then sees that it is to stop.
        let _ = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// What the test has set, shared with every link.
#[derive(Debug, Default)]
struct Switch(Mutex<State>);

#[derive(Debug)]
struct State {
    armed: Option<(Cut, u32)>,
    cuts: u32,
    new_connections: NewConnections,
    stopping: bool,
    links: HashMap<u64, Link>,
    links_made: u64,
    held: Vec<HeldCommit>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            armed: None,
            cuts: 0,
            new_connections: NewConnections::Pass,
            stopping: false,
            links: HashMap::new(),
            links_made: 0,
            held: Vec::new(),
        }
    }
}

impl Switch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a link in, unless it is refused.
    fn admit(&self, link: Link) -> Option<u64> {
        let mut state = self.lock();
        if state.stopping || state.new_connections == NewConnections::Refuse || state.links.len() >= LINKS_MAX {
            return None;
        }
        state.links_made += 1;
        let number = state.links_made;
        state.links.insert(number, link);
        Some(number)
    }

    /// The cut that the COMMIT at hand is to suffer; each is handed out once.
    fn take_cut(&self) -> Option<Cut> {
        let mut state = self.lock();
        let (cut, times) = state.armed.take()?;
        state.armed = (times > 1).then_some((cut, times - 1));
        Some(cut)
    }

    /// Counts a cut together with the COMMIT it holds back: whoever finds it counted can release it.
    fn count(&self, held: Option<HeldCommit>) {
        let mut state = self.lock();
        state.cuts += 1;
        state.held.extend(held);
    }
}

/// A COMMIT on its way to the server; the client that sent it is gone.
#[derive(Debug)]
struct HeldCommit {
    packet: Vec<u8>,
    server: TcpStream,
    /// Told when the server has answered and the link is closed; disconnected when the link ends without an answer.
    answered: mpsc::Receiver<()>,
}

impl HeldCommit {
    /// Lets it arrive, and waits for the server's answer, [`ANSWER_TIMEOUT`] at most.
    fn arrive(mut self) -> io::Result<()> {
        self.server.write_all(&self.packet)?;
        self.answered.recv_timeout(ANSWER_TIMEOUT).map_err(io::Error::other)
    }
}

/// The two sockets of a connection that is passed through.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: TcpStream,
}

impl Link {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { client: self.client.try_clone()?, server: self.server.try_clone()? })
    }

    fn close(&self) {
        // A side that is closed already is as it should be.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

/// Serves each connection on a thread of its own; all have ended when this returns.
fn accept(listener: &TcpListener, server: SocketAddr, switch: &Switch) {
    thread::scope(|scope| {
        for client in listener.incoming() {
            if switch.lock().stopping {
                return;
            }
            if let Ok(client) = client {
                // A link that ends in an error was cut, by the test or by one of its ends.
                scope.spawn(move || serve(client, server, switch).ok());
            }
        }
    });
}

/// Connects to the server and passes bytes both ways, until one side closes or the link is cut.
fn serve(client: TcpStream, server: SocketAddr, switch: &Switch) -> io::Result<()> {
    if switch.lock().new_connections == NewConnections::Refuse {
        return Ok(());
    }
    let link = Link { client, server: TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)? };
    link.client.set_nodelay(true)?;
    link.server.set_nodelay(true)?;
    let Some(number) = switch.admit(link.try_clone()?) else { return Ok(()) };
    let answer_is_lost = AtomicBool::new(false);
    let (tell_answered, answered) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let passed = pass_answers(&link, &answer_is_lost);
            link.close();
            if passed.is_ok() {
                // Only who releases a held COMMIT listens.
                let _ = tell_answered.send(());
            }
        });
        let held = pass_commands(&link, switch, &answer_is_lost)
            .and_then(|packet| Ok(HeldCommit { packet, server: link.server.try_clone()?, answered }));
        match held {
            Ok(held) => {
                switch.count(Some(held));
                let _ = link.client.shutdown(Shutdown::Both);
            }
            Err(_) => link.close(),
        }
    });
    switch.lock().links.remove(&number);
    Ok(())
}

/// Passes packets from the client to the server, and looks at each that could be a COMMIT. Returns the one that is to be
/// held; with an error the link is over.
fn pass_commands(link: &Link, switch: &Switch, answer_is_lost: &AtomicBool) -> io::Result<Vec<u8>> {
    let (mut client, mut server) = (&link.client, &link.server);
    loop {
        // Three bytes of length, little-endian, then the packet's number; a command begins at number 0.
        let mut packet = vec![0_u8; 4];
        client.read_exact(&mut packet)?;
        let length = u32::from_le_bytes([packet[0], packet[1], packet[2], 0]);
        let is_command = packet[3] == 0;
        if is_command && length as usize <= COMMIT_LENGTH_MAX {
            packet.resize(4 + length as usize, 0);
            client.read_exact(&mut packet[4..])?;
            match is_commit(&packet[4..]).then(|| switch.take_cut()).flatten() {
                Some(Cut::BeforeCommit) => {
                    switch.count(None);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                // Lost before the server can see the COMMIT, and so before it can answer.
                Some(Cut::BehindCommit) => {
                    switch.count(None);
                    answer_is_lost.store(true, Ordering::SeqCst);
                }
                Some(Cut::InFlight) => {
                    answer_is_lost.store(true, Ordering::SeqCst);
                    return Ok(packet);
                }
                None => {}
            }
            server.write_all(&packet)?;
        } else {
            server.write_all(&packet)?;
            io::copy(&mut client.take(length.into()), &mut server)?;
        }
    }
}

/// Passes bytes from the server to the client, until they are the answer that is to be lost; any other end is an error.
fn pass_answers(link: &Link, answer_is_lost: &AtomicBool) -> io::Result<()> {
    let (mut client, mut server) = (&link.client, &link.server);
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        let count = server.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answer_is_lost.load(Ordering::SeqCst) {
            return Ok(());
        }
        client.write_all(&buffer[..count])?;
    }
}

/// Whether a command packet's payload is the statement COMMIT, or several of which it is the last.
fn is_commit(payload: &[u8]) -> bool {
    let Some((&COM_QUERY, text)) = payload.split_first() else { return false };
    let text = text.strip_prefix(&NO_QUERY_ATTRIBUTES).unwrap_or(text);
    let end = text.iter().rposition(|byte| !byte.is_ascii_whitespace() && *byte != b';').map_or(0, |last| last + 1);
    let text = &text[..end];
    let last = text.rsplit(|byte| *byte == b';').next().unwrap_or(text);
    last.trim_ascii().eq_ignore_ascii_case(b"COMMIT")
}
