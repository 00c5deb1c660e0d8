//! SIGHUP: the certificates and the log filter are read again, without a pause. What is wrong with the one leaves the other
//! alone, and what was before in place.

use std::{env, future, io, path::Path};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{cli::Invocation, config, logging::Filter, tls::Certificates};

/// The signal. From its making on it does not end the process.
#[derive(Debug)]
pub struct Hangup(Signal);

impl Hangup {
    /// Listens for it.
    ///
    /// # Errors
    /// The system refuses to install a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Reads again whenever it comes, for as long as it is polled.
    pub async fn obey(mut self, certificates: Option<Certificates>, filter: Filter) {
        while self.0.recv().await.is_some() {
            if let Some(certificates) = &certificates {
                let certificates = certificates.clone();
                // Files can be slow, and this task has ports to serve.
                let reloaded = tokio::task::spawn_blocking(move || certificates.reload()).await;
                match reloaded
                    .map_err(|error| error.to_string())
                    .and_then(|done| done.map_err(|error| error.to_string()))
                {
                    Ok(()) => tracing::info!("SIGHUP: new connections get the certificates that are there now"),
                    Err(error) => tracing::error!("SIGHUP: the certificates stay as they were: {error}"),
                }
            }
            match read(&filter) {
                Ok(now) => tracing::info!("SIGHUP: the log filter is `{now}`"),
                Err(error) => tracing::error!("SIGHUP: the log filter stays as it was: {error}"),
            }
        }
        future::pending::<()>().await;
    }
}

/// Reads the settings as at the start, from the same flags and environment and the file as it is now.
fn read(filter: &Filter) -> Result<String, Box<dyn std::error::Error>> {
    let log = Invocation::parse(env::args_os(), &config::process_environment, Path::new(""))?.config.log;
    filter.replace(&log)?;
    Ok(log)
}
