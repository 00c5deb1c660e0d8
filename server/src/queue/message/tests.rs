//! What is written is read back, anything else is named, and nothing panics.

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn message() -> Message {
    Message {
        user_id: 7,
        request_id: Uuid::from_u128(0x1234_5678),
        amount: Money::from_minor(1_005),
        strategy: "atomic".to_owned(),
        accepted_at: DateTime::from_timestamp_millis(1_800_000_000_123).expect("a time").naive_utc(),
        attempts: 2,
        history: vec!["first".to_owned(), "second".to_owned()],
        again: true,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        reason: Some("gave up".to_owned()),
    }
}

/// A well-formed message with another body.
fn with_body(body: &str) -> Raw {
    Raw { body: body.as_bytes().to_vec(), ..message().encode() }
}

/// A well-formed message with a header of another value, or without it.
fn with_header(name: &str, value: Option<AMQPValue>) -> Raw {
    let raw = message().encode();
    let mut headers = raw.headers().expect("headers").inner().clone();
    headers.remove(name);
    headers.extend(value.map(|value| (name.into(), value)));
    Raw { properties: raw.properties.with_headers(headers.into()), body: raw.body }
}

#[test]
fn says_on_the_wire_what_is_documented() {
    let raw = message().encode();
    let expected =
        r#"{"user_id":7,"amount":"10.05","request_id":"00000000-0000-0000-0000-000012345678","strategy":"atomic"}"#;
    assert_eq!(String::from_utf8_lossy(raw.body()), expected);
    assert_eq!(*raw.properties.delivery_mode(), Some(2));
    assert_eq!(raw.message_id(), Some("00000000-0000-0000-0000-000012345678"));
    assert_eq!(raw.text("zbl-reason"), Some("gave up"));
    assert_eq!(raw.integer("zbl-accepted-at"), Some(1_800_000_000_123));
}

#[test]
fn names_what_is_wrong_with_a_body() {
    let id = "00000000-0000-0000-0000-000012345678";
    let body = |user_id: &str, amount: &str, id: &str, more: &str| {
        with_body(&format!(r#"{{"user_id":{user_id},"amount":{amount},"request_id":"{id}","strategy":""{more}}}"#))
    };
    assert_eq!(body("7", r#""10.05""#, id, "").decode().map(|message| message.user_id), Ok(7));
    let cases = [
        (body("0", r#""10.05""#, id, ""), "user_id 0 is not positive"),
        (body("7.0", r#""10.05""#, id, ""), "not a deduction as JSON"),
        (body("9223372036854775808", r#""10.05""#, id, ""), "not a deduction as JSON"),
        (body("7", "10.05", id, ""), "not a deduction as JSON"),
        (body("7", r#""-1""#, id, ""), "amount: not a decimal"),
        (body("7", r#""1e2""#, id, ""), "amount: not a decimal"),
        (body("7", r#""0.00""#, id, ""), "amount: zero"),
        (body("7", r#""1""#, "no-uuid", ""), "request_id is not a UUID"),
        (body("7", r#""1""#, "00000000-0000-0000-0000-000012345679", ""), "message_id is not the request id"),
        (body("7", r#""1""#, id, r#","kind":"DEPOSIT""#), "unknown field `kind`"),
        (body("7", r#""1""#, id, r#","user_id":8"#), "duplicate field"),
        (with_body(""), "not a deduction as JSON"),
        (with_body("{}"), "missing field"),
        (with_body(&"x".repeat(BODY_MAX + 1)), "the body has 16385 bytes"),
    ];
    for (raw, expected) in cases {
        let error = raw.decode().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}, expected: {expected}");
    }
}

#[test]
fn names_what_is_wrong_with_headers() {
    let lines =
        |count: usize, length: usize| AMQPValue::FieldArray(FieldArray::from(vec![text(&"é".repeat(length)); count]));
    assert_eq!(with_header(HISTORY, None).decode().map(|message| message.history), Ok(Vec::new()));
    assert!(with_header(HISTORY, Some(lines(HISTORY_MAX, LINE_MAX))).decode().is_ok());
    let cases = [
        (ATTEMPTS, None),
        (ATTEMPTS, Some(AMQPValue::LongInt(-1))),
        (ATTEMPTS, Some(text("1"))),
        (ACCEPTED_AT, None),
        (ACCEPTED_AT, Some(AMQPValue::LongLongInt(i64::MAX))),
        (HISTORY, Some(text("a line"))),
        (HISTORY, Some(lines(HISTORY_MAX + 1, 1))),
        (HISTORY, Some(lines(1, LINE_MAX + 1))),
        (HISTORY, Some(AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongString(vec![0xff].into())])))),
    ];
    for (name, value) in cases {
        assert_eq!(with_header(name, value.clone()).decode(), Err(Undecodable::Header { name }), "{value:?}");
    }
    let mut other = message().encode();
    other.properties = other.properties.with_type("zbl.v1.DepositRequest".into());
    assert_eq!(other.decode(), Err(Undecodable::Type));
}

#[test]
fn a_long_history_keeps_its_newest_lines_cut() {
    let history = (0..20).map(|number| format!("{number} {}", "ü".repeat(300))).collect();
    let read = Message { history, ..message() }.encode().decode().expect("readable").history;
    assert_eq!(read.len(), HISTORY_MAX);
    assert!(read[0].starts_with("10 ") && read[9].starts_with("19 "), "{read:?}");
    assert!(read.iter().all(|line| line.chars().count() == LINE_MAX));
}

#[test]
fn a_dead_letter_is_what_came_but_for_what_the_broker_would_act_upon() {
    let mut headers = FieldTable::default();
    headers.insert("CC".into(), AMQPValue::FieldArray(FieldArray::from(vec![text("elsewhere")])));
    headers.insert("huge".into(), text(&"x".repeat(FOREIGN_HEADERS_MAX)));
    headers.insert("small".into(), text("kept"));
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_type("other".into())
        .with_expiration("1".into())
        .with_user_id("somebody".into());
    let dead = Raw::new(vec![0, 0xff], properties).to_dead_letter("what is this?");
    assert_eq!((dead.body(), dead.text("small")), (&[0, 0xff][..], Some("kept")));
    assert_eq!(dead.reason().as_deref(), Some("what is this?"));
    assert!(dead.header("CC").is_none() && dead.header("huge").is_none());
    assert_eq!((dead.properties.expiration(), dead.properties.user_id()), (&None, &None));
    assert!(dead.message_id().is_some_and(|id| Uuid::try_parse(id).is_ok()));
    assert_eq!(*dead.properties.delivery_mode(), Some(2));
    assert_eq!(message().encode().to_dead_letter("why").message_id(), message().encode().message_id());
}

fn any_value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        vec(any::<u8>(), 0..300).prop_map(|bytes| AMQPValue::LongString(bytes.into())),
        Just(AMQPValue::Void),
    ];
    leaf.prop_recursive(2, 16, 12, |inner| {
        vec(inner, 0..12).prop_map(|values| AMQPValue::FieldArray(FieldArray::from(values)))
    })
}

fn any_name() -> impl Strategy<Value = String> {
    const OURS: [&str; 8] = [ATTEMPTS, HISTORY, AGAIN, REASON, ACCEPTED_AT, TRACEPARENT, DELIVERY_COUNT, "CC"];
    prop_oneof![3 => prop::sample::select(OURS.as_slice()).prop_map(str::to_owned), 1 => "[a-z-]{0,20}"]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        user_id in 1_i64..,
        id in any::<u128>(),
        minor in 1_i64..=999_999_999_999_999_999,
        strategy in "\\PC{0,40}",
        millis in 0_i64..=4_000_000_000_000,
        attempts in any::<u32>(),
        history in vec("\\PC{0,200}", 0..=HISTORY_MAX),
        again in any::<bool>(),
        traceparent in option::of("[0-9a-f-]{55}"),
        reason in option::of("\\PC{0,200}"),
    ) {
        let message = Message {
            user_id,
            request_id: Uuid::from_u128(id),
            amount: Money::from_minor(minor),
            strategy,
            accepted_at: DateTime::from_timestamp_millis(millis).expect("a time").naive_utc(),
            attempts,
            history,
            again,
            traceparent,
            reason,
        };
        prop_assert_eq!(message.encode().decode(), Ok(message));
    }

    #[test]
    fn nothing_that_may_come_makes_it_panic(
        body in vec(any::<u8>(), 0..400),
        is_ours in any::<bool>(),
        is_typed in any::<bool>(),
        headers in vec((any_name(), any_value()), 0..8),
        reason in "\\PC{0,400}",
    ) {
        let ours = message().encode();
        let mut table = ours.headers().expect("headers").inner().clone();
        table.extend(headers.into_iter().map(|(name, value)| (ShortString::from(name), value)));
        let mut properties = BasicProperties::default().with_headers(table.into());
        if is_typed {
            properties = properties.with_type(KIND.into()).with_message_id(ours.message_id().expect("an id").into());
        }
        let raw = Raw::new(if is_ours { ours.body } else { body }, properties);
        if let Ok(read) = raw.decode() {
            prop_assert!(is_ours && is_typed);
            prop_assert!(read.history.len() <= HISTORY_MAX);
        }
        let _ = raw.delivery_count();
        let dead = raw.to_dead_letter(&reason);
        prop_assert_eq!(dead.body(), raw.body());
        prop_assert_eq!(dead.reason(), Some(cut(&reason).to_owned()));
    }
}
