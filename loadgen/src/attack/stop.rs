//! Ending a run early, from outside and in order: no operation is begun any more, those in flight are settled.

use tokio::sync::watch;

/// Asks a run to end. Dropping it without asking lets the run go on to its end.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// What a run listens to.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A pair that belongs together.
pub fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Asks the run to end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether the run has been asked to end.
    pub fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the run is asked to end; never when it is not.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
