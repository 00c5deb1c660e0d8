//! Reading journals for those who list or follow them. A page costs a bounded number of versions looked at, however few of
//! them are wanted; versions never change once they are there, so a place in a journal is a version and nothing else.

use super::Ledger;
use crate::{
    account::{Entry, Refusal},
    error::Error,
    history::path::Path,
    store::{Criteria, Order, Selection},
};

/// The most versions that one page looks at: some milliseconds of a database's time.
const LOOKED_AT_MOST: i64 = 10_000;

/// How many of them are read at a time where each has to be looked at here: about 200 kB.
const WINDOW: i64 = 1000;

/// Where a page of a listing begins, and with that what is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Oldest first, behind this version; 0: from the opening.
    After(i64),
    /// Newest first, before this version; more than there are: from the newest.
    Before(i64),
    /// What was overwritten, newest first; `None`: from the newest.
    Lost(Option<Walk>),
}

/// A walk back along the path that survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// All versions from this one on were looked at.
    pub before: i64,
    /// The path down to there.
    pub path: Path,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The entry.
    pub entry: Entry,
    /// The version that overwrote it; `None`: it survives, or nobody asked.
    pub overwritten_by: Option<i64>,
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Listed>,
    /// Where the next page begins; `None`: this is the last.
    pub next: Option<Cursor>,
}

impl Ledger {
    /// A page of those entries that are as asked, `size` at most; fewer, or none, where `LOOKED_AT_MOST` versions did not
    /// hold as many.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`], or the database's.
    pub async fn page(&self, user_id: i64, criteria: Criteria, from: Cursor, size: i64) -> Result<Page, Error> {
        // First: what is written while this page is read belongs to none of its ranges, and so to a later page.
        let newest = self.newest(user_id).await?;
        match from {
            Cursor::After(version) => {
                let last = newest.min(version.saturating_add(LOOKED_AT_MOST));
                let rest = (last < newest).then_some(Cursor::After(last));
                let versions = version.saturating_add(1)..=last;
                let selection = Selection { user_id, versions, criteria, order: Order::OldestFirst, limit: size };
                self.chosen(selection, rest, Cursor::After).await
            }
            Cursor::Before(version) => {
                let last = newest.min(version - 1);
                let first = last.saturating_sub(LOOKED_AT_MOST - 1).max(1);
                let rest = (first > 1).then_some(Cursor::Before(first));
                let versions = first..=last;
                let selection = Selection { user_id, versions, criteria, order: Order::NewestFirst, limit: size };
                self.chosen(selection, rest, Cursor::Before).await
            }
            Cursor::Lost(walk) => {
                let walk = walk.unwrap_or_else(|| Walk { before: newest + 1, path: Path::to(newest) });
                self.lost(user_id, &criteria, walk, size).await
            }
        }
    }

    /// At most `limit` entries behind a version, in order.
    ///
    /// # Errors
    /// The database's.
    pub async fn behind(&self, user_id: i64, version: i64, limit: i64) -> Result<Vec<Entry>, Error> {
        self.reading(|| self.bench.store.entries(user_id, version, limit)).await
    }

    /// The newest version in an account's journal.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`], or the database's.
    pub async fn newest(&self, user_id: i64) -> Result<i64, Error> {
        let (versions, criteria) = (1..=i64::MAX, Criteria::default());
        let newest = Selection { user_id, versions, criteria, order: Order::NewestFirst, limit: 1 };
        let newest = self.selected(&newest).await?;
        Ok(newest.first().ok_or(Refusal::AccountNotFound { user_id })?.version)
    }

    async fn selected(&self, selection: &Selection) -> Result<Vec<Entry>, Error> {
        self.reading(|| self.bench.store.select(selection.clone())).await
    }

    /// What the database chooses. `rest`: where the next page begins when all of it fits on this one.
    async fn chosen(&self, selection: Selection, rest: Option<Cursor>, at: fn(i64) -> Cursor) -> Result<Page, Error> {
        let size = usize::try_from(selection.limit).unwrap_or(usize::MAX);
        // One more than a page, to know whether another follows.
        let selection = Selection { limit: selection.limit + 1, ..selection };
        let mut entries = self.selected(&selection).await?;
        let more = entries.len() > size;
        entries.truncate(size);
        let next = if more { entries.last().map(|last| at(last.version)) } else { rest };
        let entries = entries.into_iter().map(|entry| Listed { entry, overwritten_by: None });
        Ok(Page { entries: entries.collect(), next })
    }

    /// What lies beside the path. The path goes through entries that nobody wants too, so all are looked at here.
    async fn lost(&self, user_id: i64, criteria: &Criteria, mut walk: Walk, size: i64) -> Result<Page, Error> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut page = Page { entries: Vec::new(), next: None };
        for _ in 0..LOOKED_AT_MOST / WINDOW {
            if walk.before <= 1 {
                return Ok(page);
            }
            let first = (walk.before - WINDOW).max(1);
            let (versions, criteria_of_walk) = (first..=walk.before - 1, Criteria::default());
            let order = Order::NewestFirst;
            let selection = Selection { user_id, versions, criteria: criteria_of_walk, order, limit: WINDOW };
            for entry in self.selected(&selection).await? {
                if page.entries.len() == size {
                    return Ok(Page { next: Some(Cursor::Lost(Some(walk))), ..page });
                }
                walk.before = entry.version;
                let overwritten_by = walk.path.overwriter(&entry);
                if overwritten_by.is_some() && criteria.admit(&entry) {
                    page.entries.push(Listed { entry, overwritten_by });
                }
            }
            walk.before = first;
        }
        Ok(Page { next: (walk.before > 1).then_some(Cursor::Lost(Some(walk))), ..page })
    }
}
