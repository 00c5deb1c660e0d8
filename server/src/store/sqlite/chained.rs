//! How the journal is chained here, and read back as it is held. Within the one writer's transaction nobody comes between
//! reading where a chain ends and going on with it.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryResult, RunQueryDsl, SqliteConnection,
    dsl::sql,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Nullable, Text, Timestamp},
    sqlite::Sqlite,
};

use crate::{
    account::NewEntry,
    chain::{self, Chaining, Digest},
    store::{
        schema::entries,
        statements::{self, Kept},
    },
};

/// The time, as the journal holds it.
const NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// Appends to the journal.
pub(super) fn append(c: &mut SqliteConnection, entry: &NewEntry, chaining: Chaining) -> QueryResult<()> {
    match chaining {
        Chaining::Off => statements::append!(entry).execute(c)?,
        Chaining::On => {
            let previous = entries::table.find((entry.user_id, entry.version - 1)).select(entries::digest);
            let previous: Option<Option<Vec<u8>>> = previous.first(c).optional()?;
            let previous = previous.flatten().as_deref().and_then(Digest::from_bytes);
            let now: String = diesel::select(sql::<Text>(NOW)).first(c)?;
            let digest = chain::digest(previous, entry, &now);
            // Diesel would write a timestamp in a form of its own.
            let created_at = entries::created_at.eq(sql::<Timestamp>("").bind::<Text, _>(now));
            let values =
                (statements::NewEntryRow::from(entry), created_at, entries::digest.eq(digest.as_bytes().to_vec()));
            Kept(diesel::insert_into(entries::table).values(values)).execute(c)?
        }
    };
    Ok(())
}

/// Reads a page of [`chain::Record`]s.
#[derive(Clone, Copy, Debug, QueryId)]
pub(super) struct Records {
    pub(super) after: (i64, i64),
    pub(super) limit: i64,
}

impl Query for Records {
    type SqlType = (BigInt, BigInt, Text, Nullable<Binary>);
}

impl<C> RunQueryDsl<C> for Records {}

impl QueryFragment<Sqlite> for Records {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        let money = |column: &str| {
            format!("printf('%s%d.%02d', iif({column} < 0, '-', ''), abs({column} / 100), abs({column} % 100))")
        };
        let text = [
            "user_id",
            "version",
            "lower(hex(request_id))",
            "kind",
            &money("delta"),
            &money("balance_after"),
            "version_before",
            "strategy",
            "created_at",
        ];
        out.push_sql("SELECT user_id, version, ");
        out.push_sql(&text.join(" || '|' || "));
        out.push_sql(", digest FROM entries WHERE (user_id, version) > (");
        out.push_bind_param::<BigInt, _>(&self.after.0)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.after.1)?;
        out.push_sql(") ORDER BY user_id, version LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)
    }
}
