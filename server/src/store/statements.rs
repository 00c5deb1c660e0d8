//! The statements both databases share, once. What differs (locks, isolation, sessions) is in each store's own file.

use diesel::{
    backend::Backend,
    dsl::auto_type,
    prelude::*,
    query_builder::{AstPass, QueryFragment, QueryId},
};
use uuid::Uuid;

use super::{
    OVERTAKEN_LIMIT, Overtaken,
    schema::{Stored, account_filter, accounts, entries, snapshots},
};
use crate::{
    account::{Entry, EntryKind, Money, NewEntry, State},
    chain::{Digest, Record},
};

/// `balance, version` of an account.
pub(super) type StateRow = (Stored, i64);

/// The columns of [`Overtaken`], absent when a blind write overtook nothing.
pub(super) type OvertakenRow = Option<(Vec<u8>, i64, Stored, Stored, i64)>;

/// `fence, balance, version` of an account.
pub(super) type FencedRow = (i64, Stored, i64);

/// The columns of an entry.
pub(super) type EntryRow = (i64, i64, Vec<u8>, String, Stored, Stored, i64, String, chrono::NaiveDateTime);

/// The columns of a [`Record`].
pub(super) type RecordRow = (i64, i64, String, Option<Vec<u8>>);

pub(super) type EntryColumns = (
    entries::user_id,
    entries::version,
    entries::request_id,
    entries::kind,
    entries::delta,
    entries::balance_after,
    entries::version_before,
    entries::strategy,
    entries::created_at,
);

pub(super) const ENTRY: EntryColumns = (
    entries::user_id,
    entries::version,
    entries::request_id,
    entries::kind,
    entries::delta,
    entries::balance_after,
    entries::version_before,
    entries::strategy,
    entries::created_at,
);

/// Reads the state. Takes no lock by itself.
#[auto_type]
pub(super) fn state_of(user_id: i64) -> _ {
    accounts::table.find(user_id).select((accounts::balance, accounts::version))
}

/// Reads the state, and the newest token that has claimed it. Takes no lock.
#[auto_type]
pub(super) fn fenced_state_of(user_id: i64) -> _ {
    accounts::table.find(user_id).select((accounts::fence, accounts::balance, accounts::version))
}

/// A write whose prepared form is kept. Diesel prepares every INSERT and UPDATE anew, because some of them change their
/// text with their values; each of ours has one text, which its type stands for. It saves two of three round trips.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept<S>(pub(super) S);

impl<S: 'static> QueryId for Kept<S> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<B: Backend, S: QueryFragment<B>> QueryFragment<B> for Kept<S> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, B>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &B) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<S, C> diesel::RunQueryDsl<C> for Kept<S> {}

// The writes are macros because Diesel cannot name their types in a function's signature. In each of them it is the
// database that counts the versions.

/// Sets the balance whatever it was (X).
macro_rules! write {
    ($user_id:expr, $balance:expr) => {
        Kept(
            diesel::update(accounts::table.filter(accounts::user_id.eq($user_id)))
                .set((accounts::balance.eq(Stored($balance)), accounts::version.eq(accounts::version + 1))),
        )
    };
}

/// Sets the balance after several changes at once (X).
macro_rules! write_on {
    ($user_id:expr, $balance:expr, $entries:expr) => {
        Kept(
            diesel::update(accounts::table.filter(accounts::user_id.eq($user_id)))
                .set((accounts::balance.eq(Stored($balance)), accounts::version.eq(accounts::version + $entries))),
        )
    };
}

/// Sets the balance of the version that was read, or matches nothing (X).
macro_rules! write_if_version {
    ($user_id:expr, $balance:expr, $version:expr) => {
        Kept(
            diesel::update(
                accounts::table.filter(accounts::user_id.eq($user_id)).filter(accounts::version.eq($version)),
            )
            .set((accounts::balance.eq(Stored($balance)), accounts::version.eq(accounts::version + 1))),
        )
    };
}

/// Claims an account for a fencing token, or matches nothing where one as new has claimed it (X, for this statement).
macro_rules! claim {
    ($user_id:expr, $token:expr) => {
        Kept(
            diesel::update(accounts::table.filter(accounts::user_id.eq($user_id)).filter(accounts::fence.lt($token)))
                .set(accounts::fence.eq($token)),
        )
    };
}

/// Sets the balance while the account is claimed for this very token, or matches nothing (X).
macro_rules! write_if_fence {
    ($user_id:expr, $balance:expr, $token:expr) => {
        Kept(
            diesel::update(accounts::table.filter(accounts::user_id.eq($user_id)).filter(accounts::fence.eq($token)))
                .set((accounts::balance.eq(Stored($balance)), accounts::version.eq(accounts::version + 1))),
        )
    };
}

/// Adds to a balance within bounds, both included, or matches nothing (X).
macro_rules! add_within {
    ($user_id:expr, $delta:expr, $least:expr, $most:expr) => {
        Kept(
            diesel::update(
                accounts::table
                    .filter(accounts::user_id.eq($user_id))
                    .filter(accounts::balance.ge(Exact(Stored($least))))
                    .filter(accounts::balance.le(Exact(Stored($most)))),
            )
            .set((
                accounts::balance.eq(Plus::new(accounts::balance, Exact(Stored($delta)))),
                accounts::version.eq(accounts::version + 1),
            )),
        )
    };
}

/// Appends to the journal.
macro_rules! append {
    ($entry:expr) => {
        Kept(diesel::insert_into(entries::table).values(statements::NewEntryRow::from($entry)))
    };
}

/// Says what can be believed of the filter, where it still is what was read (X).
macro_rules! move_filter {
    ($from:expr, $to:expr) => {
        diesel::update(
            account_filter::table
                .find(statements::FILTER_ROW)
                .filter(account_filter::build.eq($from.build))
                .filter(account_filter::state.eq($from.state.stored())),
        )
        .set((account_filter::build.eq($to.build), account_filter::state.eq($to.state.stored())))
    };
}

/// Keeps where an account stands at a version.
macro_rules! keep_snapshot {
    ($user_id:expr, $state:expr) => {
        Kept(diesel::insert_into(snapshots::table).values((
            snapshots::user_id.eq($user_id),
            snapshots::version.eq($state.version),
            snapshots::balance.eq(Stored($state.balance)),
        )))
    };
}

/// Entries of one account. Boxed, because what is asked of them varies.
macro_rules! selected {
    ($backend:ty, $selection:expr) => {{
        use crate::store::{schema::entries, selection::Order};
        let selection = $selection;
        let (first, last) = selection.versions.into_inner();
        let mut query = entries::table
            .filter(entries::user_id.eq(selection.user_id))
            .filter(entries::version.between(first, last))
            .limit(selection.limit)
            .select(statements::ENTRY)
            .into_boxed::<$backend>();
        let criteria = selection.criteria;
        if let Some(from) = criteria.from {
            query = query.filter(entries::created_at.ge(from));
        }
        if let Some(to) = criteria.to {
            query = query.filter(entries::created_at.lt(to));
        }
        if !criteria.kinds.is_empty() {
            query = query.filter(entries::kind.eq_any(criteria.kinds.into_iter().map(|kind| kind.name())));
        }
        if !criteria.strategies.is_empty() {
            query = query.filter(entries::strategy.eq_any(criteria.strategies));
        }
        match selection.order {
            Order::OldestFirst => query.order(entries::version.asc()),
            Order::NewestFirst => query.order(entries::version.desc()),
        }
    }};
}

pub(super) use {
    add_within, append, claim, keep_snapshot, move_filter, selected, write, write_if_fence, write_if_version, write_on,
};

/// The id of the only row there is of the filter.
pub(super) const FILTER_ROW: i16 = 1;

/// What can be believed of the filter. Takes no lock by itself.
#[auto_type]
pub(super) fn filter() -> _ {
    let row: i16 = FILTER_ROW;
    account_filter::table.find(row).select((account_filter::build, account_filter::state))
}

/// What tells this database from others.
#[auto_type]
pub(super) fn keyspace() -> _ {
    let row: i16 = FILTER_ROW;
    account_filter::table.find(row).select(account_filter::keyspace)
}

/// A page of the accounts' ids.
#[auto_type]
pub(super) fn account_ids(after: i64, limit: i64) -> _ {
    accounts::table
        .filter(accounts::user_id.gt(after))
        .order(accounts::user_id.asc())
        .limit(limit)
        .select(accounts::user_id)
}

/// The version this transaction's write got, and the newest entries after the version it had read.
#[auto_type]
pub(super) fn overtaken(user_id: i64, version_read: i64) -> _ {
    let limit: i64 = OVERTAKEN_LIMIT as i64;
    accounts::table
        .left_join(entries::table.on(entries::user_id.eq(accounts::user_id).and(entries::version.gt(version_read))))
        .filter(accounts::user_id.eq(user_id))
        .order(entries::version.desc())
        .limit(limit)
        .select((
            accounts::version,
            (entries::request_id, entries::version, entries::delta, entries::balance_after, entries::version_before)
                .nullable(),
        ))
}

/// The newest snapshot of an account.
#[auto_type]
pub(super) fn newest_snapshot(user_id: i64) -> _ {
    let one: i64 = 1;
    snapshots::table
        .filter(snapshots::user_id.eq(user_id))
        .order(snapshots::version.desc())
        .select((snapshots::balance, snapshots::version))
        .limit(one)
}

/// The entry journaled under a request id.
#[auto_type]
pub(super) fn entry_of(user_id: i64, request_id: Vec<u8>) -> _ {
    let columns: EntryColumns = ENTRY;
    entries::table.filter(entries::user_id.eq(user_id)).filter(entries::request_id.eq(request_id)).select(columns)
}

/// A page of the journal.
#[auto_type]
pub(super) fn entries_after(user_id: i64, after_version: i64, limit: i64) -> _ {
    let columns: EntryColumns = ENTRY;
    entries::table
        .filter(entries::user_id.eq(user_id))
        .filter(entries::version.gt(after_version))
        .order(entries::version.asc())
        .limit(limit)
        .select(columns)
}

/// A page of the journal, backwards.
#[auto_type]
pub(super) fn entries_before(user_id: i64, before_version: i64, limit: i64) -> _ {
    let columns: EntryColumns = ENTRY;
    entries::table
        .filter(entries::user_id.eq(user_id))
        .filter(entries::version.lt(before_version))
        .order(entries::version.desc())
        .limit(limit)
        .select(columns)
}

/// A page of the journals of the accounts after one.
#[auto_type]
pub(super) fn entries_of_accounts(after_user_id: i64, limit: i64) -> _ {
    let columns: EntryColumns = ENTRY;
    entries::table
        .filter(entries::user_id.gt(after_user_id))
        .order((entries::user_id.asc(), entries::version.asc()))
        .limit(limit)
        .select(columns)
}

/// A page of the accounts. Takes no lock.
#[auto_type]
pub(super) fn accounts_after(after_user_id: i64, limit: i64) -> _ {
    accounts::table
        .select((accounts::user_id, accounts::balance, accounts::version))
        .filter(accounts::user_id.gt(after_user_id))
        .order(accounts::user_id.asc())
        .limit(limit)
}

/// The row of a new account.
#[derive(Insertable)]
#[diesel(table_name = accounts)]
pub(super) struct AccountRow {
    user_id: i64,
    balance: Stored,
    version: i64,
}

impl AccountRow {
    /// An account at version 1, that of its OPEN entry.
    pub(super) const fn opened(user_id: i64, balance: Money) -> Self {
        Self { user_id, balance: Stored(balance), version: 1 }
    }
}

/// The row of a new journal entry.
#[derive(Insertable)]
#[diesel(table_name = entries)]
pub(super) struct NewEntryRow {
    user_id: i64,
    version: i64,
    request_id: Vec<u8>,
    kind: &'static str,
    delta: Stored,
    balance_after: Stored,
    version_before: i64,
    strategy: &'static str,
}

impl From<&NewEntry> for NewEntryRow {
    fn from(entry: &NewEntry) -> Self {
        Self {
            user_id: entry.user_id,
            version: entry.version,
            request_id: entry.request_id.as_bytes().to_vec(),
            kind: entry.kind.name(),
            delta: Stored(entry.delta),
            balance_after: Stored(entry.balance_after),
            version_before: entry.version_before,
            strategy: entry.strategy,
        }
    }
}

pub(super) fn state(row: StateRow) -> State {
    State { balance: row.0.0, version: row.1 }
}

pub(super) fn account((user_id, balance, version): (i64, Stored, i64)) -> (i64, State) {
    (user_id, state((balance, version)))
}

pub(super) fn fenced_read(claimed: usize, (fence, balance, version): FencedRow) -> super::FencedRead {
    super::FencedRead { claimed: super::Matched::from_rows(claimed), fence, state: state((balance, version)) }
}

/// Reads a stored request id.
pub(super) fn uuid(bytes: &[u8]) -> super::Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|error| super::Error::Unexpected(format!("stored request id: {error}")))
}

pub(super) fn entry(row: EntryRow) -> super::Result<Entry> {
    let (user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at) = row;
    let kind = EntryKind::from_name(&kind)
        .ok_or_else(|| super::Error::Unexpected(format!("entry ({user_id}, {version}) has the unknown kind {kind}")))?;
    Ok(Entry {
        user_id,
        version,
        request_id: uuid(&request_id)?,
        kind,
        delta: delta.0,
        balance_after: balance_after.0,
        version_before,
        strategy,
        created_at,
    })
}

pub(super) fn record((user_id, version, text, digest): RecordRow) -> super::Result<Record> {
    let digest = digest.map(|bytes| self::digest(user_id, version, &bytes)).transpose()?;
    Ok(Record { user_id, version, text, digest })
}

/// Reads a stored digest.
pub(super) fn digest(user_id: i64, version: i64, bytes: &[u8]) -> super::Result<Digest> {
    Digest::from_bytes(bytes).ok_or_else(|| {
        let length = bytes.len();
        super::Error::Unexpected(format!("the digest of entry ({user_id}, {version}) has {length} bytes, not 32"))
    })
}

/// Puts the rows of [`overtaken`] together. No row: the account is not there.
pub(super) fn blind_write(rows: Vec<(i64, OvertakenRow)>) -> super::Result<Option<super::BlindWrite>> {
    let Some(&(version, _)) = rows.first() else { return Ok(None) };
    let overtaken = rows
        .into_iter()
        .filter_map(|(_, row)| row)
        .map(|(request_id, version, delta, balance_after, version_before)| {
            Ok(Overtaken {
                request_id: uuid(&request_id)?,
                version,
                delta: delta.0,
                balance_after: balance_after.0,
                version_before,
            })
        })
        .collect::<super::Result<Vec<_>>>()?;
    Ok(Some(super::BlindWrite { version, overtaken }))
}
