//! `zbl-server verify`: every account's journal followed along its chain, and compared with the account's row. It takes no
//! locks and changes nothing, so it can run beside servers that write. It refuses to tell who changed something, and to
//! mend it.
//!
//! Beside writers it goes by two facts. An account's row is read *after* the journal so far, so the row cannot be behind
//! it; and an entry is never changed, so where the row is ahead, the entry that it stands at must be there, now or later.

mod arguments;
mod journal;
mod report;

use std::io;

use crate::{
    account::State,
    app,
    chain::Record,
    store::{self, Store},
};

pub use self::{
    arguments::Arguments,
    journal::{Anchor, Coverage, Finding, Journal, What},
    report::{Verdict, run},
};

/// Entries, or accounts, read at a time: some 250 kB.
const PAGE: i64 = 1000;

/// Why a verification came to no end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened.
    #[error(transparent)]
    App(#[from] app::Error),
    /// The database failed.
    #[error("the journal cannot be read on: {0}")]
    Store(#[from] store::Error),
    /// There is neither such an account nor an entry of it.
    #[error("account {user_id} does not exist, and has no entries; an account is opened by OpenAccount")]
    NoSuchAccount {
        /// The account.
        user_id: i64,
    },
    /// There is nothing to verify.
    #[error("{path} does not exist; name the database by --database-url")]
    NoSuchFile {
        /// The file.
        path: String,
    },
    /// The result cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Ctrl-C.
    #[error("interrupted: nothing is said of what had not been checked")]
    Interrupted,
}

/// What is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every account.
    All,
    /// One account, and perhaps what one of its entries must be.
    One(i64, Option<Anchor>),
}

impl Scope {
    /// The first and the last id.
    const fn user_ids(self) -> (i64, i64) {
        match self {
            Self::All => (i64::MIN, i64::MAX),
            Self::One(user_id, _) => (user_id, user_id),
        }
    }

    const fn anchor(self) -> Option<Anchor> {
        match self {
            Self::All => None,
            Self::One(_, anchor) => anchor,
        }
    }
}

/// How much was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Accounts.
    pub accounts: u64,
    /// Their entries.
    pub entries: u64,
    /// Those whose digest was compared. The others have none, or come after a gap.
    pub covered: u64,
    /// What was found.
    pub findings: u64,
    /// The newest entry and its digest, of the account that was verified last.
    pub newest: Option<Anchor>,
}

/// What is told while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// Something was found.
    Found(&'a Finding),
    /// So much has been done.
    SoFar(&'a Tally),
}

/// Verifies what is in `scope`, page by page, in order of account and version. `tell` is told of each finding when it is
/// made; an error of it ends the verification.
///
/// # Errors
/// [`Error`].
pub async fn verify<F>(store: &dyn Store, scope: Scope, tell: F) -> Result<Tally, Error>
where
    F: FnMut(Told<'_>) -> io::Result<()>,
{
    let (first, _) = scope.user_ids();
    let accounts_after = first.saturating_sub(1);
    let mut pass = Pass { store, scope, tell, accounts_after, tally: Tally::default() };
    pass.run().await?;
    match scope {
        Scope::One(user_id, _) if pass.tally.accounts == 0 => Err(Error::NoSuchAccount { user_id }),
        _ => Ok(pass.tally),
    }
}

/// One way through journals and accounts, side by side.
struct Pass<'a, F> {
    store: &'a dyn Store,
    scope: Scope,
    tell: F,
    /// The account whose row was read last.
    accounts_after: i64,
    tally: Tally,
}

impl<F: FnMut(Told<'_>) -> io::Result<()>> Pass<'_, F> {
    async fn run(&mut self) -> Result<(), Error> {
        let (first, last) = self.scope.user_ids();
        let mut after = (first, i64::MIN);
        let mut open: Option<Journal> = None;
        loop {
            let page = self.store.records(after, PAGE).await?;
            let is_full = page.len() as i64 == PAGE;
            let mut ended = Vec::new();
            for record in page {
                after = (record.user_id, record.version);
                if record.user_id > last {
                    break;
                }
                ended.extend(open.take_if(|journal| journal.user_id() != record.user_id));
                let journal = open.get_or_insert_with(|| self.journal(record.user_id));
                self.follow(journal, &record)?;
            }
            if !is_full || after.0 > last {
                ended.extend(open.take());
                return self.compare(ended, last).await;
            }
            // The rows of the accounts whose journals have been read to their ends.
            let upto = after.0.saturating_sub(1);
            self.compare(ended, upto).await?;
            (self.tell)(Told::SoFar(&self.tally))?;
        }
    }

    const fn journal(&self, user_id: i64) -> Journal {
        Journal::new(user_id, self.scope.anchor())
    }

    /// Compares journals with the accounts' rows, up to an id. An account can have lost its whole journal, and a journal
    /// its account.
    async fn compare(&mut self, ended: Vec<Journal>, upto: i64) -> Result<(), Error> {
        let mut ended = ended.into_iter().peekable();
        while self.accounts_after < upto {
            // One more than there should be: what is not there is seldom.
            let limit = (ended.len() as i64 + 1).min(PAGE);
            let rows = self.store.accounts(self.accounts_after, limit).await?;
            let is_full = rows.len() as i64 == limit;
            self.accounts_after =
                if is_full { rows.last().map_or(upto, |&(user_id, _)| user_id.min(upto)) } else { upto };
            for (user_id, state) in rows.into_iter().filter(|&(user_id, _)| user_id <= upto) {
                while let Some(journal) = ended.next_if(|journal| journal.user_id() < user_id) {
                    self.end(journal, None).await?;
                }
                let journal = ended.next_if(|journal| journal.user_id() == user_id);
                let journal = journal.unwrap_or_else(|| self.journal(user_id));
                self.end(journal, Some(state)).await?;
            }
        }
        for journal in ended {
            self.end(journal, None).await?;
        }
        Ok(())
    }

    /// Ends a journal at the account's row; first it is read on to there, where the account went on meanwhile.
    async fn end(&mut self, mut journal: Journal, account: Option<State>) -> Result<(), Error> {
        let (user_id, stands_at) = (journal.user_id(), account.map_or(0, |state| state.version));
        while journal.version() < stands_at {
            let limit = (stands_at - journal.version()).min(PAGE);
            let page = self.store.records((user_id, journal.version()), limit).await?;
            let ours = |record: &Record| record.user_id == user_id && record.version <= stands_at;
            let ours: Vec<Record> = page.into_iter().take_while(ours).collect();
            if ours.is_empty() {
                break;
            }
            for record in &ours {
                self.follow(&mut journal, record)?;
            }
        }
        journal.end(account);
        self.tell(&mut journal)?;
        self.tally.accounts += 1;
        self.tally.newest = journal.newest();
        Ok(())
    }

    fn follow(&mut self, journal: &mut Journal, record: &Record) -> Result<(), Error> {
        self.tally.entries += 1;
        self.tally.covered += u64::from(journal.follow(record) == Coverage::Compared);
        self.tell(journal)
    }

    /// Tells what has been found in a journal since, and counts.
    fn tell(&mut self, journal: &mut Journal) -> Result<(), Error> {
        for finding in journal.found() {
            self.tally.findings += 1;
            (self.tell)(Told::Found(&finding))?;
        }
        Ok(())
    }
}
