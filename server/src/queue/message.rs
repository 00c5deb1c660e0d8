//! A deduction as the queue carries it, and what else may be found there. What can be read is what this program wrote,
//! to the letter; anything else is named for what is wrong with it, and kept as it came.

use chrono::{DateTime, NaiveDateTime};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable, ShortString},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zbl_proto::{Money, MoneyError};

/// The largest body that is read, in bytes. One that this program wrote has some hundred.
pub const BODY_MAX: usize = 16_384;
/// How many lines of history a message keeps: the newest.
pub const HISTORY_MAX: usize = 10;
/// How long a line of history, or the reason, may be, in characters.
pub const LINE_MAX: usize = 200;

/// How much of the headers that came with an unreadable message it keeps as a dead letter, in bytes as JSON writes them,
/// which is not less than AMQP does. All headers have to fit in one frame (128 kB), or the broker ends the connection.
const FOREIGN_HEADERS_MAX: usize = 65_536;

/// A traceparent has 55 characters; a longer one is none.
const TRACEPARENT_MAX: usize = 128;

const KIND: &str = "zbl.v1.DeductRequest";
const CONTENT_TYPE: &str = "application/json";
/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;

const ATTEMPTS: &str = "zbl-attempts";
const HISTORY: &str = "zbl-history";
const AGAIN: &str = "zbl-again";
const REASON: &str = "zbl-reason";
const ACCEPTED_AT: &str = "zbl-accepted-at";
const TRACEPARENT: &str = "traceparent";
/// Counted by a quorum queue.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Copies for other queues, which the broker would make again. Not to be passed on.
const COPIES: [&str; 2] = ["CC", "BCC"];

/// A deduction that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The account, positive.
    pub user_id: i64,
    /// The id that makes the request repeatable.
    pub request_id: Uuid,
    /// How much, minor units, greater than zero.
    pub amount: Money,
    /// The strategy; "" is the worker's.
    pub strategy: String,
    /// When it was accepted, UTC, to the millisecond.
    pub accepted_at: NaiveDateTime,
    /// How often it was tried and failed for a reason that counts.
    pub attempts: u32,
    /// What became of the attempts, the oldest first. At most [`HISTORY_MAX`] lines of at most [`LINE_MAX`] characters
    /// are published: the newest, cut.
    pub history: Vec<String>,
    /// It was given up before, and is tried again because somebody asked for that.
    pub again: bool,
    /// The trace it belongs to, as W3C Trace Context writes it.
    pub traceparent: Option<String>,
    /// Why it was given up, at most [`LINE_MAX`] characters.
    pub reason: Option<String>,
}

/// Why a message cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The body is longer than [`BODY_MAX`].
    #[error("the body has {bytes} bytes, the most is {BODY_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The type is another one.
    #[error("the type is not {KIND}")]
    Type,
    /// The body is not JSON of the right form.
    #[error("the body is not a deduction as JSON: {reason}")]
    Body {
        /// What the parser said, cut.
        reason: String,
    },
    /// The account is not positive.
    #[error("user_id {user_id} is not positive")]
    UserId {
        /// What it says.
        user_id: i64,
    },
    /// The amount is not one that can be deducted.
    #[error("amount: {0}")]
    Amount(MoneyError),
    /// The amount is zero.
    #[error("amount: zero cannot be deducted")]
    NoAmount,
    /// The request id is not a UUID.
    #[error("request_id is not a UUID")]
    RequestId,
    /// The message id is not the request id.
    #[error("message_id is not the request id")]
    MessageId,
    /// A header is missing, or is not what it should be.
    #[error("the header {name} is missing or malformed")]
    Header {
        /// Which.
        name: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    user_id: i64,
    amount: String,
    request_id: String,
    strategy: String,
}

impl Message {
    pub(super) fn encode(&self) -> Raw {
        let request_id = self.request_id.to_string();
        let mut headers = FieldTable::default();
        headers.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(i64::from(self.attempts)));
        headers.insert(ACCEPTED_AT.into(), AMQPValue::LongLongInt(self.accepted_at.and_utc().timestamp_millis()));
        if !self.history.is_empty() {
            let newest = self.history.len().saturating_sub(HISTORY_MAX);
            let lines: Vec<_> = self.history.iter().skip(newest).map(|line| text(cut(line))).collect();
            headers.insert(HISTORY.into(), AMQPValue::FieldArray(FieldArray::from(lines)));
        }
        if self.again {
            headers.insert(AGAIN.into(), AMQPValue::Boolean(true));
        }
        if let Some(traceparent) = &self.traceparent {
            headers.insert(TRACEPARENT.into(), text(traceparent));
        }
        if let Some(reason) = &self.reason {
            headers.insert(REASON.into(), text(cut(reason)));
        }
        let properties = BasicProperties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_type(KIND.into())
            .with_message_id(request_id.as_str().into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        let (amount, strategy) = (self.amount.to_string(), self.strategy.clone());
        let body = Body { user_id: self.user_id, amount, request_id, strategy };
        // Numbers and strings: there is nothing that JSON could not say.
        Raw { body: serde_json::to_vec(&body).unwrap_or_default(), properties }
    }

    fn decode(raw: &Raw) -> Result<Self, Undecodable> {
        if raw.body.len() > BODY_MAX {
            return Err(Undecodable::TooLarge { bytes: raw.body.len() });
        }
        if raw.properties.kind().as_ref().is_none_or(|kind| kind.as_str() != KIND) {
            return Err(Undecodable::Type);
        }
        let body: Body = serde_json::from_slice(&raw.body)
            .map_err(|error| Undecodable::Body { reason: cut(&error.to_string()).to_owned() })?;
        if body.user_id <= 0 {
            return Err(Undecodable::UserId { user_id: body.user_id });
        }
        let amount = Money::parse(&body.amount).map_err(Undecodable::Amount)?;
        if amount == Money::ZERO {
            return Err(Undecodable::NoAmount);
        }
        let request_id = Uuid::try_parse(&body.request_id).map_err(|_| Undecodable::RequestId)?;
        if raw.message_id().and_then(|id| Uuid::try_parse(id).ok()) != Some(request_id) {
            return Err(Undecodable::MessageId);
        }
        Ok(Self {
            user_id: body.user_id,
            request_id,
            amount,
            strategy: body.strategy,
            accepted_at: raw
                .integer(ACCEPTED_AT)
                .and_then(DateTime::from_timestamp_millis)
                .ok_or(Undecodable::Header { name: ACCEPTED_AT })?
                .naive_utc(),
            attempts: raw
                .integer(ATTEMPTS)
                .and_then(|count| u32::try_from(count).ok())
                .ok_or(Undecodable::Header { name: ATTEMPTS })?,
            history: raw.history().ok_or(Undecodable::Header { name: HISTORY })?,
            again: matches!(raw.header(AGAIN), Some(AMQPValue::Boolean(true))),
            // No reason to refuse a deduction.
            traceparent: raw.text(TRACEPARENT).filter(|text| text.len() <= TRACEPARENT_MAX).map(str::to_owned),
            reason: raw.reason(),
        })
    }
}

/// A message as it came: bytes and properties.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    body: Vec<u8>,
    properties: BasicProperties,
}

impl Raw {
    pub(super) const fn new(body: Vec<u8>, properties: BasicProperties) -> Self {
        Self { body, properties }
    }

    /// The deduction it is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(&self) -> Result<Message, Undecodable> {
        Message::decode(self)
    }

    /// The bytes.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) const fn properties(&self) -> &BasicProperties {
        &self.properties
    }

    /// The id it was published under, whatever that is.
    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    /// Why it is a dead letter, as far as it says so itself.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.text(REASON).map(|text| cut(text).to_owned())
    }

    /// How often it was delivered before, as a quorum queue counts.
    pub(super) fn delivery_count(&self) -> u32 {
        self.integer(DELIVERY_COUNT).map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// The form it takes among the dead letters: what it was, as far as the broker takes that again, and why it is there.
    pub(super) fn to_dead_letter(&self, reason: &str) -> Self {
        let mut headers = FieldTable::default();
        let mut room = FOREIGN_HEADERS_MAX;
        for (name, value) in self.headers().into_iter().flatten() {
            let size =
                serde_json::to_vec(value).map_or(usize::MAX, |json| json.len()).saturating_add(name.as_str().len());
            if !COPIES.contains(&name.as_str()) && size <= room {
                room -= size;
                headers.insert(name.clone(), value.clone());
            }
        }
        headers.insert(REASON.into(), text(cut(reason)));
        let from = &self.properties;
        // Not its expiration, it is to be found; nor its user, whom the broker compares with ours.
        let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
        // Under an id of its own it can be asked for.
        let id = from.message_id().clone().filter(|id| !id.as_str().is_empty());
        properties = properties.with_message_id(id.unwrap_or_else(|| Uuid::new_v4().to_string().as_str().into()));
        if let Some(kind) = from.kind() {
            properties = properties.with_type(kind.clone());
        }
        if let Some(content_type) = from.content_type() {
            properties = properties.with_content_type(content_type.clone());
        }
        if let Some(encoding) = from.content_encoding() {
            properties = properties.with_content_encoding(encoding.clone());
        }
        if let Some(correlation_id) = from.correlation_id() {
            properties = properties.with_correlation_id(correlation_id.clone());
        }
        if let Some(app_id) = from.app_id() {
            properties = properties.with_app_id(app_id.clone());
        }
        if let Some(timestamp) = from.timestamp() {
            properties = properties.with_timestamp(*timestamp);
        }
        Self { body: self.body.clone(), properties }
    }

    /// The same message, to be dropped by the queue that it is put into after this many milliseconds.
    pub(super) fn expiring(mut self, millis: i64) -> Self {
        self.properties = self.properties.with_expiration(millis.to_string().as_str().into());
        self
    }

    fn headers(&self) -> Option<&FieldTable> {
        self.properties.headers().as_ref()
    }

    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.headers()?.inner().get(name)
    }

    fn integer(&self, name: &str) -> Option<i64> {
        match *self.header(name)? {
            AMQPValue::ShortShortInt(value) => Some(value.into()),
            AMQPValue::ShortShortUInt(value) => Some(value.into()),
            AMQPValue::ShortInt(value) => Some(value.into()),
            AMQPValue::ShortUInt(value) => Some(value.into()),
            AMQPValue::LongInt(value) => Some(value.into()),
            AMQPValue::LongUInt(value) => Some(value.into()),
            AMQPValue::LongLongInt(value) => Some(value),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        as_text(self.header(name)?)
    }

    /// The lines of history, none when there are none; `None` when they are no such lines.
    fn history(&self) -> Option<Vec<String>> {
        let lines = match self.header(HISTORY) {
            None => return Some(Vec::new()),
            Some(AMQPValue::FieldArray(lines)) => lines.as_slice(),
            Some(_) => return None,
        };
        if lines.len() > HISTORY_MAX {
            return None;
        }
        lines.iter().map(|line| as_text(line).filter(|line| cut(line).len() == line.len()).map(str::to_owned)).collect()
    }
}

fn as_text(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// The first [`LINE_MAX`] characters.
fn cut(text: &str) -> &str {
    text.char_indices().nth(LINE_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests;
