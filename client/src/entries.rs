//! Reading an account's journal: which entries, and how they keep coming. A stream owns the version of the last entry it
//! gave, from which every reconnection resumes: whichever server answers then, no entry comes twice and none is left out.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tonic::{Request, Status, Streaming};
use zbl_proto::Reason;
use zbl_proto::v1::{self, EntryKind, EntryOrder, StreamEntriesRequest, StreamEntriesResponse};

use crate::{Backoff, Client, Entry, Error, account};

/// The pause before the first reconnection: a restarting server is back within a fraction of a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between reconnections: nothing is lost meanwhile, but it comes late.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
    link: Link,
    ready: VecDeque<Entry>,
    backoff: Backoff,
}

#[derive(Debug)]
enum Link {
    Down { until: Instant },
    Up(Box<Streaming<StreamEntriesResponse>>),
}

impl EntryStream {
    pub(crate) fn new(client: Client, user_id: i64, after: i64) -> Self {
        let (link, backoff) = (Link::Down { until: Instant::now() }, Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
        Self { client, user_id, after, link, ready: VecDeque::new(), backoff }
    }

    /// The version of the last entry given: what to begin after, another time.
    pub fn version(&self) -> i64 {
        self.after
    }

    /// The next item; waits for it as long as it takes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// An [`Error`] that no reconnection would cure: the account is not there, its journal does not go as far as the version
    /// to begin after ([`Reason::InvalidResume`]: the database was restored from an older copy, perhaps), or an entry is
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
            match &mut self.link {
                Link::Down { until } => {
                    tokio::time::sleep_until(*until).await;
                    return match self.open().await {
                        Ok(stream) => {
                            self.link = Link::Up(Box::new(stream));
                            Ok(EntryStreamItem::Connected)
                        }
                        Err(error) => self.lose(error),
                    };
                }
                Link::Up(stream) => match stream.message().await {
                    Ok(Some(message)) => {
                        self.backoff.reset();
                        if message.entries.is_empty() {
                            return Ok(EntryStreamItem::Heartbeat);
                        }
                        self.ready = message.entries.into_iter().map(account::entry).collect::<Result<_, _>>()?;
                    }
                    Ok(None) => {
                        return self.lose(Error::from_status(&Status::unavailable("the server ended the stream")));
                    }
                    Err(status) => return self.lose(Error::from_status(&status)),
                },
            }
        }
    }

    async fn open(&self) -> Result<Streaming<StreamEntriesResponse>, Error> {
        let request = Request::new(StreamEntriesRequest { user_id: self.user_id, after_version: self.after });
        let mut stub = self.client.stubs().account;
        let deadline = self.client.deadline();
        match tokio::time::timeout(deadline, stub.stream_entries(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(&status)),
            Err(_) => Err(Error::no_answer_within(deadline)),
        }
    }

    fn lose(&mut self, error: Error) -> Result<EntryStreamItem, Error> {
        // A call is not repeated into a server that sheds load; a stream that waits longer each time may be.
        let shed = matches!(error.reason(), Some(Reason::Overloaded | Reason::RateLimited));
        if !error.is_transient() && !shed {
            return Err(error);
        }
        let retry_in = self.backoff.pause();
        self.link = Link::Down { until: Instant::now() + retry_in };
        Ok(EntryStreamItem::Disconnected { error, retry_in })
    }
}
