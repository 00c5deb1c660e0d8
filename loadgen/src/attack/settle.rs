//! The end of a run: every unknown outcome is settled by the service, then account and journal are read.

use std::time::Instant;

use futures::{StreamExt, stream};
use zbl_client::{Account, Backoff, Client, Entry, Error};

use super::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::history::{Acknowledgement, Operation, Outcome, VOIDED};

/// Settlements in flight at once: each locks the account's row, so more would only queue.
const SETTLEMENTS_IN_FLIGHT: usize = 8;

/// How often account and journal are read when they do not agree on the newest version.
const READINGS: u32 = 5;

/// Asks every server in turn, with growing pauses, until one answers or `until` has passed.
pub(super) async fn patiently<T, F>(clients: &[Client], until: Instant, call: impl Fn(Client) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut turn = 0;
    loop {
        match call(clients[turn % clients.len()].clone()).await {
            Err(error) if error.is_transient() && Instant::now() < until => {
                turn += 1;
                tokio::time::sleep(backoff.pause()).await;
            }
            answer => return answer,
        }
    }
}

/// Settles what is unknown; what cannot be settled in time stays unknown.
pub(super) async fn settle(clients: &[Client], user_id: i64, operations: &mut [Operation], until: Instant) {
    let unknown = operations.iter_mut().filter(|operation| operation.outcome == Outcome::Unknown);
    stream::iter(unknown)
        .for_each_concurrent(SETTLEMENTS_IN_FLIGHT, |operation| async move {
            let request_id = operation.request_id;
            let resolve = |client: Client| async move { client.resolve(user_id, request_id).await };
            match patiently(clients, until, resolve).await {
                Ok(Some(receipt)) => operation.outcome = Outcome::Acknowledged(Acknowledgement::of(&receipt)),
                Ok(None) => operation.outcome = Outcome::Failed { reason: VOIDED },
                Err(_) => {}
            }
        })
        .await;
}

/// Reads the journal since `root` and then the account, again while something else moves it in between.
pub(super) async fn read(clients: &[Client], root: Account, until: Instant) -> Result<(Vec<Entry>, Account), Error> {
    let mut readings = 0;
    loop {
        let entries = |client: Client| async move { client.journal_from(root.user_id, root.version + 1).await };
        let journal = patiently(clients, until, entries).await?;
        let balance = |client: Client| async move { client.balance(root.user_id).await };
        let account = patiently(clients, until, balance).await?;
        readings += 1;
        let newest = journal.last().map_or(root.version, |entry| entry.version);
        if newest == account.version || readings >= READINGS {
            return Ok((journal, account));
        }
    }
}
