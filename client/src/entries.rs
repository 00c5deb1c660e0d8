//! Reading an account's journal: which entries, and how they keep coming. A stream owns the version of the last entry it
//! gave, from which every reconnection resumes: whichever server answers then, no entry comes twice and none is left out.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use tonic::Request;

use zbl_proto::v1::{self, EntryKind, EntryOrder, StreamEntriesRequest, StreamEntriesResponse};

use crate::link::{Link, Linked};
use crate::{Client, Entry, Error, account};

/// Which entries of a journal are wanted; by default all of them, oldest first.
#[derive(Clone, Debug, Default)]
pub struct EntryFilter {
    /// Written at this time or later, by the database's clock.
    pub from: Option<SystemTime>,
    /// Written before this time.
    pub to: Option<SystemTime>,
    /// Of one of these kinds; none: of any.
    pub kinds: Vec<EntryKind>,
    /// Written by one of these strategies; none: by any.
    pub strategies: Vec<String>,
    /// Overwritten by later ones. They come newest first, each with [`Entry::overwritten_by`].
    pub lost_only: bool,
    /// In which order.
    pub order: EntryOrder,
}

impl EntryFilter {
    pub(crate) fn request(&self, user_id: i64, page_size: i32, after: Option<&str>) -> v1::ListEntriesRequest {
        v1::ListEntriesRequest {
            user_id,
            page_size,
            page_token: after.unwrap_or_default().to_owned(),
            from_time: self.from.map(Into::into),
            to_time: self.to.map(Into::into),
            kinds: self.kinds.iter().map(|&kind| kind.into()).collect(),
            strategies: self.strategies.clone(),
            lost_only: self.lost_only,
            order: self.order.into(),
        }
    }
}

/// What an [`EntryStream`] yields.
#[derive(Clone, Debug)]
pub enum EntryStreamItem {
    /// The stream is open, for the first time or again.
    Connected,
    /// The stream was lost or could not be opened; it will be tried again.
    Disconnected {
        /// Why.
        error: Error,
        /// When it will be tried again, from now.
        retry_in: Duration,
    },
    /// The next entry of the journal.
    Entry(Entry),
    /// Nothing was written for a while.
    Heartbeat,
}

/// A journal as it grows, across reconnections. Ask [`EntryStream::next`] for one item after the other.
#[derive(Debug)]
pub struct EntryStream {
    client: Client,
    user_id: i64,
    after: i64,
    link: Link<StreamEntriesResponse>,
    ready: VecDeque<Entry>,
}

impl EntryStream {
    pub(crate) fn new(client: Client, user_id: i64, after: i64) -> Self {
        Self { client, user_id, after, link: Link::new(), ready: VecDeque::new() }
    }

    /// The version of the last entry given: what to begin after, another time.
    pub fn version(&self) -> i64 {
        self.after
    }

    /// The next item; waits for it as long as it takes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// An [`Error`] that no reconnection would cure: the account is not there, its journal does not go as far as the version
    /// to begin after ([`crate::Reason::InvalidResume`]: the database was restored from an older copy, perhaps), or an entry is
    /// missing. The stream has ended then.
    pub async fn next(&mut self) -> Result<EntryStreamItem, Error> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                // A server that errs on the safe side repeats some.
                if entry.version <= self.after {
                    continue;
                }
                if entry.version != self.after + 1 {
                    let (missing, found) = (self.after + 1, entry.version);
                    return Err(Error::broken_answer(format_args!("version {found} where {missing} was next")));
                }
                self.after = entry.version;
                return Ok(EntryStreamItem::Entry(entry));
            }
            return match self.link.next().await {
                Linked::Open => match self.open().await {
                    Ok(()) => Ok(EntryStreamItem::Connected),
                    Err(error) => self.lose(error),
                },
                Linked::Message(message) if message.entries.is_empty() => Ok(EntryStreamItem::Heartbeat),
                Linked::Message(message) => {
                    self.ready = message.entries.into_iter().map(account::entry).collect::<Result<_, _>>()?;
                    continue;
                }
                Linked::Lost(error) => self.lose(error),
            };
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let request = Request::new(StreamEntriesRequest { user_id: self.user_id, after_version: self.after });
        let mut stub = self.client.stubs().account;
        self.link.open(self.client.deadline(), stub.stream_entries(request)).await
    }

    fn lose(&mut self, error: Error) -> Result<EntryStreamItem, Error> {
        self.link.lose(error).map(|(error, retry_in)| EntryStreamItem::Disconnected { error, retry_in })
    }
}
