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
    QueryDsl,
    dsl::{auto_type, sql},
    expression::SqlLiteral,
    sql_types::{BigInt, Binary, SmallInt, Text, Timestamp},
};
use uuid::Uuid;

use crate::{
    account::{Money, NewEntry},
    store::{
        AccountWrite,
        schema::{MinorUnits, Stored, accounts},
    },
};

/// What an INSERT into the journal begins with.
const INSERT: &str =
    "INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy) VALUES ";

/// About how long one row of it is.
const ROW_LENGTH: usize = 144;

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

/// One INSERT for the journal.
fn append(entries: &[NewEntry]) -> String {
    let mut text = String::with_capacity(INSERT.len() + ROW_LENGTH * entries.len());
    text.push_str(INSERT);
    for (at, entry) in entries.iter().enumerate() {
        let NewEntry { user_id, version, request_id, kind, delta, balance_after, version_before, strategy } = entry;
        let comma = if at == 0 { "" } else { "," };
        let (id, kind) = (request_id.simple(), kind.name());
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{comma}({user_id},{version},X'{id}','{kind}',{delta},{balance_after},{version_before},'{strategy}')"
        );
    }
    text
}

/// The journal's INSERT, and the COMMIT behind it.
pub(super) fn append_and_commit(entry: &NewEntry) -> String {
    append(slice::from_ref(entry)) + "; COMMIT"
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

/// One INSERT for the journal and one UPDATE for the balances. UPDATE … JOIN and not ON DUPLICATE KEY: that would open
/// accounts that are not there.
pub(super) fn writes(entries: &[NewEntry], accounts: &[AccountWrite]) -> String {
    let mut text = append(entries);
    text.push_str("; UPDATE accounts JOIN (");
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

/// What can be believed of the filter, under S. MariaDB does not know `FOR SHARE`, which Diesel would write.
pub(super) fn filter_shared() -> SqlLiteral<(BigInt, SmallInt)> {
    sql("SELECT build, state FROM account_filter WHERE id = 1 LOCK IN SHARE MODE")
}

diesel::define_sql_function! {
    /// What this session last gave to `LAST_INSERT_ID(…)`.
    fn last_insert_id() -> Unsigned<BigInt>;
}
