//! Which entries of one account's journal are read. A selection names a range of versions, and versions are contiguous: so
//! the range bounds what the database looks at, whatever else is asked of the entries in it.

use std::ops::RangeInclusive;

use chrono::NaiveDateTime;

use crate::account::{Entry, EntryKind};

/// What is asked of an entry. Where nothing is named, any will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Criteria {
    /// Written at this time or later, by the database's clock, UTC.
    pub from: Option<NaiveDateTime>,
    /// Written before this time.
    pub to: Option<NaiveDateTime>,
    /// Of one of these kinds.
    pub kinds: Vec<EntryKind>,
    /// Written by one of these strategies.
    pub strategies: Vec<&'static str>,
}

impl Criteria {
    /// Whether an entry is as asked.
    pub fn admit(&self, entry: &Entry) -> bool {
        self.from.is_none_or(|from| entry.created_at >= from)
            && self.to.is_none_or(|to| entry.created_at < to)
            && (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
            && (self.strategies.is_empty() || self.strategies.contains(&entry.strategy.as_str()))
    }
}

/// The order in which entries come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By version.
    OldestFirst,
    /// By version, backwards.
    NewestFirst,
}

/// Entries of an account's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The account.
    pub user_id: i64,
    /// Of these versions.
    pub versions: RangeInclusive<i64>,
    /// Those that are as asked.
    pub criteria: Criteria,
    /// In this order.
    pub order: Order,
    /// At most so many.
    pub limit: i64,
}
