//! Quiet: while the lab plays schedules, what this server does of its own in the background rests. What waits for a lock is
//! counted for the whole service, and the database has one writer at a time at places: a write of the background would be taken
//! for a step of the schedule. It refuses to hold up callers: those are told apart by [`crate::explore::Stage::others`].

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock, RwLockReadGuard},
    time::timeout,
};

use crate::error::Error;

/// How long a tick under way may take to end: some hundred rows, and a wait for a lock or two.
const TICK_MOST: Duration = Duration::from_secs(5);

/// Who may work now: any number of ticks, or one lab. Whoever asks first comes first, so neither starves the other.
#[derive(Clone, Debug, Default)]
pub struct Quiet(Arc<RwLock<()>>);

/// Nothing goes on in the background for as long as this lives.
#[derive(Debug)]
pub struct Kept {
    _alone: OwnedRwLockWriteGuard<()>,
}

impl Quiet {
    /// Returns when a tick may begin; it lasts until what is returned is dropped.
    pub async fn tick(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().await
    }

    /// Returns when no tick is under way any more.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where one does not end.
    pub async fn keep(&self) -> Result<Kept, Error> {
        let late = |_| Error::Overloaded(format!("what goes on in the background did not rest within {TICK_MOST:?}"));
        let alone = timeout(TICK_MOST, Arc::clone(&self.0).write_owned()).await.map_err(late)?;
        Ok(Kept { _alone: alone })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ticks_and_the_lab_take_turns() {
        let quiet = Quiet::default();
        let (one, two) = (quiet.tick().await, quiet.tick().await);
        let refused = quiet.keep().await.unwrap_err();
        assert!(matches!(refused, Error::Overloaded(_)), "{refused}");
        drop((one, two));
        let kept = quiet.keep().await.unwrap();
        assert!(quiet.tick().now_or_never().is_none(), "ticks rest");
        drop(kept);
        assert!(quiet.tick().now_or_never().is_some());
    }
}
