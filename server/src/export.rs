//! `zbl-server export`: the journal as a file, for those who keep books, load tables, or archive. It reads page by page in
//! the order of account and version, and holds one page at a time; it asks the database itself, not a server.
//!
//! Of each account it writes what was committed when it came there, without a gap: it takes no locks and stops nobody. It
//! does not judge the journal; that is `reconcile`'s and `verify`'s.

mod books;
mod sink;
mod table;

use std::{io, path::PathBuf};

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use clap::{ArgGroup, Args, ValueEnum};
use indicatif::ProgressBar;

use self::{books::Books, sink::Sink, table::Table};
use crate::{
    account::Entry,
    app,
    config::Config,
    shutdown::Shutdown,
    store::{self, Criteria, Store},
};

/// Entries read at a time: some 200 kB, and as much again as text.
const PAGE: i64 = 1000;

const HELP: &str = "\
Examples:
  zbl-server export --all --format csv --output journal.csv
  zbl-server export --user 1 --format ndjson | jq -r 'select(.kind == \"DEDUCT\") | .delta'
  zbl-server export --all --from 2026-11-01 --to 2026-12-01 --format ledger --output november.ledger
  hledger -f november.ledger balance        (or: ledger -f november.ledger balance)

csv (RFC 4180, with a header) and ndjson have the same fields:
  user_id, version        the account and the position in its journal; there are no gaps
  request_id              the id of the request that made the entry, a UUID
  kind                    OPEN, DEDUCT, DEPOSIT, RESET, VOID or REPAIR
  delta, balance_after    the signed change, and the balance that it left behind, as decimal strings
  version_before          the version that was read to decide it; below version - 1 it overwrote what came in between
  strategy                what wrote it; empty for entries of the service itself
  create_time             when, by the database's clock, in UTC

ledger is a journal for ledger-cli and hledger: one balanced transaction for each entry, with the version as its code and
a balance assertion. What an entry overwrote is a posting of its own, to Loss:Overwritten; a change of the balance that no
entry explains goes to Equity:Unjournaled; what lies outside of --from and --to is carried forward from Equity:Carried.

A file appears under its name when it is complete, readable by its owner alone; one that is there is replaced.
Exit codes: 0 done, also when the reader of a pipe has gone; 1 failed or interrupted, and nothing is left behind;
2 a command line that cannot be followed.";

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table with a header
    Csv,
    /// One JSON object on each line
    Ndjson,
    /// A journal for ledger-cli and hledger
    Ledger,
}

/// The options of `export`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_long_help = HELP, group(ArgGroup::new("accounts").args(["user", "all"]).required(true)))]
pub struct Arguments {
    /// Only this account
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    user: Option<i64>,
    /// Every account
    #[arg(long)]
    all: bool,
    /// Only entries written at this time or later: 2026-11-01, or 2026-11-01T12:30:00Z; dates begin at midnight, UTC
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<NaiveDateTime>,
    /// Only entries written before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<NaiveDateTime>,
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
    /// Where to write it, instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The period has no time in it.
    #[error("--from is later than --to; swap the two")]
    Period,
    /// Nothing can be put there.
    #[error("--output {path}: {reason}", path = path.display())]
    Output {
        /// The file that was asked for.
        path: PathBuf,
        /// What is wrong with it.
        reason: io::Error,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    App(#[from] app::Error),
    /// The database does not answer.
    #[error("cannot read the journal: {0}")]
    Store(#[from] store::Error),
    /// There is no such account.
    #[error("account {0} does not exist")]
    NoAccount(i64),
    /// Two entries differ by more than can be counted: somebody has changed the journal.
    #[error("account {user_id}, version {version}: the amounts cannot be right; see `zbl-server verify`")]
    Amounts {
        /// The account.
        user_id: i64,
        /// The entry's version.
        version: i64,
    },
    /// Standard output cannot be written to, or signals not be listened for.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Ctrl-C.
    #[error("interrupted; nothing is left behind")]
    Interrupted,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Entries, without those outside of the period.
    pub entries: u64,
    /// Accounts that have such entries.
    pub accounts: u64,
}

/// Reads a time: a date, or a moment in RFC 3339.
fn moment(text: &str) -> Result<NaiveDateTime, String> {
    let date = text.parse::<NaiveDate>().map(|date| date.and_time(NaiveTime::MIN));
    date.or_else(|_| DateTime::parse_from_rfc3339(text).map(|moment| moment.naive_utc()))
        .map_err(|_| "not a time; write 2026-11-01, or 2026-11-01T12:30:00Z".to_owned())
}

/// One of the formats at work: entries in, bytes out.
enum Writer {
    Table(Table),
    Books(Books),
}

impl Writer {
    const fn new(format: Format) -> Self {
        match format {
            Format::Csv => Self::Table(Table::csv()),
            Format::Ndjson => Self::Table(Table::ndjson()),
            Format::Ledger => Self::Books(Books::new()),
        }
    }

    /// What stands before the first entry.
    fn head(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Table(table) => Ok(table.head()?),
            Self::Books(_) => Ok(books::HEAD.into()),
        }
    }

    /// Writes those of a page's entries that are wanted.
    fn page(&mut self, page: &[Entry], wanted: &Criteria) -> Result<Vec<u8>, Error> {
        match self {
            Self::Table(table) => Ok(table.rows(page.iter().filter(|entry| wanted.admit(entry)))?),
            Self::Books(books) => books.transactions(page, wanted),
        }
    }
}

impl Arguments {
    /// Writes what is asked for, and says on standard error how much that was.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind then.
    pub async fn run(&self, config: &Config) -> Result<Exported, Error> {
        if matches!((self.from, self.to), (Some(from), Some(to)) if from > to) {
            return Err(Error::Period);
        }
        // First: a file that cannot be written should not be found out after the journal was read.
        let mut sink = Sink::open(self.output.as_deref())?;
        let Shutdown { asked, .. } = Shutdown::listen()?;
        // On anything but a terminal it stays hidden.
        let bar = ProgressBar::new_spinner();
        let exported = async {
            let store = app::open_store(config).await?;
            self.export(&*store, &mut sink, |done| bar.set_message(format!("{} entries", done.entries))).await
        };
        let exported = tokio::select! {
            exported = exported => exported,
            _ = asked => Err(Error::Interrupted),
        };
        bar.finish_and_clear();
        let exported = exported?;
        sink.complete().await?;
        Ok(exported)
    }

    /// Reads the journal and writes it, telling how far it is after each page.
    async fn export(
        &self,
        store: &dyn Store,
        sink: &mut Sink,
        mut tell: impl FnMut(Exported),
    ) -> Result<Exported, Error> {
        let wanted = Criteria { from: self.from, to: self.to, ..Criteria::default() };
        let mut writer = Writer::new(self.format);
        let (mut exported, mut last_account) = (Exported::default(), 0);
        let mut after = (self.user.unwrap_or(0), 0);
        sink.write(&writer.head()?).await?;
        loop {
            let page = match self.user {
                Some(user_id) => store.entries(user_id, after.1, PAGE).await?,
                None => store.journal(after, PAGE).await?,
            };
            sink.write(&writer.page(&page, &wanted)?).await?;
            for entry in page.iter().filter(|entry| wanted.admit(entry)) {
                exported.entries += 1;
                exported.accounts += u64::from(std::mem::replace(&mut last_account, entry.user_id) != entry.user_id);
            }
            tell(exported);
            match (page.last(), self.user) {
                (None, Some(user_id)) if after.1 == 0 => return Err(Error::NoAccount(user_id)),
                (Some(last), _) if page.len() as i64 == PAGE => after = (last.user_id, last.version),
                _ => return Ok(exported),
            }
        }
    }
}
