//! What goes on beside the calls, where this process is to do it: each for as long as it is polled.

use std::{future::pending, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{Error, stopped};
use crate::{
    depth::{self, Depth},
    outbox::Relay,
    projector::{Progress, Projector},
    quiet::Quiet,
    reconcile::{Finding, Reconciler},
    worker::{Hands, Worker},
};

/// What goes on in the background, as far as it can be watched.
pub(super) struct Background {
    pub(super) finding: Option<watch::Receiver<Finding>>,
    pub(super) progress: Option<watch::Receiver<Progress>>,
    pub(super) depth: Option<watch::Receiver<Depth>>,
    pub(super) hands: Option<Hands>,
}

/// Projects.
pub(super) async fn project(projector: Option<Projector>, every: Duration, quiet: Quiet) {
    match projector {
        Some(projector) => projector.run(every, quiet).await,
        None => pending().await,
    }
}

/// Relays.
pub(super) async fn relay(relay: Option<Relay>, quiet: Quiet) {
    match relay {
        Some(relay) => relay.run(quiet).await,
        None => pending().await,
    }
}

/// Reconciles.
pub(super) async fn reconcile(reconciler: Option<Reconciler>, every: Duration, quiet: Quiet) {
    match reconciler {
        Some(reconciler) => reconciler.run(every, quiet).await,
        None => pending().await,
    }
}

/// Looks how long the queue is.
pub(super) async fn look(gauge: Option<depth::Gauge>) {
    match gauge {
        Some(gauge) => gauge.run().await,
        None => pending().await,
    }
}

/// Makes deductions of the queue until it is told to stop, and has ended what was in hand.
///
/// # Errors
/// None: it is waited for with what may fail.
pub(super) async fn work(worker: Option<Worker>, stopping: watch::Receiver<bool>) -> Result<(), Error> {
    if let Some(worker) = worker {
        worker.run(stopping).await;
    }
    Ok(())
}

/// Ends when the time to stop is over.
pub(super) async fn overdue(mut stopping: watch::Receiver<bool>, grace: Duration) {
    stopped(&mut stopping).await;
    sleep(grace).await;
}
