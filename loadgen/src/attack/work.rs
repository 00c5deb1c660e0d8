//! What the servers have counted: the work behind a run, which is the difference of two readings. A server whose lab is
//! off does not tell, and a run is none the worse for it.

use std::collections::HashSet;

use futures::future::try_join_all;
use tokio::time::timeout;
use zbl_client::Client;
use zbl_proto::v1::WorkStatus;

use super::BRIEF;
use crate::report::Work;

/// The work all servers behind the clients have done so far; `None` when one does not tell, or not soon.
pub(crate) async fn work(clients: &[Client]) -> Option<Work> {
    // Several connections lead to one server, whose work counts once.
    let mut seen = HashSet::new();
    let servers = clients.iter().filter(|client| seen.insert(client.authority()));
    let counted = timeout(BRIEF, try_join_all(servers.map(Client::status))).await.ok()?.ok()?;
    counted.into_iter().map(|status| counted_by(status.work?)).sum()
}

/// What one server has counted; `None` for what cannot be a count.
fn counted_by(work: WorkStatus) -> Option<Work> {
    let count = |count: i64| u64::try_from(count).ok();
    Some(Work {
        round_trips: count(work.round_trips)?,
        commits: count(work.commits)?,
        locks_held: work.locks_held.unwrap_or_default().try_into().ok()?,
        attempts: count(work.attempts)?,
        acknowledged: count(work.acknowledged)?,
    })
}
