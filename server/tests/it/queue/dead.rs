//! Poison and dead letters: nothing is lost, whatever it is, and looking at dead letters leaves them as they are.

use lapin::types::{AMQPValue, FieldTable};
use zbl_server::queue::Which;

use super::*;

/// The ids of the dead letters, in order.
async fn ids(queue: &Queue) -> Vec<String> {
    queue.dead_letters(100).await.unwrap().into_iter().map(|letter| letter.id).collect()
}

fn id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_named_and_buried_as_it_came() {
    let queue = queue("poison").await;
    let mut headers = FieldTable::default();
    headers.insert("origin".into(), AMQPValue::LongString("elsewhere".into()));
    headers.insert("CC".into(), AMQPValue::FieldArray(vec![AMQPValue::LongString("poison".into())].into()));
    let properties = BasicProperties::default().with_headers(headers).with_message_id("odd".into());
    let body = [b"{\"user_id\":", &[0, 0xff][..]].concat();
    // The copy that the header asks for arrives as well; a third one would come of burying it with that header.
    smuggle("poison", &body, properties).await;
    smuggle("poison", b"", BasicProperties::default()).await;
    smuggle("poison", &vec![b'x'; 300_000], BasicProperties::default().with_type("zbl.v1.DeductRequest".into())).await;

    let mut consumer = queue.consume(20).unwrap();
    let mut found = Vec::new();
    for _ in 0..3 {
        let delivery = delivery(&mut consumer).await;
        let reason = delivery.decoded.as_ref().unwrap_err().clone();
        assert_eq!(queue.bury(&delivery.raw, &reason.to_string()).await, Published::Confirmed);
        delivery.ack().await;
        found.push(reason);
    }
    assert_eq!(found, [Undecodable::Type, Undecodable::Type, Undecodable::TooLarge { bytes: 300_000 }]);
    consumer.stop().await;
    depths_become(&queue, Depths { dead: 3, ..EMPTY }).await;

    let letters = queue.dead_letters(100).await.unwrap();
    assert_eq!((letters[0].id.as_str(), letters[0].raw.body()), ("odd", &body[..]));
    assert_eq!(letters[0].reason, "the type is not zbl.v1.DeductRequest");
    assert!(Uuid::try_parse(&letters[1].id).is_ok(), "it can be asked for: {}", letters[1].id);
    assert_eq!((letters[2].raw.body().len(), letters[2].reason.as_str()), (300_000, found[2].to_string().as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_dead_letters_loses_none_and_keeps_their_order() {
    let queue = queue("looked-at").await;
    for number in 1..=9 {
        let given_up = Message { reason: Some(format!("reason {number}")), ..message(number) };
        assert_eq!(queue.publish(&given_up, Destination::Dead).await, Published::Confirmed);
    }
    let all: Vec<_> = (1..=9).map(id).collect();
    for _ in 0..5 {
        assert_eq!(ids(&queue).await, all);
    }
    let first = queue.dead_letters(3).await.unwrap();
    assert_eq!(first.iter().map(|letter| letter.id.clone()).collect::<Vec<_>>(), all[..3]);
    assert_eq!((first[0].reason.as_str(), first[0].raw.decode().unwrap().user_id), ("reason 1", 7));
    assert_eq!(ids(&queue).await, all);
    depths_become(&queue, Depths { dead: 9, ..EMPTY }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_taken_by_its_id_and_the_others_stay() {
    let queue = queue("taken").await;
    publish(&queue, 1..=9, Destination::Dead).await;

    let mut held = queue.take_dead(&Which::Id(id(4))).await.unwrap();
    assert_eq!((held.letters.len(), held.more), (1, false));
    let letter = held.letters.remove(0);
    assert_eq!(letter.letter.id, id(4));
    // Held, they are nobody else's.
    assert!(ids(&queue).await.is_empty());
    letter.remove().await.unwrap();
    held.release().await.unwrap();
    let left: Vec<_> = [1, 2, 3, 5, 6, 7, 8, 9].map(id).into();
    assert_eq!(ids(&queue).await, left);

    // Let go without an answer, all come back, also those that were meant.
    drop(queue.take_dead(&Which::All).await.unwrap());
    until("the letters are back", async || ids(&queue).await == left).await;
    assert!(queue.take_dead(&Which::Id("none".to_owned())).await.unwrap().letters.is_empty());

    let mut held = queue.take_dead(&Which::All).await.unwrap();
    for letter in held.letters.drain(..) {
        letter.remove().await.unwrap();
    }
    held.release().await.unwrap();
    depths_become(&queue, EMPTY).await;
}
