//! What an account held once, as its journal tells it.

use chrono::NaiveDateTime;

use super::Ledger;
use crate::{
    account::{Entry, Refusal},
    error::Error,
    history::{Broken, as_of},
};

/// A point of an account's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// When it was at this version, from 1.
    Version(i64),
    /// At this time, UTC, by the database's clock.
    Time(NaiveDateTime),
}

impl Ledger {
    /// The newest entry of an account as of then: it tells what the account held.
    ///
    /// # Errors
    /// [`Refusal::AccountNotFound`], [`Refusal::NotYetOpened`], [`Refusal::NotYetReached`], [`Error::JournalBroken`], or the
    /// database's.
    pub async fn entry_as_of(&self, user_id: i64, as_of: AsOf) -> Result<Entry, Error> {
        let newest = self.state(user_id).await?.version;
        match as_of {
            AsOf::Version(version) if version > newest => {
                Err(Refusal::NotYetReached { user_id, version, newest }.into())
            }
            AsOf::Version(version) => self.entry_at(user_id, version).await,
            AsOf::Time(time) => {
                let time_of =
                    |version| async move { Ok::<_, Error>(self.entry_at(user_id, version).await?.created_at) };
                match as_of::newest_by(newest, time, time_of).await? {
                    Some(version) => self.entry_at(user_id, version).await,
                    None => {
                        let opened_at = self.entry_at(user_id, 1).await?.created_at;
                        Err(Refusal::NotYetOpened { user_id, opened_at }.into())
                    }
                }
            }
        }
    }

    /// The entry of a version that the account has reached.
    async fn entry_at(&self, user_id: i64, version: i64) -> Result<Entry, Error> {
        let found = self.reading(|| self.bench.store.entries(user_id, version - 1, 1)).await?.pop();
        let broken = Broken::Gap { missing: version };
        found.filter(|entry| entry.version == version).ok_or(Error::JournalBroken { user_id, broken })
    }
}
