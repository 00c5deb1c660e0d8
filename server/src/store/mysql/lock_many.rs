//! The statement that locks the accounts of a batch. Diesel prepares `IN` lists anew for every call; this one is padded to
//! a power of two, so that a connection keeps a dozen of them prepared and a batch spares the round trip.

use std::collections::BTreeSet;

use diesel::{
    QueryResult,
    mysql::Mysql,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::BigInt,
};

use crate::store::{
    IfLocked,
    schema::{MinorUnits, Stored},
};

/// `user_id, balance, version`.
pub(super) type StateRow = (i64, Stored, i64);

/// Reads accounts under X, in order of id.
#[derive(Debug)]
pub(super) struct LockMany {
    user_ids: Vec<i64>,
    if_locked: IfLocked,
}

impl LockMany {
    pub(super) fn new(user_ids: &BTreeSet<i64>, if_locked: IfLocked) -> Self {
        Self { user_ids: padded(user_ids), if_locked }
    }
}

/// As many ids as a power of two; the last one is repeated to fill it up.
pub(super) fn padded(user_ids: &BTreeSet<i64>) -> Vec<i64> {
    let last = user_ids.last().copied();
    let padding = user_ids.len().next_power_of_two() - user_ids.len();
    user_ids.iter().copied().chain(last.into_iter().cycle().take(padding)).collect()
}

/// The ids as bound values, with commas.
pub(super) fn push_ids<'b>(out: &mut AstPass<'_, 'b, Mysql>, user_ids: &'b [i64]) -> QueryResult<()> {
    for (at, user_id) in user_ids.iter().enumerate() {
        if at > 0 {
            out.push_sql(",");
        }
        out.push_bind_param::<BigInt, _>(user_id)?;
    }
    Ok(())
}

impl Query for LockMany {
    type SqlType = (BigInt, MinorUnits, BigInt);
}

/// Its text tells it apart from others, not its type.
impl QueryId for LockMany {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Mysql> for LockMany {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Mysql>) -> QueryResult<()> {
        out.push_sql("SELECT user_id, balance, version FROM accounts WHERE user_id IN (");
        push_ids(&mut out, &self.user_ids)?;
        // X on each row.
        out.push_sql(") ORDER BY user_id FOR UPDATE");
        if self.if_locked == IfLocked::Skip {
            out.push_sql(" SKIP LOCKED");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_to_a_power_of_two() {
        let padded = |ids: &[i64]| LockMany::new(&ids.iter().copied().collect(), IfLocked::Wait).user_ids;
        assert_eq!(padded(&[7]), [7]);
        assert_eq!(padded(&[3, 1, 2]), [1, 2, 3, 3]);
        assert_eq!(padded(&[1, 2, 3, 4, 5]), [1, 2, 3, 4, 5, 5, 5, 5]);
    }

    #[test]
    fn its_text_tells_size_and_manner() {
        let text = |ids: &[i64], if_locked| {
            let statement = LockMany::new(&ids.iter().copied().collect(), if_locked);
            diesel::debug_query::<Mysql, _>(&statement).to_string()
        };
        assert!(text(&[1, 2], IfLocked::Skip).starts_with(
            "SELECT user_id, balance, version FROM accounts WHERE user_id IN (?,?) ORDER BY user_id FOR UPDATE SKIP \
             LOCKED"
        ));
        assert!(!text(&[1, 2], IfLocked::Wait).contains("SKIP"));
    }
}
