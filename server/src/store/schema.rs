//! The tables, and how money is stored in them: `DECIMAL(20,2)` in MySQL, INTEGER minor units in SQLite. Diesel's own
//! `Numeric` goes through a float on SQLite, so the column has a SQL type of its own.

use std::io::Write;

use diesel::{
    AppearsOnTable, Expression, QueryResult, SelectableExpression,
    deserialize::{self, FromSql, FromSqlRow},
    expression::{AsExpression, ValidGrouping, is_aggregate},
    mysql::{Mysql, MysqlValue},
    query_builder::{AstPass, QueryFragment, QueryId},
    serialize::{self, IsNull, Output, ToSql},
    sql_types::SqlType,
    sqlite::{Sqlite, SqliteValue},
};

use crate::account::Money;

/// The SQL type of a money column.
#[derive(Clone, Copy, Debug, SqlType, QueryId)]
#[diesel(mysql_type(name = "Numeric"), sqlite_type(name = "Long"))]
pub struct MinorUnits;

// `+` between money columns; Diesel's own numeric operators would ask for `*` and `/` as well.
diesel::infix_operator!(Plus, " + ", MinorUnits);

/// Money on its way into or out of a column.
#[derive(Clone, Copy, Debug, AsExpression, FromSqlRow)]
#[diesel(sql_type = MinorUnits)]
pub struct Stored(pub Money);

impl ToSql<MinorUnits, Mysql> for Stored {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Mysql>) -> serialize::Result {
        write!(out, "{}", self.0)?;
        Ok(IsNull::No)
    }
}

impl FromSql<MinorUnits, Mysql> for Stored {
    fn from_sql(value: MysqlValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Money::parse_signed(std::str::from_utf8(value.as_bytes())?)?))
    }
}

impl ToSql<MinorUnits, Sqlite> for Stored {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.minor());
        Ok(IsNull::No)
    }
}

impl FromSql<MinorUnits, Sqlite> for Stored {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        Ok(Self(Money::from_minor(value.read_long())))
    }
}

/// Money on the other side of an operator. A bare parameter reaches MySQL as text, and `DECIMAL + text` or
/// `DECIMAL >= text` is computed in DOUBLE there, which loses cents beyond 15 digits; only an assignment is exact.
#[derive(Clone, Copy, Debug, QueryId)]
pub struct Exact(pub Stored);

impl Expression for Exact {
    type SqlType = MinorUnits;
}

impl<GroupBy> ValidGrouping<GroupBy> for Exact {
    type IsAggregate = is_aggregate::Never;
}

impl<Source> AppearsOnTable<Source> for Exact {}
impl<Source> SelectableExpression<Source> for Exact {}

impl QueryFragment<Mysql> for Exact {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Mysql>) -> QueryResult<()> {
        out.push_sql("CAST(");
        out.push_bind_param::<MinorUnits, _>(&self.0)?;
        out.push_sql(" AS DECIMAL(20,2))");
        Ok(())
    }
}

impl QueryFragment<Sqlite> for Exact {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_bind_param::<MinorUnits, _>(&self.0)
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Timestamp};
    use super::MinorUnits;

    accounts (user_id) {
        user_id -> BigInt,
        balance -> MinorUnits,
        version -> BigInt,
        fence -> BigInt,
        created_at -> Timestamp,
        updated_at -> Timestamp,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamp};
    use super::MinorUnits;

    entries (user_id, version) {
        user_id -> BigInt,
        version -> BigInt,
        request_id -> Binary,
        kind -> Text,
        delta -> MinorUnits,
        balance_after -> MinorUnits,
        version_before -> BigInt,
        strategy -> Text,
        created_at -> Timestamp,
        seq -> BigInt,
        digest -> Nullable<Binary>,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Timestamp};
    use super::MinorUnits;

    snapshots (user_id, version) {
        user_id -> BigInt,
        version -> BigInt,
        balance -> MinorUnits,
        created_at -> Timestamp,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, SmallInt, Text};

    account_filter (id) {
        id -> SmallInt,
        keyspace -> Text,
        build -> BigInt,
        state -> SmallInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(accounts, entries);
