//! Accepted deductions on their way to their end. The account's journal is followed while they are made: one stream tells of each
//! one when it is made or barred, whichever process does it, and costs the server a page of entries at a time; asking for
//! each would cost it a call, over and over. Only those of which the journal says nothing for a while are asked for, the
//! oldest first. It refuses to judge: what is not decided in time stays as it is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;
use zbl_client::{Account, Client, Entry, EntryKind, EntryStream, EntryStreamItem, Fate};

use super::settle::patiently;
use super::{BRIEF, Progress, Stop};
use crate::history::{Operation, Outcome};

/// Without a new entry for so long, something holds the rest up, and it is asked for: a stream of entries is a fraction of a
/// second behind the journal.
const QUIET: Duration = Duration::from_secs(2);

/// Requests that are asked for each time it is quiet: of more, one is as good as another.
const ASKED: usize = 256;

/// Questions in flight at once: each is one read or two.
const QUESTIONS_IN_FLIGHT: usize = 8;

/// Follows an account's journal.
pub(super) struct Follower {
    entries: EntryStream,
    /// What the run has journaled.
    journaled: HashMap<Uuid, EntryKind>,
    progress: watch::Sender<Progress>,
}

impl Follower {
    /// One that begins behind `root`.
    pub(super) fn new(client: &Client, root: Account, progress: &watch::Sender<Progress>) -> Self {
        let entries = client.stream_entries(root.user_id, root.version);
        Self { entries, journaled: HashMap::new(), progress: progress.clone() }
    }

    /// Follows for as long as it is polled. Dropping the future loses nothing.
    pub(super) async fn follow(&mut self) -> Infallible {
        loop {
            self.next().await;
        }
    }

    /// The next entry; waits for it as long as it takes, for ever where no stream is to be had.
    async fn next(&mut self) -> Entry {
        loop {
            match self.entries.next().await {
                Ok(EntryStreamItem::Entry(entry)) => {
                    self.journaled.insert(entry.request_id, entry.kind);
                    self.progress.send_modify(|progress| progress.decided += 1);
                    return entry;
                }
                Ok(_) => {}
                // Then what is missing is asked for.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Follows what was accepted to its end, or until `limit` has passed or the run is asked to stop. Says when the last
    /// one was decided; `None` where none was any more.
    pub(super) async fn drain(
        mut self,
        clients: &[Client],
        user_id: i64,
        operations: &mut [Operation],
        limit: Duration,
        stop: &mut Stop,
    ) -> Option<Instant> {
        let is_stopping = stop.requested();
        let until = Instant::now() + if is_stopping { BRIEF } else { limit };
        let mut last = None;
        let drained = async {
            self.await_decisions(clients, user_id, operations, until, &mut last).await;
            let barred = |operation: &&mut Operation| self.is_barred(operation);
            ask(clients, user_id, operations.iter_mut().filter(barred).collect(), until).await;
        };
        let stopped = async {
            if is_stopping {
                std::future::pending::<()>().await;
            }
            stop.wait().await;
        };
        tokio::select! {
            () = drained => {}
            () = sleep_until(until) => {}
            () = stopped => {}
        }
        last
    }

    /// Whether only the service can say why.
    fn is_barred(&self, operation: &Operation) -> bool {
        operation.outcome == Outcome::Accepted && self.journaled.get(&operation.request_id) == Some(&EntryKind::Void)
    }

    async fn await_decisions(
        &mut self,
        clients: &[Client],
        user_id: i64,
        operations: &mut [Operation],
        until: Instant,
        last: &mut Option<Instant>,
    ) {
        let accepted = operations.iter_mut().filter(|operation| operation.outcome == Outcome::Accepted);
        let mut waiting: VecDeque<&mut Operation> =
            accepted.filter(|operation| !self.journaled.contains_key(&operation.request_id)).collect();
        let mut missing: HashSet<Uuid> = waiting.iter().map(|operation| operation.request_id).collect();
        loop {
            while !missing.is_empty()
                && let Ok(entry) = timeout(QUIET, self.next()).await
            {
                if missing.remove(&entry.request_id) {
                    *last = Some(Instant::now());
                }
            }
            if missing.is_empty() {
                return;
            }
            waiting.retain(|operation| missing.contains(&operation.request_id));
            let oldest: Vec<&mut Operation> = waiting.drain(..waiting.len().min(ASKED)).collect();
            for operation in ask(clients, user_id, oldest, until).await {
                match operation.outcome {
                    Outcome::Accepted => waiting.push_back(operation),
                    _ => {
                        missing.remove(&operation.request_id);
                        *last = Some(Instant::now());
                    }
                }
            }
            // Without a stream, nothing else makes a pause.
            sleep(super::FIRST_PAUSE).await;
        }
    }
}

/// Asks what became of accepted deductions, and writes down what is decided.
async fn ask<'a>(
    clients: &[Client],
    user_id: i64,
    accepted: Vec<&'a mut Operation>,
    until: Instant,
) -> Vec<&'a mut Operation> {
    let asked = accepted.into_iter().map(|operation| async move {
        let request_id = operation.request_id;
        let look = |client: Client| async move { client.look_up(user_id, request_id).await };
        if let Ok(fate) = patiently(clients, until, look).await {
            operation.outcome = match fate {
                Fate::NotFound => Outcome::Forgotten,
                fate => Outcome::of(&fate),
            };
        }
        operation
    });
    stream::iter(asked).buffer_unordered(QUESTIONS_IN_FLIGHT).collect().await
}
