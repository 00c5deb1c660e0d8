//! What is asked of a database for reports: by those who read them, and by the projector that keeps them. They are two, because
//! nothing that is read changes anything, and only what is read goes through the circuit breaker.

pub(super) mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use async_trait::async_trait;
use chrono::{NaiveDate, NaiveDateTime};
use uuid::Uuid;

use super::Result;
use crate::{
    account::Entry,
    report::{AccountTurnover, Models, Sum, Totals, Turnover},
};

/// What a generation of the read models is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationState {
    /// It is being filled, and nobody reads it.
    Building,
    /// It is the one that is read.
    Active,
    /// Another has taken its place; its rows are being removed.
    Retired,
}

impl GenerationState {
    pub(super) const fn stored(self) -> i16 {
        match self {
            Self::Building => 0,
            Self::Active => 1,
            Self::Retired => 2,
        }
    }

    pub(super) fn from_stored(state: i16) -> Option<Self> {
        [Self::Building, Self::Active, Self::Retired].into_iter().find(|known| known.stored() == state)
    }
}

/// A generation of the read models: how far it has come, and its totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Projection {
    /// Which.
    pub generation: i64,
    /// What it is for.
    pub state: GenerationState,
    /// Every entry up to here is in it, or never will be there. A hint where to look, as is the next: what makes the models right
    /// are the versions of accounts.
    pub seq: i64,
    /// Every entry up to here that was there when it was looked for is in it.
    pub read_seq: i64,
    /// It grows with every transaction of a projector.
    pub steps: i64,
    /// The projector that made the last one; nil for none.
    pub owner: Uuid,
    /// All accounts together.
    pub totals: Totals,
}

/// What is read of one moment: the generation that is active, and how far the journal had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The generation.
    pub projection: Projection,
    /// The highest `seq` of the journal.
    pub newest_seq: i64,
    /// When the oldest entry beyond `read_seq` was written; `None` where there is none.
    pub waiting_since: Option<NaiveDateTime>,
}

/// Whose spending is ranked, and from where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// A day, or all time.
    pub day: Option<NaiveDate>,
    /// Those who come after one that spent so much.
    pub after: Option<(Sum, i64)>,
    /// The most that are wanted.
    pub limit: i64,
}

/// An entry, and where it stands in the journal over all accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// About the order of writing; not of committing.
    pub seq: i64,
    /// The entry.
    pub entry: Entry,
}

/// An account of which a generation lacks something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The account.
    pub user_id: i64,
    /// How far its journal goes.
    pub version: i64,
}

/// A page of accounts, looked through for those that are behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Those that are.
    pub behind: Vec<Behind>,
    /// The last account of the page; `None` when there was none.
    pub last: Option<i64>,
}

/// Entries of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The account.
    pub user_id: i64,
    /// From this version on.
    pub from: i64,
    /// Up to this one.
    pub to: i64,
}

/// What those who read reports ask. Each answer is of one moment, together with what it was like then.
#[async_trait]
pub trait Reports: Send + Sync + 'static {
    /// How far it all is, and the totals.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate` and `CommitLost`.
    async fn standing(&self) -> Result<Standing>;

    /// An account's days within a range, in order, at most `limit`.
    ///
    /// # Errors
    /// As [`Self::standing`].
    async fn days(
        &self,
        user_id: i64,
        within: RangeInclusive<NaiveDate>,
        limit: i64,
    ) -> Result<(Standing, Vec<(NaiveDate, Turnover)>)>;

    /// The accounts that spent most, those who spent the same in order of their ids.
    ///
    /// # Errors
    /// As [`Self::standing`].
    async fn top(&self, ranking: Ranking) -> Result<(Standing, Vec<(i64, Turnover)>)>;

    /// Begins a new generation, if none is being built, and says which one is.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate`; it may have been done.
    async fn rebuild(&self) -> Result<i64>;
}

/// What the projector asks.
#[async_trait]
pub trait Projections: Send + Sync + 'static {
    /// Every generation there is, in order. At most a few: one is active, one may be building, others are being removed.
    ///
    /// # Errors
    /// Any [`super::Error`] but `Duplicate` and `CommitLost`.
    async fn projections(&self) -> Result<Vec<Projection>>;

    /// The highest `seq` of the journal, 0 when it is empty, and when the first entry beyond one was written.
    ///
    /// # Errors
    /// As [`Self::projections`].
    async fn journal_end(&self, beyond: i64) -> Result<(i64, Option<NaiveDateTime>)>;

    /// At most `limit` entries, as of one moment, in order of `seq`: those after one, and those in ranges before it.
    ///
    /// # Errors
    /// As [`Self::projections`].
    async fn tail(&self, after: i64, ranges: &[(i64, i64)], limit: i64) -> Result<Vec<Sequenced>>;

    /// Looks through the `limit` accounts whose ids come after one.
    ///
    /// # Errors
    /// As [`Self::projections`].
    async fn sweep(&self, generation: i64, after_user_id: i64, limit: i64) -> Result<Swept>;

    /// A transaction that begins with its first statement. Dropped without an end, it is rolled back.
    fn step(&self) -> Box<dyn Step>;
}

/// A transaction of the projector.
#[async_trait]
pub trait Step: Send {
    /// Locks (X) a generation, unless another has; everything else of it is written under this lock alone. `None`: it is locked,
    /// or gone.
    async fn lock(&mut self, generation: i64) -> Result<Option<Projection>>;

    /// Reads accounts as the generation has them.
    async fn accounts(&mut self, generation: i64, user_ids: &BTreeSet<i64>) -> Result<BTreeMap<i64, AccountTurnover>>;

    /// Reads days as the generation has them.
    async fn days(
        &mut self,
        generation: i64,
        days: &BTreeSet<(i64, NaiveDate)>,
    ) -> Result<BTreeMap<(i64, NaiveDate), Turnover>>;

    /// At most `limit` entries of accounts, in order of account and version.
    async fn journal(&mut self, spans: &[Span], limit: i64) -> Result<Vec<Entry>>;

    /// Writes what has become of accounts, days and the generation itself.
    async fn write(&mut self, projection: &Projection, models: &Models) -> Result<()>;

    /// Lets one locked generation take the place of another.
    async fn supersede(&mut self, active: i64, building: i64) -> Result<()>;

    /// Removes some rows of a retired generation, and at last the generation; says how many are gone.
    async fn remove(&mut self, generation: i64, limit: i64) -> Result<usize>;

    /// Commits.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Rolls back.
    async fn rollback(self: Box<Self>);
}
