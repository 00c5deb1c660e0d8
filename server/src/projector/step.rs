//! One step of a projection: the entries found, and those before them that were not, are folded into the read models in one
//! transaction, which locks the generation. So whatever ends it, and however often it is tried, each entry is in them once.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::tail::Tail;
use crate::{
    account::Entry,
    report::{AccountTurnover, Folded, Models, day_of},
    store::{
        Error, Result,
        reports::{Behind, GenerationState, Projection, Projections, Span, Step},
    },
};

/// The most entries read by version in a step; more are left to the next. With those of a page they are of fewer than a thousand days.
const ENTRIES_A_STEP: i64 = 400;

/// What a step has to start from.
pub(super) struct Found {
    /// Entries, in whatever order.
    pub(super) entries: Vec<Entry>,
    /// Accounts that lack entries.
    pub(super) behind: Vec<Behind>,
}

impl Found {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.behind.is_empty()
    }

    /// How far each account has to come.
    fn goals(&self) -> BTreeMap<i64, i64> {
        let of_entries = self.entries.iter().map(|entry| (entry.user_id, entry.version));
        let mut goals = BTreeMap::new();
        for (user_id, version) in of_entries.chain(self.behind.iter().map(|behind| (behind.user_id, behind.version))) {
            let goal = goals.entry(user_id).or_insert(version);
            *goal = version.max(*goal);
        }
        goals
    }
}

/// What became of a step.
pub(super) enum Outcome {
    /// Another projector has the generation.
    Locked,
    /// It is committed.
    Done {
        /// The generation afterwards.
        projection: Projection,
        /// Whether every entry of the page is in it.
        page_is_in: bool,
        /// Whether every account that was behind has caught up.
        swept_is_in: bool,
    },
}

impl Outcome {
    /// There was nothing that a transaction would be needed for.
    pub(super) const fn nothing_to_do(projection: Projection) -> Self {
        Self::Done { projection, page_is_in: true, swept_is_in: true }
    }
}

/// Takes a step: `tail` is what is known of `seq` without what was found, and with it.
pub(super) async fn step(
    store: &dyn Projections,
    owner: Uuid,
    generation: i64,
    found: &Found,
    tail: [&Tail; 2],
) -> Result<Outcome> {
    let mut step = store.step();
    match apply(&mut *step, owner, generation, found, tail).await {
        Ok(outcome @ Outcome::Done { .. }) => {
            step.commit().await?;
            Ok(outcome)
        }
        other => {
            step.rollback().await;
            other
        }
    }
}

async fn apply(
    step: &mut dyn Step,
    owner: Uuid,
    generation: i64,
    found: &Found,
    [before, after]: [&Tail; 2],
) -> Result<Outcome> {
    let Some(projection) = step.lock(generation).await? else { return Ok(Outcome::Locked) };
    if projection.state == GenerationState::Retired {
        // It is being removed, and nobody would remove what was added.
        return Ok(Outcome::Locked);
    }
    let Gathered { mut models, entries, broken } = gather(step, &projection, found).await?;
    let mut folded = 0;
    for entry in entries.values() {
        let place = models.fold(entry).map_err(|error| Error::Unexpected(error.to_string()))?;
        folded += u64::from(place == Folded::In);
    }
    let reached = |user_id, version| models.accounts.get(&user_id).is_some_and(|account| account.version >= version);
    // An account whose journal lacks a version stays where it is, and keeps nobody else waiting.
    let is_in = |user_id, version| reached(user_id, version) || broken.contains(&user_id);
    let page_is_in = found.entries.iter().all(|entry| is_in(entry.user_id, entry.version));
    let swept_is_in = found.behind.iter().all(|behind| is_in(behind.user_id, behind.version));
    let tail = if page_is_in { after } else { before };
    let projection = Projection {
        // Another projector may have come further.
        seq: projection.seq.max(tail.complete()),
        read_seq: projection.read_seq.max(tail.read()),
        steps: projection.steps + 1,
        owner,
        totals: models.totals,
        ..projection
    };
    if folded == 0 {
        models = Models::default();
    }
    step.write(&projection, &models).await?;
    metrics::counter!("projector_entries_total").increment(folded);
    Ok(Outcome::Done { projection, page_is_in, swept_is_in })
}

/// What is folded in a step.
struct Gathered {
    /// Of the accounts and days concerned.
    models: Models,
    /// What they lack: the entries found, and those of the journal that lie before them.
    entries: BTreeMap<(i64, i64), Entry>,
    /// Accounts whose next version is not in the journal, although a later one is: somebody removed it.
    broken: BTreeSet<i64>,
}

/// Under the generation's lock.
async fn gather(step: &mut dyn Step, projection: &Projection, found: &Found) -> Result<Gathered> {
    let goals = found.goals();
    let mut models = Models { totals: projection.totals, ..Models::default() };
    let (mut entries, mut broken) = (BTreeMap::new(), BTreeSet::new());
    if goals.is_empty() {
        return Ok(Gathered { models, entries, broken });
    }
    let user_ids: BTreeSet<i64> = goals.keys().copied().collect();
    models.accounts = step.accounts(projection.generation, &user_ids).await?;
    let lacking = found.entries.iter().filter(|entry| models.place_of(entry) != Folded::Before);
    entries.extend(lacking.map(|entry| ((entry.user_id, entry.version), entry.clone())));
    let mut spans: Vec<Span> = goals
        .into_iter()
        .map(|(user_id, to)| Span { user_id, from: next_version(models.accounts.get(&user_id)), to })
        .filter(|Span { user_id, from, to }| {
            from <= to && entries.range((*user_id, *from)..=(*user_id, *to)).count() as i64 != to - from + 1
        })
        .collect();
    if !spans.is_empty() {
        broken = without_next(step, &spans, &entries).await?;
        spans.retain(|span| !broken.contains(&span.user_id));
    }
    if !spans.is_empty() {
        let missed = step.journal(&spans, ENTRIES_A_STEP).await?;
        entries.extend(missed.into_iter().map(|entry| ((entry.user_id, entry.version), entry)));
    }
    let days: BTreeSet<_> = entries.values().filter_map(day_of).collect();
    if !days.is_empty() {
        models.days = step.days(projection.generation, &days).await?;
    }
    Ok(Gathered { models, entries, broken })
}

/// The accounts whose next entry is nowhere. A later one was seen, so this one was committed before: it is not late, but gone.
async fn without_next(
    step: &mut dyn Step,
    spans: &[Span],
    entries: &BTreeMap<(i64, i64), Entry>,
) -> Result<BTreeSet<i64>> {
    let unseen = spans.iter().filter(|span| !entries.contains_key(&(span.user_id, span.from)));
    let unseen: Vec<Span> = unseen.map(|span| Span { to: span.from, ..*span }).collect();
    if unseen.is_empty() {
        return Ok(BTreeSet::new());
    }
    let there = step.journal(&unseen, unseen.len() as i64).await?;
    let there: BTreeSet<i64> = there.into_iter().map(|entry| entry.user_id).collect();
    let gone = unseen.into_iter().filter(|span| !there.contains(&span.user_id));
    Ok(gone
        .map(|Span { user_id, from, .. }| {
            tracing::warn!(user_id, version = from, "an entry is missing: the account's reports end before it");
            user_id
        })
        .collect())
}

fn next_version(account: Option<&AccountTurnover>) -> i64 {
    account.map_or(0, |account| account.version) + 1
}

/// Lets a generation take the place of the active one, unless it is not as far or somebody has one of them locked.
pub(super) async fn supersede(store: &dyn Projections, active: i64, building: i64) -> Result<bool> {
    let mut step = store.step();
    let locked = [step.lock(active).await?, step.lock(building).await?];
    match locked {
        [Some(old), Some(new)] if takes_over(&old, &new) => {
            step.supersede(active, building).await?;
            step.commit().await?;
            Ok(true)
        }
        _ => {
            step.rollback().await;
            Ok(false)
        }
    }
}

const fn takes_over(old: &Projection, new: &Projection) -> bool {
    matches!((old.state, new.state), (GenerationState::Active, GenerationState::Building))
        && new.seq >= old.seq
        && new.read_seq >= old.read_seq
}
