//! The statements that read what chains are made of: where they end, and the journal as it is held.

use std::collections::BTreeSet;

use diesel::{
    QueryResult,
    mysql::Mysql,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Nullable, Text},
};

use super::lock_many::{padded, push_ids};
use crate::{
    chain,
    store::{Error, Result, statements},
};

/// `user_id, version, digest` of an account's newest entry, and the time.
pub(super) type EndRow = (i64, i64, Option<Vec<u8>>, String);

/// Reads where the chains of accounts end. No lock. Padded, so that it stays prepared.
#[derive(Debug)]
pub(super) struct Ends {
    user_ids: Vec<i64>,
}

impl Ends {
    pub(super) fn new(user_ids: &BTreeSet<i64>) -> Self {
        Self { user_ids: padded(user_ids) }
    }
}

impl Query for Ends {
    type SqlType = (BigInt, BigInt, Nullable<Binary>, Text);
}

/// Its text tells it apart from others, not its type.
impl QueryId for Ends {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Mysql> for Ends {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Mysql>) -> QueryResult<()> {
        out.push_sql(
            "SELECT accounts.user_id, accounts.version, digest, CAST(CURRENT_TIMESTAMP(6) AS CHAR) FROM accounts \
             LEFT JOIN entries ON entries.user_id = accounts.user_id AND entries.version = accounts.version \
             WHERE accounts.user_id IN (",
        );
        push_ids(&mut out, &self.user_ids)?;
        out.push_sql(")");
        Ok(())
    }
}

/// Puts the rows of [`Ends`] together: the ends, and the time.
pub(super) fn ends(rows: Vec<EndRow>) -> Result<(chain::Ends, String)> {
    let now = rows.first().map(|(.., now)| now.clone());
    let now = now.ok_or_else(|| Error::Unexpected("the accounts of a batch are gone".to_owned()))?;
    let digests = rows.into_iter().map(|(user_id, version, digest, _)| {
        Ok((user_id, digest.map(|bytes| statements::digest(user_id, version, &bytes)).transpose()?))
    });
    Ok((chain::Ends::new(digests.collect::<Result<_>>()?), now))
}

/// Reads a page of [`chain::Record`]s.
#[derive(Clone, Copy, Debug, QueryId)]
pub(super) struct Records {
    user_id: i64,
    version: i64,
    limit: i64,
}

impl Records {
    pub(super) const fn new((user_id, version): (i64, i64), limit: i64) -> Self {
        Self { user_id, version, limit }
    }
}

impl Query for Records {
    type SqlType = (BigInt, BigInt, Text, Nullable<Binary>);
}

impl QueryFragment<Mysql> for Records {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Mysql>) -> QueryResult<()> {
        // Two ranges of the primary key; `(user_id, version) > (?, ?)` would not be taken for any.
        out.push_sql(
            "SELECT user_id, version, CONCAT_WS('|', user_id, version, LOWER(HEX(request_id)), kind, delta, \
             balance_after, version_before, strategy, created_at), digest FROM entries WHERE (user_id = ",
        );
        out.push_bind_param::<BigInt, _>(&self.user_id)?;
        out.push_sql(" AND version > ");
        out.push_bind_param::<BigInt, _>(&self.version)?;
        out.push_sql(") OR user_id > ");
        out.push_bind_param::<BigInt, _>(&self.user_id)?;
        out.push_sql(" ORDER BY user_id, version LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)
    }
}
