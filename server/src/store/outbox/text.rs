//! The statements of the outbox, written out in full, as those of the reports are and for the same reason. Everything in them is a
//! number, a decimal, a date, a hex string made here, or a name from the code; text goes in as hex.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use chrono::NaiveDateTime;
use diesel::{
    dsl::sql,
    expression::SqlLiteral,
    sql_types::{BigInt, Binary, Integer, Nullable, Text, Timestamp},
};
use uuid::Uuid;

use super::{DETAIL_MOST, End, Ending, Key, NewOutgoing, Outgoing, Standing, Swept};
use crate::{
    account::Money,
    store::{
        Error, Result,
        reports::text::Dialect,
        schema::{MinorUnits, Stored},
        statements,
    },
};

/// `user_id, request_id`.
pub(in crate::store) type KeyRow = (i64, Vec<u8>);
type KeyColumns = (BigInt, Binary);

pub(in crate::store) type OutgoingRow = (i64, Vec<u8>, Stored, String, String, String, String, String, NaiveDateTime);
type OutgoingColumns = (BigInt, Binary, MinorUnits, Text, Text, Text, Text, Text, Timestamp);

/// A key, when it was recorded, and whether it is journaled.
pub(in crate::store) type SweptRow = (i64, Vec<u8>, NaiveDateTime, i32);
type SweptColumns = (BigInt, Binary, Timestamp, Integer);

/// When the oldest RECORDED and the oldest SENT row were recorded.
pub(in crate::store) type OldestRow = (Option<NaiveDateTime>, Option<NaiveDateTime>);
type OldestColumns = (Nullable<Timestamp>, Nullable<Timestamp>);

type EntryColumns = (BigInt, BigInt, Binary, Text, MinorUnits, MinorUnits, BigInt, Text, Timestamp);

/// What nobody sends and nobody can withdraw.
const UNCLAIMED: &str = "state = 'RECORDED' AND (claimed_until IS NULL OR claimed_until <= ";

fn hex(id: &Uuid) -> String {
    format!("X'{}'", id.simple())
}

fn listed(items: impl IntoIterator<Item = impl Display>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}

/// The condition that a row is one of these: a range of the key for each account.
fn among(keys: &[Key]) -> String {
    let mut by_account: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for Key { user_id, request_id } in keys {
        by_account.entry(*user_id).or_default().push(hex(request_id));
    }
    let of_account =
        |(user_id, ids): (&i64, &Vec<String>)| format!("(user_id = {user_id} AND request_id IN ({}))", ids.join(","));
    format!("({})", listed(by_account.iter().map(of_account), " OR "))
}

impl Dialect {
    fn now(self) -> &'static str {
        match self {
            Self::Mysql => "UTC_TIMESTAMP(6)",
            Self::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now')",
        }
    }

    fn in_time(self, time: Duration) -> String {
        match self {
            Self::Mysql => format!("UTC_TIMESTAMP(6) + INTERVAL {} MICROSECOND", time.as_micros()),
            Self::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '+{:.3} seconds')", time.as_secs_f64()),
        }
    }

    fn ago(self, time: Duration) -> String {
        match self {
            Self::Mysql => format!("UTC_TIMESTAMP(6) - INTERVAL {} MICROSECOND", time.as_micros()),
            Self::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '-{:.3} seconds')", time.as_secs_f64()),
        }
    }

    fn amount(self, amount: Money) -> String {
        match self {
            Self::Mysql => amount.to_string(),
            Self::Sqlite => amount.minor().to_string(),
        }
    }

    /// A text as a literal that nothing can break out of.
    fn text(self, text: &str) -> String {
        use std::fmt::Write;
        let mut hex = String::with_capacity(2 * text.len());
        for byte in text.bytes() {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        match self {
            Self::Mysql => format!("CONVERT(X'{hex}' USING utf8mb4)"),
            Self::Sqlite => format!("CAST(X'{hex}' AS TEXT)"),
        }
    }

    /// Reads rows. Where they are many, the database might rather read all of a small table, and wait for its locks.
    ///
    /// Only the claim that a row is written with may end in its withdrawal. What is claimed later, by the relay or by whoever puts
    /// it back, was promised, and must not look as if it were not.
    fn select(self, condition: &str) -> SqlLiteral<OutgoingColumns> {
        let now = self.now();
        sql(&format!(
            "SELECT user_id, request_id, amount, strategy, \
             CASE WHEN state = 'RECORDED' AND NOT promised AND claimed_until > {now} THEN 'CLAIMED' ELSE state END, \
             reason, detail, traceparent, created_at FROM deduction_outbox WHERE {condition}"
        ))
    }

    /// Rows, without a lock.
    pub(in crate::store) fn outgoing(self, keys: &[Key]) -> SqlLiteral<OutgoingColumns> {
        self.select(&among(keys))
    }

    /// One row, locked (X).
    pub(in crate::store) fn outgoing_locked(self, key: Key) -> SqlLiteral<OutgoingColumns> {
        let lock = match self {
            Self::Mysql => " FOR UPDATE",
            Self::Sqlite => "",
        };
        self.select(&format!("{}{lock}", among(&[key])))
    }

    /// The table, with its primary key as the only way in.
    const fn by_key(self) -> &'static str {
        match self {
            Self::Mysql => "deduction_outbox FORCE INDEX (PRIMARY)",
            Self::Sqlite => "deduction_outbox",
        }
    }

    /// New rows, claimed.
    pub(in crate::store) fn record<'a>(
        self,
        rows: impl IntoIterator<Item = &'a NewOutgoing>,
        claim: Duration,
    ) -> String {
        let until = self.in_time(claim);
        let row = |row: &NewOutgoing| {
            let NewOutgoing { key: Key { user_id, request_id }, amount, strategy, traceparent, sender } = row;
            let (amount, traceparent) = (self.amount(*amount), self.text(traceparent));
            let (id, sender) = (hex(request_id), hex(sender));
            format!("({user_id},{id},{amount},'{strategy}',{traceparent},{sender},{until},FALSE)")
        };
        format!(
            "INSERT INTO deduction_outbox \
             (user_id, request_id, amount, strategy, traceparent, sender, claimed_until, promised) VALUES {}",
            listed(rows.into_iter().map(row), ",")
        )
    }

    /// What is journaled under keys, under S: whoever is about to journal one is waited for. By that index alone, so that
    /// nobody else is.
    pub(in crate::store) fn journaled(self, keys: &[Key]) -> SqlLiteral<EntryColumns> {
        let (index, lock) = match self {
            Self::Mysql => (" FORCE INDEX (entries_request)", " LOCK IN SHARE MODE"),
            Self::Sqlite => ("", ""),
        };
        sql(&format!(
            "SELECT user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at \
             FROM entries{index} WHERE {}{lock}",
            among(keys)
        ))
    }

    pub(in crate::store) fn mark_sent(self, keys: &[Key]) -> String {
        let (table, now, among) = (self.by_key(), self.now(), among(keys));
        format!(
            "UPDATE {table} SET state = 'SENT', sender = NULL, claimed_until = NULL, updated_at = {now} \
             WHERE {among} AND state = 'RECORDED'"
        )
    }

    /// Not in the last moments of the claim: it must be gone before anybody can take it for a promise.
    pub(in crate::store) fn withdraw(self, key: Key, sender: Uuid, margin: Duration) -> String {
        let (still, among, sender) = (self.in_time(margin), among(&[key]), hex(&sender));
        format!(
            "DELETE FROM deduction_outbox \
             WHERE {among} AND state = 'RECORDED' AND sender = {sender} AND claimed_until > {still}"
        )
    }

    pub(in crate::store) fn give_up(self, key: Key, sender: Uuid) -> String {
        let (now, among, sender) = (self.now(), among(&[key]), hex(&sender));
        format!(
            "UPDATE deduction_outbox SET sender = NULL, claimed_until = NULL, updated_at = {now} \
             WHERE {among} AND state = 'RECORDED' AND sender = {sender}"
        )
    }

    /// The oldest rows that can be claimed, without a lock.
    pub(in crate::store) fn claimable(self, limit: i64) -> SqlLiteral<KeyColumns> {
        let now = self.now();
        sql(&format!(
            "SELECT user_id, request_id FROM deduction_outbox WHERE {UNCLAIMED}{now}) ORDER BY created_at LIMIT {limit}"
        ))
    }

    /// Claims those of these rows that still can be.
    pub(in crate::store) fn claim(self, keys: &[Key], sender: Uuid, claim: Duration) -> String {
        let (table, now, until) = (self.by_key(), self.now(), self.in_time(claim));
        let (among, sender) = (among(keys), hex(&sender));
        format!(
            "UPDATE {table} SET sender = {sender}, claimed_until = {until}, promised = TRUE, updated_at = {now} \
             WHERE {among} AND {UNCLAIMED}{now})"
        )
    }

    /// Those of these rows that a sender has claimed.
    pub(in crate::store) fn claimed(self, keys: &[Key], sender: Uuid) -> SqlLiteral<OutgoingColumns> {
        self.select(&format!("{} AND state = 'RECORDED' AND sender = {}", among(keys), hex(&sender)))
    }

    /// How a deduction ended, in its row or a new one. What FAILED stays as it is.
    pub(in crate::store) fn end(self, ending: &Ending) -> String {
        let Ending { key: Key { user_id, request_id }, amount, end, reason, detail } = ending;
        let state = match end {
            End::Failed => Standing::Failed,
            End::DeadLettered => Standing::DeadLettered,
        };
        let detail: String = detail.chars().take(DETAIL_MOST).collect();
        let (id, amount, state) = (hex(request_id), self.amount(*amount), state.name());
        let (reason, detail, now) = (self.text(reason), self.text(&detail), self.now());
        let insert = format!(
            "INSERT INTO deduction_outbox (user_id, request_id, amount, state, reason, detail) \
             VALUES ({user_id},{id},{amount},'{state}',{reason},{detail})"
        );
        // MySQL assigns from left to right, so the state that is asked for comes last.
        let columns = [("reason", &*reason), ("detail", &*detail), ("sender", "NULL"), ("claimed_until", "NULL")];
        let columns = columns.into_iter().chain([("updated_at", now)]);
        match self {
            Self::Mysql => {
                let state = format!("'{state}'");
                let set = columns.chain([("state", &*state)]);
                let set = set.map(|(column, value)| format!("{column} = IF(state = 'FAILED', {column}, {value})"));
                format!("{insert} ON DUPLICATE KEY UPDATE {}", listed(set, ", "))
            }
            Self::Sqlite => {
                let set = columns.map(|(column, value)| format!("{column} = {value}"));
                format!(
                    "{insert} ON CONFLICT (user_id, request_id) DO UPDATE SET state = '{state}', {} \
                     WHERE state <> 'FAILED'",
                    listed(set, ", ")
                )
            }
        }
    }

    pub(in crate::store) fn requeue(self, key: Key, sender: Uuid, claim: Duration) -> String {
        let (among, sender, until, now) = (among(&[key]), hex(&sender), self.in_time(claim), self.now());
        format!(
            "UPDATE deduction_outbox SET state = 'RECORDED', reason = '', detail = '', sender = {sender}, \
             claimed_until = {until}, promised = TRUE, updated_at = {now} WHERE {among} AND state = 'DEAD_LETTERED'"
        )
    }

    pub(in crate::store) fn remove(self, keys: &[Key]) -> String {
        let among = among(keys);
        match self {
            // Only this form of DELETE takes an index.
            Self::Mysql => {
                let table = self.by_key();
                format!("DELETE deduction_outbox FROM {table} WHERE {among} AND state <> 'FAILED'")
            }
            Self::Sqlite => format!("DELETE FROM deduction_outbox WHERE {among} AND state <> 'FAILED'"),
        }
    }

    pub(in crate::store) fn outbox_sweep(
        self,
        after: Option<(NaiveDateTime, Key)>,
        age: Duration,
        limit: i64,
    ) -> SqlLiteral<SweptColumns> {
        let before = self.ago(age);
        let after = after.map_or_else(String::new, |(at, Key { user_id, request_id })| {
            let at = at.format(match self {
                Self::Mysql => "%Y-%m-%d %H:%M:%S%.6f",
                Self::Sqlite => "%Y-%m-%d %H:%M:%S%.3f",
            });
            let id = hex(&request_id);
            format!(
                " AND created_at >= '{at}' AND (created_at > '{at}' OR user_id > {user_id} \
                 OR (user_id = {user_id} AND request_id > {id}))"
            )
        });
        sql(&format!(
            "SELECT user_id, request_id, created_at, EXISTS (SELECT 1 FROM entries \
             WHERE entries.user_id = page.user_id AND entries.request_id = page.request_id) FROM \
             (SELECT user_id, request_id, created_at FROM deduction_outbox \
             WHERE state = 'SENT' AND created_at < {before}{after} ORDER BY created_at, user_id, request_id LIMIT {limit}) \
             AS page ORDER BY created_at, user_id, request_id"
        ))
    }
}

/// The ends of two ranges of an index, however many rows there are.
pub(in crate::store) fn oldest() -> SqlLiteral<OldestColumns> {
    sql("SELECT (SELECT MIN(created_at) FROM deduction_outbox WHERE state = 'RECORDED'), \
         (SELECT MIN(created_at) FROM deduction_outbox WHERE state = 'SENT')")
}

pub(in crate::store) fn key((user_id, request_id): &KeyRow) -> Result<Key> {
    Ok(Key { user_id: *user_id, request_id: statements::uuid(request_id)? })
}

pub(in crate::store) fn outgoing(row: OutgoingRow) -> Result<Outgoing> {
    let (user_id, request_id, amount, strategy, standing, reason, detail, traceparent, created_at) = row;
    let key = key(&(user_id, request_id))?;
    let standing = Standing::ALL
        .into_iter()
        .find(|known| known.name() == standing)
        .ok_or_else(|| Error::Unexpected(format!("deduction {key:?} has the unknown state {standing}")))?;
    Ok(Outgoing { key, amount: amount.0, strategy, standing, reason, detail, traceparent, created_at })
}

pub(in crate::store) fn outbox_swept(rows: Vec<SweptRow>) -> Result<Swept> {
    let mut swept = Swept::default();
    for (user_id, request_id, created_at, is_journaled) in rows {
        let key = key(&(user_id, request_id))?;
        swept.last = Some((created_at, key));
        swept.settled.extend((is_journaled != 0).then_some(key));
    }
    Ok(swept)
}

pub(in crate::store) fn oldest_of(rows: &[OldestRow]) -> Option<NaiveDateTime> {
    rows.iter().flat_map(|&(recorded, sent)| [recorded, sent]).flatten().min()
}
