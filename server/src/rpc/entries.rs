//! `ListEntries`: from its request to what the ledger is asked for, and page tokens. A token says where the next page
//! begins and echoes the filter that it belongs to, so that one under another filter is refused, not misread. The echo
//! guards against mistakes and not against forgers: whoever makes up a token misleads himself alone.

use std::ops::RangeInclusive;

use chrono::{DateTime, NaiveDateTime};
use prost::Message;
use zbl_proto::v1;

use super::convert;
use crate::{
    account::EntryKind,
    error::{Error, Invalid, InvalidReason},
    history::path::Path,
    ledger::{Cursor, Ledger, Listed, Walk},
    store::Criteria,
};

/// What tokens begin with, so that a number out of the blue is told from a token.
const AFTER: &str = "after-version-";
const BEFORE: &str = "before-version-";

/// The seconds of the years 1 to 9999, which is what a `google.protobuf.Timestamp` and a database may say.
const YEARS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A page of an account's journal.
///
/// # Errors
/// [`Error::Invalid`], or the ledger's.
pub(super) async fn list(ledger: &Ledger, request: &v1::ListEntriesRequest) -> Result<v1::ListEntriesResponse, Error> {
    let user_id = convert::user_id(request.user_id)?;
    let size = convert::page_size(request.page_size)?;
    let criteria = criteria(request)?;
    let page = ledger.page(user_id, criteria, cursor(request)?, size).await?;
    let next_page_token = page.next.map(|next| token(next, request)).unwrap_or_default();
    Ok(v1::ListEntriesResponse { entries: page.entries.into_iter().map(listed).collect(), next_page_token })
}

fn listed(Listed { entry, overwritten_by }: Listed) -> v1::Entry {
    v1::Entry { overwritten_by: overwritten_by.unwrap_or_default(), ..convert::entry(entry) }
}

const fn invalid(field: &'static str, description: String) -> Invalid {
    Invalid { field, reason: InvalidReason::Filter, description }
}

fn criteria(request: &v1::ListEntriesRequest) -> Result<Criteria, Invalid> {
    let from = request.from_time.as_ref().map(|time| moment("from_time", time)).transpose()?;
    let to = request.to_time.as_ref().map(|time| moment("to_time", time)).transpose()?;
    // As they were given: rounded, they can be the same.
    let given = |time: &prost_types::Timestamp| (time.seconds, time.nanos);
    if let (Some(from), Some(to)) = (&request.from_time, &request.to_time)
        && given(from) > given(to)
    {
        return Err(invalid("from_time", "it is later than to_time; swap the two".to_owned()));
    }
    let mut kinds = request.kinds.iter().map(|&kind| given_kind(kind)).collect::<Result<Vec<_>, _>>()?;
    kinds.sort_unstable_by_key(|kind| kind.name());
    kinds.dedup();
    let mut strategies = request.strategies.iter().map(|name| strategy(name)).collect::<Result<Vec<_>, _>>()?;
    // There are few of either, whatever a caller repeats.
    strategies.sort_unstable();
    strategies.dedup();
    Ok(Criteria { from, to, kinds, strategies })
}

/// A time as the database tells it: in microseconds. Rounded up, because what was written at a microsecond was written at
/// or after a time exactly when it was at or after the next microsecond.
fn moment(field: &'static str, time: &prost_types::Timestamp) -> Result<NaiveDateTime, Invalid> {
    let wrong = || {
        let description = "not a time between the years 1 and 9999, with nanos from 0 to 999999999";
        invalid(field, description.to_owned())
    };
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(wrong)?;
    if !YEARS.contains(&time.seconds) {
        return Err(wrong());
    }
    let micros = nanos.div_ceil(1000);
    // No database knows of a year behind the last.
    let (seconds, micros) = match micros {
        1_000_000 if time.seconds == *YEARS.end() => (time.seconds, 999_999),
        1_000_000 => (time.seconds + 1, 0),
        micros => (time.seconds, micros),
    };
    Ok(DateTime::from_timestamp(seconds, micros * 1000).ok_or_else(wrong)?.naive_utc())
}

fn given_kind(kind: i32) -> Result<EntryKind, Invalid> {
    let named = |kind: &EntryKind| format!("ENTRY_KIND_{}", kind.name());
    let found = EntryKind::ALL.into_iter().find(|known| i32::from(convert::kind(*known)) == kind);
    found.ok_or_else(|| {
        let known = EntryKind::ALL.iter().map(named).collect::<Vec<_>>().join(", ");
        invalid("kinds", format!("{kind} is not a kind of entry; leave kinds out for all, or name some of {known}"))
    })
}

fn strategy(name: &str) -> Result<&'static str, Invalid> {
    crate::strategy::find(name).map(|row| row.name).map_err(|unknown| Invalid {
        field: "strategies",
        reason: InvalidReason::UnknownStrategy,
        description: unknown.to_string(),
    })
}

/// Where the page begins that a request asks for.
fn cursor(request: &v1::ListEntriesRequest) -> Result<Cursor, Invalid> {
    let order = v1::EntryOrder::try_from(request.order)
        .map_err(|_| invalid("order", format!("{} is not an order of entries", request.order)))?;
    if request.lost_only && order == v1::EntryOrder::OldestFirst {
        let description =
            "what was lost is found from the newest entry back; leave order out with lost_only".to_owned();
        return Err(invalid("order", description));
    }
    let newest_first = order == v1::EntryOrder::NewestFirst;
    if request.page_token.is_empty() {
        return Ok(match (request.lost_only, newest_first) {
            (true, _) => Cursor::Lost(None),
            (false, true) => Cursor::Before(i64::MAX),
            (false, false) => Cursor::After(0),
        });
    }
    placed(request, newest_first).ok_or_else(|| Invalid {
        field: "page_token",
        reason: InvalidReason::Page,
        description: "not a next_page_token of this account and filter; leave it empty for the first page".to_owned(),
    })
}

/// Reads a page token; `None` where it is none, or another filter's.
fn placed(request: &v1::ListEntriesRequest, newest_first: bool) -> Option<Cursor> {
    let place = request.page_token.strip_suffix(&echo(request))?;
    let backwards = request.lost_only || newest_first;
    let numbers = place.strip_prefix(if backwards { BEFORE } else { AFTER })?.split('.');
    let numbers: Vec<i64> =
        numbers.map(|text| text.parse().ok().filter(|&number| number > 0)).collect::<Option<_>>()?;
    match (request.lost_only, newest_first, &numbers[..]) {
        (false, false, &[version]) => Some(Cursor::After(version)),
        (false, true, &[version]) => Some(Cursor::Before(version)),
        (true, _, &[before, survivor, parent]) if before <= survivor && parent < survivor => {
            Some(Cursor::Lost(Some(Walk { before, path: Path { survivor, parent } })))
        }
        _ => None,
    }
}

fn token(next: Cursor, request: &v1::ListEntriesRequest) -> String {
    let echo = echo(request);
    match next {
        Cursor::After(version) => format!("{AFTER}{version}{echo}"),
        Cursor::Before(version) => format!("{BEFORE}{version}{echo}"),
        Cursor::Lost(walk) => walk.map_or_else(String::new, |Walk { before, path: Path { survivor, parent } }| {
            format!("{BEFORE}{before}.{survivor}.{parent}{echo}")
        }),
    }
}

/// What tells one filter from another; nothing where there is none. It is the same on every server.
fn echo(request: &v1::ListEntriesRequest) -> String {
    let filter = v1::ListEntriesRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    if filter == (v1::ListEntriesRequest { user_id: request.user_id, ..Default::default() }) {
        return String::new();
    }
    // FNV-1a: it has to tell mistakes, not to withstand anybody.
    let hash = filter
        .encode_to_vec()
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest_first(user_id: i64) -> v1::ListEntriesRequest {
        v1::ListEntriesRequest { user_id, order: v1::EntryOrder::NewestFirst.into(), ..Default::default() }
    }

    #[test]
    fn tokens_are_read_back_under_their_own_filter_alone() {
        let plain = v1::ListEntriesRequest { user_id: 1, ..Default::default() };
        let lost = v1::ListEntriesRequest { lost_only: true, ..plain.clone() };
        let deductions = v1::ListEntriesRequest { kinds: vec![v1::EntryKind::Deduct.into()], ..plain.clone() };
        let walk = Walk { before: 7, path: Path { survivor: 9, parent: 4 } };
        let listings = [
            (plain, Cursor::After(7)),
            (newest_first(1), Cursor::Before(7)),
            (newest_first(2), Cursor::Before(7)),
            (lost, Cursor::Lost(Some(walk))),
            (deductions, Cursor::After(7)),
        ];
        for (of, place) in &listings {
            for (under, _) in &listings {
                let page_token = token(*place, of);
                let read = cursor(&v1::ListEntriesRequest { page_token, page_size: 3, ..under.clone() });
                match (of == under, read) {
                    (true, read) => assert_eq!(read, Ok(*place)),
                    (false, read) => assert_eq!(read.unwrap_err().reason, InvalidReason::Page, "{of:?} {under:?}"),
                }
            }
        }
    }

    #[test]
    fn times_are_rounded_up_to_microseconds() {
        let time =
            |nanos| moment("from_time", &prost_types::Timestamp { seconds: 0, nanos }).map(|time| time.and_utc());
        assert_eq!(time(1_000).unwrap().timestamp_subsec_nanos(), 1_000);
        assert_eq!(time(1_001).unwrap().timestamp_subsec_nanos(), 2_000);
        assert_eq!(time(999_999_999).unwrap().timestamp(), 1);
        for nanos in [-1, 1_000_000_000] {
            assert_eq!(time(nanos).unwrap_err().reason, InvalidReason::Filter);
        }
    }
}
