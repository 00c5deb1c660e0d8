//! The values of the account service, typed: money in minor units, ids as UUIDs. What a message leaves out or garbles is
//! refused here, as [`Error`], so that no caller has to look again.

use std::time::SystemTime;

use uuid::Uuid;
use zbl_proto::Money;
use zbl_proto::v1::{self, EntryKind, Guarantee};

use crate::Error;

/// A deduction or a deposit to make.
#[derive(Clone, Debug)]
pub struct Change {
    /// The account.
    pub user_id: i64,
    /// How much, greater than zero.
    pub amount: Money,
    /// The id that makes the call repeatable: the same id never takes effect twice.
    pub request_id: Uuid,
    /// The strategy's name; empty means the server's default.
    pub strategy: String,
}

impl Change {
    /// A change under a fresh request id and the server's default strategy.
    pub fn new(user_id: i64, amount: Money) -> Self {
        Self { user_id, amount, request_id: Uuid::new_v4(), strategy: String::new() }
    }
}

/// An account's stored balance and the journal position it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account's id.
    pub user_id: i64,
    /// Its balance.
    pub balance: Money,
    /// The version of its newest journal entry.
    pub version: i64,
}

/// The acknowledgement of a deduction or a deposit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The account.
    pub user_id: i64,
    /// The balance the change left behind.
    pub balance: Money,
    /// Its position in the account's journal.
    pub version: i64,
    /// The version that was read to decide it.
    pub version_before: i64,
    /// The strategy that was used.
    pub strategy: String,
    /// How many times the server ran the transaction for this call; 0 for a replay.
    pub attempts: u32,
    /// The id under which it is journaled.
    pub request_id: Uuid,
    /// Whether the id had taken effect before this call.
    pub replayed: bool,
}

/// What became of a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It took effect.
    Succeeded(Receipt),
    /// It was voided: it never took effect and never will.
    Voided,
    /// Nothing is journaled under it so far; an attempt in flight may still be.
    NotFound,
}

/// A journal entry: one change of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The position in the account's journal, from 1.
    pub version: i64,
    /// The id of the request that made it.
    pub request_id: Uuid,
    /// What kind of change it is.
    pub kind: EntryKind,
    /// The signed change.
    pub delta: Money,
    /// The balance it left behind.
    pub balance_after: Money,
    /// The version its operation had read.
    pub version_before: i64,
    /// The strategy that wrote it; empty for OPEN, RESET and VOID.
    pub strategy: String,
    /// When it was written, by the database's clock; `None` when the server does not say.
    pub created_at: Option<SystemTime>,
    /// The version of the entry that overwrote it; `None` when it survives, or was not asked about
    /// ([`crate::EntryFilter::lost_only`]).
    pub overwritten_by: Option<i64>,
}

/// A page of a journal.
#[derive(Clone, Debug)]
pub struct EntryPage {
    /// The entries, in the order asked for.
    pub entries: Vec<Entry>,
    /// The token of the next page; `None` after the last.
    pub next: Option<String>,
}

/// A concurrency-control strategy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// Its name, as requests give it.
    pub name: String,
    /// What it promises.
    pub guarantee: Guarantee,
    /// How it works, in a sentence.
    pub summary: String,
    /// Why it cannot be used on this server; `None` when it can.
    pub unavailable: Option<String>,
}

/// The strategies of a server.
#[derive(Clone, Debug)]
pub struct Strategies {
    /// All of them, in the registry's order.
    pub all: Vec<Strategy>,
    /// The one that is used when a request names none.
    pub default: String,
    /// What the server stores accounts in: `sqlite`, `mariadb` or `mysql`.
    pub store: String,
}

pub(crate) fn money(field: &str, text: &str) -> Result<Money, Error> {
    Money::parse_signed(text).map_err(|error| Error::broken_answer(format_args!("{field} {text:?}: {error}")))
}

pub(crate) fn request_id(text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|error| Error::broken_answer(format_args!("request_id {text:?}: {error}")))
}

pub(crate) fn deduct_request(change: &Change) -> v1::DeductRequest {
    v1::DeductRequest {
        user_id: change.user_id,
        amount: change.amount.to_string(),
        request_id: change.request_id.to_string(),
        strategy: change.strategy.clone(),
    }
}

pub(crate) fn receipt(message: v1::DeductResponse, replayed: bool) -> Result<Receipt, Error> {
    Ok(Receipt {
        user_id: message.user_id,
        balance: money("balance", &message.balance)?,
        version: message.version,
        version_before: message.version_before,
        attempts: u32::try_from(message.attempts).map_err(|_| Error::broken_answer("attempts are negative"))?,
        request_id: request_id(&message.request_id)?,
        strategy: message.strategy,
        replayed,
    })
}

/// The two receipts are one shape under two names, as Protobuf's naming rules want it.
pub(crate) fn deposit_as_deduction(message: v1::DepositResponse) -> v1::DeductResponse {
    let v1::DepositResponse { user_id, balance, version, version_before, strategy, attempts, request_id } = message;
    v1::DeductResponse { user_id, balance, version, version_before, strategy, attempts, request_id }
}

pub(crate) fn fate(message: v1::GetDeductionResponse) -> Result<Fate, Error> {
    match message.state() {
        v1::DeductionState::Succeeded => {
            let found = message.receipt.ok_or_else(|| Error::broken_answer("SUCCEEDED without a receipt"))?;
            Ok(Fate::Succeeded(receipt(found, true)?))
        }
        v1::DeductionState::Voided => Ok(Fate::Voided),
        v1::DeductionState::NotFound => Ok(Fate::NotFound),
        v1::DeductionState::Unspecified => Err(Error::broken_answer("the state is unspecified")),
    }
}

pub(crate) fn entry_page(message: v1::ListEntriesResponse) -> Result<EntryPage, Error> {
    let entries = message.entries.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok(EntryPage { entries, next: Some(message.next_page_token).filter(|token| !token.is_empty()) })
}

pub(crate) fn entry(message: v1::Entry) -> Result<Entry, Error> {
    Ok(Entry {
        version: message.version,
        request_id: request_id(&message.request_id)?,
        kind: message.kind(),
        delta: money("delta", &message.delta)?,
        balance_after: money("balance_after", &message.balance_after)?,
        version_before: message.version_before,
        strategy: message.strategy,
        created_at: message.create_time.and_then(|time| SystemTime::try_from(time).ok()),
        overwritten_by: Some(message.overwritten_by).filter(|&version| version != 0),
    })
}

pub(crate) fn strategies(message: v1::ListStrategiesResponse) -> Strategies {
    let strategy = |found: v1::Strategy| Strategy {
        guarantee: found.guarantee(),
        name: found.name,
        summary: found.summary,
        unavailable: (!found.available).then_some(found.unavailable_reason),
    };
    Strategies {
        all: message.strategies.into_iter().map(strategy).collect(),
        default: message.default_strategy,
        store: message.store,
    }
}
