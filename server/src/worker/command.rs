//! `zbl-server worker`: a process that makes deductions of the queue and serves nobody. Any number of them may run, beside servers
//! that work as well (`serve --worker`) or leave it to them.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::{
    app,
    config::Config,
    listeners::{self, BindError},
};

/// The options of `worker`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Arguments {}

const HELP: &str = "\
Takes deductions that DeductAsync accepted from RabbitMQ, makes each under its strategy, and acknowledges it when it is journaled or
refused for good. What is cut off is delivered again; its request id makes that a replay. It serves no calls, only health and
metrics: --http-addr has /healthz, /readyz (the database and RabbitMQ answer) and /metrics.

  zbl-server worker --amqp-url amqp://127.0.0.1 --database-url mysql://root@127.0.0.1/zbl --http-addr 127.0.0.1:8081
  zbl-server worker --prefetch 1000 --strategy batched
  zbl-server worker --queue-attempts 3        # lay aside sooner; see `zbl-server dlq`

What cannot be made for now (CONTENDED, OVERLOADED, Redis away) is tried again after 250 ms, 1 s, 4 s, 15 s, then every 60 s, up to
--queue-attempts times, and is then laid aside: `zbl-server dlq list`. While the database is away everything waits, and no attempt is
counted.

Ctrl-C stops it: no more is taken, what is in hand may end within --shutdown-grace, and the rest goes back to the queue.

Exit codes: 0 stopped as asked; 1 the database or the port cannot be opened; 2 usage, as without --amqp-url. A RabbitMQ that is away
is waited for.";

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to take deductions from.
    #[error("the worker needs a queue; name its RabbitMQ with --amqp-url, as in --amqp-url amqp://127.0.0.1")]
    NoQueue,
    /// The port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The service cannot be opened, or its port stopped working.
    #[error(transparent)]
    App(#[from] app::Error),
    /// The system cannot tell the port.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A worker that has its port.
pub struct Bound {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
}

impl Arguments {
    /// Has its port, before anything else is opened.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bind(self, config: Config) -> Result<Bound, Error> {
        if config.amqp_url.is_none() {
            return Err(Error::NoQueue);
        }
        let listener = listeners::bind(config.http_addr, "--http-addr").await?;
        let address = listener.local_addr()?;
        Ok(Bound { config, listener, address })
    }
}

impl Bound {
    /// Works until `shutdown`. `line` is given one line, when the database is open and RabbitMQ connected.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
        line: impl FnOnce(&str),
    ) -> Result<(), Error> {
        let Self { config, listener, address } = self;
        let (instance, name) = (config.instance.clone(), config.queue_name.clone());
        let (database, broker) = (config.database_url.clone(), config.amqp_url.clone());
        let ready = move || {
            let broker = broker.map_or_else(String::new, |url| url.to_string());
            line(&format!(
                "zbl-server worker {instance}: deductions of {name} at {broker}, accounts in {database}, health and metrics at \
                 http://{address}"
            ));
        };
        Ok(app::work(config, listener, shutdown, ready).await?)
    }
}
