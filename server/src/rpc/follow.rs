//! `StreamEntries`: each consumer reads the journal itself at its own pace, through its own position. Nothing is buffered
//! for it and nothing is read ahead: the next page is read when the last was taken.
//!
//! The journal is asked again and again, not told by whoever commits: other servers write to it as well. So a new entry is
//! seen within [`POLL`], and a stream with nothing to do costs one look at the primary key for each.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tonic::Status;
use zbl_proto::v1;

use super::{convert, status::status, timeline::Watch};
use crate::{
    account::Entry,
    error::{Error, Invalid, InvalidReason},
    history::Broken,
    ledger::Ledger,
    limit::Room,
};

/// How often the journal is asked when it has nothing new. There are 64 streams at the most: 320 questions a second.
const POLL: Duration = Duration::from_millis(200);

/// Entries in a message: about 15 kB, which is what a slow reader's connection holds of them beside its buffers.
const PAGE: i64 = 100;

/// The stream of one consumer.
pub type EntryStream = Pin<Box<dyn Stream<Item = Result<v1::StreamEntriesResponse, Status>> + Send>>;

/// One consumer's position.
struct Follower {
    ledger: Arc<Ledger>,
    stopping: watch::Receiver<bool>,
    heartbeat: Duration,
    _room: Room,
    user_id: i64,
    after: i64,
}

/// The stream that a request asks for.
///
/// # Errors
/// [`Error::Invalid`] for an account or a position that cannot be, [`Error::Overloaded`], or the ledger's.
pub(super) async fn follow(
    ledger: &Arc<Ledger>,
    watch: &Watch,
    request: &v1::StreamEntriesRequest,
) -> Result<EntryStream, Error> {
    let user_id = convert::user_id(request.user_id)?;
    let beyond = |description| Invalid { field: "after_version", reason: InvalidReason::Resume, description };
    let after = request.after_version;
    if after < 0 {
        return Err(beyond("negative; give the version of the last entry seen, or 0".to_owned()).into());
    }
    let room = watch.limits.watch()?;
    let newest = ledger.newest(user_id).await?;
    if after > newest {
        // To wait would be to skip whatever is written under the versions up to it.
        let description = format!(
            "the newest version is {newest}; {after} is another account's, or this database was restored from an older \
             copy: start anew from 0, or from a version that both have"
        );
        return Err(beyond(description).into());
    }
    let (ledger, stopping) = (Arc::clone(ledger), watch.stopping.clone());
    let follower = Follower { ledger, stopping, heartbeat: watch.heartbeat, _room: room, user_id, after };
    Ok(Box::pin(stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        let next = follower.next().await.map_err(|error| status(&error));
        // After an error the stream is over.
        let rest = next.is_ok().then_some(follower);
        Some((next, rest))
    })))
}

impl Follower {
    async fn next(&mut self) -> Result<v1::StreamEntriesResponse, Error> {
        let heartbeat = Instant::now() + self.heartbeat;
        let mut stopping = self.stopping.clone();
        loop {
            if *stopping.borrow() {
                return Err(Error::Stopping);
            }
            let entries = self.ledger.behind(self.user_id, self.after, PAGE).await?;
            if !entries.is_empty() {
                self.go_on(&entries)?;
                return Ok(v1::StreamEntriesResponse { entries: entries.into_iter().map(convert::entry).collect() });
            }
            tokio::select! {
                () = sleep(POLL) => {}
                () = sleep_until(heartbeat) => return Ok(v1::StreamEntriesResponse::default()),
                _ = stopping.wait_for(|stopping| *stopping) => return Err(Error::Stopping),
            }
        }
    }

    /// Moves on behind these entries, if none is missing. One that is was deleted: no commit makes a gap.
    fn go_on(&mut self, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries {
            let expected = self.after + 1;
            if entry.version != expected {
                let broken = Broken::Gap { missing: expected };
                return Err(Error::JournalBroken { user_id: self.user_id, broken });
            }
            self.after = expected;
        }
        Ok(())
    }
}
