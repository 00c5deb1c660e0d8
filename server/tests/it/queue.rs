//! The queue against a real broker: what is confirmed is kept, what is refused is not there, and both sides come back.

mod dead;
mod outages;

use std::{collections::HashSet, time::Instant};

use chrono::DateTime;
use lapin::{BasicProperties, ConnectionProperties, options::BasicPublishOptions};
use test_support::RabbitMq;
use tokio::time::{Duration, timeout};
use uuid::Uuid;
use zbl_server::{
    account::Money,
    queue::{
        Consumed, Consumer, DELAYS, Delivery, Depths, Destination, LinkState, Message, Published, Queue, Settings,
        Undecodable,
    },
};

use crate::app::{PATIENCE, until};

/// Room for whatever a test publishes.
const ROOM: u32 = 10_000;

/// How the queue of a test is used, at a broker.
fn settings(url: &str, name: &str) -> Settings {
    Settings {
        url: url.parse().unwrap(),
        name: name.to_owned(),
        limit: ROOM,
        wait: PATIENCE,
        instance: "test".to_owned(),
    }
}

/// A queue of this name at the broker that the tests share.
async fn queue(name: &str) -> Queue {
    let broker = tokio::task::spawn_blocking(|| RabbitMq::shared().unwrap()).await.unwrap();
    connected(settings(&broker.url(), name)).await
}

async fn connected(settings: Settings) -> Queue {
    let queue = Queue::open(settings).unwrap();
    queue.connected().await.unwrap();
    queue
}

/// The deduction with this number.
fn message(number: u128) -> Message {
    Message {
        user_id: 7,
        request_id: Uuid::from_u128(number),
        amount: Money::from_minor(1_000),
        strategy: "atomic".to_owned(),
        accepted_at: DateTime::from_timestamp_millis(1_800_000_000_123).unwrap().naive_utc(),
        attempts: 0,
        history: Vec::new(),
        again: false,
        traceparent: None,
        reason: None,
    }
}

/// Publishes the deductions with these numbers, in order.
async fn publish(queue: &Queue, numbers: impl IntoIterator<Item = u128>, to: Destination) {
    for number in numbers {
        assert_eq!(queue.publish(&message(number), to).await, Published::Confirmed);
    }
}

async fn next(consumer: &mut Consumer) -> Consumed {
    timeout(PATIENCE, consumer.next()).await.expect("nothing is told")
}

/// The next message, whatever is told before it.
async fn delivery(consumer: &mut Consumer) -> Delivery {
    loop {
        if let Consumed::Delivery(delivery) = next(consumer).await {
            return delivery;
        }
    }
}

fn number(delivery: &Delivery) -> u128 {
    delivery.decoded.as_ref().unwrap().request_id.as_u128()
}

/// Consumes and acknowledges as many deductions as there are in `expected`, in whatever order, and no others.
async fn drain(consumer: &mut Consumer, mut expected: HashSet<u128>) {
    while !expected.is_empty() {
        let delivery = delivery(consumer).await;
        let number = number(&delivery);
        assert!(expected.remove(&number) || delivery.redelivered, "{number} came twice");
        delivery.ack().await;
    }
}

async fn depths_become(queue: &Queue, expected: Depths) {
    until("the depths are as expected", async || queue.depths().await.unwrap() == expected).await;
}

const EMPTY: Depths = Depths { ready: 0, retrying: 0, dead: 0 };

/// A connection of somebody else.
async fn foreigner() -> lapin::Connection {
    let broker = tokio::task::spawn_blocking(|| RabbitMq::shared().unwrap()).await.unwrap();
    lapin::Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap()
}

/// Puts something into a queue that this program did not write.
async fn smuggle(queue: &str, body: &[u8], properties: BasicProperties) {
    let channel = foreigner().await.create_channel().await.unwrap();
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
    assert!(sent.await.unwrap().is_ack());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_arrives_as_it_was_and_once() {
    let queue = queue("arrives").await;
    let full = Message {
        attempts: 3,
        history: vec!["CONTENDED".to_owned(), "REDIS_DOWN".to_owned()],
        again: true,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        reason: Some("why".to_owned()),
        ..message(0)
    };
    assert_eq!(queue.publish(&full, Destination::Main).await, Published::Confirmed);
    let others: Vec<_> = (1..=500)
        .map(|number| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.publish(&message(number), Destination::Main).await })
        })
        .collect();
    for published in others {
        assert_eq!(published.await.unwrap(), Published::Confirmed);
    }

    let mut consumer = queue.consume(20).unwrap();
    assert!(matches!(next(&mut consumer).await, Consumed::Connected));
    let first = delivery(&mut consumer).await;
    assert_eq!(first.decoded, Ok(full));
    assert_eq!((first.redelivered, first.delivery_count), (false, 0));
    first.ack().await;
    drain(&mut consumer, (1..=500).collect()).await;
    consumer.stop().await;
    depths_become(&queue, EMPTY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_at_its_limit_refuses_and_takes_again_when_there_is_room() {
    const LIMIT: u32 = 10;
    // The broker refuses a little later than it might, never for good.
    const MOST: u64 = 100;
    let broker = tokio::task::spawn_blocking(|| RabbitMq::shared().unwrap()).await.unwrap();
    let queue = connected(Settings { limit: LIMIT, ..settings(&broker.url(), "limited") }).await;
    let mut kept = 0;
    loop {
        match queue.publish(&message(kept.into()), Destination::Main).await {
            Published::Confirmed => kept += 1,
            Published::Full => break,
            other => panic!("{other:?}"),
        }
        assert!(kept < MOST, "no limit");
    }
    assert!(kept >= u64::from(LIMIT), "{kept}");
    depths_become(&queue, Depths { ready: kept, ..EMPTY }).await;

    let mut consumer = queue.consume(20).unwrap();
    drain(&mut consumer, (0..kept.into()).collect()).await;
    until("a message is confirmed", async || {
        queue.publish(&message(1000), Destination::Main).await == Published::Confirmed
    })
    .await;
    drain(&mut consumer, HashSet::from([1000])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_away_comes_back_after_its_delay_and_a_short_one_before_a_long_one() {
    let queue = queue("put-away").await;
    let mut consumer = queue.consume(20).unwrap();
    assert!(matches!(next(&mut consumer).await, Consumed::Connected));
    let began = Instant::now();
    publish(&queue, [1], Destination::Retry { tier: 1, delay: DELAYS[1] }).await;
    publish(&queue, 10..20, Destination::retry(0)).await;
    // Longer than its tier is none.
    publish(&queue, [2], Destination::Retry { tier: 0, delay: DELAYS[4] }).await;
    for _ in 0..11 {
        let delivery = delivery(&mut consumer).await;
        assert_ne!(number(&delivery), 1);
        assert!(began.elapsed() >= DELAYS[0] / 2, "{:?}", began.elapsed());
        delivery.ack().await;
    }
    let last = delivery(&mut consumer).await;
    assert_eq!(number(&last), 1);
    assert!(began.elapsed() >= DELAYS[1], "{:?}", began.elapsed());
    last.ack().await;
    depths_become(&queue, EMPTY).await;
}

#[test]
fn delays_are_drawn_from_half_to_the_whole_of_the_tier_and_stay_at_the_last() {
    let mut drawn = HashSet::new();
    for attempts in (0..DELAYS.len() + 3).chain([usize::MAX]).cycle().take(900) {
        let at_most = attempts.min(DELAYS.len() - 1);
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        let Destination::Retry { tier, delay } = Destination::retry(attempts) else { panic!("not put away") };
        assert_eq!(tier, at_most);
        assert!((DELAYS[tier] / 2..=DELAYS[tier]).contains(&delay), "{delay:?}");
        drawn.insert(delay);
    }
    assert!(drawn.len() > 100, "not drawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_is_delivered_again_and_says_so() {
    let queue = queue("again").await;
    publish(&queue, [1, 2], Destination::Main).await;
    let mut first = queue.consume(20).unwrap();
    let held = delivery(&mut first).await;
    let given_back = delivery(&mut first).await;
    assert_eq!((number(&held), number(&given_back)), (1, 2));
    given_back.requeue().await;
    let given_back = delivery(&mut first).await;
    assert_eq!((number(&given_back), given_back.redelivered, given_back.delivery_count), (2, true, 1));
    given_back.ack().await;

    // With the last that holds it the connection ends.
    drop((first, held));
    let mut second = queue.consume(20).unwrap();
    let again = delivery(&mut second).await;
    assert_eq!((number(&again), again.redelivered, again.delivery_count), (1, true, 1));
    again.ack().await;
    depths_become(&queue, EMPTY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_consumer_gives_back_what_it_has_not_begun_and_ends_what_it_has() {
    let queue = queue("stopped").await;
    publish(&queue, 1..=10, Destination::Main).await;
    let mut first = queue.consume(10).unwrap();
    let begun = [delivery(&mut first).await, delivery(&mut first).await];
    first.stop().await;

    // The two are still under way: the others come at once, and these not.
    let mut second = queue.consume(20).unwrap();
    drain(&mut second, (3..=10).collect()).await;
    depths_become(&queue, EMPTY).await;
    for delivery in begun {
        delivery.ack().await;
    }
    second.stop().await;
    // Unheard, the acknowledgements would have let them come back when the connections had ended.
    let mut third = queue.consume(20).unwrap();
    publish(&queue, [11], Destination::Main).await;
    drain(&mut third, HashSet::from([11])).await;
    depths_become(&queue, EMPTY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_told_of_and_made_again_on_both_sides() {
    let queue = queue("deleted").await;
    let mut consumer = queue.consume(20).unwrap();
    assert!(matches!(next(&mut consumer).await, Consumed::Connected));
    let channel = foreigner().await.create_channel().await.unwrap();
    let delete = || channel.queue_delete("deleted".into(), lapin::options::QueueDeleteOptions::default());
    delete().await.unwrap();
    let Consumed::Lost { reason } = next(&mut consumer).await else { panic!("not told") };
    assert!(reason.contains("deleted"), "{reason}");
    assert!(matches!(next(&mut consumer).await, Consumed::Connected));

    drop(consumer);
    delete().await.unwrap();
    let Published::NotSent(reason) = queue.publish(&message(1), Destination::Main).await else { panic!("sent") };
    assert!(reason.contains("made again"), "{reason}");
    publish(&queue, [2], Destination::Main).await;
    drain(&mut queue.consume(20).unwrap(), HashSet::from([2])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_made_with_another_limit_is_told_with_the_remedy() {
    let made = queue("mismatch").await;
    let broker = tokio::task::spawn_blocking(|| RabbitMq::shared().unwrap()).await.unwrap();
    let other = Queue::open(Settings { limit: 5, ..settings(&broker.url(), "mismatch") }).unwrap();
    let reason = other.connected().await.unwrap_err().reason;
    for expected in ["mismatch", "--queue-limit", "--queue-name", "delete"] {
        assert!(reason.contains(expected), "{reason}");
    }
    assert_eq!(other.state(), LinkState::Down { reason: reason.clone() });
    assert_eq!(other.publish(&message(1), Destination::Main).await, Published::NotSent(reason));
    publish(&made, [1], Destination::Main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_without_it() {
    let broker = tokio::task::spawn_blocking(|| RabbitMq::shared().unwrap()).await.unwrap();
    let url = broker.url().replace("amqp://", "amqp://guest:s3cret@");
    let reason = Queue::open(settings(&url, "password")).unwrap().connected().await.unwrap_err().reason;
    assert!(reason.contains("--amqp-url") && !reason.contains("s3cret"), "{reason}");
}
