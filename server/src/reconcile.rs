//! The journal against the balances, in the background: how much money is gone. For each account the journal is folded from
//! its last OPEN or RESET on; what the balance has more or less than that is the sum of what was `destroyed` since. A RESET
//! closes it, and so does whoever corrects the balance itself.
//!
//! Each tick does a bounded amount of work and goes on where the one before it stopped. What has been folded of an account
//! is remembered, so that a quiet account costs nothing but its line in a list. It reads without locks: an account's state
//! comes with its version, and the journal up to a version never changes.

use std::{cmp::Ordering, collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    account::{Entry, EntryKind, Money, State},
    store::{Result, Store},
};

/// Accounts looked at in a tick: one page of a list.
const ACCOUNTS_A_TICK: i64 = 500;

/// Entries read at a time, and how many times in a tick: some 1.5 MB, which takes a database some ten milliseconds.
const ENTRIES_A_PAGE: i64 = 1000;
const PAGES_A_TICK: u32 = 10;

/// Accounts of which is remembered how far they were folded, some 50 bytes each. The rest is folded from its beginning
/// whenever its turn comes.
const REMEMBERED_MOST: usize = 1 << 17;

/// Minor units of one unit of the currency.
const MINOR: f64 = 100.0;

/// Reconciles a store.
pub struct Reconciler {
    store: Arc<dyn Store>,
    /// The last account of the list that was looked at.
    after: i64,
    folded: HashMap<i64, Folded>,
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
        let expected = match entry.kind {
            EntryKind::Open | EntryKind::Reset => entry.balance_after.minor().into(),
            EntryKind::Deduct | EntryKind::Deposit | EntryKind::Void => self.expected + i128::from(entry.delta.minor()),
        };
        Self { version: entry.version, expected, ..self }
    }

    /// The account was at this version then.
    fn held_against(self, state: State) -> Self {
        Self { version: state.version, loss: i128::from(state.balance.minor()) - self.expected, ..self }
    }
}

impl Reconciler {
    /// Begins with the first account.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let finding = watch::Sender::default();
        Self { store, after: 0, folded: HashMap::new(), unfinished: None, listed: Vec::new(), finding }
    }

    /// What it finds, as it finds it.
    #[must_use]
    pub fn finding(&self) -> watch::Receiver<Finding> {
        self.finding.subscribe()
    }

    /// Reconciles for as long as it is polled.
    pub async fn run(mut self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.tick().await {
                metrics::counter!("reconciliation_failures_total").increment(1);
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
        let mut pages = PAGES_A_TICK;
        while pages > 0 {
            let Some(work) = self.unfinished.take().or_else(|| self.next()) else { break };
            pages -= 1;
            self.fold_a_page(work).await?;
        }
        self.tell();
        Ok(())
    }

    /// The next page of the list; after the last one, from the first again.
    async fn list(&mut self) -> Result<()> {
        self.listed = self.store.accounts(self.after, ACCOUNTS_A_TICK).await?;
        match self.listed.last() {
            Some((user_id, _)) => self.after = *user_id,
            None => {
                self.after = 0;
                self.finding.send_modify(|finding| finding.rounds += 1);
                metrics::counter!("reconciliation_rounds_total").increment(1);
            }
        }
        self.listed.reverse();
        Ok(())
    }

    /// The next account in the list whose journal has grown. Of those that have not, only the balance is held against what
    /// is known.
    fn next(&mut self) -> Option<Unfinished> {
        while let Some((user_id, state)) = self.listed.pop() {
            let folded = self.folded.get(&user_id).copied().unwrap_or_default();
            match folded.version.cmp(&state.version) {
                Ordering::Less => return Some(Unfinished { user_id, state, folded }),
                Ordering::Equal => self.remember(user_id, folded.held_against(state)),
                // Versions never go back: it is another database by now, restored from a copy.
                Ordering::Greater => return Some(Unfinished { user_id, state, folded: Folded::default() }),
            }
        }
        None
    }

    async fn fold_a_page(&mut self, work: Unfinished) -> Result<()> {
        let Unfinished { user_id, state, folded } = work;
        let page = match self.store.entries(user_id, folded.version, ENTRIES_A_PAGE).await {
            Ok(page) => page,
            Err(error) => {
                self.unfinished = Some(work);
                return Err(error);
            }
        };
        metrics::counter!("reconciliation_entries_total").increment(page.len() as u64);
        let more = page.len() as i64 == ENTRIES_A_PAGE;
        let known = page.iter().take_while(|entry| entry.version <= state.version);
        let folded = known.fold(folded, |folded, entry| folded.and(entry));
        if more && folded.version < state.version {
            self.unfinished = Some(Unfinished { folded, ..work });
        } else {
            // Entries that are missing are missing money.
            self.remember(user_id, folded.held_against(state));
        }
        Ok(())
    }

    fn remember(&mut self, user_id: i64, folded: Folded) {
        let before = self.folded.get(&user_id).map_or(0, |folded| folded.loss);
        if folded.loss != before {
            let now = folded.loss.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
            tracing::warn!(
                user_id,
                version = folded.version,
                "the balance is off its journal by {}",
                Money::from_minor(now)
            );
        }
        if self.folded.len() >= REMEMBERED_MOST && !self.folded.contains_key(&user_id) {
            // What is lost is kept; what is right can be found out again.
            self.folded.retain(|_, folded| folded.loss != 0);
            if self.folded.len() >= REMEMBERED_MOST {
                tracing::error!(user_id, "more accounts have lost money than can be remembered: the sum is too low");
                return;
            }
        }
        self.folded.insert(user_id, folded);
    }

    fn tell(&self) {
        let lossy = || self.folded.values().filter(|folded| folded.loss != 0);
        let loss: u128 = lossy().map(|folded| folded.loss.unsigned_abs()).sum();
        let accounts = lossy().count() as u64;
        self.finding.send_modify(|finding| (finding.loss, finding.accounts) = (loss, accounts));
        metrics::gauge!("balance_loss_amount").set(loss as f64 / MINOR);
        metrics::gauge!("balance_loss_accounts").set(accounts as f64);
    }
}
