//! The worker on a real RabbitMQ: what was accepted is made once or refused for good, whatever is delivered twice, cut off, locked or
//! away. `letters` is about what was laid aside, `process` about the program.

mod letters;
mod process;
mod served;

use std::sync::Arc;

use chrono::Utc;
use test_support::{MariaDb, RabbitMq};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use uuid::Uuid;
use zbl_server::{
    account::{Change, EntryKind},
    app::App,
    dead_letters::DeadLetters,
    gate::{Gates, Point},
    ledger::{Fate, Resolve},
    outbox::Accepted,
    queue::{Destination, Message, Published, Queue},
    store::outbox::Key,
    strategy,
    timeline::Phase,
    worker::{Hands, Settings, Worker},
};
use zbl_trace::{Ratio, Tracer};

use crate::app::{Bench, Database, PATIENCE, config, deduction, money, until};

/// A service with a queue of its own on the broker that tests share.
pub struct Scene {
    pub bench: Bench,
    app: App,
    name: String,
}

/// A worker at work.
pub struct Working {
    stop: watch::Sender<bool>,
    hands: Hands,
    task: JoinHandle<()>,
}

pub async fn rabbit() -> String {
    tokio::task::spawn_blocking(|| RabbitMq::shared().unwrap().url()).await.unwrap()
}

impl Scene {
    pub async fn open(url: &str, words: &[&str]) -> Self {
        let (broker, name) = (rabbit().await, format!("zbl.test.{}", Uuid::new_v4().simple()));
        let words = [words, &["--amqp-url", &broker, "--queue-name", &name]].concat();
        let gates = Arc::new(Gates::default());
        let app = App::with_gates(config(url, &words), Some(Arc::clone(&gates))).await.unwrap();
        let bench = Bench { ledger: Arc::clone(app.ledger()), gates };
        let scene = Self { bench, app, name };
        scene.queue().connected().await.unwrap();
        scene
    }

    pub fn queue(&self) -> &Queue {
        self.app.outbox().queue().unwrap()
    }

    pub fn letters(&self) -> DeadLetters {
        DeadLetters::of(&self.bench.ledger, self.app.outbox()).unwrap()
    }

    /// Sets a worker to work, that tries everything so often.
    pub fn work(&self, attempts: u32) -> Working {
        let settings = Settings { prefetch: 256, attempts, grace: PATIENCE, instance: "test".to_owned() };
        let tracer = Tracer::unrecorded(Ratio::ALL);
        let (ledger, outbox) = (Arc::clone(&self.bench.ledger), Arc::clone(self.app.outbox()));
        let worker = Worker::new(ledger, outbox, self.queue().clone(), tracer, settings).unwrap();
        let (stop, stopping) = watch::channel(false);
        Working { stop, hands: worker.hands(), task: tokio::spawn(worker.run(stopping)) }
    }

    pub async fn accept(&self, change: Change, strategy: Option<&str>) -> Accepted {
        let strategy = strategy.map(|name| strategy::find(name).unwrap());
        self.app.outbox().accept(change, strategy).await.unwrap()
    }

    /// Puts a message into the queue that no call has recorded.
    pub async fn publish(&self, change: Change) {
        assert_eq!(self.queue().publish(&message(change), Destination::Main).await, Published::Confirmed);
    }

    pub async fn fate(&self, change: Change) -> Fate {
        self.bench.ledger.fate(change.user_id, change.request_id, Resolve::Look).await.unwrap()
    }

    pub async fn until_made(&self, change: Change) {
        until("it is made", async || matches!(self.fate(change).await, Fate::Journaled(_))).await;
    }

    /// Waits until the broker has nothing more to deliver, nothing is in hand, and as many are laid aside.
    pub async fn until_idle(&self, working: &Working, dead: u64) {
        until("everything is decided", async || {
            let depths = self.queue().depths().await.unwrap();
            (depths.ready, depths.retrying, depths.dead, working.hands.in_hand()) == (0, 0, dead, 0)
        })
        .await;
    }

    pub async fn deductions(&self, user_id: i64) -> usize {
        self.bench.journal(user_id).await.iter().filter(|entry| entry.kind == EntryKind::Deduct).count()
    }
}

impl Working {
    pub async fn stop(self) {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.task).await.expect("the worker does not stop").unwrap();
    }

    /// Ends it as its process's death would: whatever it has in hand is dropped where it is.
    pub async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

pub fn message(Change { user_id, request_id, amount, .. }: Change) -> Message {
    Message {
        user_id,
        request_id,
        amount,
        strategy: String::new(),
        accepted_at: Utc::now().naive_utc(),
        attempts: 0,
        history: Vec::new(),
        again: false,
        traceparent: None,
        reason: None,
    }
}

pub fn key(Change { user_id, request_id, .. }: Change) -> Key {
    Key { user_id, request_id }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_twice_is_made_once() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &[]).await;
        let user_id = scene.bench.account("1000.00").await;
        let change = deduction(user_id);
        assert_eq!(scene.accept(change, None).await, Accepted::Now);
        scene.publish(change).await;
        let working = scene.work(3);
        scene.until_made(change).await;
        scene.until_idle(&working, 0).await;
        assert_eq!((scene.bench.balance(user_id).await, scene.deductions(user_id).await), (money("990.00"), 1));
        until("its row is gone", async || scene.app.outbox().row_of(key(change)).await.unwrap().is_none()).await;
        working.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_between_commit_and_acknowledgement_has_made_it_once() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &[]).await;
        let user_id = scene.bench.account("1000.00").await;
        let change = deduction(user_id);
        scene.accept(change, Some("atomic")).await;
        let script = scene.bench.gates.script(change.request_id, &[Point::Answer]);
        let working = scene.work(3);
        script.arrived().await;
        assert_eq!(scene.bench.balance(user_id).await, money("990.00"), "it is committed");
        working.crash().await;
        script.release();
        until("it is the broker's again", async || scene.queue().depths().await.unwrap().ready == 1).await;
        let working = scene.work(3);
        scene.until_idle(&working, 0).await;
        assert_eq!((scene.bench.balance(user_id).await, scene.deductions(user_id).await), (money("990.00"), 1));
        working.stop().await;
    }
}

/// Fails without the VOID: the money that came in between would be taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final_though_money_comes_in_before_it_is_delivered_again() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &[]).await;
        let user_id = scene.bench.account("5.00").await;
        let change = deduction(user_id);
        scene.accept(change, None).await;
        let working = scene.work(3);
        until("it fails", async || matches!(scene.fate(change).await, Fate::Failed(_))).await;
        let Fate::Failed(why) = scene.fate(change).await else { panic!("it had failed") };
        assert_eq!(why.reason, "INSUFFICIENT_BALANCE", "{why:?}");
        let deposit = Change { direction: zbl_server::account::Direction::Deposit, ..deduction(user_id) };
        scene.bench.ledger.apply(deposit, None).await.unwrap();
        scene.publish(change).await;
        scene.until_idle(&working, 0).await;
        assert_eq!(scene.bench.balance(user_id).await, money("15.00"));
        assert!(matches!(scene.fate(change).await, Fate::Failed(_)));
        working.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_not_there_is_a_refusal() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &[]).await;
        let change = deduction(4711);
        scene.accept(change, None).await;
        let working = scene.work(3);
        until("it fails", async || matches!(scene.fate(change).await, Fate::Failed(_))).await;
        scene.until_idle(&working, 0).await;
        working.stop().await;
    }
}

/// Nothing of it is counted, and nothing goes round through the broker.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_everything_waits() {
    let mut server = MariaDb::start().unwrap();
    server.create_database("zbl").unwrap();
    // With the breaker, which half of them meet.
    let words = ["--pool-wait", "1s", "--settle-timeout", "1s", "--operation-timeout", "1s", "--breaker-least", "10"];
    let scene = Scene::open(&server.url("zbl"), &words).await;
    let user_id = scene.bench.account("1000.00").await;
    for _ in 0..50 {
        scene.accept(deduction(user_id), None).await;
    }
    server.kill().unwrap();
    // One attempt is all there is: any that was counted would lay them aside.
    let working = scene.work(1);
    until("all are held", async || working.hands.held() == 50).await;
    let depths = scene.queue().depths().await.unwrap();
    assert_eq!((depths.retrying, depths.dead), (0, 0));
    server.restart().unwrap();
    scene.until_idle(&working, 0).await;
    assert_eq!((scene.bench.balance(user_id).await, scene.deductions(user_id).await), (money("500.00"), 50));
    working.stop().await;
}

/// What is held is given back at once, and not kept for as long as the grace.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_gives_back_what_it_holds() {
    let mut server = MariaDb::start().unwrap();
    server.create_database("zbl").unwrap();
    let words = ["--pool-wait", "1s", "--settle-timeout", "1s", "--operation-timeout", "1s"];
    let scene = Scene::open(&server.url("zbl"), &words).await;
    let user_id = scene.bench.account("1000.00").await;
    scene.accept(deduction(user_id), None).await;
    server.kill().unwrap();
    let working = scene.work(1);
    until("it is held", async || working.hands.held() == 1).await;
    timeout(PATIENCE / 2, working.stop()).await.expect("it waits for the database");
    until("it is the broker's again", async || scene.queue().depths().await.unwrap().ready == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_batched_strategy_makes_its_batches_of_the_prefetch() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &[]).await;
        let user_id = scene.bench.account("5000.00").await;
        let accepting = (0..200).map(|_| scene.accept(deduction(user_id), Some("batched")));
        futures::future::join_all(accepting).await;
        let before = scene.bench.ledger.batches();
        let working = scene.work(3);
        scene.until_idle(&working, 0).await;
        let after = scene.bench.ledger.batches();
        assert_eq!((scene.bench.balance(user_id).await, after.changes - before.changes), (money("3000.00"), 200));
        assert!(after.batches - before.batches < 100 && after.largest > 10, "{after:?}");
        working.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_is_one_deduction_by_whichever_way_it_comes() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &[]).await;
        let user_id = scene.bench.account("1000.00").await;
        let (sync_first, async_first) = (deduction(user_id), deduction(user_id));
        scene.bench.ledger.apply(sync_first, None).await.unwrap();
        assert_eq!(scene.accept(sync_first, None).await, Accepted::Decided);
        scene.publish(sync_first).await;
        scene.accept(async_first, None).await;
        let receipt = scene.bench.ledger.apply(async_first, None).await.unwrap();
        assert!(!receipt.is_replay());
        let working = scene.work(3);
        scene.until_idle(&working, 0).await;
        assert_eq!((scene.bench.balance(user_id).await, scene.deductions(user_id).await), (money("980.00"), 2));
        assert!(scene.bench.ledger.apply(async_first, None).await.unwrap().is_replay());
        working.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeline_shows_the_wait_in_the_queue_before_all_else() {
    let database = Database::sqlite();
    let scene = Scene::open(&database.url, &[]).await;
    let user_id = scene.bench.account("1000.00").await;
    let change = deduction(user_id);
    // Accepted a minute before the service was there.
    let accepted_at = Utc::now().naive_utc() - chrono::TimeDelta::minutes(1);
    let message = Message { accepted_at, ..message(change) };
    assert_eq!(scene.queue().publish(&message, Destination::Main).await, Published::Confirmed);
    let working = scene.work(3);
    scene.until_made(change).await;
    let spans = scene.bench.spans(change.request_id);
    assert_eq!((spans[0].phase, spans[0].lane), (Phase::Queued, spans[1].lane));
    assert!(spans[0].start_ns < 0 && spans[0].duration.as_secs() >= 60, "{:?}", spans[0]);
    let queued_until = spans[0].start_ns + i64::try_from(spans[0].duration.as_nanos()).unwrap();
    assert!(queued_until <= spans[1].start_ns);
    assert!(spans.iter().filter(|span| span.phase == Phase::Queued).count() == 1 && spans[0].trace_id.is_some());
    working.stop().await;
}
