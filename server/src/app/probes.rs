//! What the HTTP port is asked by machines: whether the process can do its work, and what it has counted.

use std::sync::Arc;

use tokio::sync::watch;

use super::gauges::read;
use crate::{
    ledger::Ledger,
    limit::Limits,
    queue::{LinkState, Queue},
    worker::Hands,
};

/// Whether the process can do its work.
#[derive(Clone)]
pub(super) struct Readiness {
    pub(super) ledger: Arc<Ledger>,
    /// The queue, where nothing can be done without it.
    pub(super) queue: Option<Queue>,
    pub(super) draining: watch::Receiver<bool>,
}

impl Readiness {
    /// # Errors
    /// Why it cannot.
    pub(super) async fn check(self) -> Result<(), String> {
        if *self.draining.borrow() {
            return Err("the server is about to stop".to_owned());
        }
        if let Some(LinkState::Down { reason }) = self.queue.map(|queue| queue.state()) {
            tracing::warn!("not ready: RabbitMQ: {reason}");
            return Err("RabbitMQ does not answer; the server's log says why".to_owned());
        }
        self.ledger.bench().store.ping().await.map_err(|error| {
            tracing::warn!("not ready: {error}");
            "the database does not answer; the server's log says why".to_owned()
        })
    }
}

/// What reads the gauges before they are told.
pub(super) fn gauges(
    ledger: &Arc<Ledger>,
    limits: &Arc<Limits>,
    hands: Option<Hands>,
) -> impl Fn() + Clone + Send + Sync + 'static {
    let (ledger, limits) = (Arc::clone(ledger), Arc::clone(limits));
    move || read(&ledger, &limits, hands.as_ref())
}
