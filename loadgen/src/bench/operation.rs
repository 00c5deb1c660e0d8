//! One operation of a bench: its request id, its message, its answer. It owns what goes over the wire, made with as
//! little work as it takes, because the instrument shares the machine with what it measures.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::time::Instant;
use uuid::Uuid;
use zbl_client::{Effect, Error, Money, Reason};
use zbl_proto::v1;

use crate::history::Acknowledgement;
use crate::report::bench::Method;

/// The bits of a UUID's upper half that are free; the other four are its version.
const NUMBER_BITS: u32 = 60;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

/// The bits of the upper half below the version.
const BELOW_VERSION: u32 = 12;

/// 2^64 divided by the golden ratio: odd, so that multiplying by it permutes the numbers, and spreads neighbours far
/// apart. Ids in order would be kind to the database's index as callers' random ones are not.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The gRPC message prefix: one byte for compression, four for the length.
pub(super) const PREFIX: usize = 5;

/// Buffer space for requests, asked for at once: some 500 of them.
const BUFFER: usize = 64 * 1024;

/// An operation that is due, under way or to be repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    /// The number of its account, from 0.
    pub(super) account: u32,
    /// What its request id is made from.
    pub(super) number: u64,
    /// When it was to be sent.
    pub(super) due: Instant,
    /// When it was first sent.
    pub(super) sent: Option<Instant>,
    /// Whether it is part of the figures, and not of the warm-up.
    pub(super) counts: bool,
    /// What its tries so far can have done.
    pub(super) effect: Effect,
    /// Why its last try failed, if the service said so.
    pub(super) reason: Option<Reason>,
}

/// An answer as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing was changed.
    Read,
    /// Money was taken.
    Deducted {
        /// What the receipt says.
        receipt: Acknowledgement,
        /// Transactions the server ran for it.
        attempts: u32,
    },
}

/// The request ids of one run. They share their lower half, by which the run's own journal entries are told from others;
/// UUID version 8 is for such. Their upper halves differ, and so do the first digits, which is what people are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestIds {
    lower: u64,
}

impl RequestIds {
    /// Ids that no other run has, as `tag` is random.
    pub(super) const fn new(tag: u64) -> Self {
        // The variant of RFC 9562 is binary 10.
        Self { lower: tag & (u64::MAX >> 2) | 1 << 63 }
    }

    /// The id made from a number below 2^60; each has its own.
    pub(super) const fn id(self, number: u64) -> Uuid {
        let spread = number.wrapping_mul(SPREAD) & NUMBER_MASK;
        let (above, below) = (spread >> BELOW_VERSION, spread & ((1 << BELOW_VERSION) - 1));
        let version = 8 << BELOW_VERSION;
        Uuid::from_u64_pair(above << (BELOW_VERSION + 4) | version | below, self.lower)
    }

    /// Whether the id is one of this run's.
    pub(super) const fn holds(self, id: Uuid) -> bool {
        id.as_u64_pair().1 == self.lower
    }
}

/// The answer of `grpc.health.v1.Health/Check`, the one message of that standard there is need for.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// All is well.
const SERVING: i32 = 1;

/// What every request of a run has in common.
#[derive(Clone, Debug)]
pub(super) struct Wording {
    pub(super) ids: RequestIds,
    /// The account with number 0; the others follow.
    pub(super) first_user: i64,
    /// What each deduction takes.
    pub(super) amount: Money,
    /// The same as the journal's change: negative.
    pub(super) delta: Money,
    pub(super) strategy: String,
}

/// Writes requests, each into the next part of one buffer.
#[derive(Debug)]
pub(super) struct Writer {
    wording: Wording,
    deduct: v1::DeductRequest,
    buffer: BytesMut,
}

impl Wording {
    /// The id of the account with this number.
    pub(super) fn user_id(&self, account: u32) -> i64 {
        self.first_user + i64::from(account)
    }
}

impl Writer {
    pub(super) fn new(wording: Wording) -> Self {
        let strategy = wording.strategy.clone();
        let deduct = v1::DeductRequest { amount: wording.amount.to_string(), strategy, ..Default::default() };
        Self { wording, deduct, buffer: BytesMut::new() }
    }

    /// The operation's request as a gRPC frame.
    pub(super) fn write(&mut self, operation: &Operation) -> Bytes {
        let user_id = self.wording.user_id(operation.account);
        match operation.method {
            // An empty message asks for the server as a whole.
            Method::Health => self.frame(&()),
            Method::Balance => self.frame(&v1::GetBalanceRequest { user_id, consistent: false, as_of: None }),
            Method::Deduct => {
                let mut deduct = std::mem::take(&mut self.deduct);
                deduct.user_id = user_id;
                deduct.request_id.clear();
                let id = self.wording.ids.id(operation.number);
                deduct.request_id.push_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
                let frame = self.frame(&deduct);
                self.deduct = deduct;
                frame
            }
        }
    }

    fn frame(&mut self, message: &impl Message) -> Bytes {
        let length = message.encoded_len();
        if self.buffer.capacity() < PREFIX + length {
            self.buffer.reserve(BUFFER.max(PREFIX + length));
        }
        self.buffer.put_u8(0);
        // Far below 4 GB: its parts are a few short texts.
        self.buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.encode_raw(&mut self.buffer);
        self.buffer.split().freeze()
    }
}

impl Answer {
    /// Reads the answer to a method.
    pub(super) fn read(method: Method, message: &[u8]) -> Result<Self, Error> {
        match method {
            Method::Health => match HealthCheckResponse::decode(message).map_err(Error::broken_answer)?.status {
                SERVING => Ok(Self::Read),
                other => Err(Error::broken_answer(format_args!("the serving status is {other}"))),
            },
            Method::Balance => {
                let answer = v1::GetBalanceResponse::decode(message).map_err(Error::broken_answer)?;
                Money::parse_signed(&answer.balance).map_err(Error::broken_answer)?;
                Ok(Self::Read)
            }
            Method::Deduct => Self::receipt(&v1::DeductResponse::decode(message).map_err(Error::broken_answer)?),
        }
    }

    fn receipt(message: &v1::DeductResponse) -> Result<Self, Error> {
        let balance = Money::parse_signed(&message.balance).map_err(Error::broken_answer)?;
        let receipt = Acknowledgement { balance, version: message.version, version_before: message.version_before };
        let attempts = u32::try_from(message.attempts).map_err(Error::broken_answer)?;
        Ok(Self::Deducted { receipt, attempts })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn wording() -> Wording {
        let amount = Money::from_minor(1);
        let delta = Money::from_minor(-1);
        Wording { ids: RequestIds::new(u64::MAX), first_user: 40, amount, delta, strategy: "batched".to_owned() }
    }

    fn operation(method: Method, number: u64) -> Operation {
        let due = Instant::now();
        Operation { method, account: 2, number, due, sent: None, counts: true, effect: Effect::None, reason: None }
    }

    #[test]
    fn ids_are_unlike_one_another_and_known_as_the_runs() {
        for tag in [0, u64::MAX, 0x1234_5678_9abc_def0] {
            let (ids, other) = (RequestIds::new(tag), RequestIds::new(tag ^ 1));
            let made: HashSet<Uuid> = (0..1_000).chain(NUMBER_MASK - 1_000..=NUMBER_MASK).map(|n| ids.id(n)).collect();
            assert_eq!(made.len(), 2_001);
            let firsts: HashSet<u32> = made.iter().map(|id| id.as_fields().0).collect();
            assert_eq!(firsts.len(), 2_001, "people are shown the first digits");
            for id in made {
                assert!(ids.holds(id) && !other.holds(id), "{id}");
                assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122), "{id}");
            }
        }
    }

    #[test]
    fn requests_are_framed_messages() {
        let mut writer = Writer::new(wording());
        let mut message = |method, number| {
            let frame = writer.write(&operation(method, number));
            assert_eq!(frame[0], 0);
            assert_eq!(u32::from_be_bytes(frame[1..PREFIX].try_into().unwrap()) as usize, frame.len() - PREFIX);
            frame.slice(PREFIX..)
        };
        assert!(message(Method::Health, 1).is_empty());
        assert_eq!(v1::GetBalanceRequest::decode(message(Method::Balance, 2)).unwrap().user_id, 42);
        for number in [3, 4] {
            let deduct = v1::DeductRequest::decode(message(Method::Deduct, number)).unwrap();
            let request_id = wording().ids.id(number).to_string();
            let expected = v1::DeductRequest {
                user_id: 42,
                amount: "0.01".to_owned(),
                request_id,
                strategy: "batched".to_owned(),
            };
            assert_eq!(deduct, expected);
        }
    }

    #[test]
    fn answers_that_break_the_contract_are_refused() {
        let serving = |status: i32| HealthCheckResponse { status }.encode_to_vec();
        assert_eq!(Answer::read(Method::Health, &serving(1)).unwrap(), Answer::Read);
        Answer::read(Method::Health, &serving(2)).unwrap_err();
        let balance = v1::GetBalanceResponse { balance: "9.999".to_owned(), ..Default::default() };
        Answer::read(Method::Balance, &balance.encode_to_vec()).unwrap_err();
        let receipt = v1::DeductResponse {
            balance: "9.99".to_owned(),
            version: 2,
            version_before: 1,
            attempts: 3,
            ..Default::default()
        };
        let acknowledgement = Acknowledgement { balance: Money::from_minor(999), version: 2, version_before: 1 };
        let expected = Answer::Deducted { receipt: acknowledgement, attempts: 3 };
        assert_eq!(Answer::read(Method::Deduct, &receipt.encode_to_vec()).unwrap(), expected);
        Answer::read(Method::Deduct, b"\xff").unwrap_err();
        Answer::read(Method::Deduct, &v1::DeductResponse { attempts: -1, ..receipt }.encode_to_vec()).unwrap_err();
    }
}
