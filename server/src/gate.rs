//! Gates: the lab holds an operation before a phase and lets it go on when the schedule says so. The operation runs the
//! same code as in production; without gates a phase costs one look at an empty option.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use uuid::Uuid;

use crate::timeline::Phase;

/// Where operations are to be held.
#[derive(Debug, Default)]
pub struct Gates {
    held: Mutex<HashMap<(Uuid, Phase), Arc<Inner>>>,
}

#[derive(Debug)]
struct Inner {
    stage: watch::Sender<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Awaited,
    Arrived,
    Open,
}

/// One gate, for one operation before one phase. It opens when released or dropped, and stays open.
#[derive(Debug)]
pub struct Gate(Arc<Inner>);

impl Gates {
    /// Puts a gate before a phase of an operation that has not begun it yet.
    pub fn hold(&self, request_id: Uuid, phase: Phase) -> Gate {
        let inner = Arc::new(Inner { stage: watch::Sender::new(Stage::Awaited) });
        self.lock().insert((request_id, phase), Arc::clone(&inner));
        Gate(inner)
    }

    /// Called by the operation: returns when its gate, if there is one, is open. A gate is passed once; later attempts
    /// of the same operation find it gone.
    pub async fn pass(&self, request_id: Uuid, phase: Phase) {
        let Some(gate) = self.lock().remove(&(request_id, phase)) else { return };
        let mut stage = gate.stage.subscribe();
        gate.stage.send_if_modified(|stage| {
            let awaited = *stage == Stage::Awaited;
            if awaited {
                *stage = Stage::Arrived;
            }
            awaited
        });
        // The sender lives in `gate`, so waiting cannot fail.
        let _ = stage.wait_for(|stage| *stage == Stage::Open).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Uuid, Phase), Arc<Inner>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Returns when the operation stands before the gate.
    pub async fn arrived(&self) {
        let _ = self.0.stage.subscribe().wait_for(|stage| *stage != Stage::Awaited).await;
    }

    /// Lets the operation go on.
    pub fn release(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.stage.send_replace(Stage::Open);
    }
}
