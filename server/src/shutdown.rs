//! The signals that end the server: the first asks it to finish its work, the second ends it at once.

use std::io;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Resolves when the process is told to stop for the first and for the second time.
#[derive(Debug)]
pub struct Shutdown {
    /// Stop accepting work, finish what is in flight.
    pub asked: oneshot::Receiver<()>,
    /// Stop.
    pub insisted: oneshot::Receiver<()>,
}

impl Shutdown {
    /// Listens for SIGINT and SIGTERM from now on, instead of being killed by them.
    ///
    /// # Errors
    /// The system refuses to install a handler.
    pub fn listen() -> io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (ask, asked) = oneshot::channel();
        let (insist, insisted) = oneshot::channel();
        tokio::spawn(async move {
            for notice in [ask, insist] {
                either(&mut interrupt, &mut terminate).await;
                // A receiver that is gone no longer needs to know.
                let _ = notice.send(());
            }
        });
        Ok(Self { asked, insisted })
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
