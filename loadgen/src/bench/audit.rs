//! After the run: what is unknown is settled, and the journal of every account that was touched is read and judged, some
//! accounts at a time, so that memory holds a few journals and never all.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;
use zbl_client::{Backoff, Client, Error};

use super::accounts::Accounts;
use super::judgement::{Claims, Findings, Reading};
use super::operation::Wording;
use super::shared::Unsettled;
use super::tally::{Tally, Told};
use super::{BenchError, Progress, Stage};
use crate::attack::{FIRST_PAUSE, LONGEST_PAUSE, READINGS, patiently};
use crate::history::Acknowledgement;
use crate::verdict::State;

/// Settlements in flight: each locks a row and commits, and several of one account queue behind one another.
const SETTLEMENTS: usize = 32;

/// Accounts read at a time: enough to keep a server busy, few enough that a run on hot accounts fits in memory.
const READERS: usize = 16;

/// Entries per page: the most the server gives.
const PAGE: i32 = 1_000;

/// The longest journal that is read: 64 bytes for each entry are 640 MB.
pub(super) const LONGEST: i32 = 10_000_000;

/// What an audit looks at, and through what.
pub(super) struct Audit<'a> {
    pub(super) clients: &'a [Client],
    pub(super) wording: &'a Wording,
    pub(super) accounts: &'a Accounts,
    pub(super) tally: &'a Tally,
    pub(super) progress: &'a watch::Sender<Progress>,
    /// How long a server that does not answer is waited for, per account.
    pub(super) patience: Duration,
}

impl Audit<'_> {
    /// Asks for the outcome of every operation that has none; receipts are tallied. What cannot be learnt in time is
    /// given back.
    pub(super) async fn settle(&self, unsettled: Vec<Unsettled>) -> Vec<Unsettled> {
        self.begin(Stage::Settling, unsettled.len());
        let until = Instant::now() + self.patience;
        let settled = stream::iter(unsettled).map(|operation| async move {
            let still = self.settle_one(operation, until).await;
            self.progress.send_modify(|progress| progress.done += 1);
            still
        });
        settled.buffer_unordered(SETTLEMENTS).filter_map(std::future::ready).collect().await
    }

    async fn settle_one(&self, operation: Unsettled, until: Instant) -> Option<Unsettled> {
        let Unsettled { account, request_id } = operation;
        let user_id = self.wording.user_id(account);
        let resolve = |client: Client| async move { client.resolve(user_id, request_id).await };
        if Instant::now() >= until {
            return Some(operation);
        }
        match patiently(self.clients, until, resolve).await {
            Ok(Some(receipt)) => {
                self.tally.acknowledge(account, request_id, self.wording.delta, &Acknowledgement::of(&receipt));
                None
            }
            Ok(None) => None,
            Err(_) => Some(operation),
        }
    }

    /// Reads and judges every account that was touched.
    ///
    /// # Errors
    /// [`BenchError::Unreadable`] when the server goes away, [`BenchError::Overflow`] when sums do not fit.
    pub(super) async fn judge(&self, unsettled: &[Unsettled]) -> Result<Findings, BenchError> {
        let ids: HashSet<Uuid> = unsettled.iter().map(|operation| operation.request_id).collect();
        let mut open: HashMap<u32, u64> = HashMap::new();
        for operation in unsettled {
            *open.entry(operation.account).or_default() += 1;
        }
        let touched: Vec<_> = self.tally.touched().collect();
        self.begin(Stage::Judging, touched.len());
        let judged = touched.into_iter().map(|(account, told)| {
            let unsettled = open.get(&account).copied().unwrap_or(0);
            self.judge_one(account, told, unsettled, &ids)
        });
        let findings = stream::iter(judged).buffer_unordered(READERS).inspect_ok(|_| {
            self.progress.send_modify(|progress| progress.done += 1);
        });
        findings
            .try_fold(Findings::default(), |mut sum, found| async move {
                sum.add(found);
                Ok(sum)
            })
            .await
    }

    async fn judge_one(
        &self,
        account: u32,
        told: Told,
        unsettled: u64,
        ids: &HashSet<Uuid>,
    ) -> Result<Findings, BenchError> {
        let user_id = self.wording.user_id(account);
        let mut reading = Reading::new(self.wording.ids, self.tally.keys(), ids, self.accounts.root);
        let last = self.read(user_id, &mut reading).await?;
        let mut findings = Findings::default();
        findings.judge(&reading, &Claims { user_id, told, unsettled, delta: self.wording.delta, last })?;
        Ok(findings)
    }

    /// Reads the journal and then the account, and what has been added to it while something else moves them in between.
    /// Out of time, what was read stands.
    async fn read(&self, user_id: i64, reading: &mut Reading<'_>) -> Result<State, BenchError> {
        let until = Instant::now() + self.patience;
        let mut after = None;
        let mut last = self.read_on(user_id, reading, &mut after, until).await?;
        let again = async {
            let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            for _ in 1..READINGS {
                if reading.newest() == last.version {
                    break;
                }
                tokio::time::sleep(backoff.pause()).await;
                last = self.read_on(user_id, reading, &mut after, until).await?;
            }
            Ok::<(), BenchError>(())
        };
        timeout_at(until, again).await.unwrap_or(Ok(()))?;
        Ok(last)
    }

    /// Reads from the page behind `after` to the end, and then the account. `after` stays before the last page, which may
    /// grow.
    async fn read_on(
        &self,
        user_id: i64,
        reading: &mut Reading<'_>,
        after: &mut Option<String>,
        until: Instant,
    ) -> Result<State, BenchError> {
        let unreadable = |source: Error| BenchError::Unreadable { user_id, source };
        for _ in 0..LONGEST / PAGE {
            let page = |client: Client| {
                let after = after.clone();
                async move { client.entries(user_id, PAGE, after.as_deref()).await }
            };
            let page = patiently(self.clients, until, page).await.map_err(unreadable)?;
            page.entries.iter().for_each(|entry| reading.take(entry));
            if page.next.is_none() {
                let balance = |client: Client| async move { client.balance(user_id).await };
                let account = patiently(self.clients, until, balance).await.map_err(unreadable)?;
                return Ok(State { balance: account.balance, version: account.version });
            }
            *after = page.next;
        }
        Err(BenchError::LongJournal { user_id })
    }

    fn begin(&self, stage: Stage, total: usize) {
        self.progress.send_modify(|progress| {
            *progress = Progress { stage, total: Some(total as u64), ..Progress::default() };
        });
    }
}
