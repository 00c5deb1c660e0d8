//! The end of a run: every unknown outcome is settled by the service, then account and journal are read.

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};
use zbl_client::{Account, Backoff, Client, Entry, Error};

use super::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::history::{Operation, Outcome, is_turned_away};

/// Settlements in flight at once: each locks the account's row, so more would only queue.
const SETTLEMENTS_IN_FLIGHT: usize = 8;

/// How often account and journal are read when they do not agree on the newest version.
pub(crate) const READINGS: u32 = 5;

/// The least time a try gets that is made although the time is up: enough for a server that is there.
const LEAST_TRY: Duration = Duration::from_secs(1);

/// Asks every server in turn, with growing pauses, until one answers or `until` has passed. The first try is always made;
/// out of time, the last answer stands.
pub(crate) async fn patiently<T, F>(clients: &[Client], until: Instant, call: impl Fn(Client) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let client = |turn: usize| {
        let client = clients[turn % clients.len()].clone();
        let left = until.saturating_duration_since(Instant::now()).max(LEAST_TRY);
        let deadline = client.deadline().min(left);
        client.with_deadline(deadline)
    };
    let mut answer = call(client(0)).await;
    let again = async {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut turn = 0;
        while let Some(asked) = answer.as_ref().err().and_then(pause_asked) {
            turn += 1;
            tokio::time::sleep(backoff.pause().max(asked)).await;
            // A call that is cut off by the end of the time has no outcome that is known.
            answer = Err(Error::lost("the time was over"));
            answer = call(client(turn)).await;
        }
    };
    let _ = timeout_at(until, again).await;
    answer
}

/// How long the server asks to wait before the call is repeated; `None` when repeating it is of no use.
fn pause_asked(error: &Error) -> Option<Duration> {
    let worthwhile = error.is_transient() || error.reason().is_some_and(is_turned_away);
    worthwhile.then(|| error.retry_delay().unwrap_or_default())
}

/// Settles what is unknown; what is not settled when `until` has passed stays unknown. What turns out to have been accepted, to be
/// made later, is not voided.
pub(crate) async fn settle(clients: &[Client], user_id: i64, operations: &mut [Operation], until: Instant) {
    let unknown = operations.iter_mut().filter(|operation| operation.outcome == Outcome::Unknown);
    let settled = stream::iter(unknown).for_each_concurrent(SETTLEMENTS_IN_FLIGHT, |operation| async move {
        let request_id = operation.request_id;
        let settle = |client: Client| async move { client.settle(user_id, request_id).await };
        if let Ok(fate) = patiently(clients, until, settle).await {
            operation.outcome = Outcome::of(&fate);
        }
    });
    let _ = timeout_at(until, settled).await;
}

/// Reads the journal since `root` and then the account, again while something else moves it in between. Out of time, the
/// last reading stands.
pub(crate) async fn read(clients: &[Client], root: Account, until: Instant) -> Result<(Vec<Entry>, Account), Error> {
    let mut reading = read_once(clients, root, until).await?;
    let again = async {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        for _ in 1..READINGS {
            let (journal, account) = &reading;
            if journal.last().map_or(root.version, |entry| entry.version) == account.version {
                break;
            }
            tokio::time::sleep(backoff.pause()).await;
            reading = read_once(clients, root, until).await?;
        }
        Ok(())
    };
    timeout_at(until, again).await.unwrap_or(Ok(()))?;
    Ok(reading)
}

async fn read_once(clients: &[Client], root: Account, until: Instant) -> Result<(Vec<Entry>, Account), Error> {
    let entries = |client: Client| async move { client.journal_from(root.user_id, root.version + 1).await };
    let journal = patiently(clients, until, entries).await?;
    let balance = |client: Client| async move { client.balance(root.user_id).await };
    Ok((journal, patiently(clients, until, balance).await?))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::timeout;
    use uuid::Uuid;
    use zbl_client::{Money, Retry};

    use super::*;

    /// Longer than any time limit below, shorter than what those limits keep from happening.
    const HUNG: Duration = Duration::from_secs(3);

    /// Every call by itself takes [`LEAST_TRY`], and there are five rounds of them.
    #[tokio::test]
    async fn settling_ends_in_time_with_a_server_that_never_answers() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let clients = [Client::connect_lazy(&address).unwrap().with_retry(Retry::NEVER)];
        let operation =
            |id| Operation { request_id: Uuid::from_u128(id), delta: Money::ZERO, outcome: Outcome::Unknown };
        let mut operations: Vec<_> = (0..40).map(operation).collect();
        let until = Instant::now() + Duration::from_millis(100);
        timeout(HUNG, settle(&clients, 1, &mut operations, until)).await.unwrap();
        assert!(operations.iter().all(|operation| operation.outcome == Outcome::Unknown));
    }

    #[tokio::test]
    async fn a_try_is_made_when_the_time_is_up_and_a_repeated_one_ends_with_it() {
        let clients = [Client::connect_lazy("127.0.0.1:1").unwrap().with_retry(Retry::NEVER)];
        let late = patiently(&clients, Instant::now(), |_| async { Ok(7) }).await;
        assert_eq!(late.unwrap(), 7);

        let calls = std::cell::Cell::new(0);
        let call = |client: Client| {
            calls.set(calls.get() + 1);
            let first = calls.get() == 1;
            async move { if first { client.balance(1).await } else { std::future::pending().await } }
        };
        let until = Instant::now() + Duration::from_secs(1);
        let error = timeout(HUNG, patiently(&clients, until, call)).await.unwrap().unwrap_err();
        assert!(error.is_transient() && calls.get() == 2, "{error}");
    }
}
