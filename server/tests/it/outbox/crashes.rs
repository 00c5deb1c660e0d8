//! Calls cut off on either side of publishing, and what the relay makes of it: no answer was wrong, and each deduction is made
//! once.

use std::sync::Arc;

use futures::future::join_all;
use tokio::task::JoinHandle;
use zbl_server::{
    account::Change,
    error::{Error, UnknownCause},
    gate::{Point, Script},
    ledger::{Fate, Resolve},
    outbox::{Accepted, Pace},
    quiet::Quiet,
    store::outbox::Standing,
};

use super::{Scene, Set, another_programs, execute, key, ordered};
use crate::app::{Database, deduction, money, until};

type Call = JoinHandle<Result<Accepted, Error>>;

impl Scene {
    fn accept(&self, change: Change) -> Call {
        let outbox = Arc::clone(&self.outbox);
        tokio::spawn(async move { outbox.accept(change, None).await })
    }

    /// A call that stands at a point.
    async fn held(&self, change: Change, point: Point) -> (Script, Call) {
        let script = self.gates().script(change.request_id, &[point]);
        let call = self.accept(change);
        script.arrived().await;
        (script, call)
    }

    /// What is asked until there is an answer for good.
    async fn resolved(&self, change: Change) -> Fate {
        self.ledger().fate(change.user_id, change.request_id, Resolve::Finally).await.unwrap()
    }

    /// Everything in the queue is made, and this once.
    async fn is_made_once(&self, change: Change, messages: usize) {
        let made = self.work(messages).await;
        assert!(made.iter().all(|message| message.request_id == change.request_id));
        assert_eq!(self.bench.balance(change.user_id).await, money("990.00"));
        assert_eq!(self.bench.journal(change.user_id).await.len(), 2);
        assert!(matches!(self.fate(change).await, Fate::Journaled(entry) if entry.delta == change.delta()));
        until("its row is gone", async || self.outbox.row_of(key(change)).await.unwrap().is_none()).await;
    }
}

async fn crashed(script: Script, call: Call) {
    script.crash();
    let answer = call.await.unwrap();
    assert!(matches!(answer, Err(Error::OutcomeUnknown { cause: UnknownCause::Crashed, .. })), "{answer:?}");
}

/// All claims run out.
fn lapse(database: &Database) {
    execute(database, "UPDATE deduction_outbox SET claimed_until = created_at WHERE claimed_until IS NOT NULL");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_before_publishing_it_is_promised_when_nobody_can_take_it_back() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let change = ordered(&scene).await;
        let (script, call) = scene.held(change, Point::Publish).await;
        assert_eq!(scene.fate(change).await, Fate::NotFound, "it may yet be withdrawn");
        crashed(script, call).await;
        assert_eq!(scene.fate(change).await, Fate::NotFound);
        let mut relay = scene.relay();
        assert_eq!(relay.tick().await.unwrap(), Pace::CaughtUp, "somebody may be at it");
        scene.ready(0).await;

        lapse(&database);
        assert!(matches!(scene.fate(change).await, Fate::Pending(_)), "from here on it is a promise");
        assert!(matches!(scene.resolved(change).await, Fate::Pending(_)), "which nobody can void");
        assert_eq!(relay.tick().await.unwrap(), Pace::Behind);
        scene.ready(1).await;
        assert_eq!(scene.outbox.row_of(key(change)).await.unwrap().unwrap().standing, Standing::Sent);
        assert_eq!(relay.tick().await.unwrap(), Pace::CaughtUp, "once");
        scene.is_made_once(change, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_behind_the_confirm_it_is_sent_twice_and_made_once() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let change = ordered(&scene).await;
        let (script, call) = scene.held(change, Point::Published).await;
        scene.ready(1).await;
        assert_eq!(scene.fate(change).await, Fate::NotFound, "nobody was told that it is accepted");
        crashed(script, call).await;
        lapse(&database);
        assert!(matches!(scene.fate(change).await, Fate::Pending(_)));
        assert_eq!(scene.relay().tick().await.unwrap(), Pace::Behind);
        scene.ready(2).await;
        scene.is_made_once(change, 2).await;
    }
}

/// The worker is quicker than the call that sent it.
#[tokio::test(flavor = "multi_thread")]
async fn made_before_it_is_noted_as_sent_it_is_accepted_all_the_same() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let change = ordered(&scene).await;
        let (script, call) = scene.held(change, Point::Published).await;
        scene.is_made_once(change, 1).await;
        script.release();
        assert_eq!(call.await.unwrap().unwrap(), Accepted::Now);
        assert_eq!(scene.rows(&database), 0, "nothing is put back");
        assert_eq!(scene.outbox.accept(change, None).await.unwrap(), Accepted::Decided);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_before_the_answer_it_is_accepted() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let change = ordered(&scene).await;
        let (script, call) = scene.held(change, Point::Answer).await;
        crashed(script, call).await;
        assert!(matches!(scene.fate(change).await, Fate::Pending(_)));
        assert_eq!(scene.outbox.accept(change, None).await.unwrap(), Accepted::Before);
        assert_eq!(scene.relay().tick().await.unwrap(), Pace::CaughtUp);
        scene.ready(1).await;
        scene.is_made_once(change, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_nothing_half_done() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let change = ordered(&scene).await;
        let (script, call) = scene.held(change, Point::Publish).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        script.release();
        until("it is accepted", async || matches!(scene.fate(change).await, Fate::Pending(_))).await;
        scene.is_made_once(change, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_relays_send_each_row_once_and_what_was_rolled_back_never() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let beside = scene.beside(&database, Set::default()).await;
        let user_id = scene.bench.account("1000.00").await;
        let written: Vec<String> = (0..60).map(|_| another_programs(&database, deduction(user_id))).collect();
        execute(&database, &format!("BEGIN; {}; ROLLBACK", another_programs(&database, deduction(user_id))));
        execute(&database, &format!("BEGIN; {}; COMMIT", written.join("; ")));
        let relays = [scene.relay(), beside.relay(), scene.relay()];
        let run = relays.map(|relay| tokio::spawn(relay.run(Quiet::default())));
        until("all are sent", async || scene.in_state(&database, "SENT") == 60).await;
        scene.ready(60).await;
        for relay in run {
            relay.abort();
        }
        scene.work(60).await;
        assert_eq!(scene.bench.balance(user_id).await, money("400.00"));
    }
}

/// Calls of one moment, in whatever batches they are recorded: each gets an answer of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_accepted_and_each_is_made_once() {
    for database in Database::each() {
        let scene = Scene::open(&database, Set::default()).await;
        let user_id = scene.bench.account("1000.00").await;
        let changes: Vec<Change> = (0..100).map(|_| deduction(user_id)).collect();
        for answer in join_all(changes.iter().map(|change| scene.outbox.accept(*change, None))).await {
            assert_eq!(answer.unwrap(), Accepted::Now);
        }
        scene.ready(100).await;
        scene.work(100).await;
        assert_eq!(scene.bench.balance(user_id).await, money("0.00"));
        until("the rows are gone", async || scene.rows(&database) == 0).await;
    }
}
