//! Callers who deduct one cent after the other and write down how each call ended and how long it took. They repeat
//! nothing: what is looked at is what a caller is told. Money is judged by `loadgen`, which runs beside them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::time::sleep;
use zbl_client::{Change, Client, Error, Money, Reason, Retry};

use crate::command::Failure;

/// No call of these is worth more; a refusal that takes so long is none.
const DEADLINE: Duration = Duration::from_secs(20);
/// After a refusal, so that they do not take the machine away from what they look at.
const PAUSE: Duration = Duration::from_millis(10);
/// More than the longest part lets them make.
const MOST_CALLS: usize = 1_000_000;
const OPENING: Money = Money::from_minor(100_000_000);

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) begun: Instant,
    pub(crate) took: Duration,
    /// `None` where the money was taken; an error without a reason is one of the transport.
    pub(crate) refused: Option<Refused>,
}

/// What a refused caller is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) reason: Option<Reason>,
    /// When to come back.
    pub(crate) retry_after: Option<Duration>,
}

/// Callers at work; they stop when dropped.
pub(crate) struct Callers {
    ended: Arc<Mutex<Vec<Ended>>>,
    stop: Arc<AtomicBool>,
    at_work: Option<JoinHandle<()>>,
}

impl Callers {
    /// Lets so many call, each on a fresh account of its own, under this strategy.
    pub(crate) fn start(server: SocketAddr, callers: usize, strategy: &'static str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::Failed(error.to_string()))?;
        let (ended, stop) = (Arc::default(), Arc::default());
        let (heard, stopped) = (Arc::clone(&ended), Arc::clone(&stop));
        let at_work = thread::spawn(move || {
            runtime.block_on(async {
                let mut all = tokio::task::JoinSet::new();
                for _ in 0..callers {
                    all.spawn(call(server.to_string(), strategy, Arc::clone(&heard), Arc::clone(&stopped)));
                }
                all.join_all().await;
            });
        });
        Ok(Self { ended, stop, at_work: Some(at_work) })
    }

    /// The calls so far that `are` of a kind.
    pub(crate) fn ended(&self, are: impl Fn(&Ended) -> bool) -> Vec<Ended> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().filter(|ended| are(ended)).copied().collect()
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.at_work.take().map(JoinHandle::join);
    }
}

impl Ended {
    /// Whether it was refused for this reason.
    pub(crate) fn is(&self, reason: Reason) -> bool {
        self.refused.is_some_and(|refused| refused.reason == Some(reason))
    }

    /// Whether the money was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.refused.is_none()
    }
}

/// The time within which 99 of 100 of these calls ended.
pub(crate) fn p99(calls: &[Ended]) -> Duration {
    let mut times: Vec<Duration> = calls.iter().map(|call| call.took).collect();
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

async fn call(server: String, strategy: &'static str, ended: Arc<Mutex<Vec<Ended>>>, stop: Arc<AtomicBool>) {
    // The address is one that was bound.
    let Ok(client) = Client::connect_lazy(&server) else { return };
    let client = client.with_deadline(DEADLINE);
    // Opening is repeated; deducting is not.
    let Ok(account) = client.open_account(None, OPENING).await else { return };
    let client = client.with_retry(Retry::NEVER);
    while !stop.load(Ordering::Relaxed) {
        let change = Change { strategy: strategy.to_owned(), ..Change::new(account.user_id, Money::from_minor(1)) };
        let begun = Instant::now();
        let refused = client
            .deduct(&change)
            .await
            .err()
            .map(|error: Error| Refused { reason: error.reason(), retry_after: error.retry_delay() });
        let is_refused = refused.is_some();
        {
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            if ended.len() == MOST_CALLS {
                return;
            }
            ended.push(Ended { begun, took: begun.elapsed(), refused });
        }
        if is_refused {
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_a_hundred_is_not_within_p99() {
        let call = |millis| Ended { begun: Instant::now(), took: Duration::from_millis(millis), refused: None };
        let calls: Vec<Ended> = (1..=200).map(call).collect();
        assert_eq!((p99(&calls), p99(&calls[..1]), p99(&[])), (calls[197].took, calls[0].took, Duration::ZERO));
    }
}
