//! Deductions on their way to the queue: what is promised, when, and that it is kept. `table` asks the databases, `crashes` the
//! whole way with a broker, `answers` what callers are told.

mod answers;
mod crashes;
mod table;

use std::{sync::Arc, time::Duration};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use test_support::RabbitMq;
use uuid::Uuid;
use zbl_server::{
    account::{Change, Direction},
    app::outbox_table,
    gate::Gates,
    ledger::{Fate, Ledger, Resolve},
    outbox::{Outbox, Relay, Settings},
    queue::{self, Consumed, Consumer, Message, Queue},
    store::outbox::{Key, OutboxTable},
};

use crate::app::{Bench, Database, PATIENCE, config, deduction, until};

/// So long that it does not run out in a test.
const LONG: Duration = Duration::from_secs(600);

/// How long the broker may take to confirm, where a test waits for that to be over.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);

/// A service with an outbox and, where there is a broker, a queue of its own.
pub struct Scene {
    pub bench: Bench,
    pub table: Arc<dyn OutboxTable>,
    pub outbox: Arc<Outbox>,
    queue: Option<Queue>,
    /// The queue's name.
    name: String,
}

/// How a scene is set.
#[derive(Clone, Copy)]
pub struct Set {
    pub claim: Duration,
    pub limit: u32,
}

impl Default for Set {
    fn default() -> Self {
        Self { claim: LONG, limit: 1000 }
    }
}

impl Scene {
    /// On the broker that tests share.
    async fn open(database: &Database, set: Set) -> Self {
        let rabbit = tokio::task::spawn_blocking(|| RabbitMq::shared().unwrap()).await.unwrap();
        let scene = Self::on(database, &rabbit.url(), set).await;
        scene.queue().connected().await.unwrap();
        scene
    }

    async fn on(database: &Database, broker: &str, set: Set) -> Self {
        let name = format!("zbl.test.{}", Uuid::new_v4().simple());
        let settings = queue::Settings {
            url: broker.parse().unwrap(),
            name: name.clone(),
            limit: set.limit,
            wait: CONFIRM_WAIT,
            instance: "test".to_owned(),
        };
        Self { name, ..Self::with(database, Some(Queue::open(settings).unwrap()), set).await }
    }

    /// Another server on the same database and queue; its claims are as long as `set` says.
    async fn beside(&self, database: &Database, set: Set) -> Self {
        Self::with(database, self.queue.clone(), set).await
    }

    async fn with(database: &Database, queue: Option<Queue>, set: Set) -> Self {
        let bench = Bench::open(&database.url, &[]).await;
        let table = outbox_table(&config(&database.url, &[])).await.unwrap();
        let settings = Settings { claim: set.claim, limit: set.limit };
        let outbox = Outbox::new(Arc::clone(&bench.ledger), Arc::clone(&table), queue.clone(), settings);
        Self { bench, table, outbox: Arc::new(outbox), queue, name: String::new() }
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().unwrap()
    }

    fn relay(&self) -> Relay {
        Relay::of(&self.outbox, zbl_server::outbox::Patience::default()).unwrap()
    }

    fn gates(&self) -> &Arc<Gates> {
        &self.bench.gates
    }

    fn ledger(&self) -> &Arc<Ledger> {
        &self.bench.ledger
    }

    async fn fate(&self, change: Change) -> Fate {
        self.ledger().fate(change.user_id, change.request_id, Resolve::Look).await.unwrap()
    }

    /// Makes what is in the queue as a worker does: so many messages, and no more.
    async fn work(&self, expected: usize) -> Vec<Message> {
        let mut consumer = self.queue().consume(100).unwrap();
        let mut made = Vec::new();
        let working = async {
            while made.len() < expected {
                made.extend(self.work_one(&mut consumer).await);
            }
        };
        tokio::time::timeout(PATIENCE, working).await.expect("there are not as many");
        // What it was given beyond that goes back.
        consumer.stop().await;
        self.ready(0).await;
        made
    }

    async fn work_one(&self, consumer: &mut Consumer) -> Option<Message> {
        let Consumed::Delivery(delivery) = consumer.next().await else { return None };
        let message = delivery.decoded.clone().unwrap();
        let Message { user_id, request_id, amount, .. } = message;
        let change = Change { user_id, request_id, amount, direction: Direction::Deduct };
        self.ledger().apply(change, None).await.unwrap();
        self.outbox.settled(key(change));
        delivery.ack().await;
        Some(message)
    }

    /// Waits until the broker counts so many messages. Its figures come a moment after what they count.
    async fn ready(&self, expected: u64) {
        until("the queue is as long as that", async || self.queue().depths().await.unwrap().ready == expected).await;
    }

    /// How many rows the table has.
    fn rows(&self, database: &Database) -> usize {
        rows(database, "SELECT request_id FROM deduction_outbox")
    }

    /// How many of them say this.
    fn in_state(&self, database: &Database, state: &str) -> usize {
        rows(database, &format!("SELECT request_id FROM deduction_outbox WHERE state = '{state}'"))
    }
}

pub fn key(change: Change) -> Key {
    Key { user_id: change.user_id, request_id: change.request_id }
}

/// How many rows a question has.
fn rows(database: &Database, sql: &str) -> usize {
    use diesel::RunQueryDsl as _;
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
    }
    let sql = format!("SELECT COUNT(*) AS count FROM ({sql}) AS rows_of");
    match database.url.strip_prefix("sqlite://") {
        Some(path) => {
            let mut connection = SqliteConnection::establish(path).unwrap();
            connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
            let found: Count = diesel::sql_query(sql).get_result(&mut connection).unwrap();
            found.count.try_into().unwrap()
        }
        None => test_support::query(&database.url, &sql).unwrap()[0][0].parse().unwrap(),
    }
}

/// Runs statements past the service, as another program does.
fn execute(database: &Database, sql: &str) {
    match database.url.strip_prefix("sqlite://") {
        Some(path) => {
            let mut connection = SqliteConnection::establish(path).unwrap();
            connection.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).unwrap();
        }
        None => drop(test_support::query(&database.url, sql).unwrap()),
    }
}

/// What another program writes to have a deduction made.
fn another_programs(database: &Database, change: Change) -> String {
    let amount =
        if database.url.starts_with("sqlite") { change.amount.minor().to_string() } else { change.amount.to_string() };
    format!(
        "INSERT INTO deduction_outbox (user_id, request_id, amount) VALUES ({}, X'{}', {amount})",
        change.user_id,
        change.request_id.simple()
    )
}

/// A deduction of a new account with 1000.00.
async fn ordered(scene: &Scene) -> Change {
    deduction(scene.bench.account("1000.00").await)
}
