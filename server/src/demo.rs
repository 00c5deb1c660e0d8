//! `zbl-server demo`: break, show, cure. It runs the server in this process on a throw-away database, attacks it over
//! its own port as any client would, and judges each strategy by what it promises. It knows no strategy by name.

mod story;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use zbl_client::{AddressError, Client, Credentials, CredentialsError};
use zbl_loadgen::{
    attack::{self, Attack, AttackError, Manner, Patience, Progress, Stop},
    expectation::{Conclusion, Expectation},
    pacer::Pacer,
    report::{self, Comparison, Report},
    workload::Workload,
};

use crate::{
    account::Money,
    app::{self, App},
    banner::banner,
    config::{Config, DatabaseUrl},
    healthcheck::reachable,
    listeners::{BindError, Listeners},
    shutdown::Shutdown,
    strategy::{Guarantee, Row},
    timeline::Timeline,
};

/// A hundred workers that each take 10.00 ten times from 1000.00: ten times what there is.
const WORKERS: u32 = 100;
const DEDUCTIONS: u32 = 10;
const AMOUNT: Money = Money::from_minor(1_000);
const OPENING: Money = Money::from_minor(100_000);

/// Connections the workers share. One would make its own flow control the bottleneck.
const CONNECTIONS: usize = 4;

/// What follows the demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Serve on, so that the reader can try things, until Ctrl-C.
    Serve,
    /// End.
    Exit,
}

/// Where the demonstration's accounts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In a temporary SQLite file, removed at the end.
    Nothing,
    /// In the database the configuration names.
    Configured,
}

/// What to demonstrate, and where the result goes.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The server's configuration.
    pub config: Config,
    /// Which database.
    pub keep: Keep,
    /// Where to write `{"runs": […]}`.
    pub json: Option<PathBuf>,
    /// What follows.
    pub afterwards: Afterwards,
}

/// Why there was no demonstration, or not the one that was promised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server could not be started.
    #[error(transparent)]
    App(#[from] app::Error),
    /// No port to serve on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The server's own address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The server's own token cannot be shown.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The server would ask its own demonstration for certificates.
    #[error("the demonstration calls its server as any client would, and has no certificates: leave --tls-cert out")]
    Tls,
    /// An attack could not be made.
    #[error(transparent)]
    Attack(#[from] AttackError),
    /// Output or the temporary directory failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The result could not be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A strategy did not do what its guarantee says.
    #[error("not as promised: {0}")]
    NotAsPromised(String),
    /// Ctrl-C.
    #[error("interrupted before the demonstration was over")]
    Interrupted,
}

impl Demo {
    /// Runs the demonstration, printing to standard output.
    ///
    /// # Errors
    /// [`Error`]; [`Error::NotAsPromised`] when a strategy broke its guarantee or the unsafe one was not caught.
    pub async fn run(mut self) -> Result<(), Error> {
        if self.config.tls.is_some() {
            return Err(Error::Tls);
        }
        // First: a result that cannot be written should not be found out after the attack.
        let path = self.json.take();
        let json = path.as_deref().map(create).transpose()?;
        let scratch = self.scratch()?;
        let listeners = self.listen().await?;
        let addresses = listeners.addresses()?;
        let app = App::open(self.config.clone()).await?;
        let strategies = app.ledger().strategies().filter(|(_, lacks)| lacks.is_none()).map(|(row, _)| row).collect();
        let (store, timeline) = (app.store_name(), Arc::clone(&app.ledger().bench().timeline));
        let (stop_server, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(app.serve(listeners, async { _ = stopped.await }));

        let Shutdown { asked, insisted } = Shutdown::listen()?;
        let (stopper, stop) = attack::stop();
        let interrupted = tokio::spawn(async move {
            let _ = asked.await;
            stopper.stop();
        });
        let stage = Stage {
            clients: self.clients(addresses.grpc)?,
            strategies,
            timeline,
            stop,
            compute_delay: self.config.compute_delay,
            page: format!("http://{}/", reachable(addresses.http)),
        };
        let shown = tokio::select! {
            shown = stage.perform(store) => shown,
            Ok(()) = insisted => Err(Error::Interrupted),
        };
        let outcome = match shown {
            Ok(runs) => conclude_all(&runs, json),
            Err(error) => Err(error),
        };
        if self.afterwards == Afterwards::Serve && !matches!(outcome, Err(Error::Interrupted)) {
            let banner = banner(&self.config, store, addresses);
            write!(io::stdout().lock(), "\n{}\n\n{banner}", story::still_serving(self.keep))?;
            let _ = interrupted.await;
        }
        let _ = stop_server.send(());
        if let Ok(served) = server.await {
            served?;
        }
        drop(scratch);
        outcome
    }

    /// Points the configuration at a temporary database, unless one was asked for.
    fn scratch(&mut self) -> io::Result<Option<TempDir>> {
        if self.keep == Keep::Configured {
            return Ok(None);
        }
        let directory = tempfile::Builder::new().prefix("zbl-demo-").tempdir()?;
        self.config.database_url = DatabaseUrl::Sqlite(directory.path().join("zbl.db"));
        Ok(Some(directory))
    }

    /// Clients of its own server, with the token that it asks for.
    fn clients(&self, address: SocketAddr) -> Result<Vec<Client>, Error> {
        let mut credentials = Credentials::default();
        if let Some(token) = &self.config.auth_token {
            credentials = credentials.with_token(token.expose())?;
        }
        let client = |_| Client::connect_lazy_with(&address.to_string(), &credentials);
        Ok((0..CONNECTIONS).map(client).collect::<Result<_, _>>()?)
    }

    /// The configured ports, or free ones where those are taken: a demonstration should not fail for that.
    async fn listen(&mut self) -> Result<Listeners, BindError> {
        if let Ok(listeners) = Listeners::bind(&self.config).await {
            return Ok(listeners);
        }
        self.config.grpc_addr.set_port(0);
        self.config.http_addr.set_port(0);
        Listeners::bind(&self.config).await
    }
}

/// The file for the results, with its path for messages.
type Json<'a> = (&'a Path, fs::File);

fn create(path: &Path) -> Result<Json<'_>, Error> {
    let failed = |source| Error::Json { path: path.to_owned(), source };
    Ok((path, fs::File::create(path).map_err(failed)?))
}

/// Writes the results and judges them.
fn conclude_all(runs: &[Report], json: Option<Json<'_>>) -> Result<(), Error> {
    if let Some((path, file)) = json {
        let failed = |error: serde_json::Error| Error::Json { path: path.to_owned(), source: error.into() };
        serde_json::to_writer_pretty(file, &Comparison { runs }).map_err(failed)?;
    }
    let surprises = story::surprises(runs);
    if surprises.is_empty() { Ok(()) } else { Err(Error::NotAsPromised(surprises.join("; "))) }
}

/// Everything the attacks need.
struct Stage {
    clients: Vec<Client>,
    /// Those that have what they need.
    strategies: Vec<&'static Row>,
    timeline: Arc<Timeline>,
    stop: Stop,
    compute_delay: std::time::Duration,
    /// Where it can be watched.
    page: String,
}

impl Stage {
    async fn perform(&self, store: &str) -> Result<Vec<Report>, Error> {
        write!(io::stdout().lock(), "{}", story::opening(store, self.compute_delay, &self.page))?;
        let mut runs: Vec<Report> = Vec::new();
        for row in &self.strategies {
            let report = self.attack(row.name).await?;
            if row.guarantee == Guarantee::LosesUpdates {
                let picture = story::picture(&self.timeline, &report);
                write!(io::stdout().lock(), "{}\n{picture}{}", report::text(&report), story::turn())?;
            } else {
                write!(io::stdout().lock(), "{}", story::line(&report))?;
            }
            runs.push(report);
        }
        write!(io::stdout().lock(), "\n{}\n{}", report::table(&runs), story::closing(&runs))?;
        Ok(runs)
    }

    async fn attack(&self, strategy: &str) -> Result<Report, Error> {
        let workload = Workload {
            workers: WORKERS,
            deductions: DEDUCTIONS,
            amount: AMOUNT,
            opening: OPENING,
            strategy: strategy.to_owned(),
            user_id: None,
            seed: 1,
        };
        let attack = Attack {
            clients: self.clients.clone(),
            workload,
            pacer: Pacer::ClosedLoop,
            patience: Patience::default(),
            manner: Manner::Deduct,
        };
        let (progress, seen) = watch::channel(Progress::default());
        let shown = tokio::spawn(show_progress(strategy.to_owned(), seen));
        let report = attack::run(&attack, &progress, &self.stop).await;
        drop(progress);
        let _ = shown.await;
        let report = report?;
        if report.interrupted { Err(Error::Interrupted) } else { Ok(report) }
    }
}

/// A line that counts, on a terminal only; it is wiped when the attack is over.
async fn show_progress(strategy: String, mut progress: watch::Receiver<Progress>) {
    if !io::stderr().is_terminal() {
        return;
    }
    while progress.changed().await.is_ok() {
        let Progress { done, total, .. } = *progress.borrow_and_update();
        let _ = write!(io::stderr(), "\r  attacking {strategy}: {done} of {total}");
        // Often enough to be seen moving, seldom enough not to slow what it shows.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let _ = write!(io::stderr(), "\r\x1b[K");
}

/// Whether a run did what its strategy promises.
fn conclude(report: &Report) -> Conclusion {
    Expectation::of(report.guarantee, 1).conclude(report.verdict)
}
