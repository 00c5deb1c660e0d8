//! The journal against the balances, in the background: how much money is gone. For each account the journal is folded from
//! its last OPEN, RESET or REPAIR on; what the balance has more or less than that is the sum of what was `destroyed` since. A
//! RESET or a REPAIR closes it, and so does whoever corrects the balance itself.
//!
//! Each tick does a bounded amount of work and goes on where the one before it stopped. What has been folded of an account
//! is remembered, so that a quiet account costs nothing but its line in a list. It reads without locks: an account's state
//! comes with its version, and the journal up to a version never changes.
//!
//! [`command`] is `zbl-server reconcile`: the same question, asked once, in the foreground, and answered update by update.

pub mod command;
mod report;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashSet},
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use uuid::Uuid;

use crate::{
    account::{Entry, Money, State},
    quiet::Quiet,
    store::{Result, Store},
};

/// Accounts looked at in a tick: one page of a list.
const ACCOUNTS_A_TICK: i64 = 500;

/// Entries read at a time, and in a tick: some 1.5 MB, which takes a database some ten milliseconds.
const ENTRIES_A_PAGE: i64 = 1000;
const ENTRIES_A_TICK: i64 = 10 * ENTRIES_A_PAGE;

/// Accounts whose journals are read in a tick, a query each: some hundred milliseconds of one connection where all of them
/// have changed. A million new accounts take half an hour.
const QUERIES_A_TICK: u32 = 500;

/// Accounts of which is remembered how far they were folded, some 100 bytes each. Any other is folded from its beginning
/// whenever its turn comes, and remembered in place of a sound one if it has lost money.
const REMEMBERED_MOST: usize = 1 << 17;

/// Minor units of one unit of the currency.
const MINOR: f64 = 100.0;

/// Reconciles a store.
pub struct Reconciler {
    store: Arc<dyn Store>,
    /// The last account of the list that was looked at.
    after: i64,
    folded: BTreeMap<i64, Folded>,
    /// What is being folded and was not finished within a tick.
    unfinished: Option<Unfinished>,
    /// The rest of the page of the list that it is from, in reverse.
    listed: Vec<(i64, State)>,
    finding: watch::Sender<Finding>,
}

/// What has been found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// What is gone, minor units: the sum over accounts of how much their balance is off, either way. Lost deposits in one
    /// account do not make up for lost deductions in another.
    pub loss: u128,
    /// Accounts whose balance is off their journal.
    pub accounts: u64,
    /// How many times every account was looked at. Before the first, what is gone may not have been found yet.
    pub rounds: u64,
}

/// How far an account was folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Folded {
    version: i64,
    /// The request of the entry at that version. Another one there tells that the database is another by now.
    request_id: Uuid,
    /// What the balance should be then.
    expected: i128,
    /// What it was more than that.
    loss: i128,
}

struct Unfinished {
    user_id: i64,
    /// Up to where it is to be folded, and what there was then.
    state: State,
    folded: Folded,
}

impl Folded {
    /// The same with one more entry.
    fn and(self, entry: &Entry) -> Self {
        let expected = match entry.kind.begins_anew() {
            true => entry.balance_after.minor().into(),
            false => self.expected + i128::from(entry.delta.minor()),
        };
        Self { version: entry.version, request_id: entry.request_id, expected, ..self }
    }

    /// The account was at this version then.
    fn held_against(self, state: State) -> Self {
        Self { loss: i128::from(state.balance.minor()) - self.expected, ..self }
    }
}

impl Reconciler {
    /// Begins with the first account.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let finding = watch::Sender::default();
        Self { store, after: 0, folded: BTreeMap::new(), unfinished: None, listed: Vec::new(), finding }
    }

    /// What it finds, as it finds it.
    #[must_use]
    pub fn finding(&self) -> watch::Receiver<Finding> {
        self.finding.subscribe()
    }

    /// Reconciles for as long as it is polled.
    pub async fn run(mut self, every: Duration, quiet: Quiet) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let turn = quiet.tick().await;
            let failed = self.tick().await.err();
            drop(turn);
            // None is counted as well, so that the first is seen as one more.
            metrics::counter!("reconciliation_failures_total").increment(failed.is_some().into());
            if let Some(error) = failed {
                tracing::debug!("not reconciled: {error}");
            }
        }
    }

    /// One tick's work.
    ///
    /// # Errors
    /// The database's; the next tick goes on from there.
    pub async fn tick(&mut self) -> Result<()> {
        if self.unfinished.is_none() && self.listed.is_empty() {
            self.list().await?;
        }
        let (mut queries, mut entries) = (QUERIES_A_TICK, ENTRIES_A_TICK);
        while queries > 0 && entries > 0 {
            let Some(work) = self.unfinished.take().or_else(|| self.next()) else { break };
            queries -= 1;
            entries -= self.fold_a_page(work).await?;
        }
        self.tell();
        Ok(())
    }

    /// The next page of the list; after the last one, from the first again. Whoever is not in it any more is forgotten.
    async fn list(&mut self) -> Result<()> {
        let after = self.after;
        self.listed = self.store.accounts(after, ACCOUNTS_A_TICK).await?;
        let last = self.listed.last().map(|(user_id, _)| *user_id);
        let there: HashSet<i64> = self.listed.iter().map(|(user_id, _)| *user_id).collect();
        let within = (Excluded(after), last.map_or(Unbounded, Included));
        let gone: Vec<i64> = self.folded.range(within).map(|(id, _)| *id).filter(|id| !there.contains(id)).collect();
        for user_id in gone {
            self.folded.remove(&user_id);
        }
        self.after = last.unwrap_or(0);
        if last.is_none() {
            self.finding.send_modify(|finding| finding.rounds += 1);
            metrics::counter!("reconciliation_rounds_total").increment(1);
        }
        self.listed.reverse();
        Ok(())
    }

    /// The next account in the list that has to be folded further. Of one whose journal has not grown, only the balance is
    /// held against what is known.
    fn next(&mut self) -> Option<Unfinished> {
        while let Some((user_id, state)) = self.listed.pop() {
            let folded = self.folded.get(&user_id).copied().unwrap_or_default();
            let from = match folded.version.cmp(&state.version) {
                Ordering::Less => folded,
                Ordering::Equal if folded.held_against(state) == folded => continue,
                // Somebody has changed the balance behind the journal's back, or the database is another one, restored
                // from a copy: versions never go back.
                Ordering::Equal | Ordering::Greater => Folded::default(),
            };
            return Some(Unfinished { user_id, state, folded: from });
        }
        None
    }

    /// Folds a page of the journal further, and says how many entries that took. It begins with the entry that was folded
    /// last; where that is not what it was, from the journal's beginning.
    async fn fold_a_page(&mut self, work: Unfinished) -> Result<i64> {
        let Unfinished { user_id, state, folded } = work;
        let page = match self.store.entries(user_id, (folded.version - 1).max(0), ENTRIES_A_PAGE).await {
            Ok(page) => page,
            Err(error) => {
                self.unfinished = Some(work);
                return Err(error);
            }
        };
        let read = page.len() as i64;
        metrics::counter!("reconciliation_entries_total").increment(read.unsigned_abs());
        let goes_on = |first: &Entry| (first.version, first.request_id) == (folded.version, folded.request_id);
        if folded.version > 0 && !page.first().is_some_and(goes_on) {
            self.unfinished = Some(Unfinished { folded: Folded::default(), ..work });
            return Ok(read);
        }
        let known = page.iter().filter(|entry| (folded.version + 1..=state.version).contains(&entry.version));
        let folded = known.fold(folded, |folded, entry| folded.and(entry));
        if read == ENTRIES_A_PAGE && folded.version < state.version {
            self.unfinished = Some(Unfinished { folded, ..work });
        } else {
            // Entries that are missing are missing money.
            self.remember(user_id, folded.held_against(state));
        }
        Ok(read)
    }

    fn remember(&mut self, user_id: i64, folded: Folded) {
        let before = self.folded.get(&user_id).map_or(0, |folded| folded.loss);
        if folded.loss != before {
            let now = folded.loss.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
            let (version, off) = (folded.version, Money::from_minor(now));
            match now {
                0 => tracing::info!(user_id, version, "the balance agrees with its journal again"),
                _ => tracing::warn!(user_id, version, "the balance is off its journal by {off}"),
            }
        }
        if self.folded.len() >= REMEMBERED_MOST && !self.folded.contains_key(&user_id) {
            if folded.loss == 0 {
                return;
            }
            let sound = self.folded.iter().find(|(_, folded)| folded.loss == 0).map(|(user_id, _)| *user_id);
            let Some(sound) = sound else {
                tracing::error!(user_id, "more accounts have lost money than can be remembered: the sum is too low");
                return;
            };
            self.folded.remove(&sound);
        }
        self.folded.insert(user_id, folded);
    }

    fn tell(&self) {
        let lossy = || self.folded.values().filter(|folded| folded.loss != 0);
        let loss: u128 = lossy().map(|folded| folded.loss.unsigned_abs()).sum();
        let accounts = lossy().count() as u64;
        self.finding.send_modify(|finding| (finding.loss, finding.accounts) = (loss, accounts));
        // Before the first round is over, nothing found yet is no good news.
        if loss > 0 || self.finding.borrow().rounds > 0 {
            metrics::gauge!("balance_loss_amount").set(loss as f64 / MINOR);
            metrics::gauge!("balance_loss_accounts").set(accounts as f64);
        }
        // A clock before 1970 tells no age.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics::gauge!("reconciliation_last_success_timestamp_seconds").set(now.as_secs_f64());
    }
}
