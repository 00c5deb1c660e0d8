//! Accepted deductions on their way to their end. The account's journal is followed while they are made: one stream tells of each
//! one when it is made or barred, whichever process does it, and costs the server a page of entries at a time; asking for
//! each would cost it a call, over and over. Only those of which the journal says nothing for a while are asked for, the
//! oldest first. It refuses to judge: what is not decided in time stays as it is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
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
            let barred = (0..operations.len()).filter(|&index| self.is_barred(&operations[index])).collect();
            ask(clients, user_id, operations, barred, until).await;
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
        let is_open = |operation: &Operation| {
            operation.outcome == Outcome::Accepted && !self.journaled.contains_key(&operation.request_id)
        };
        let mut waiting: VecDeque<usize> = (0..operations.len()).filter(|&index| is_open(&operations[index])).collect();
        let mut missing: HashSet<Uuid> = waiting.iter().map(|&index| operations[index].request_id).collect();
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
            waiting.retain(|&index| missing.contains(&operations[index].request_id));
            let oldest: Vec<usize> = waiting.drain(..waiting.len().min(ASKED)).collect();
            ask(clients, user_id, operations, oldest.clone(), until).await;
            for index in oldest {
                let Operation { request_id, outcome, .. } = &operations[index];
                if *outcome == Outcome::Accepted {
                    waiting.push_back(index);
                } else {
                    missing.remove(request_id);
                    *last = Some(Instant::now());
                }
            }
        }
    }
}

/// Asks what became of accepted deductions, and writes down what is decided.
async fn ask(clients: &[Client], user_id: i64, operations: &mut [Operation], accepted: Vec<usize>, until: Instant) {
    let questions: Vec<(usize, Uuid)> =
        accepted.into_iter().map(|index| (index, operations[index].request_id)).collect();
    let asked = stream::iter(questions).map(|(index, request_id)| async move {
        let look = |client: Client| async move { client.look_up(user_id, request_id).await };
        (index, patiently(clients, until, look).await)
    });
    let mut answers = pin!(asked.buffer_unordered(QUESTIONS_IN_FLIGHT));
    while let Some((index, answer)) = answers.next().await {
        match answer {
            // Neither is an answer to what was accepted: a promise is not voided either.
            Ok(Fate::NotFound | Fate::Voided) => operations[index].outcome = Outcome::Forgotten,
            Ok(fate) => operations[index].outcome = Outcome::of(&fate),
            // It is asked for again.
            Err(_) => {}
        }
    }
}
