//! The journal of one account, followed entry by entry along its chain: what is wrong with it, and where. Pure: it is given
//! the entries as they are held, and at the end what the account's row says.

use std::{fmt, str::FromStr};

use crate::{
    account::State,
    chain::{Digest, Record},
};

/// Something that no server of ours has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The account.
    pub user_id: i64,
    /// What is wrong with it.
    pub what: What,
}

/// What can be wrong with an account. Versions that are given as a pair are the first and the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An entry's digest does not follow from the entry and the digest before it.
    Changed {
        /// The entry.
        version: i64,
    },
    /// An entry's digest follows from the entry alone, although there is one before it.
    Broken {
        /// The entry.
        version: i64,
    },
    /// There are no such entries.
    Missing {
        /// Which.
        versions: (i64, i64),
    },
    /// Entries that the account's row knows nothing of.
    Inserted {
        /// Which.
        versions: (i64, i64),
        /// Where the account stands; nowhere where there is no such account.
        account: Option<i64>,
    },
    /// Entries without a digest after one that has one.
    Unchained {
        /// Which.
        versions: (i64, i64),
    },
    /// The account does not hold what its newest entry left behind.
    Balance {
        /// The newest entry.
        version: i64,
        /// What it left behind, a decimal.
        entry: String,
        /// What the account holds, a decimal.
        account: String,
    },
    /// The entry of an anchor is not the one that it was taken of.
    Anchor {
        /// The entry.
        version: i64,
        /// Its digest, if it is there and has one.
        digest: Option<Digest>,
    },
}

impl What {
    /// A word for it, for programs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "changed",
            Self::Broken { .. } => "broken",
            Self::Missing { .. } => "missing",
            Self::Inserted { .. } => "inserted",
            Self::Unchained { .. } => "unchained",
            Self::Balance { .. } => "balance",
            Self::Anchor { .. } => "anchor",
        }
    }

    /// The first and the last entry that it is about.
    pub const fn versions(&self) -> (i64, i64) {
        match *self {
            Self::Changed { version }
            | Self::Broken { version }
            | Self::Balance { version, .. }
            | Self::Anchor { version, .. } => (version, version),
            Self::Missing { versions } | Self::Inserted { versions, .. } | Self::Unchained { versions } => versions,
        }
    }
}

/// `entry 7` or `entries 7 to 9`.
struct Entries((i64, i64));

impl fmt::Display for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self((first, last)) = self;
        if first == last { write!(f, "entry {first}") } else { write!(f, "entries {first} to {last}") }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = Entries(self.versions());
        match self {
            Self::Changed { version: 1 } => write!(f, "{entries} was changed: its digest is of another entry"),
            Self::Changed { version } => write!(
                f,
                "{entries} was changed, or entry {before} was and got a new digest: the digest of {version} is not of both \
                 as they are",
                before = version - 1
            ),
            Self::Broken { .. } => {
                write!(f, "{entries} begins a chain of its own: it was not written after the one before it")
            }
            Self::Missing { .. } => write!(f, "{entries} missing: removed from the journal"),
            Self::Inserted { versions: (..=0, _), .. } => {
                write!(f, "{entries} inserted: no journal has such a version")
            }
            Self::Inserted { account: Some(version), .. } => {
                write!(f, "{entries} inserted, or the account's row set back: it stands at version {version}")
            }
            Self::Inserted { account: None, .. } => write!(f, "{entries} of an account that is not there"),
            Self::Unchained { .. } => {
                write!(f, "{entries} without a digest after one with: written without the chain, or the digest removed")
            }
            Self::Balance { entry, account, .. } => {
                write!(f, "the account holds {account}, and {entries}, its newest, left {entry} behind")
            }
            Self::Anchor { digest: Some(digest), .. } => {
                write!(f, "{entries} is not the one that the anchor was taken of: its digest is {digest}")
            }
            Self::Anchor { digest: None, .. } => {
                write!(f, "{entries}, which the anchor was taken of, is not there, or has no digest")
            }
        }
    }
}

/// A digest kept elsewhere, and the entry that it was taken of: what tells a journal that was cut off or written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The entry's digest.
    pub digest: Digest,
    /// The entry.
    pub version: i64,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.digest, self.version)
    }
}

impl FromStr for Anchor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('@').and_then(|(digest, version)| {
            let version = version.parse().ok().filter(|version| *version > 0)?;
            Some(Self { digest: digest.parse().ok()?, version })
        });
        parts.ok_or("an anchor is DIGEST@VERSION, as `verify --user` prints it: 64 hex digits, @, and a version")
    }
}

/// Whether an entry's digest was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// It was.
    Compared,
    /// It has none, or comes after a gap.
    None,
}

/// The entry that was followed last.
#[derive(Clone, Debug)]
struct Last {
    version: i64,
    balance_after: String,
    digest: Option<Digest>,
    /// What its digest should be, where it has one and that can be told.
    right: Option<Digest>,
}

/// An account's journal under way.
#[derive(Clone, Debug)]
pub struct Journal {
    user_id: i64,
    anchor: Option<Anchor>,
    last: Option<Last>,
    /// The first of the entries up to the last that have no digest after one that has.
    unchained_since: Option<i64>,
    is_chained: bool,
    findings: Vec<What>,
}

impl Journal {
    /// Before its first entry. `anchor` is what one of them must be.
    #[must_use]
    pub const fn new(user_id: i64, anchor: Option<Anchor>) -> Self {
        Self { user_id, anchor, last: None, unchained_since: None, is_chained: false, findings: Vec::new() }
    }

    /// Whose it is.
    #[must_use]
    pub const fn user_id(&self) -> i64 {
        self.user_id
    }

    /// The version followed last; 0 before the first.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.last.as_ref().map_or(0, |last| last.version)
    }

    /// The digest of the entry followed last, and its version.
    #[must_use]
    pub fn newest(&self) -> Option<Anchor> {
        let last = self.last.as_ref()?;
        Some(Anchor { digest: last.digest?, version: last.version })
    }

    /// What was found since this was asked last.
    pub fn found(&mut self) -> impl Iterator<Item = Finding> {
        let user_id = self.user_id;
        std::mem::take(&mut self.findings).into_iter().map(move |what| Finding { user_id, what })
    }

    /// Goes on with the next entry.
    pub fn follow(&mut self, record: &Record) -> Coverage {
        let Record { version, digest, .. } = *record;
        if version < 1 {
            self.findings.push(What::Inserted { versions: (version, version), account: None });
            return Coverage::None;
        }
        let due = self.version() + 1;
        if version > due {
            self.findings.push(What::Missing { versions: (due, version - 1) });
        }
        match digest {
            Some(_) => self.end_unchained(),
            None if self.is_chained => _ = self.unchained_since.get_or_insert(version),
            None => {}
        }
        // What comes after a gap cannot be compared: nobody knows the digest that it was chained to.
        let right = if version == due { self.compare(record) } else { None };
        self.is_chained |= digest.is_some();
        if let Some(anchor) = self.anchor.take_if(|anchor| anchor.version == version)
            && Some(anchor.digest) != digest
        {
            self.findings.push(What::Anchor { version, digest });
        }
        self.last = Some(Last { version, balance_after: record.balance_after().to_owned(), digest, right });
        if digest.is_some() && right.is_some() { Coverage::Compared } else { Coverage::None }
    }

    /// Compares an entry's digest with what it should be, and says that.
    fn compare(&mut self, record: &Record) -> Option<Digest> {
        let Record { version, ref text, digest, .. } = *record;
        let (previous, previous_right) = self.last.as_ref().map_or((None, None), |last| (last.digest, last.right));
        let Some(digest) = digest else {
            // What it would be, if it was taken away.
            return self.is_chained.then(|| Digest::of(previous.or(previous_right), text));
        };
        let follows = |before: Option<Digest>| Digest::of(before, text) == digest;
        // Where the digest before it was changed or taken away, and told of, this one follows from what that should be.
        let sound = follows(previous) || previous_right.is_some_and(|right| follows(Some(right)));
        if !sound {
            let alone = previous.is_some() && follows(None);
            self.findings.push(if alone { What::Broken { version } } else { What::Changed { version } });
        }
        Some(Digest::of(previous, text))
    }

    fn end_unchained(&mut self) {
        if let Some(first) = self.unchained_since.take() {
            self.findings.push(What::Unchained { versions: (first, self.version()) });
        }
    }

    /// Ends it where the account's row stands, which was read after the entries that are not beyond it; `None`: there is
    /// no such row.
    pub fn end(&mut self, account: Option<State>) {
        self.end_unchained();
        let newest = self.version();
        match account {
            None if newest > 0 => self.findings.push(What::Inserted { versions: (1, newest), account: None }),
            None => {}
            Some(State { version, .. }) if version < newest => {
                self.findings.push(What::Inserted { versions: (version + 1, newest), account: Some(version) });
            }
            Some(State { version, .. }) if version > newest => {
                self.findings.push(What::Missing { versions: (newest + 1, version) });
            }
            Some(State { balance, version }) => {
                let entry = self.last.as_ref().map_or("0.00", |last| &last.balance_after);
                let account = balance.to_string();
                if entry != account {
                    let entry = entry.to_owned();
                    self.findings.push(What::Balance { version, entry, account });
                }
            }
        }
        if let Some(Anchor { version, .. }) = self.anchor.take() {
            self.findings.push(What::Anchor { version, digest: None });
        }
    }
}

#[cfg(test)]
mod tests;
