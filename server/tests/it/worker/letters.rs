//! What is laid aside: why, with which history, and what becomes of it when somebody decides.

use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use zbl_server::{
    account::Change,
    dead_letters::{Tally, Verdict},
    ledger::Fate,
    queue::{Destination, Message, Published},
    store::{Isolation, RowLock, Transaction},
};

use super::{Scene, key, message, rabbit};
use crate::app::{Database, deduction, money, until};

/// Gives up on a lock soon, after one attempt of its own.
const IMPATIENT: [&str; 6] = ["--lock-wait", "1s", "--max-attempts", "1", "--operation-timeout", "1s"];

/// Holds an account's row.
async fn hold_row(scene: &Scene, user_id: i64) -> Box<dyn Transaction> {
    let mut transaction = scene.bench.ledger.bench().store.transaction(Isolation::ReadCommitted, None);
    transaction.read(user_id, RowLock::Exclusive).await.unwrap().unwrap();
    transaction
}

/// A deduction that was laid aside, because its strategy is none.
async fn laid_aside(scene: &Scene, user_id: i64) -> Change {
    let change = deduction(user_id);
    let unknown = Message { strategy: "nonesuch".to_owned(), ..message(change) };
    assert_eq!(scene.queue().publish(&unknown, Destination::Main).await, Published::Confirmed);
    let working = scene.work(3);
    scene.until_idle(&working, 1).await;
    working.stop().await;
    assert!(matches!(scene.fate(change).await, Fate::DeadLettered(_)));
    change
}

fn done(done: u64) -> Tally {
    Tally { done, ..Tally::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn contention_is_tried_again_and_then_laid_aside_with_its_history() {
    // SQLite has one lock for all, so that nothing could be laid aside behind it.
    let database = Database::mysql();
    let scene = Scene::open(&database.url, &IMPATIENT).await;
    let user_id = scene.bench.account("1000.00").await;
    let held = hold_row(&scene, user_id).await;
    let change = deduction(user_id);
    scene.accept(change, Some("atomic")).await;
    let working = scene.work(2);
    until("it is put away", async || scene.queue().depths().await.unwrap().retrying == 1).await;
    assert!(matches!(scene.fate(change).await, Fate::Pending(_)));
    scene.until_idle(&working, 1).await;
    let Fate::DeadLettered(why) = scene.fate(change).await else { panic!("{:?}", scene.fate(change).await) };
    assert_eq!(why.reason, "CONTENDED");
    let letter = scene.letters().find(&change.request_id.to_string()).await.unwrap();
    let deduction = letter.raw.decode().unwrap();
    assert_eq!((deduction.attempts, deduction.history.len()), (2, 2), "{deduction:?}");
    assert!(deduction.history.iter().all(|line| line.contains("CONTENDED")), "{deduction:?}");

    held.rollback().await;
    let ids = [change.request_id.to_string()];
    assert_eq!(scene.letters().decide(&ids, Verdict::Requeue).await.unwrap(), done(1));
    scene.until_made(change).await;
    scene.until_idle(&working, 0).await;
    assert_eq!((scene.bench.balance(user_id).await, scene.deductions(user_id).await), (money("990.00"), 1));
    working.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_deduction_is_laid_aside_and_others_go_on() {
    let database = Database::sqlite();
    let scene = Scene::open(&database.url, &[]).await;
    let user_id = scene.bench.account("1000.00").await;
    let connection = Connection::connect(&rabbit().await, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let kind = BasicProperties::default().with_type("zbl.v1.DeductRequest".into());
    let bodies: [&[u8]; 5] = [b"", b"{", b"\xff\xfe", b"[[[[[[", br#"{"user_id":-1,"amount":"1e9"}"#];
    for (body, properties) in bodies.iter().flat_map(|body| [(body, BasicProperties::default()), (body, kind.clone())])
    {
        let options = BasicPublishOptions::default();
        let queue = scene.name.as_str().into();
        channel.basic_publish("".into(), queue, options, body, properties).await.unwrap().await.unwrap();
    }
    let change = deduction(user_id);
    scene.accept(change, None).await;
    let working = scene.work(3);
    scene.until_made(change).await;
    scene.until_idle(&working, 10).await;
    let (letters, total) = scene.letters().list(100).await.unwrap();
    assert_eq!((letters.len(), total), (10, 10));
    assert!(letters.iter().all(|letter| letter.reason.starts_with("UNDECODABLE: ")), "{letters:?}");
    // There is nothing to be tried again; it can only be given up.
    let all = scene.letters().decide(&[], Verdict::Requeue).await.unwrap();
    assert_eq!(all, Tally { left: 10, ..Tally::default() });
    assert_eq!(scene.letters().decide(&[], Verdict::Purge).await.unwrap(), done(10));
    scene.until_idle(&working, 0).await;
    working.stop().await;
}

/// A strategy that nobody knows is nothing that time cures.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_strategy_is_laid_aside_at_once() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &[]).await;
        let user_id = scene.bench.account("1000.00").await;
        let change = laid_aside(&scene, user_id).await;
        let Fate::DeadLettered(why) = scene.fate(change).await else { panic!("it was laid aside") };
        assert_eq!(why.reason, "UNKNOWN_STRATEGY");
        assert_eq!(scene.bench.balance(user_id).await, money("1000.00"));
    }
}

/// Cut off behind the row, and behind the message: each time the next decision goes on from there, and it is made once.
#[tokio::test(flavor = "multi_thread")]
async fn a_requeue_that_was_cut_off_is_done_again_and_makes_it_once() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &IMPATIENT).await;
        let user_id = scene.bench.account("1000.00").await;
        let change = aside(&scene, user_id).await;
        let outbox = scene.app.outbox();
        assert!(outbox.requeue(key(change)).await.unwrap().is_some());
        let ids = [change.request_id.to_string()];
        assert_eq!(scene.letters().decide(&ids, Verdict::Requeue).await.unwrap(), done(1));
        let working = scene.work(3);
        scene.until_made(change).await;
        working.stop().await;

        let change = aside(&scene, user_id).await;
        assert!(outbox.requeue(key(change)).await.unwrap().is_some());
        let again = Message { again: true, ..message(change) };
        assert_eq!(scene.queue().publish(&again, Destination::Main).await, Published::Confirmed);
        let working = scene.work(3);
        scene.until_made(change).await;
        let ids = [change.request_id.to_string()];
        let decided = scene.letters().decide(&ids, Verdict::Requeue).await.unwrap();
        assert_eq!(decided, Tally { decided: 1, ..Tally::default() });
        scene.until_idle(&working, 0).await;
        assert_eq!((scene.bench.balance(user_id).await, scene.deductions(user_id).await), (money("980.00"), 2));
        working.stop().await;
    }
}

/// A deduction with a good strategy that was laid aside, as after too much contention.
async fn aside(scene: &Scene, user_id: i64) -> Change {
    let change = deduction(user_id);
    let why = "CONTENDED: for too long";
    scene.app.outbox().dead_letter(key(change), change.amount, "CONTENDED", "for too long").await.unwrap();
    let message = Message { attempts: 8, reason: Some(why.to_owned()), ..message(change) };
    assert_eq!(scene.queue().publish(&message, Destination::Dead).await, Published::Confirmed);
    until("it is laid aside", async || scene.queue().depths().await.unwrap().dead == 1).await;
    change
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_can_never_take_effect() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &[]).await;
        let user_id = scene.bench.account("1000.00").await;
        let change = aside(&scene, user_id).await;
        let ids = [change.request_id.to_string(), "nobody".to_owned()];
        let tally = scene.letters().decide(&ids, Verdict::Purge).await.unwrap();
        assert_eq!(tally, Tally { done: 1, left: 1, ..Tally::default() });
        let Fate::Failed(why) = scene.fate(change).await else { panic!("{:?}", scene.fate(change).await) };
        assert_eq!(why.reason, "PURGED");
        scene.publish(change).await;
        let working = scene.work(3);
        scene.until_idle(&working, 0).await;
        assert!(scene.bench.ledger.apply(change, None).await.is_err());
        assert_eq!(scene.bench.balance(user_id).await, money("1000.00"));
        assert!(matches!(scene.fate(change).await, Fate::Failed(_)));
        working.stop().await;
    }
}

/// The worker died when the row was written and the letter not: the next delivery finishes the move, and does not try again.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_the_dead_letters_that_was_cut_off_is_finished() {
    for database in Database::each() {
        let scene = Scene::open(&database.url, &[]).await;
        let user_id = scene.bench.account("1000.00").await;
        let change = deduction(user_id);
        scene.app.outbox().dead_letter(key(change), change.amount, "CONTENDED", "for too long").await.unwrap();
        let tried = Message { attempts: 1, ..message(change) };
        assert_eq!(scene.queue().publish(&tried, Destination::Main).await, Published::Confirmed);
        let working = scene.work(8);
        scene.until_idle(&working, 1).await;
        let letter = scene.letters().find(&change.request_id.to_string()).await.unwrap();
        assert_eq!(letter.reason, "CONTENDED: for too long");
        assert_eq!(scene.bench.balance(user_id).await, money("1000.00"));
        working.stop().await;
    }
}
