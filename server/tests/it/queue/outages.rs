//! A broker that dies, and one that stops answering: known at once or within bounded time, never guessed at, and over
//! when it is back.

use std::sync::Arc;

use super::*;

/// A broker of this test's own, to be killed or paused.
async fn broker() -> RabbitMq {
    tokio::task::spawn_blocking(|| RabbitMq::start().unwrap()).await.unwrap()
}

/// How soon what is known must be acted upon; a broker that is asked and does not answer would take far longer.
const AT_ONCE: Duration = Duration::from_secs(2);

async fn is_down(queue: &Queue) -> bool {
    matches!(queue.state(), LinkState::Down { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_survives_a_kill_and_publisher_and_consumer_come_back() {
    let mut broker = broker().await;
    let queue = connected(settings(&broker.url(), "killed")).await;
    let mut consumer = queue.consume(5).unwrap();
    publish(&queue, 1..=20, Destination::Main).await;
    publish(&queue, 21..=25, Destination::Dead).await;
    publish(&queue, [26], Destination::Retry { tier: 2, delay: DELAYS[2] }).await;
    let held = delivery(&mut consumer).await;
    assert_eq!(number(&held), 1);

    // It is killed among many publishes.
    let under_way: Vec<_> = (100..400)
        .map(|number| {
            let queue = queue.clone();
            tokio::spawn(async move { (number, queue.publish(&message(number), Destination::Main).await) })
        })
        .collect();
    until("some are done", async || under_way.iter().filter(|one| one.is_finished()).count() > 20).await;
    broker = tokio::task::spawn_blocking(move || {
        broker.kill().unwrap();
        broker
    })
    .await
    .unwrap();
    let killed = Instant::now();
    until("the link is known to be down", async || is_down(&queue).await).await;
    let mut confirmed: HashSet<u128> = (1..=20).chain([26]).collect();
    for published in under_way {
        let (number, published) = published.await.unwrap();
        match published {
            Published::Confirmed => _ = confirmed.insert(number),
            Published::NotSent(_) | Published::Unknown(_) => {}
            Published::Full => panic!("there is room"),
        }
    }
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
    let asked = Instant::now();
    assert!(matches!(queue.publish(&message(999), Destination::Main).await, Published::NotSent(_)));
    assert!(queue.depths().await.is_err() && queue.dead_letters(1).await.is_err());
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    // Not heard, and no failure.
    held.ack().await;

    let broker = tokio::task::spawn_blocking(move || {
        broker.restart().unwrap();
        broker
    })
    .await
    .unwrap();
    until("the link is up", async || queue.state() == LinkState::Up).await;
    publish(&queue, [500], Destination::Main).await;
    confirmed.insert(500);
    let mut is_lost = false;
    while !confirmed.is_empty() {
        match next(&mut consumer).await {
            Consumed::Delivery(delivery) => {
                // What was unknown may be there or not; what was not sent must not be.
                assert_ne!(number(&delivery), 999);
                confirmed.remove(&number(&delivery));
                delivery.ack().await;
            }
            Consumed::Lost { .. } => is_lost = true,
            Consumed::Connected => assert!(is_lost),
        }
    }
    let dead = queue.dead_letters(100).await.unwrap();
    assert_eq!(
        dead.iter().map(|letter| letter.raw.decode().unwrap().request_id.as_u128()).collect::<Vec<_>>(),
        [21, 22, 23, 24, 25]
    );
    drop(broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_answering_is_unknown_then_down_and_both_sides_come_back() {
    const WAIT: Duration = Duration::from_secs(1);
    let broker = broker().await;
    // Given up after two seconds of silence.
    let url = format!("{}/%2f?heartbeat=1", broker.url());
    let queue = connected(Settings { wait: WAIT, ..settings(&url, "silent") }).await;
    let mut consumer = queue.consume(5).unwrap();
    assert!(matches!(next(&mut consumer).await, Consumed::Connected));
    until("a message is confirmed", async || {
        queue.publish(&message(1), Destination::Main).await == Published::Confirmed
    })
    .await;
    let held = delivery(&mut consumer).await;

    broker.pause().unwrap();
    let paused = Instant::now();
    let published = queue.publish(&message(2), Destination::Main).await;
    assert!(matches!(published, Published::Unknown(_)), "{published:?}");
    assert!((WAIT..WAIT + AT_ONCE).contains(&paused.elapsed()), "{:?}", paused.elapsed());
    until("the link is known to be down", async || is_down(&queue).await).await;
    let asked = Instant::now();
    assert!(matches!(queue.publish(&message(3), Destination::Main).await, Published::NotSent(_)));
    assert!(asked.elapsed() < WAIT / 2, "{:?}", asked.elapsed());
    assert!(matches!(next(&mut consumer).await, Consumed::Lost { .. }));
    // Not heard, and no failure.
    held.ack().await;

    broker.resume().unwrap();
    until("the link is up", async || queue.state() == LinkState::Up).await;
    assert!(matches!(next(&mut consumer).await, Consumed::Connected));
    until("a message is confirmed", async || {
        queue.publish(&message(4), Destination::Main).await == Published::Confirmed
    })
    .await;
    // The first, which was not acknowledged, and the last; the second may be there.
    let mut expected = HashSet::from([1, 4]);
    while !expected.is_empty() {
        let delivery = delivery(&mut consumer).await;
        assert_ne!(number(&delivery), 3);
        expected.remove(&number(&delivery));
        delivery.ack().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_disk_space_is_down_until_it_has_some() {
    let broker = Arc::new(broker().await);
    let queue = connected(Settings { wait: Duration::from_secs(2), ..settings(&broker.url(), "short") }).await;
    let limit = |limit: &'static str| {
        let broker = Arc::clone(&broker);
        tokio::task::spawn_blocking(move || broker.control(&["set_disk_free_limit", limit]).unwrap())
    };
    limit("1000000GB").await.unwrap();
    // It stops taking messages with the first that it is sent, which it may still keep.
    let refused = async || match queue.publish(&message(1), Destination::Main).await {
        Published::NotSent(reason) => reason.contains("takes no messages"),
        _ => false,
    };
    until("messages are refused", refused).await;
    assert!(is_down(&queue).await);
    limit("1MB").await.unwrap();
    until("the link is up", async || queue.state() == LinkState::Up).await;
    publish(&queue, [2], Destination::Main).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_told_of_once_and_refuses_at_once() {
    let port = test_support::free_port().unwrap();
    let queue = Queue::open(settings(&format!("amqp://127.0.0.1:{port}"), "nowhere")).unwrap();
    let reason = queue.connected().await.unwrap_err().reason;
    assert!(reason.contains("cannot reach the broker"), "{reason}");
    let asked = Instant::now();
    assert_eq!(queue.publish(&message(1), Destination::Main).await, Published::NotSent(reason));
    assert!(asked.elapsed() < AT_ONCE);
    let mut consumer = queue.consume(1).unwrap();
    assert!(matches!(next(&mut consumer).await, Consumed::Lost { .. }));
    assert!(timeout(DELAYS[0], consumer.next()).await.is_err(), "told again");
}
