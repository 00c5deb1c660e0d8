//! Waiting for the database: one look at it for all the deductions that are held, so that an outage is met by a ping now and then,
//! however many wait. It refuses to know what they wait for.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use crate::{queue::Pause, store::Store, waiting::Waiting};

/// How long a ping may take.
const PING: Duration = Duration::from_secs(5);

/// Whoever comes back within this after all were let go has met the same outage, or a part of it that a ping does not see: the
/// pauses go on growing then. Longer than the longest pause.
const RELAPSE: Duration = Duration::from_secs(5);

/// The place where deductions wait for the database.
pub(super) struct Hold {
    store: Arc<dyn Store>,
    held: AtomicUsize,
    asked: Notify,
    let_go: watch::Sender<()>,
}

impl Hold {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, held: AtomicUsize::new(0), asked: Notify::new(), let_go: watch::Sender::new(()) }
    }

    /// How many wait.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Waits until the database answers, as far as [`Self::look`] is polled.
    pub(super) async fn until_it_answers(&self) {
        let _held = Waiting::begin(&self.held);
        // Before it is asked for: what is let go from here on is meant.
        let mut let_go = self.let_go.subscribe();
        self.asked.notify_one();
        if let_go.changed().await.is_err() {
            pending::<()>().await;
        }
    }

    /// Looks whether the database answers whenever somebody waits for it, for as long as it is polled.
    pub(super) async fn look(&self) {
        let mut pause = Pause::new();
        let mut last = None::<Instant>;
        loop {
            self.asked.notified().await;
            if last.is_none_or(|last| last.elapsed() > RELAPSE) {
                pause = Pause::new();
            }
            while self.let_go.receiver_count() > 0 {
                sleep(pause.next()).await;
                if matches!(timeout(PING, self.store.ping()).await, Ok(Ok(()))) {
                    last = Some(Instant::now());
                    self.let_go.send_replace(());
                    break;
                }
            }
        }
    }
}
