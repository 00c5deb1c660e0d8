//! Between messages and the domain: every field is checked here, once, before anything is asked of the ledger.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDateTime};
use prost_types::Timestamp;
use uuid::Uuid;
use zbl_proto::v1::{self, get_balance_request};

use crate::{
    account::{self, Change, Direction, Entry, EntryKind, Money, Receipt},
    error::{Invalid, InvalidReason},
    history::losses::Lost,
    ledger::{AsOf, Ledger, Mending, Rebuilt},
    store::PoolState,
    strategy::{self, Guarantee, Row},
    timeline::{Contender, Noted, Phase, Race, Span, Timeline},
};

/// Entries on a page when the request says 0.
const PAGE_DEFAULT: i64 = 100;

/// The most entries on a page: about 150 kB of answer.
const PAGE_MOST: i64 = 1000;

/// How often WatchStatus tells when nothing is said.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// The shortest interval of WatchStatus: a faster one would measure itself.
const INTERVAL_LEAST: Duration = Duration::from_millis(100);

pub(super) fn user_id(value: i64) -> Result<i64, Invalid> {
    if value > 0 {
        return Ok(value);
    }
    let description = format!("{value} is not a user id; ids are positive");
    Err(Invalid { field: "user_id", reason: InvalidReason::UserId, description })
}

/// 0 lets the server pick.
pub(super) fn new_user_id(value: i64) -> Result<i64, Invalid> {
    if value == 0 { Ok(0) } else { user_id(value) }
}

/// A request id; the server makes one where the caller did not.
pub(super) fn request_id(text: &str) -> Result<Uuid, Invalid> {
    if text.is_empty() { Ok(Uuid::new_v4()) } else { given_request_id(text) }
}

/// A request id that must be there.
pub(super) fn given_request_id(text: &str) -> Result<Uuid, Invalid> {
    Uuid::try_parse(text).map_err(|error| Invalid {
        field: "request_id",
        reason: InvalidReason::RequestId,
        description: format!("not a UUID: {error}"),
    })
}

fn money(field: &'static str, text: &str) -> Result<Money, Invalid> {
    Money::parse(text).map_err(|error| Invalid { field, reason: InvalidReason::Amount, description: error.to_string() })
}

fn amount(text: &str) -> Result<Money, Invalid> {
    let amount = money("amount", text)?;
    if amount > Money::ZERO {
        return Ok(amount);
    }
    let description = "the amount must be greater than zero".to_owned();
    Err(Invalid { field: "amount", reason: InvalidReason::Amount, description })
}

/// A balance to set; "" is zero where the field may be left out.
pub(super) fn balance(field: &'static str, text: &str) -> Result<Money, Invalid> {
    money(field, text)
}

/// The row of a strategy; `None` for "".
pub(super) fn strategy(name: &str) -> Result<Option<&'static Row>, Invalid> {
    if name.is_empty() {
        return Ok(None);
    }
    strategy::find(name).map(Some).map_err(|unknown| Invalid {
        field: "strategy",
        reason: InvalidReason::UnknownStrategy,
        description: unknown.to_string(),
    })
}

/// The strategy that a request is counted under; `None` for one that does not exist.
pub(super) fn counted_as(name: &str, ledger: &Ledger) -> Option<&'static Row> {
    strategy(name).ok().map(|row| row.unwrap_or_else(|| ledger.default_strategy()))
}

/// The change that a Deduct or Deposit asks for.
pub(super) fn change(user: i64, direction: Direction, value: &str, id: &str) -> Result<Change, Invalid> {
    Ok(Change { user_id: user_id(user)?, amount: amount(value)?, request_id: request_id(id)?, direction })
}

pub(super) fn page_size(value: i32) -> Result<i64, Invalid> {
    match value {
        0 => Ok(PAGE_DEFAULT),
        1.. => Ok(i64::from(value).min(PAGE_MOST)),
        _ => Err(Invalid {
            field: "page_size",
            reason: InvalidReason::Page,
            description: format!("{value} is negative; give 0 for {PAGE_DEFAULT}, or up to {PAGE_MOST}"),
        }),
    }
}

/// The point of an account's history that is asked for.
pub(super) fn as_of(asked: &get_balance_request::AsOf) -> Result<AsOf, Invalid> {
    match asked {
        get_balance_request::AsOf::AsOfVersion(version @ 1..) => Ok(AsOf::Version(*version)),
        get_balance_request::AsOf::AsOfVersion(version) => {
            let description = format!("{version} is not a version; they count from 1, the opening");
            Err(Invalid { field: "as_of_version", reason: InvalidReason::AsOf, description })
        }
        get_balance_request::AsOf::AsOfTime(Timestamp { seconds, nanos }) => {
            let nanos = u32::try_from(*nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
            let time = nanos.and_then(|nanos| DateTime::from_timestamp(*seconds, nanos));
            let time = time.filter(|time| (1..=9999).contains(&time.year()));
            time.map(|time| AsOf::Time(time.naive_utc())).ok_or_else(|| {
                let description = "not a time from 0001-01-01T00:00:00Z to the end of the year 9999".to_owned();
                Invalid { field: "as_of_time", reason: InvalidReason::AsOf, description }
            })
        }
    }
}

/// A time of the database's clock.
pub(super) fn timestamp(time: NaiveDateTime) -> Timestamp {
    let time = time.and_utc();
    Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().cast_signed() }
}

/// What is to be done about a balance that is off.
pub(super) fn mending(message: &v1::RebuildBalanceRequest) -> Result<Mending, Invalid> {
    if message.dry_run {
        return Ok(Mending::Look);
    }
    request_id(&message.request_id).map(Mending::Repair)
}

pub(super) fn rebuild_response(rebuilt: &Rebuilt, mending: Mending) -> v1::RebuildBalanceResponse {
    v1::RebuildBalanceResponse {
        user_id: rebuilt.user_id,
        stored_balance: rebuilt.stored.balance.to_string(),
        expected_balance: rebuilt.expected.balance.to_string(),
        difference: rebuilt.difference.to_string(),
        explained: rebuilt.expected.lost.to_string(),
        lost: rebuilt.lost.iter().map(lost).collect(),
        lost_omitted: rebuilt.lost_omitted.try_into().unwrap_or(i64::MAX),
        since_version: rebuilt.expected.since,
        repaired: rebuilt.repaired.is_some(),
        version: rebuilt.repaired.unwrap_or(rebuilt.stored.version),
        request_id: match mending {
            Mending::Look => String::new(),
            Mending::Repair(request_id) => request_id.to_string(),
        },
    }
}

fn lost(lost: &Lost) -> v1::LostEntry {
    v1::LostEntry {
        version: lost.entry.version,
        request_id: lost.entry.request_id.to_string(),
        kind: kind(lost.entry.kind).into(),
        amount: lost.amount.to_string(),
        version_before: lost.entry.version_before,
        overwriter_version: lost.overwriter.version,
        overwriter_request_id: lost.overwriter.request_id.to_string(),
    }
}

pub(super) fn deduct_response(receipt: Receipt) -> v1::DeductResponse {
    v1::DeductResponse {
        user_id: receipt.user_id,
        balance: receipt.balance.to_string(),
        version: receipt.version,
        version_before: receipt.version_before,
        strategy: receipt.strategy,
        attempts: receipt.attempts.try_into().unwrap_or(i32::MAX),
        request_id: receipt.request_id.to_string(),
    }
}

pub(super) fn deposit_response(receipt: Receipt) -> v1::DepositResponse {
    let v1::DeductResponse { user_id, balance, version, version_before, strategy, attempts, request_id } =
        deduct_response(receipt);
    v1::DepositResponse { user_id, balance, version, version_before, strategy, attempts, request_id }
}

pub(super) const fn kind(kind: EntryKind) -> v1::EntryKind {
    match kind {
        EntryKind::Open => v1::EntryKind::Open,
        EntryKind::Deduct => v1::EntryKind::Deduct,
        EntryKind::Deposit => v1::EntryKind::Deposit,
        EntryKind::Reset => v1::EntryKind::Reset,
        EntryKind::Void => v1::EntryKind::Void,
        EntryKind::Repair => v1::EntryKind::Repair,
    }
}

pub(super) fn entry(entry: Entry) -> v1::Entry {
    v1::Entry {
        user_id: entry.user_id,
        version: entry.version,
        request_id: entry.request_id.to_string(),
        kind: kind(entry.kind).into(),
        delta: entry.delta.to_string(),
        balance_after: entry.balance_after.to_string(),
        version_before: entry.version_before,
        strategy: entry.strategy,
        create_time: Some(timestamp(entry.created_at)),
        overwritten_by: 0,
    }
}

const fn guarantee(guarantee: Guarantee) -> v1::Guarantee {
    match guarantee {
        Guarantee::LosesUpdates => v1::Guarantee::LosesUpdates,
        Guarantee::OneProcess => v1::Guarantee::OneProcess,
        Guarantee::WhileLeaseHolds => v1::Guarantee::WhileLeaseHolds,
        Guarantee::Always => v1::Guarantee::Always,
    }
}

pub(super) fn strategy_message((row, unavailable): (&Row, Option<&str>)) -> v1::Strategy {
    v1::Strategy {
        name: row.name.to_owned(),
        guarantee: guarantee(row.guarantee).into(),
        summary: row.summary.to_owned(),
        available: unavailable.is_none(),
        unavailable_reason: unavailable.unwrap_or_default().to_owned(),
    }
}

pub(super) fn pool(pool: PoolState) -> v1::PoolStatus {
    let signed = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    v1::PoolStatus {
        max: signed(pool.max),
        open: signed(pool.open),
        in_use: signed(pool.in_use),
        waiting: signed(pool.waiting),
    }
}

pub(super) fn timeline_status(timeline: &Timeline) -> v1::TimelineStatus {
    let newest = timeline.newest();
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    v1::TimelineStatus {
        epoch: timeline.epoch().to_string(),
        newest_sequence: signed(newest),
        retained: signed(newest.saturating_sub(timeline.first_held())),
        capacity: signed(timeline.capacity() as u64),
    }
}

/// How often a status is told.
pub(super) fn interval(asked: Option<&prost_types::Duration>) -> Result<Duration, Invalid> {
    let Some(asked) = asked else { return Ok(INTERVAL_DEFAULT) };
    let interval = Duration::try_from(*asked).ok().filter(|interval| *interval >= INTERVAL_LEAST);
    interval.ok_or_else(|| Invalid {
        field: "interval",
        reason: InvalidReason::Interval,
        description: format!("not a duration of at least {INTERVAL_LEAST:?}"),
    })
}

fn state(state: account::State) -> v1::State {
    v1::State { balance: state.balance.to_string(), version: state.version }
}

pub(super) fn given_phase(phase: v1::Phase) -> Result<Phase, Invalid> {
    Ok(match phase {
        v1::Phase::LockWait => Phase::LockWait,
        v1::Phase::Read => Phase::Read,
        v1::Phase::Compute => Phase::Compute,
        v1::Phase::Write => Phase::Write,
        v1::Phase::Commit => Phase::Commit,
        v1::Phase::Unspecified | v1::Phase::Queued => {
            let description = "say before which phase: PHASE_LOCK_WAIT, PHASE_READ, … PHASE_COMMIT".to_owned();
            return Err(Invalid { field: "phase", reason: InvalidReason::Schedule, description });
        }
    })
}

pub(super) const fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Queued => v1::Phase::Queued,
        Phase::LockWait => v1::Phase::LockWait,
        Phase::Read => v1::Phase::Read,
        Phase::Compute => v1::Phase::Compute,
        Phase::Write => v1::Phase::Write,
        Phase::Commit => v1::Phase::Commit,
    }
}

pub(crate) fn span(span: &Span) -> v1::Span {
    let Noted { seen, written, destroyed, .. } = span.noted;
    v1::Span {
        user_id: span.user_id,
        request_id: span.request_id.to_string(),
        lane: span.lane.try_into().unwrap_or(i32::MAX),
        strategy: span.strategy.to_owned(),
        phase: phase(span.phase).into(),
        attempt: span.attempt.try_into().unwrap_or(i32::MAX),
        start_ns: span.start_ns,
        duration_ns: span.duration.as_nanos().try_into().unwrap_or(i64::MAX),
        seen: seen.map(state),
        written: written.map(state),
        destroyed: if destroyed == Money::ZERO { String::new() } else { destroyed.to_string() },
        trace_id: span.trace_id.map_or_else(String::new, |id| id.to_string()),
        failed: span.failure.is_some(),
        failure: span.failure.unwrap_or_default().to_owned(),
    }
}

pub(crate) fn contender(contender: &Contender) -> v1::Contender {
    v1::Contender {
        request_id: contender.request_id.to_string(),
        version: contender.version,
        delta: contender.delta.to_string(),
        balance_after: contender.balance_after.to_string(),
    }
}

pub(crate) fn race(race: &Race) -> v1::Race {
    v1::Race {
        user_id: race.user_id,
        overwriter: Some(contender(&race.overwriter)),
        seen: Some(state(race.seen)),
        victims: race.victims.iter().map(contender).collect(),
        victims_omitted: race.victims_omitted.try_into().unwrap_or(i32::MAX),
        destroyed: race.destroyed.to_string(),
    }
}
