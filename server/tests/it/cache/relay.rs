//! A relay between a server and its Redis. It can hold one kind of call, before Redis sees it or after, and can be cut.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::app::PATIENCE;

/// What a relay does with what it carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// It passes everything on.
    #[default]
    Open,
    /// It keeps what contains this text, and what comes after it.
    HoldsCall(String),
    /// It passes that on, and keeps the answer.
    HoldsAnswer(String),
    /// It breaks every connection, and takes none.
    Cut,
}

/// The relay.
pub struct Relay {
    pub address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    /// How many calls it has ever held.
    held: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// A relay to a server.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::Open));
        let (count, held) = watch::channel(0);
        let count = Arc::new(count);
        let mut tasks = JoinSet::new();
        let modes = Arc::clone(&mode);
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *modes.borrow() != Mode::Cut {
                    links.spawn(carry(client, server, modes.subscribe(), Arc::clone(&count)));
                }
            }
        });
        Self { address, mode, held, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Keeps calls of a script from Redis.
    pub fn hold_calls(&self, script: &redis::Script) {
        self.mode.send_replace(Mode::HoldsCall(script.get_hash().to_owned()));
    }

    /// Keeps the answers to calls of a script.
    pub fn hold_answers(&self, script: &redis::Script) {
        self.mode.send_replace(Mode::HoldsAnswer(script.get_hash().to_owned()));
    }

    /// Returns when a call is held that was not when `before` were.
    pub async fn holds_more_than(&self, before: usize) {
        let mut held = self.held.clone();
        tokio::time::timeout(PATIENCE, held.wait_for(|held| *held > before)).await.expect("nothing is held").unwrap();
    }

    /// How many calls it has ever held.
    pub fn held(&self) -> usize {
        *self.held.borrow()
    }

    /// Lets everything pass.
    pub fn open(&self) {
        self.mode.send_replace(Mode::Open);
    }

    /// Breaks every connection, with what is held on it.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, modes: watch::Receiver<Mode>, count: Arc<watch::Sender<usize>>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (answers, mut answering) = watch::channel(true);
    let mut call_modes = modes.clone();
    let calls = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let length = from_client.read(&mut bytes).await.unwrap_or(0);
            let call = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let mode = call_modes.borrow_and_update().clone();
            match mode {
                Mode::HoldsCall(script) if call.contains(&script) => {
                    count.send_modify(|held| *held += 1);
                    let passes = |mode: &Mode| *mode != Mode::HoldsCall(script.clone());
                    call_modes.wait_for(passes).await.unwrap();
                }
                Mode::HoldsAnswer(script) if call.contains(&script) => {
                    answers.send_replace(false);
                    count.send_modify(|held| *held += 1);
                }
                _ => {}
            }
            if length == 0 || *call_modes.borrow() == Mode::Cut || to_server.write_all(&bytes[..length]).await.is_err()
            {
                return;
            }
        }
    };
    let mut answer_modes = modes.clone();
    let answering = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let length = from_server.read(&mut bytes).await.unwrap_or(0);
            if !*answering.borrow_and_update() {
                answer_modes.wait_for(|mode| !matches!(mode, Mode::HoldsAnswer(_))).await.unwrap();
                answers.send_replace(true);
            }
            if length == 0 || to_client.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    let mut cut_modes = modes.clone();
    tokio::select! {
        () = calls => {}
        () = answering => {}
        _ = cut_modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}
