//! Statements written out in full: those that write a batch, whose length varies with it, so that preparing them would
//! cost a round trip each and be of use once; and several in one round trip, which cannot be prepared. Everything in them
//! is a number, a decimal or a hex string made here from typed values, or a name from the code; no text of a caller gets
//! in.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    slice,
};

use diesel::{
    QueryDsl, QueryResult,
    dsl::{auto_type, sql},
    expression::SqlLiteral,
    mysql::Mysql,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, SmallInt, Text, Timestamp},
};
use uuid::Uuid;

use crate::{
    account::{Money, NewEntry},
    chain::{Chaining, Ends, text_before_time},
    store::{
        AccountWrite,
        schema::{MinorUnits, Stored, accounts},
    },
};

/// What an INSERT into the journal begins with.
const INSERT: &str =
    "INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy";

/// About how long one row of it is, digest and all.
const ROW_LENGTH: usize = 256;

/// `balance, version`, and the version that [`begin_and_add`] gave, or 0.
pub(super) type AddedRow = (Stored, i64, u64);

/// The columns of an entry, in the table's order.
type EntryColumns = (BigInt, BigInt, Binary, Text, MinorUnits, MinorUnits, BigInt, Text, Timestamp);

fn listed(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// The entries of request ids; one range of the unique key for each account.
pub(super) fn entries(requests: &BTreeMap<i64, Vec<Uuid>>) -> SqlLiteral<EntryColumns> {
    let of_account = |(user_id, ids): (&i64, &Vec<Uuid>)| {
        format!("(user_id = {user_id} AND request_id IN ({}))", listed(ids.iter().map(hex)))
    };
    let conditions = requests.iter().map(of_account).collect::<Vec<_>>().join(" OR ");
    sql(&format!(
        "SELECT user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at \
         FROM entries WHERE {conditions}"
    ))
}

fn hex(id: &Uuid) -> String {
    format!("X'{}'", id.simple())
}

/// An INSERT of some rows, with the end that each has: the values of `more` columns.
fn insert(entries: &[NewEntry], more: &str, mut end: impl FnMut(&mut String, &NewEntry)) -> String {
    let mut text = String::with_capacity(INSERT.len() + ROW_LENGTH * entries.len());
    // Writing to a string cannot fail.
    let _ = write!(text, "{INSERT}{more}) VALUES ");
    for (at, entry) in entries.iter().enumerate() {
        let NewEntry { user_id, version, request_id, kind, delta, balance_after, version_before, strategy } = entry;
        let comma = if at == 0 { "" } else { "," };
        let (id, kind) = (request_id.simple(), kind.name());
        let _ = write!(
            text,
            "{comma}({user_id},{version},X'{id}','{kind}',{delta},{balance_after},{version_before},'{strategy}'"
        );
        end(&mut text, entry);
        text.push(')');
    }
    text
}

/// The columns that a chained entry has besides.
const CHAINED: &str = ", created_at, digest";

/// The INSERT of one entry. Where it is chained the database computes the digest, because it is its clock that gives
/// `created_at`, which is one for the whole statement. The entry before is there to be read: whoever knows the version to
/// append has seen that one committed. S on it at most, and nobody changes it.
/// Not an `INSERT … SELECT`: that would keep MariaDB's other inserts out while it waits.
pub(super) fn append(entry: &NewEntry, chaining: Chaining) -> String {
    match chaining {
        Chaining::Off => append_all(slice::from_ref(entry)),
        Chaining::On => insert(slice::from_ref(entry), CHAINED, |text, entry| {
            let (user_id, before, covered) = (entry.user_id, entry.version - 1, text_before_time(entry));
            // A table that is written can be read only within a derived one.
            let _ = write!(
                text,
                ",CURRENT_TIMESTAMP(6),UNHEX(SHA2(CONCAT(COALESCE((SELECT previous.digest FROM (SELECT digest FROM entries \
                 WHERE user_id={user_id} AND version={before}) AS previous),''),'{covered}',CURRENT_TIMESTAMP(6)),256))"
            );
        }),
    }
}

/// One INSERT of entries that are not chained.
pub(super) fn append_all(entries: &[NewEntry]) -> String {
    insert(entries, "", |_, _| {})
}

/// One INSERT of entries that are, to where their accounts' chains end.
pub(super) fn append_all_chained(entries: &[NewEntry], ends: &mut Ends, now: &str) -> String {
    insert(entries, CHAINED, |text, entry| {
        let digest = ends.and(entry, now);
        let _ = write!(text, ",'{now}',X'{digest}'");
    })
}

/// The beginning, and an addition within bounds (X). `LAST_INSERT_ID` is this session's memory: afterwards it is the
/// version of the row that the UPDATE matched, or 0.
pub(super) fn begin_and_add(user_id: i64, delta: Money, (least, most): (Money, Money)) -> String {
    format!(
        "DO LAST_INSERT_ID(0); BEGIN; \
         UPDATE accounts SET balance = balance + ({delta}), version = LAST_INSERT_ID(version + 1) \
         WHERE user_id = {user_id} AND balance BETWEEN {least} AND {most}"
    )
}

/// What an account holds after [`begin_and_add`].
#[auto_type]
pub(super) fn state_and_added(user_id: i64) -> _ {
    accounts::table.find(user_id).select((accounts::balance, accounts::version, last_insert_id()))
}

/// One UPDATE for the balances, to go behind the INSERT. UPDATE … JOIN and not ON DUPLICATE KEY: that would open accounts
/// that are not there.
pub(super) fn set_balances(accounts: &[AccountWrite]) -> String {
    let mut text = "; UPDATE accounts JOIN (".to_owned();
    for (at, AccountWrite { user_id, balance, entries }) in accounts.iter().enumerate() {
        let union = if at == 0 { "" } else { " UNION ALL " };
        // A decimal literal is a DECIMAL; it is assigned, not computed with.
        let _ = write!(text, "{union}SELECT {user_id} AS user_id, {balance} AS balance, {entries} AS entries");
    }
    text.push_str(
        ") AS batch ON accounts.user_id = batch.user_id \
         SET accounts.balance = batch.balance, accounts.version = accounts.version + batch.entries",
    );
    text
}

/// From here on this session waits a second for a row lock, the shortest there is.
pub(super) const WAIT_BRIEFLY: &str =
    "SET @lock_wait = @@SESSION.innodb_lock_wait_timeout; SET SESSION innodb_lock_wait_timeout = 1";

/// And now as long as before.
pub(super) const WAIT_AS_BEFORE: &str = "SET SESSION innodb_lock_wait_timeout = @lock_wait";

/// Reads what can be believed of the filter, under S. MariaDB does not know `FOR SHARE`, which Diesel would write.
#[derive(Clone, Copy, Debug, QueryId)]
pub(super) struct FilterShared;

impl Query for FilterShared {
    type SqlType = (BigInt, SmallInt);
}

impl QueryFragment<Mysql> for FilterShared {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Mysql>) -> QueryResult<()> {
        out.push_sql("SELECT build, state FROM account_filter WHERE id = 1 LOCK IN SHARE MODE");
        Ok(())
    }
}

diesel::define_sql_function! {
    /// What this session last gave to `LAST_INSERT_ID(…)`.
    fn last_insert_id() -> Unsigned<BigInt>;
}
