//! An application under test, over each store that there is, called directly or over the wire.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use tempfile::TempDir;
use test_support::Redis;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;
use zbl_proto::v1::{account_service_client::AccountServiceClient, lab_service_client::LabServiceClient};
use zbl_server::{
    account::{Change, Direction, Entry, Money},
    app::{self, App},
    cli::Invocation,
    config::Config,
    gate::Gates,
    healthcheck::reachable,
    ledger::Ledger,
    listeners::Listeners,
    timeline::{Event, Race, Span},
};

/// How long a condition may take to come true; it is waited for, never assumed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A database for one test.
pub struct Database {
    pub url: String,
    /// Removed with the test.
    _directory: Option<TempDir>,
}

impl Database {
    /// An empty SQLite file.
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite://{}", directory.path().join("zbl.db").display()), _directory: Some(directory) }
    }

    /// An empty database on the shared MariaDB, or on the server given for the suite.
    pub fn mysql() -> Self {
        Self { url: test_support::fresh_database().unwrap(), _directory: None }
    }

    /// One of each kind.
    pub fn each() -> [Self; 2] {
        [Self::sqlite(), Self::mysql()]
    }
}

/// Said among the command-line words, there is no Redis.
pub const WITHOUT_REDIS: &str = "--redis-url=";

/// A configuration from command-line words, with the shared Redis unless they name another or none.
pub fn config(url: &str, words: &[&str]) -> Config {
    let mut all = vec!["zbl-server", "--demo-account=false", "--database-url", url];
    let [url, nodes] = &*SHARED_REDIS;
    if !words.contains(&WITHOUT_REDIS) {
        all.push(nodes);
        if !words.contains(&"--redis-url") {
            // The cache is told, but not read from, and nothing goes on in the background.
            all.extend([url.as_str(), "--cache=false"]);
        }
    }
    // Most tests of outages look at what lies behind the breakers.
    if !words.iter().any(|word| word.starts_with("--breaker")) {
        all.push("--breaker-least=1000000");
    }
    // Its reads would be counted with those that tests count.
    if !words.iter().any(|word| word.starts_with("--reconcile-every")) {
        all.push("--reconcile-every=0s");
    }
    if !words.iter().any(|word| word.starts_with("--project-every")) {
        all.push("--project-every=0s");
    }
    all.extend(words);
    Invocation::parse(all.into_iter().map(Into::into), &|_| None, Path::new("/nowhere")).unwrap().config
}

/// The Redis servers that tests share, as command-line words: one, and three for redlock.
static SHARED_REDIS: LazyLock<[String; 2]> = LazyLock::new(|| {
    static NODES: LazyLock<[Redis; 3]> = LazyLock::new(|| [(); 3].map(|()| Redis::start().unwrap()));
    let nodes = NODES.each_ref().map(Redis::url).join(",");
    [format!("--redis-url={}", Redis::shared().unwrap().url()), format!("--redlock-urls={nodes}")]
});

/// A ledger with gates.
pub struct Bench {
    pub ledger: Arc<Ledger>,
    pub gates: Arc<Gates>,
}

/// An application and its insides.
async fn application(url: &str, words: &[&str]) -> (App, Bench) {
    let gates = Arc::new(Gates::default());
    let app = App::with_gates(config(url, words), Some(Arc::clone(&gates))).await.unwrap();
    let ledger = Arc::clone(app.ledger());
    (app, Bench { ledger, gates })
}

impl Bench {
    pub async fn open(url: &str, words: &[&str]) -> Self {
        application(url, words).await.1
    }

    /// A new account.
    pub async fn account(&self, opening: &str) -> i64 {
        self.ledger.open(0, money(opening), Uuid::new_v4()).await.unwrap().user_id
    }

    pub async fn balance(&self, user_id: i64) -> Money {
        self.ledger.state(user_id).await.unwrap().balance
    }

    pub async fn journal(&self, user_id: i64) -> Vec<Entry> {
        self.ledger.entries(user_id, 0, 1000).await.unwrap()
    }

    /// The spans of one request, in order.
    pub fn spans(&self, request_id: Uuid) -> Vec<Span> {
        let of_request = |event| match event {
            Event::Span(span) if span.request_id == request_id => Some(span),
            _ => None,
        };
        self.events().into_iter().filter_map(of_request).collect()
    }

    /// The races of one account.
    pub fn races(&self, user_id: i64) -> Vec<Race> {
        let of_user = |event| match event {
            Event::Race(race) if race.user_id == user_id => Some(race),
            _ => None,
        };
        self.events().into_iter().filter_map(of_user).collect()
    }

    fn events(&self) -> Vec<Event> {
        self.ledger.bench().timeline.retained(0, 0).map(|(_, event)| event).collect()
    }
}

/// An application that serves on ports of its own.
pub struct Served {
    pub bench: Bench,
    /// Where gRPC is answered.
    pub grpc: SocketAddr,
    /// Where HTTP is answered.
    pub http: SocketAddr,
    channel: Channel,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), app::Error>>,
}

impl Served {
    /// Serves on loopback.
    pub async fn start(url: &str, words: &[&str]) -> Self {
        Self::bound_to(Ipv4Addr::LOCALHOST.into(), url, words).await
    }

    /// Serves gRPC on an address of this machine that includes loopback.
    pub async fn bound_to(address: IpAddr, url: &str, words: &[&str]) -> Self {
        let (app, bench) = application(url, words).await;
        let listeners = Listeners {
            grpc: TcpListener::bind((address, 0)).await.unwrap(),
            http: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
        };
        let bound = listeners.addresses().unwrap();
        let grpc = reachable(bound.grpc);
        let channel = Endpoint::from_shared(format!("http://{grpc}")).unwrap().connect_lazy();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(app.serve(listeners, async { drop(stopped.await) }));
        Self { bench, grpc, http: bound.http, channel, stop: Some(stop), serving }
    }

    /// The connection that every client of this server shares.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn account(&self) -> AccountServiceClient<Channel> {
        AccountServiceClient::new(self.channel())
    }

    pub fn lab(&self) -> LabServiceClient<Channel> {
        LabServiceClient::new(self.channel())
    }

    /// Asks the server to stop.
    pub fn ask_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub fn is_serving(&self) -> bool {
        !self.serving.is_finished()
    }

    /// Waits until the server, asked to stop, has stopped.
    pub async fn stopped(self) {
        timeout(PATIENCE, self.serving).await.expect("the server does not stop").unwrap().unwrap();
    }
}

pub fn money(text: &str) -> Money {
    Money::parse_signed(text).unwrap()
}

/// A deduction of 10.00.
pub fn deduction(user_id: i64) -> Change {
    Change { user_id, request_id: Uuid::new_v4(), direction: Direction::Deduct, amount: money("10.00") }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}
