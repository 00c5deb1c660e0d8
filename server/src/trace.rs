//! What a change looks like in a trace: who it is on its call's span, and a span for each phase, with the times of the
//! timeline. What a call did outside phases and has to wait for, a settlement, has one too.

use std::{ops::Range, time::Instant};

use uuid::Uuid;
use zbl_trace::{KeyValue, Part, Span, SpanKind, names};

use crate::{
    account::Change,
    call::Call,
    config::{DatabaseUrl, Place},
    timeline::{Noted, Phase},
};

/// What every span of the database says of it.
#[derive(Clone, Debug, Default)]
pub struct Database(Vec<KeyValue>);

impl Database {
    /// The store of that name at this address.
    pub fn new(name: &'static str, url: &DatabaseUrl) -> Self {
        let mut attributes = vec![KeyValue::new(names::DB_SYSTEM_NAME, name)];
        if let Some(Place { host, port, database }) = url.place() {
            attributes.push(KeyValue::new(names::SERVER_ADDRESS, host));
            attributes.push(KeyValue::new(names::SERVER_PORT, i64::from(port)));
            attributes.push(KeyValue::new(names::DB_NAMESPACE, database));
        }
        Self(attributes)
    }

    /// An operation on it.
    fn operation(&self, name: &'static str) -> impl Iterator<Item = KeyValue> {
        self.0.iter().cloned().chain([KeyValue::new(names::DB_OPERATION_NAME, name)])
    }
}

/// The span of the call that makes this change now, if there is one; what the change is, is said on it.
pub(crate) fn of_change(change: &Change, strategy: &'static str) -> Option<Span> {
    let span = Call::current()?.span().clone();
    span.set(|| {
        [
            KeyValue::new(names::USER_ID, change.user_id),
            KeyValue::new(names::REQUEST_ID, change.request_id.to_string()),
            KeyValue::new(names::STRATEGY, strategy),
        ]
    });
    Some(span)
}

/// What a span says of a message of the queue, and of what is done with it.
pub(crate) fn of_message(queue: &str, operation: &'static str, request_id: Uuid) -> [KeyValue; 5] {
    [
        KeyValue::new(names::MESSAGING_SYSTEM, "rabbitmq"),
        KeyValue::new(names::MESSAGING_DESTINATION_NAME, queue.to_owned()),
        KeyValue::new(names::MESSAGING_OPERATION_NAME, operation),
        KeyValue::new(names::MESSAGING_OPERATION_TYPE, operation),
        KeyValue::new(names::MESSAGING_MESSAGE_ID, request_id.to_string()),
    ]
}

/// Records, within the present call's span, that a message was sent since `began`, and confirmed.
pub(crate) fn sent(queue: &str, request_id: Option<Uuid>, began: Instant) {
    let (Some(call), Some(request_id)) = (Call::current(), request_id) else { return };
    call.span().record(|| {
        let attributes = of_message(queue, "send", request_id).into();
        Part { name: "send", kind: SpanKind::Producer, time: began..Instant::now(), attributes, error: None }
    });
}

/// A phase that is over.
pub(crate) struct PhaseOver {
    pub(crate) phase: Phase,
    pub(crate) attempt: u32,
    pub(crate) time: Range<Instant>,
    pub(crate) noted: Noted,
    pub(crate) failure: Option<&'static str>,
}

impl PhaseOver {
    /// Records it within its call's span.
    pub(crate) fn record(self, span: &Span, database: &Database) {
        span.record(|| {
            let statement = statement(self.phase);
            let mut attributes = vec![KeyValue::new(names::ATTEMPT, i64::from(self.attempt))];
            attributes.extend(statement.into_iter().flat_map(|statement| database.operation(statement)));
            let Noted { seen, written, together, .. } = self.noted;
            attributes.extend(seen.map(|state| KeyValue::new(names::VERSION_SEEN, state.version)));
            attributes.extend(written.map(|state| KeyValue::new(names::VERSION_WRITTEN, state.version)));
            attributes.extend((together > 1).then(|| KeyValue::new(names::BATCH_SIZE, i64::from(together))));
            let kind = if statement.is_some() { SpanKind::Client } else { SpanKind::Internal };
            Part { name: self.phase.name(), kind, time: self.time, attributes, error: self.failure }
        });
    }
}

/// The statement that a phase in the database is for; the others are none.
const fn statement(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Queued | Phase::LockWait | Phase::Compute => None,
        Phase::Read => Some("SELECT"),
        Phase::Write => Some("UPDATE"),
        Phase::Commit => Some("COMMIT"),
    }
}

/// Records a settlement that began at `began` and is over, within the present call's span: what it found, or why it
/// found nothing.
pub(crate) fn settlement(
    database: &Database,
    request_id: Uuid,
    began: Instant,
    found: Result<&'static str, &'static str>,
) {
    let Some(call) = Call::current() else { return };
    call.span().record(|| {
        let mut attributes = vec![KeyValue::new(names::REQUEST_ID, request_id.to_string())];
        attributes.extend(database.operation("SELECT"));
        attributes.extend(found.ok().map(|found| KeyValue::new(names::SETTLED, found)));
        let time = began..Instant::now();
        Part { name: "settle", kind: SpanKind::Client, time, attributes, error: found.err() }
    });
}
