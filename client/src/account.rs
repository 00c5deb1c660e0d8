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

/// A point of an account's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// When it was at this version, from 1.
    Version(i64),
    /// At this time, by the database's clock.
    Time(SystemTime),
}

impl From<AsOf> for v1::get_balance_request::AsOf {
    fn from(as_of: AsOf) -> Self {
        match as_of {
            AsOf::Version(version) => Self::AsOfVersion(version),
            AsOf::Time(time) => Self::AsOfTime(time.into()),
        }
    }
}

/// What an account held once, whether it was lost afterwards or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastBalance {
    /// The account's id.
    pub user_id: i64,
    /// What it held.
    pub balance: Money,
    /// The version of its newest journal entry then.
    pub version: i64,
    /// When that was written, by the database's clock.
    pub written_at: SystemTime,
}

/// Whether a balance that is off its journal is set right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mending {
    /// No: it is only looked at.
    Look,
    /// By a REPAIR under this request id.
    Repair(Uuid),
}

impl Mending {
    pub(crate) fn request(self, user_id: i64) -> v1::RebuildBalanceRequest {
        let (dry_run, request_id) = match self {
            Self::Look => (true, String::new()),
            Self::Repair(request_id) => (false, request_id.to_string()),
        };
        v1::RebuildBalanceRequest { user_id, dry_run, request_id }
    }
}

/// A balance, held against its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The account.
    pub user_id: i64,
    /// What was stored.
    pub stored: Money,
    /// What the journal comes to; below zero where more was taken than there was.
    pub expected: Money,
    /// How much more was stored.
    pub difference: Money,
    /// The part of the difference that lost updates explain; the rest is somebody's who changed the balance itself.
    pub explained: Money,
    /// The updates that were lost, newest first: the newest hundred.
    pub lost: Vec<LostEntry>,
    /// How many more there are.
    pub lost_omitted: u64,
    /// The version of the OPEN, RESET or REPAIR with which the sum begins.
    pub since_version: i64,
    /// Whether a REPAIR was journaled.
    pub repaired: bool,
    /// The version of the REPAIR; without one, the version up to which the journal was folded.
    pub version: i64,
    /// Whether the same request had journaled it before this call.
    pub replayed: bool,
}

/// An update that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEntry {
    /// Its version.
    pub version: i64,
    /// The request that lost.
    pub request_id: Uuid,
    /// What kind of change it was.
    pub kind: EntryKind,
    /// What the balance has too much without it.
    pub amount: Money,
    /// The version its operation had read.
    pub version_before: i64,
    /// The version of the entry that wrote over it.
    pub overwriter_version: i64,
    /// The request of that entry.
    pub overwriter_request_id: Uuid,
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
    /// It was accepted, to be made later.
    Pending,
    /// It was accepted, and refused when its turn came: it never took effect.
    Failed(NotMade),
    /// It was accepted, and laid aside because it could not be made: an operator decides.
    DeadLettered(NotMade),
}

impl Fate {
    /// Whether nothing more will become of it by itself: it was made, refused, voided or laid aside.
    #[must_use]
    pub const fn is_decided(&self) -> bool {
        match self {
            Self::Succeeded(_) | Self::Voided | Self::Failed(_) | Self::DeadLettered(_) => true,
            Self::NotFound | Self::Pending => false,
        }
    }
}

/// Why an accepted deduction was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotMade {
    /// A reason of the error table, as the server spells it, or `PURGED`.
    pub reason: String,
    /// The same in words.
    pub message: String,
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
    /// The strategy that wrote it; empty for OPEN, RESET, VOID and REPAIR.
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

pub(crate) fn past_balance(message: &v1::GetBalanceResponse) -> Result<PastBalance, Error> {
    let written_at = message.entry_time.and_then(|time| SystemTime::try_from(time).ok());
    Ok(PastBalance {
        user_id: message.user_id,
        balance: money("balance", &message.balance)?,
        version: message.version,
        // A server that does not know `as_of` answers with what there is now.
        written_at: written_at.ok_or_else(|| Error::broken_answer("as_of is not known to this server"))?,
    })
}

pub(crate) fn rebuilt(message: v1::RebuildBalanceResponse, replayed: bool) -> Result<Rebuilt, Error> {
    let lost = |lost: v1::LostEntry| {
        Ok(LostEntry {
            version: lost.version,
            request_id: request_id(&lost.request_id)?,
            kind: lost.kind(),
            amount: money("amount", &lost.amount)?,
            version_before: lost.version_before,
            overwriter_version: lost.overwriter_version,
            overwriter_request_id: request_id(&lost.overwriter_request_id)?,
        })
    };
    Ok(Rebuilt {
        user_id: message.user_id,
        stored: money("stored_balance", &message.stored_balance)?,
        expected: money("expected_balance", &message.expected_balance)?,
        difference: money("difference", &message.difference)?,
        explained: money("explained", &message.explained)?,
        lost: message.lost.into_iter().map(lost).collect::<Result<_, Error>>()?,
        lost_omitted: u64::try_from(message.lost_omitted)
            .map_err(|_| Error::broken_answer("lost_omitted is negative"))?,
        since_version: message.since_version,
        repaired: message.repaired,
        version: message.version,
        replayed,
    })
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
    let state = message.state();
    let verdict = NotMade { reason: message.reason, message: message.message };
    match state {
        v1::DeductionState::Succeeded => {
            let found = message.receipt.ok_or_else(|| Error::broken_answer("SUCCEEDED without a receipt"))?;
            Ok(Fate::Succeeded(receipt(found, true)?))
        }
        v1::DeductionState::Voided => Ok(Fate::Voided),
        v1::DeductionState::NotFound => Ok(Fate::NotFound),
        v1::DeductionState::Pending => Ok(Fate::Pending),
        v1::DeductionState::Failed => Ok(Fate::Failed(verdict)),
        v1::DeductionState::DeadLettered => Ok(Fate::DeadLettered(verdict)),
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
