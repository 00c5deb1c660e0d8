//! After the run: what is unknown is settled, and the journal of every account that was touched is read and judged, some
//! accounts at a time, so that memory holds a few journals and never all.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;
use zbl_client::{Backoff, Client, Error};

use super::accounts::Accounts;
use super::judgement::{Claims, Findings, Reading};
use super::operation::Wording;
use super::shared::Unsettled;
use super::tally::{Tally, Told};
use super::{Progress, Stage};
use crate::attack::{FIRST_PAUSE, LONGEST_PAUSE, READINGS, Stop, patiently};
use crate::history::Acknowledgement;
use crate::verdict::{Overflow, State};

/// Settlements in flight: each locks a row and commits, and several of one account queue behind one another.
const SETTLEMENTS: usize = 32;

/// Accounts read at a time: enough to keep a server busy, few enough that a run on hot accounts fits in memory.
const READERS: usize = 16;

/// Entries per page: the most the server gives.
const PAGE: i32 = 1_000;

/// The longest journal that is read: more than a day's run writes to one account.
const LONGEST: i32 = 1_000_000_000;

/// The most entries held of one journal: of one that is in order some hundred thousand are, and 64 bytes for each of these
/// are 64 MB.
const MOST_HELD: usize = 1_000_000;

/// How long settling and judging go on after a stop. Who asks for one wants an end; a verdict is worth this much.
const ONCE_STOPPED: Duration = Duration::from_secs(10);

/// Why an account could not be judged.
#[derive(Debug, thiserror::Error)]
enum Unjudged {
    #[error("it cannot be read back: {0}")]
    Unreadable(Error),
    #[error("its journal has more than {LONGEST} entries; bench on a fresh account")]
    Long,
    #[error("its journal has gaps or branches that more than {MOST_HELD} entries hang on")]
    Entangled,
    #[error(transparent)]
    Overflow(#[from] Overflow),
}

/// What an audit looks at, and through what.
pub(super) struct Audit<'a> {
    pub(super) clients: &'a [Client],
    pub(super) wording: &'a Wording,
    pub(super) accounts: &'a Accounts,
    pub(super) tally: &'a Tally,
    pub(super) progress: &'a watch::Sender<Progress>,
    /// How long a server that does not answer is waited for, per page.
    pub(super) patience: Duration,
    pub(super) stop: Stop,
    /// When a stop ends it.
    pub(super) cut: OnceLock<Instant>,
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
        let answer = tokio::select! {
            answer = patiently(self.clients, until, resolve) => answer,
            () = self.cut() => return Some(operation),
        };
        match answer {
            Ok(Some(receipt)) => {
                self.tally.acknowledge(account, request_id, self.wording.delta, &Acknowledgement::of(&receipt));
                None
            }
            Ok(None) => None,
            Err(_) => Some(operation),
        }
    }

    /// Returns some time after a stop, the same for all who wait for it.
    async fn cut(&self) {
        self.stop.clone().wait().await;
        sleep_until(*self.cut.get_or_init(|| Instant::now() + ONCE_STOPPED)).await;
    }

    /// Reads and judges every account that was touched. What cannot be judged, or not in time, is noted.
    pub(super) async fn judge(&self, unsettled: &[Unsettled]) -> Findings {
        let ids: HashSet<Uuid> = unsettled.iter().map(|operation| operation.request_id).collect();
        let mut open: HashMap<u32, u64> = HashMap::new();
        for operation in unsettled {
            *open.entry(operation.account).or_default() += 1;
        }
        let touched: Vec<_> = self.tally.touched().collect();
        let (mut accounts, mut acknowledged) = (0, 0);
        for (_, told) in &touched {
            (accounts, acknowledged) = (accounts + 1, acknowledged + told.acknowledged);
        }
        self.begin(Stage::Judging, touched.len());
        let judged = stream::iter(touched).map(|(account, told)| {
            let unsettled = open.get(&account).copied().unwrap_or(0);
            let ids = &ids;
            async move { (told.acknowledged, self.judge_one(account, told, unsettled, ids).await) }
        });
        let (mut judged, mut findings) = (pin!(judged.buffer_unordered(READERS)), Findings::default());
        let mut cut = pin!(self.cut());
        loop {
            let (told, found) = tokio::select! {
                next = judged.next() => match next {
                    Some(judged) => judged,
                    None => return findings,
                },
                () = &mut cut => {
                    findings.leave(accounts, acknowledged);
                    return findings;
                }
            };
            (accounts, acknowledged) = (accounts - 1, acknowledged - told);
            findings.add(found);
            self.progress.send_modify(|progress| progress.done += 1);
        }
    }

    async fn judge_one(&self, account: u32, told: Told, unsettled: u64, ids: &HashSet<Uuid>) -> Findings {
        let user_id = self.wording.user_id(account);
        let mut reading = Reading::new(self.wording.ids, self.tally.keys(), ids, self.accounts.root);
        let mut findings = Findings::default();
        let judged = self.read(user_id, &mut reading).await.and_then(|last| {
            let claims = Claims { user_id, told, unsettled, delta: self.wording.delta, last };
            Ok(findings.judge(reading, &claims)?)
        });
        if let Err(why) = judged {
            findings = Findings::default();
            findings.pass_over(user_id, told.acknowledged, &why);
        }
        findings
    }

    /// Reads the journal and then the account, and what has been added to it while something else moves them in between.
    /// Out of time, what was read stands.
    async fn read(&self, user_id: i64, reading: &mut Reading<'_>) -> Result<State, Unjudged> {
        let mut after = None;
        let mut last = self.read_on(user_id, reading, &mut after).await?;
        let until = Instant::now() + self.patience;
        let again = async {
            let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            for _ in 1..READINGS {
                if reading.newest() == last.version {
                    break;
                }
                tokio::time::sleep(backoff.pause()).await;
                last = self.read_on(user_id, reading, &mut after).await?;
            }
            Ok::<(), Unjudged>(())
        };
        timeout_at(until, again).await.unwrap_or(Ok(()))?;
        Ok(last)
    }

    /// Reads from the page behind `after` to the end, and then the account. `after` stays before the last page, which may
    /// grow. A server that answers is never out of time: patience begins anew with each page.
    async fn read_on(
        &self,
        user_id: i64,
        reading: &mut Reading<'_>,
        after: &mut Option<String>,
    ) -> Result<State, Unjudged> {
        for _ in 0..LONGEST / PAGE {
            let page = |client: Client| {
                let after = after.clone();
                async move { client.entries(user_id, PAGE, after.as_deref()).await }
            };
            let page = patiently(self.clients, self.until(), page).await.map_err(Unjudged::Unreadable)?;
            page.entries.iter().try_for_each(|entry| reading.take(entry))?;
            if reading.held() > MOST_HELD {
                return Err(Unjudged::Entangled);
            }
            if page.next.is_none() {
                let balance = |client: Client| async move { client.balance(user_id).await };
                let account = patiently(self.clients, self.until(), balance).await.map_err(Unjudged::Unreadable)?;
                return Ok(State { balance: account.balance, version: account.version });
            }
            *after = page.next;
        }
        Err(Unjudged::Long)
    }

    fn until(&self) -> Instant {
        Instant::now() + self.patience
    }

    fn begin(&self, stage: Stage, total: usize) {
        self.progress.send_modify(|progress| {
            *progress = Progress { stage, total: Some(total as u64), ..Progress::default() };
        });
    }
}
