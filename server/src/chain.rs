//! The hash chain of an account's journal: what of an entry its digest covers, and in which words. Pure. It refuses to
//! know where entries are kept, and to say whether one can be believed: that is `verify`'s.
//!
//! The digest of an entry is SHA-256 over the digest of the entry before it (nothing where that has none, or there is
//! none) and the entry's *text*:
//!
//! ```text
//! user_id|version|request_id|kind|delta|balance_after|version_before|strategy|created_at
//! 7|2|0190f3c2a5b84d6f8e21aa03c4d5e6f7|DEDUCT|-10.00|990.00|1|atomic|2026-11-24 08:15:30.123456
//! ```
//!
//! The request id is 32 lower-case hex digits, money is a decimal with two places, and `created_at` is what the database
//! holds: six digits behind the point in MySQL and MariaDB, three in SQLite. No two entries have one text: all fields but
//! `kind` and `strategy` consist of digits, signs and points; those two are names from the code, and if somebody wrote a
//! separator into one of them, there would be one too many.

use std::{collections::BTreeMap, fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::account::NewEntry;

/// Whether entries are chained as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chaining {
    /// Each entry gets a digest.
    On,
    /// None does.
    Off,
}

/// How many bytes a digest has.
const LENGTH: usize = 32;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The digest of an entry, and by it of all before it in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; LENGTH]);

impl Digest {
    /// The digest of the entry with this text, after the one with that digest.
    #[must_use]
    pub fn of(previous: Option<Self>, text: &str) -> Self {
        let mut hash = Sha256::new();
        if let Some(Self(previous)) = previous {
            hash.update(previous);
        }
        hash.update(text);
        Self(hash.finalize().into())
    }

    /// A stored digest; `None` where it is none, by its length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written at once: formatted byte by byte it would cost a batch more than the hash does.
        let mut text = [0; 2 * LENGTH];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// A text that is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 hex digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        if text.len() != 2 * LENGTH || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotADigest);
        }
        let mut bytes = [0; LENGTH];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| NotADigest)?;
        }
        Ok(Self(bytes))
    }
}

/// The text of an entry up to its `created_at`, which the database's clock gives.
#[must_use]
pub fn text_before_time(entry: &NewEntry) -> String {
    let NewEntry { user_id, version, request_id, kind, delta, balance_after, version_before, strategy } = entry;
    let (request_id, kind) = (request_id.simple(), kind.name());
    format!("{user_id}|{version}|{request_id}|{kind}|{delta}|{balance_after}|{version_before}|{strategy}|")
}

/// The digest of a new entry.
#[must_use]
pub fn digest(previous: Option<Digest>, entry: &NewEntry, created_at: &str) -> Digest {
    Digest::of(previous, &(text_before_time(entry) + created_at))
}

/// An entry as the database holds it, for whoever does not trust it: nothing of it has been parsed, so nothing that
/// somebody wrote into it can be overlooked, or keep the others from being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The account.
    pub user_id: i64,
    /// The position in the account's journal.
    pub version: i64,
    /// What the digest covers, rendered by the database.
    pub text: String,
    /// The digest, where there is one.
    pub digest: Option<Digest>,
}

impl Record {
    /// The balance it left behind, a decimal.
    #[must_use]
    pub fn balance_after(&self) -> &str {
        self.text.split('|').nth(5).unwrap_or_default()
    }
}

/// Where the chains of several accounts end, at a moment: what entries that are written together are chained to.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    digests: BTreeMap<i64, Option<Digest>>,
}

impl Ends {
    /// The digest of the newest entry of each account, where it has one.
    #[must_use]
    pub const fn new(digests: BTreeMap<i64, Option<Digest>>) -> Self {
        Self { digests }
    }

    /// Goes on with an account's next entry, and says its digest.
    pub fn and(&mut self, entry: &NewEntry, created_at: &str) -> Digest {
        let end = self.digests.entry(entry.user_id).or_default();
        *end.insert(digest(*end, entry, created_at))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::account::{EntryKind, Money};

    fn entry() -> NewEntry {
        NewEntry {
            user_id: 7,
            version: 2,
            request_id: Uuid::from_u128(0x0190_f3c2_a5b8_4d6f_8e21_aa03_c4d5_e6f7),
            kind: EntryKind::Deduct,
            delta: Money::from_minor(-5),
            balance_after: Money::from_minor(99_995),
            version_before: 1,
            strategy: "atomic",
        }
    }

    /// What anybody can recompute with `printf … | sha256sum`.
    #[test]
    fn the_form_is_fixed() {
        let text = text_before_time(&entry()) + "2026-11-24 08:15:30.123456";
        assert_eq!(
            text,
            "7|2|0190f3c2a5b84d6f8e21aa03c4d5e6f7|DEDUCT|-0.05|999.95|1|atomic|2026-11-24 08:15:30.123456"
        );
        let first = Digest::of(None, &text);
        assert_eq!(first.to_string(), FIRST);
        assert_eq!(Digest::of(Some(first), &text).to_string(), SECOND);
        assert_eq!(first.to_string().parse(), Ok(first));
        assert_eq!("+f".repeat(32).parse::<Digest>(), Err(NotADigest));
        assert_eq!("äb".repeat(22).parse::<Digest>(), Err(NotADigest));
    }

    const FIRST: &str = "5e4612d6a3ac61169027d9260295cfe7db8bed2417dc10b44782dbe4340c13eb";
    const SECOND: &str = "70d781950c200204f65b2f3a3e92c2e11ccc8590183f50cd23babf108bd273fa";

    #[test]
    fn entries_written_together_are_chained_to_each_other() {
        let (first, other) = (entry(), NewEntry { user_id: 8, ..entry() });
        let second = NewEntry { version: 3, ..entry() };
        let end = Digest::of(None, "before");
        let mut ends = Ends::new(BTreeMap::from([(7, Some(end)), (8, None)]));
        let now = "2026-11-24 08:15:30.123456";
        let digests = [first, other, second].map(|entry| ends.and(&entry, now));
        assert_eq!(digests[0], digest(Some(end), &first, now));
        assert_eq!(digests[1], digest(None, &other, now));
        assert_eq!(digests[2], digest(Some(digests[0]), &second, now));
    }
}
