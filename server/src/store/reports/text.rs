//! The statements of the reports, written out in full: their lengths vary with what they carry, so preparing them would be of use
//! once. Everything in them is a number, a date, a decimal or a hex string made here from typed values. What the two dialects say
//! differently is a method of [`Dialect`].

use std::{fmt::Display, ops::RangeInclusive};

use chrono::{NaiveDate, NaiveDateTime};
use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    dsl::sql,
    expression::SqlLiteral,
    mysql::{Mysql, MysqlValue},
    query_builder::QueryId,
    sql_types::{BigInt, Binary, Date, Nullable, SmallInt, SqlType, Text, Timestamp},
    sqlite::{Sqlite, SqliteValue},
};
use uuid::Uuid;

use super::{GenerationState, Projection, Ranking, Sequenced, Span, Standing, Swept};
use crate::{
    report::{AccountTurnover, Models, Sum, Totals, Turnover},
    store::{
        Error, Result,
        reports::Behind,
        schema::{MinorUnits, Stored},
        statements::{self, EntryRow},
    },
};

/// Which SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Dialect {
    Mysql,
    Sqlite,
}

/// The SQL type of a sum: DECIMAL(38,2) in MySQL, minor units as 39 digits of text in SQLite.
#[derive(Clone, Copy, Debug, SqlType, QueryId)]
#[diesel(mysql_type(name = "Numeric"), sqlite_type(name = "Text"))]
pub(in crate::store) struct LargeSum;

/// A sum on its way out of a column.
#[derive(Clone, Copy, Debug, FromSqlRow)]
pub(in crate::store) struct StoredSum(Sum);

impl FromSql<LargeSum, Mysql> for StoredSum {
    fn from_sql(value: MysqlValue<'_>) -> deserialize::Result<Self> {
        let text = std::str::from_utf8(value.as_bytes())?;
        Sum::parse(text).map(Self).ok_or_else(|| format!("{text} is not a sum").into())
    }
}

impl FromSql<LargeSum, Sqlite> for StoredSum {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<Text, Sqlite>>::from_sql(value)?;
        let sum = text.parse().ok().and_then(Sum::from_minor);
        sum.map(Self).ok_or_else(|| format!("{text} is not a sum").into())
    }
}

/// `spent, deposited, deductions, deposits`.
const TURNOVER: &str = "spent, deposited, deductions, deposits";

const PROJECTION: &str = "generation, state, seq, read_seq, steps, owner, accounts, entries, opened, adjusted, resets, \
                          spent, deposited, deductions, deposits";

const ENTRY: &str = "user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at";

pub(in crate::store) type ProjectionRow =
    (i64, i16, i64, i64, i64, String, i64, i64, StoredSum, StoredSum, i64, StoredSum, StoredSum, i64, i64);
type ProjectionColumns = (
    BigInt,
    SmallInt,
    BigInt,
    BigInt,
    BigInt,
    Text,
    BigInt,
    BigInt,
    LargeSum,
    LargeSum,
    BigInt,
    LargeSum,
    LargeSum,
    BigInt,
    BigInt,
);

/// `seq` and the columns of an entry.
pub(in crate::store) type SequencedRow = (i64, i64, i64, Vec<u8>, String, Stored, Stored, i64, String, NaiveDateTime);
type SequencedColumns = (BigInt, BigInt, BigInt, Binary, Text, MinorUnits, MinorUnits, BigInt, Text, Timestamp);
type EntryColumns = (BigInt, BigInt, Binary, Text, MinorUnits, MinorUnits, BigInt, Text, Timestamp);

pub(in crate::store) type JournalEndRow = (i64, Option<NaiveDateTime>);
pub(in crate::store) type AccountRow = (i64, i64, StoredSum, StoredSum, i64, i64);
pub(in crate::store) type DayRow = (i64, NaiveDate, StoredSum, StoredSum, i64, i64);
pub(in crate::store) type SweptRow = (i64, i64, i64);

fn listed(items: impl IntoIterator<Item = impl Display>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}

/// Every generation.
pub(in crate::store) fn projections() -> SqlLiteral<ProjectionColumns> {
    sql(&format!("SELECT {PROJECTION} FROM projections ORDER BY generation"))
}

/// The generation that is read. There is always one.
pub(in crate::store) fn active() -> SqlLiteral<ProjectionColumns> {
    let active = GenerationState::Active.stored();
    sql(&format!("SELECT {PROJECTION} FROM projections WHERE state = {active}"))
}

/// The highest `seq`, and when the first entry beyond one was written.
pub(in crate::store) fn journal_end(beyond: i64) -> SqlLiteral<(BigInt, Nullable<Timestamp>)> {
    sql(&format!(
        "SELECT COALESCE((SELECT MAX(seq) FROM entries), 0), \
         (SELECT created_at FROM entries WHERE seq > {beyond} ORDER BY seq LIMIT 1)"
    ))
}

/// An account's days within a range.
pub(in crate::store) fn days_of(
    generation: i64,
    user_id: i64,
    within: &RangeInclusive<NaiveDate>,
    limit: i64,
) -> SqlLiteral<(Date, LargeSum, LargeSum, BigInt, BigInt)> {
    let (from, to) = (within.start(), within.end());
    sql(&format!(
        "SELECT day, {TURNOVER} FROM report_days WHERE generation = {generation} AND user_id = {user_id} \
         AND day BETWEEN '{from}' AND '{to}' ORDER BY day LIMIT {limit}"
    ))
}

/// A new generation, unless one is being built already.
pub(in crate::store) const BEGIN_BUILDING: &str = "INSERT INTO projections (generation, state) \
     SELECT MAX(generation) + 1, 0 FROM projections HAVING COUNT(CASE WHEN state = 0 THEN 1 END) = 0";

/// A page of accounts, and how far a generation has them.
pub(in crate::store) fn sweep(generation: i64, after_user_id: i64, limit: i64) -> SqlLiteral<(BigInt, BigInt, BigInt)> {
    sql(&format!(
        "SELECT page.user_id, page.version, COALESCE(report.version, 0) FROM \
         (SELECT user_id, version FROM accounts WHERE user_id > {after_user_id} ORDER BY user_id LIMIT {limit}) AS page \
         LEFT JOIN report_accounts AS report ON report.generation = {generation} AND report.user_id = page.user_id \
         ORDER BY page.user_id"
    ))
}

/// Accounts as a generation has them.
pub(in crate::store) fn accounts(
    generation: i64,
    user_ids: impl IntoIterator<Item = impl Display>,
) -> SqlLiteral<(BigInt, BigInt, LargeSum, LargeSum, BigInt, BigInt)> {
    let user_ids = listed(user_ids, ",");
    sql(&format!(
        "SELECT user_id, version, {TURNOVER} FROM report_accounts WHERE generation = {generation} AND user_id IN ({user_ids})"
    ))
}

/// Days as a generation has them: one range of the primary key for each.
pub(in crate::store) fn days<'a>(
    generation: i64,
    days: impl IntoIterator<Item = &'a (i64, NaiveDate)>,
) -> SqlLiteral<(BigInt, Date, LargeSum, LargeSum, BigInt, BigInt)> {
    let is = |(user_id, day): &(i64, NaiveDate)| {
        format!("(generation = {generation} AND user_id = {user_id} AND day = '{day}')")
    };
    let days = listed(days.into_iter().map(is), " OR ");
    sql(&format!("SELECT user_id, day, {TURNOVER} FROM report_days WHERE {days}"))
}

/// Entries of accounts: one range of the primary key for each.
pub(in crate::store) fn journal(spans: &[Span], limit: i64) -> SqlLiteral<EntryColumns> {
    let is = |Span { user_id, from, to }: &Span| format!("(user_id = {user_id} AND version BETWEEN {from} AND {to})");
    let spans = listed(spans.iter().map(is), " OR ");
    sql(&format!("SELECT {ENTRY} FROM entries WHERE {spans} ORDER BY user_id, version LIMIT {limit}"))
}

/// One generation in the place of another.
pub(in crate::store) fn supersede(active: i64, building: i64) -> [String; 2] {
    [(active, GenerationState::Retired), (building, GenerationState::Active)].map(|(generation, state)| {
        format!("UPDATE projections SET state = {} WHERE generation = {generation}", state.stored())
    })
}

impl Dialect {
    /// Locks a generation (X) unless another transaction has. SQLite's writer is alone anyway.
    pub(in crate::store) fn lock(self, generation: i64) -> SqlLiteral<ProjectionColumns> {
        let lock = match self {
            Self::Mysql => " FOR UPDATE SKIP LOCKED",
            Self::Sqlite => "",
        };
        sql(&format!("SELECT {PROJECTION} FROM projections WHERE generation = {generation}{lock}"))
    }

    /// Entries after a `seq`, and those in ranges before it, in one statement: they are as of one moment.
    pub(in crate::store) fn tail(self, after: i64, ranges: &[(i64, i64)], limit: i64) -> SqlLiteral<SequencedColumns> {
        // From far behind, the range is most of the table, and the database might rather sort all of it.
        let index = match self {
            Self::Mysql => " FORCE INDEX (entries_seq)",
            Self::Sqlite => "",
        };
        let ranges: String = ranges.iter().map(|(from, to)| format!(" OR seq BETWEEN {from} AND {to}")).collect();
        sql(&format!("SELECT seq, {ENTRY} FROM entries{index} WHERE seq > {after}{ranges} ORDER BY seq LIMIT {limit}"))
    }

    /// Who spent most, of all time or on a day.
    pub(in crate::store) fn top(
        self,
        generation: i64,
        ranking: &Ranking,
    ) -> SqlLiteral<(BigInt, LargeSum, LargeSum, BigInt, BigInt)> {
        let Ranking { day, after, limit } = ranking;
        let (table, of_day) = match day {
            None => ("report_accounts", String::new()),
            Some(day) => ("report_days", format!(" AND day = '{day}'")),
        };
        let after = after.map_or_else(String::new, |(spent, user_id)| {
            let spent = self.sum(spent);
            // The first condition is the range of the index that is read.
            format!(" AND spent <= {spent} AND (spent < {spent} OR user_id > {user_id})")
        });
        let nothing = self.sum(Sum::default());
        sql(&format!(
            "SELECT user_id, {TURNOVER} FROM {table} WHERE generation = {generation}{of_day} AND spent > {nothing}{after} \
             ORDER BY spent DESC, user_id LIMIT {limit}"
        ))
    }

    /// What has become of accounts, days and the generation itself.
    pub(in crate::store) fn write(self, projection: &Projection, models: &Models) -> Vec<String> {
        let generation = projection.generation;
        let accounts = models.accounts.iter().map(|(user_id, AccountTurnover { version, turnover })| {
            format!("({generation},{user_id},{version},{})", self.turnover(turnover))
        });
        let days = models
            .days
            .iter()
            .map(|((user_id, day), turnover)| format!("({generation},{user_id},'{day}',{})", self.turnover(turnover)));
        let mut statements = Vec::with_capacity(3);
        if !models.accounts.is_empty() {
            let columns = ["version", "spent", "deposited", "deductions", "deposits"];
            statements.push(self.put("report_accounts", &["generation", "user_id"], &columns, accounts));
        }
        if !models.days.is_empty() {
            let columns = ["spent", "deposited", "deductions", "deposits"];
            statements.push(self.put("report_days", &["generation", "user_id", "day"], &columns, days));
        }
        statements.push(self.advance(projection));
        statements
    }

    /// Inserts rows, or overwrites those that are there.
    fn put(self, table: &str, key: &[&str], columns: &[&str], rows: impl Iterator<Item = String>) -> String {
        let all = listed(key.iter().chain(columns), ", ");
        let (on_conflict, new) = match self {
            Self::Mysql => (" ON DUPLICATE KEY UPDATE ".to_owned(), "VALUES("),
            Self::Sqlite => (format!(" ON CONFLICT ({}) DO UPDATE SET ", listed(key, ", ")), "(excluded."),
        };
        let set = listed(columns.iter().map(|column| format!("{column} = {new}{column})")), ", ");
        format!("INSERT INTO {table} ({all}) VALUES {}{on_conflict}{set}", listed(rows, ","))
    }

    fn advance(self, projection: &Projection) -> String {
        let Projection { generation, seq, read_seq, steps, owner, totals, .. } = projection;
        let Totals { accounts, entries, opened, adjusted, resets, turnover } = totals;
        let Turnover { spent, deposited, deductions, deposits } = turnover;
        let [opened, adjusted, spent, deposited] = [opened, adjusted, spent, deposited].map(|sum| self.sum(*sum));
        format!(
            "UPDATE projections SET seq = {seq}, read_seq = {read_seq}, steps = {steps}, owner = '{}', accounts = {accounts}, \
             entries = {entries}, opened = {opened}, adjusted = {adjusted}, resets = {resets}, spent = {spent}, \
             deposited = {deposited}, deductions = {deductions}, deposits = {deposits} WHERE generation = {generation}",
            owner.simple()
        )
    }

    fn turnover(self, turnover: &Turnover) -> String {
        let Turnover { spent, deposited, deductions, deposits } = turnover;
        format!("{},{},{deductions},{deposits}", self.sum(*spent), self.sum(*deposited))
    }

    /// A sum as a literal.
    fn sum(self, sum: Sum) -> String {
        match self {
            // A decimal literal is a DECIMAL.
            Self::Mysql => sum.to_string(),
            Self::Sqlite => format!("'{:039}'", sum.minor()),
        }
    }

    /// What removes some rows of a retired generation, in the order in which to try, the generation's own last.
    pub(in crate::store) fn removals(self, generation: i64, limit: i64) -> [String; 3] {
        let some = |table: &str, rest_of_key: &str| match self {
            Self::Mysql => format!("DELETE FROM {table} WHERE generation = {generation} LIMIT {limit}"),
            Self::Sqlite => format!(
                "DELETE FROM {table} WHERE generation = {generation} AND ({rest_of_key}) IN \
                 (SELECT {rest_of_key} FROM {table} WHERE generation = {generation} LIMIT {limit})"
            ),
        };
        let retired = GenerationState::Retired.stored();
        [
            some("report_days", "user_id, day"),
            some("report_accounts", "user_id"),
            format!("DELETE FROM projections WHERE generation = {generation} AND state = {retired}"),
        ]
    }
}

pub(in crate::store) fn projection(row: ProjectionRow) -> Result<Projection> {
    let (generation, state, seq, read_seq, steps, owner, accounts, entries, opened, adjusted, resets, ..) = row;
    let (.., spent, deposited, deductions, deposits) = row;
    let unknown = |what: &dyn Display| Error::Unexpected(format!("projection {generation}: {what}"));
    let state = GenerationState::from_stored(state).ok_or_else(|| unknown(&format!("unknown state {state}")))?;
    let owner = if owner.is_empty() { Ok(Uuid::nil()) } else { owner.parse() };
    Ok(Projection {
        generation,
        state,
        seq,
        read_seq,
        steps,
        owner: owner.map_err(|error| unknown(&error))?,
        totals: Totals {
            accounts,
            entries,
            opened: opened.0,
            adjusted: adjusted.0,
            resets,
            turnover: turnover((spent, deposited, deductions, deposits)),
        },
    })
}

/// The generation that is read.
pub(in crate::store) fn the_active(rows: Vec<ProjectionRow>) -> Result<Projection> {
    let none = || Error::Unexpected("no generation of the reports is active".to_owned());
    rows.into_iter().next().ok_or_else(none).and_then(projection)
}

/// The generation that was begun last.
pub(in crate::store) fn the_newest(projections: &[Projection]) -> Result<i64> {
    let none = || Error::Unexpected("there is no generation of the reports".to_owned());
    projections.last().map(|projection| projection.generation).ok_or_else(none)
}

pub(in crate::store) fn standing(projection: Projection, end: &[JournalEndRow]) -> Standing {
    let (newest_seq, waiting_since) = end.first().copied().unwrap_or_default();
    Standing { projection, newest_seq, waiting_since }
}

const fn turnover((spent, deposited, deductions, deposits): (StoredSum, StoredSum, i64, i64)) -> Turnover {
    Turnover { spent: spent.0, deposited: deposited.0, deductions, deposits }
}

pub(in crate::store) const fn account(row: AccountRow) -> (i64, AccountTurnover) {
    let (user_id, version, spent, deposited, deductions, deposits) = row;
    (user_id, AccountTurnover { version, turnover: turnover((spent, deposited, deductions, deposits)) })
}

pub(in crate::store) const fn day(row: DayRow) -> ((i64, NaiveDate), Turnover) {
    let (user_id, day, spent, deposited, deductions, deposits) = row;
    ((user_id, day), turnover((spent, deposited, deductions, deposits)))
}

pub(in crate::store) const fn keyed<K: Copy>(row: (K, StoredSum, StoredSum, i64, i64)) -> (K, Turnover) {
    let (key, spent, deposited, deductions, deposits) = row;
    (key, turnover((spent, deposited, deductions, deposits)))
}

pub(in crate::store) fn sequenced(row: SequencedRow) -> Result<Sequenced> {
    let (seq, user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at) = row;
    let entry: EntryRow =
        (user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at);
    Ok(Sequenced { seq, entry: statements::entry(entry)? })
}

pub(in crate::store) fn swept(rows: &[SweptRow]) -> Swept {
    let behind = rows.iter().filter(|(_, version, projected)| projected < version);
    Swept {
        behind: behind.map(|(user_id, version, _)| Behind { user_id: *user_id, version: *version }).collect(),
        last: rows.last().map(|(user_id, ..)| *user_id),
    }
}
