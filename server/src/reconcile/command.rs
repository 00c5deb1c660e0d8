//! `zbl-server reconcile`: every balance against its journal, now, in the foreground, each lost update told with its tree,
//! and balances repaired where that is asked for. It opens the database itself, so that no server need run; those that do
//! are not kept from anything, as it reads without locks and repairs as `RebuildBalance` does. It holds one page of
//! entries at a time, however long journals are. What runs within a server all the time is the room's other half.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::report::{Finding, Form, Report, Summary};
use crate::{
    account::{Money, State},
    app,
    config::{Config, DatabaseUrl},
    error,
    history::{
        Broken,
        losses::{Expected, Walk},
    },
    ledger::{Ledger, Mending},
    shutdown::Shutdown,
    timeline::Timeline,
};

/// Accounts listed at a time.
const ACCOUNTS_A_PAGE: i64 = 500;

/// Entries read at a time, some 200 kB.
const ENTRIES_A_PAGE: i64 = 1000;

/// The options of `reconcile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Arguments {
    /// Set right every balance that is off, by a journaled REPAIR
    #[arg(long)]
    pub repair: bool,
    /// Only this account
    #[arg(long, value_name = "ID", conflicts_with = "all", value_parser = clap::value_parser!(i64).range(1..))]
    pub user: Option<i64>,
    /// Every account; so it is when neither is said
    #[arg(long)]
    pub all: bool,
    /// Write JSON objects to standard output, one a line, instead of text
    #[arg(long)]
    pub json: bool,
}

const HELP: &str = "\
Holds the balance of each account against its journal: what its newest OPEN, RESET or REPAIR set, and every change since.
Each update that was lost is told: the entries that an overwriter had not seen (struck off with ✗), the version that it
had read instead, and the overwriter itself. What was lost before a later RESET or REPAIR is told as settled.

It needs no server, and may run beside any number of them. With --repair, give it the same --redis-url as the servers: their
cache is told of what is repaired. On strategies that overwrite others (`none`) a repair can be lost like anything else; it
is found the next time.

  zbl-server reconcile --database-url mysql://zbl@db.example/zbl
  zbl-server reconcile --user 7 --repair
  zbl-server reconcile --json | jq 'select(.type == \"account\")'

--json writes a `lost_update` for each of them, newest first, an `account` for each whose balance is off its journal, or
whose journal cannot be folded, and a `summary` at the end. Amounts are decimal strings; `difference` is the balance minus
what is expected. Updates that were lost and make up for each other leave no difference; they are found all the same.

Ctrl-C ends it with what was found so far, a second one at once.

Exit codes: 0 every balance is what its journal comes to, or was made so; 10 one is not; 3 it could not be told of all of
them: interrupted, no database, no such account, or a journal with a hole; 2 usage.";

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Every balance is what its journal comes to, or was made so.
    Sound,
    /// One is not.
    LossFound,
    /// None is known to be off, but it could not be told of all of them.
    Incomplete,
}

/// Why it came to no end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened.
    #[error(transparent)]
    App(#[from] app::Error),
    /// There is no such file. A new one would be empty, and sound.
    #[error("{path} does not exist; name the servers' database with --database-url", path = .0.display())]
    NoDatabase(PathBuf),
    /// The database failed, or there is no such account.
    #[error(transparent)]
    Service(#[from] error::Error),
    /// Standard output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// A reconciliation under way.
struct Reconciliation<'a> {
    ledger: Arc<Ledger>,
    arguments: &'a Arguments,
    report: Report,
    summary: Summary,
    bar: ProgressBar,
    /// Resolves when what was found so far shall do.
    asked: oneshot::Receiver<()>,
}

impl Arguments {
    /// Reconciles, printing to standard output.
    ///
    /// # Errors
    /// [`Error`], where there is nothing that could be reported.
    pub async fn reconcile(&self, mut config: Config) -> Result<Conclusion, Error> {
        if let DatabaseUrl::Sqlite(path) = &config.database_url
            && !path.exists()
        {
            return Err(Error::NoDatabase(path.clone()));
        }
        // The cache is told of repairs, but not read.
        config.cache = false;
        let Shutdown { asked, insisted } = Shutdown::listen()?;
        let timeline = Arc::new(Timeline::new(config.timeline_capacity));
        let work = async {
            let ledger = app::ledger(&config, timeline, None).await?;
            let form = if self.json { Form::Json } else { Form::Text };
            let bar = bar();
            let report = Report::new(form, bar.clone());
            Reconciliation { ledger, arguments: self, report, summary: Summary::default(), bar, asked }.run().await
        };
        tokio::select! {
            concluded = work => concluded,
            Ok(()) = insisted => Err(Error::Interrupted),
        }
    }
}

impl Reconciliation<'_> {
    async fn run(mut self) -> Result<Conclusion, Error> {
        let began = Instant::now();
        let failure = match self.accounts().await {
            Err(Error::Io(error)) => return Err(error.into()),
            accounts => accounts.err(),
        };
        self.bar.finish_and_clear();
        self.ledger.cache().pay_debts().await;
        self.summary.took = began.elapsed().max(Duration::from_millis(1));
        self.report.summary(&self.summary, failure.as_ref())?;
        Ok(match failure {
            _ if self.summary.off > self.summary.repaired => Conclusion::LossFound,
            None if self.summary.broken == 0 => Conclusion::Sound,
            _ => Conclusion::Incomplete,
        })
    }

    async fn accounts(&mut self) -> Result<(), Error> {
        if let Some(user_id) = self.arguments.user {
            let state = self.ledger.state(user_id).await?;
            return self.account(user_id, state).await;
        }
        let mut after = 0;
        loop {
            let page = self.ledger.accounts(after, ACCOUNTS_A_PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = *last;
            for (user_id, state) in page {
                self.account(user_id, state).await?;
            }
        }
    }

    /// One account: its journal up to the version that its balance was read at never changes.
    async fn account(&mut self, user_id: i64, stored: State) -> Result<(), Error> {
        let lost_before = self.summary.lost;
        let walked = self.walk(user_id, stored.version).await?;
        let has_lost = self.summary.lost > lost_before;
        self.report.end_of_journal(user_id)?;
        self.summary.accounts += 1;
        let judged = walked.and_then(|expected| {
            let difference = stored.balance.checked_sub(expected.balance).ok_or(Broken::Overflow)?;
            Ok((expected, difference))
        });
        let finding = match judged {
            // Updates that were lost are lost, even where they make up for each other.
            Ok((_, Money::ZERO)) if !has_lost => return Ok(()),
            Ok((expected, difference)) => {
                self.summary.off += 1;
                self.summary.gone += u128::from(difference.minor().unsigned_abs());
                let repair = self.repair(user_id).await;
                self.summary.repaired += u64::from(matches!(repair, Some(Ok(_))));
                Finding::Off { expected, difference, repair }
            }
            Err(broken) => {
                self.summary.broken += 1;
                Finding::Broken(broken)
            }
        };
        Ok(self.report.account(user_id, stored, &finding)?)
    }

    /// The account's journal backwards, to its opening: what was settled is told as well.
    async fn walk(&mut self, user_id: i64, newest: i64) -> Result<Result<Expected, Broken>, Error> {
        let mut walk = Walk::from(newest);
        loop {
            // An error says that nobody can ask any more.
            if matches!(self.asked.try_recv(), Ok(())) {
                return Err(Error::Interrupted);
            }
            let page = self.ledger.entries_before(user_id, walk.next() + 1, ENTRIES_A_PAGE).await?;
            if page.is_empty() {
                return Ok(Err(Broken::Gap { missing: walk.next() }));
            }
            for entry in &page {
                match walk.back(entry) {
                    Ok(None) => {}
                    Ok(Some(lost)) => {
                        *(if lost.settled { &mut self.summary.settled } else { &mut self.summary.lost }) += 1;
                        self.report.lost(lost)?;
                    }
                    Err(broken) => return Ok(Err(broken)),
                }
            }
            self.summary.entries += page.len() as u64;
            self.tell_progress(user_id);
            if walk.next() == 0 {
                return Ok(walk.expected());
            }
        }
    }

    /// The version of the REPAIR, 0 where the account was sound by then; `None` where nothing is to be repaired.
    async fn repair(&self, user_id: i64) -> Option<Result<i64, error::Error>> {
        if !self.arguments.repair {
            return None;
        }
        let rebuilt = self.ledger.rebuild(user_id, Mending::Repair(Uuid::new_v4())).await;
        Some(rebuilt.map(|rebuilt| rebuilt.repaired.unwrap_or(0)))
    }

    fn tell_progress(&self, user_id: i64) {
        let Summary { accounts, entries, lost, off, .. } = self.summary;
        self.bar.set_message(format!(
            "account {user_id}: {accounts} accounts, {entries} entries, {lost} lost updates, {off} balances off"
        ));
        self.bar.tick();
    }
}

/// A line that counts, on a terminal only, on standard error.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
