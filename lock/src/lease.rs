//! A lock that is held: how long still, by our own clock, and its renewal. A lease ends when the clock says so, even if
//! the task that renews it never ran, and once ended it never comes back. Dropping one does no I/O.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};
use tracing::{Instrument, Span};

use crate::{
    Error, Lost,
    hold::Hold,
    lock::Inner,
    queue::Seat,
    quorum::{Sent, Taken},
};

/// A lease is renewed when a third of it is gone, so that one renewal may fail and still another be tried in time.
const RENEWALS: u32 = 3;
/// After a renewal that failed, another is tried when this share of the lease is gone.
const RETRIES: u32 = 20;

/// A lock that is held, until [`Lease::release`]. It is renewed in the background; where that fails it is lost, and its
/// holder must not write any more. Ask [`Lease::check`] just before a write, or race the work against [`Lease::lost`].
///
/// Dropping a lease stops its renewal, and the lock stays taken until it runs out by itself.
pub struct Lease {
    held: Arc<Held>,
    renewal: JoinHandle<()>,
}

/// A lock that has been taken for somebody, who may not have come for it yet.
pub(crate) struct Held {
    lock: Arc<Inner>,
    key: String,
    owner: String,
    hold: Arc<Hold>,
    token: Option<i64>,
    since: Instant,
    state: watch::Sender<State>,
    /// What to give back; once.
    sent: Mutex<Option<Sent>>,
    /// Our turn in this process. It passes on when the lease ends, however it does.
    seat: Mutex<Option<Arc<Seat>>>,
    span: Span,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Until(Instant),
    Lost(Lost),
    Released,
}

impl State {
    /// What it comes to now: the clock has the last word.
    fn now(self) -> Result<Instant, Lost> {
        match self {
            Self::Until(until) if Instant::now() < until => Ok(until),
            Self::Until(_) => Err(Lost::RanOut),
            Self::Lost(why) => Err(why),
            Self::Released => Err(Lost::NotOurs),
        }
    }

    /// What it comes to with a renewal, which may have come too late.
    fn prolonged(self, until: Instant) -> Result<Self, Lost> {
        self.now().map(|before| Self::Until(until.max(before)))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { key, owner, token, state, .. } = &*self.held;
        let mut fields = f.debug_struct("Lease");
        fields.field("key", key).field("owner", owner).field("token", token).field("state", &*state.borrow()).finish()
    }
}

impl Lease {
    /// Begins to renew what was taken.
    pub(crate) fn new(held: Arc<Held>) -> Self {
        let renewal = renew(Arc::clone(&held)).instrument(held.span.clone());
        Self { held, renewal: tokio::spawn(renewal) }
    }

    /// The key that is locked.
    pub fn key(&self) -> &str {
        &self.held.key
    }

    /// The fencing token: greater than that of every lease of this `fence` counter before. `None` for Redlock, whose
    /// nodes count each for itself.
    pub fn token(&self) -> Option<i64> {
        self.held.token
    }

    /// What is left of it; zero if it is lost.
    pub fn valid_for(&self) -> Duration {
        self.held.now().map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Whether it still holds, by this process's monotonic clock. It says nothing of the moment after.
    ///
    /// # Errors
    /// [`Lost`]: do not write.
    pub fn check(&self) -> Result<(), Lost> {
        self.held.now().map(drop)
    }

    /// Completes when the lease is lost, and not before.
    pub async fn lost(&self) -> Lost {
        self.held.lost().await
    }

    /// Lets the lease begin anew at once, beside the renewal in the background: for whoever needs all of it ahead.
    ///
    /// # Errors
    /// [`Error::Lost`]; [`Error::Down`] where the nodes could not be asked, and the lease is what it was.
    pub async fn extend(&self) -> Result<(), Error> {
        self.held.extend().await
    }

    /// Gives the lock back, on every node. It is done also if the caller goes away meanwhile.
    ///
    /// # Errors
    /// [`Error::Lost`] if it was no longer ours, which is news to whoever has just written; [`Error::Down`] if too few
    /// nodes answered, and it runs out by itself.
    pub async fn release(self) -> Result<(), Error> {
        self.renewal.abort();
        let held = Arc::clone(&self.held);
        let done = tokio::spawn(async move { held.release().await }.in_current_span());
        done.await.unwrap_or_else(|_| Err(Error::Down("the runtime is shutting down; the lock runs out".to_owned())))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        self.held.abandon();
    }
}

impl Held {
    pub(crate) fn new(lock: Arc<Inner>, key: String, taken: Taken, seat: Arc<Seat>) -> Self {
        let hold = taken.sent.hold();
        let span = tracing::debug_span!("lock_hold", lock = lock.settings.name, key, token = taken.token);
        lock.queue.saw(&key, &hold.owner, Some(taken.until));
        Self {
            lock,
            key,
            owner: hold.owner.clone(),
            hold,
            token: taken.token,
            since: Instant::now(),
            state: watch::Sender::new(State::Until(taken.until)),
            sent: Mutex::new(Some(taken.sent)),
            seat: Mutex::new(Some(seat)),
            span,
        }
    }

    /// Until when it holds, if it does.
    fn now(&self) -> Result<Instant, Lost> {
        // The clock is read while the state is borrowed: a renewal cannot come in between the two.
        self.state.borrow().now()
    }

    /// Gives the lock back, and then the turn.
    pub(crate) async fn release(&self) -> Result<(), Error> {
        let lost = self.now().err();
        if let Some(why) = lost {
            self.lose(why);
        }
        self.state.send_replace(State::Released);
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = match sent {
            Some(sent) => self.lock.quorum.release(sent).await,
            None => Ok(()),
        };
        if result.is_ok() {
            self.lock.queue.forget(&self.key);
        }
        self.leave();
        // A lease that had ended by our own clock protected nothing, even if Redis kept it for the moment longer.
        lost.map_or(result, |why| Err(why.into()))
    }

    /// Leaves the lock to run out.
    fn abandon(&self) {
        let held = self.state.send_if_modified(|state| {
            let held = matches!(state, State::Until(_));
            *state = if held { State::Released } else { *state };
            held
        });
        if held {
            tracing::debug!(parent: &self.span, "dropped without a release; the lock runs out by itself");
        }
        self.leave();
    }

    /// Passes the turn on; the first time this is called the lock's time ends.
    fn leave(&self) {
        let seat = self.seat.lock().unwrap_or_else(PoisonError::into_inner).take();
        if seat.is_some() {
            self.lock.counters.held(self.since.elapsed());
        }
    }

    async fn extend(&self) -> Result<(), Error> {
        if let Err(why) = self.now() {
            self.lose(why);
            return Err(why.into());
        }
        match self.lock.quorum.extend(&self.hold).await {
            Ok(until) => self.prolong(until).map_err(Error::Lost),
            Err(Error::Lost(why)) => {
                self.lose(why);
                Err(why.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Notes a renewal, unless it came too late: whoever has been told that the lease is lost must not see it come back.
    fn prolong(&self, until: Instant) -> Result<(), Lost> {
        let mut result = Ok(());
        self.state.send_if_modified(|state| {
            let prolonged = state.prolonged(until);
            result = prolonged.map(|prolonged| *state = prolonged);
            result.is_ok()
        });
        match result {
            Ok(()) => self.lock.queue.saw(&self.key, &self.owner, Some(until)),
            Err(why) => self.lose(why),
        }
        result
    }

    fn lose(&self, why: Lost) {
        let news = self.state.send_if_modified(|state| {
            let news = matches!(state, State::Until(_));
            *state = if news { State::Lost(why) } else { *state };
            news
        });
        if news {
            self.span.in_scope(|| self.lock.counters.lost(&self.key, why));
            self.leave();
        }
    }

    async fn lost(&self) -> Lost {
        let mut changes = self.state.subscribe();
        loop {
            let until = match changes.borrow_and_update().now() {
                Ok(until) => until,
                Err(why) => return why,
            };
            // The clock is looked at here as well: the task that renews may not get to run.
            let _ = time::timeout_at(until, changes.changed()).await;
        }
    }
}

/// Renews a lease until it is lost, or this task is stopped.
async fn renew(held: Arc<Held>) {
    let lease = held.lock.settings.lease;
    let mut next = Instant::now() + lease / RENEWALS;
    loop {
        let until = match held.now() {
            Ok(until) => until,
            Err(why) => return held.lose(why),
        };
        time::sleep_until(next.min(until)).await;
        let begun = Instant::now();
        // Beyond its end nobody needs the answer.
        match time::timeout_at(until, held.extend()).await {
            Ok(Ok(())) => next = begun + lease / RENEWALS,
            Ok(Err(Error::Lost(_))) => return,
            Ok(Err(error)) => {
                tracing::debug!(key = held.key, "the lease was not renewed, trying again: {error}");
                next = Instant::now() + lease / RETRIES;
            }
            Err(_) => return held.lose(Lost::RanOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_never_comes_back() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        let ended = [(State::Until(now), Lost::RanOut), (State::Lost(Lost::NotOurs), Lost::NotOurs)];
        for (state, why) in ended {
            assert_eq!(state.now(), Err(why));
            assert!(matches!(state.prolonged(later), Err(lost) if lost == why), "{state:?}");
        }
        // Nor does a renewal that was overtaken by another shorten it.
        let live = State::Until(later).prolonged(later - Duration::from_secs(1)).unwrap();
        assert!(matches!(live, State::Until(until) if until == later));
    }
}
