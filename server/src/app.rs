//! The composition root: the one place that knows every part. It opens the store, builds the ledger over it, and serves
//! both ports until told to stop.

mod background;
mod gauges;
mod parts;
mod ports;
mod probes;
mod work;

use std::{future::Future, sync::Arc, time::Instant};

use axum::Router;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tonic::{
    server::NamedService,
    service::{Routes, RoutesBuilder},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use uuid::Uuid;
use zbl_proto::v1::{
    account_service_server::AccountServiceServer, lab_service_server::LabServiceServer,
    queue_service_server::QueueServiceServer, report_service_server::ReportServiceServer,
};
use zbl_trace::Traces;

use self::{
    background::{Background, look, overdue, project, reconcile, relay, work as make_deductions},
    parts::{ReadSide, Service},
    probes::{Readiness, gauges},
};
pub use self::{
    parts::{ledger, ledger_and_outbox, open_store, outbox_table, read_side},
    work::work,
};
use crate::{
    access::Access,
    account::{Money, Refusal},
    cache,
    config::Config,
    dead_letters::DeadLetters,
    depth, error,
    gate::Gates,
    healthcheck::reachable,
    http, layer,
    ledger::Ledger,
    limit::Limits,
    listeners::{Addresses, Listeners},
    outbox::{self, Outbox, Relay},
    port::{self, BackDoor, Connection},
    projector::{Patience, Projector},
    quiet::Quiet,
    reconcile::Reconciler,
    rpc::{self, AccountRpc, Handlers, LabRpc, MESSAGE_MOST, Premises, QueueRpc, ReportRpc, Watch},
    store, strategy,
    timeline::Timeline,
    tls::{self, Certificates, Protocols},
    worker::{Hands, Worker},
};

/// The account that is there from the start in the lab.
const DEMO_ACCOUNT: i64 = 1;

/// Its opening balance: 1000.00.
const DEMO_BALANCE: Money = Money::from_minor(100_000);

/// The services of the contract.
const SERVICES: [&str; 4] = [
    <AccountServiceServer<AccountRpc> as NamedService>::NAME,
    <ReportServiceServer<ReportRpc> as NamedService>::NAME,
    <QueueServiceServer<QueueRpc> as NamedService>::NAME,
    <LabServiceServer<LabRpc> as NamedService>::NAME,
];

/// The application, ready to serve.
pub struct App {
    config: Config,
    ledger: Arc<Ledger>,
    read_side: ReadSide,
    outbox: Arc<Outbox>,
    certificates: Option<Certificates>,
    traces: Traces,
    started: Instant,
    /// What goes on beside the calls rests by it.
    quiet: Quiet,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The database cannot be opened.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// The cache cannot be set up.
    #[error("{0}")]
    Cache(#[from] cache::Error),
    /// The configured strategy is not in the registry.
    #[error(transparent)]
    Strategy(#[from] strategy::Unknown),
    /// A lock in Redis cannot be set up as configured.
    #[error("{0}; see --redis-url, --redlock-urls and --lease")]
    Lock(#[from] zbl_lock::Error),
    /// There is no queue to make deductions of.
    #[error("--worker needs a queue; name its RabbitMQ with --amqp-url, as in --amqp-url amqp://127.0.0.1")]
    NoQueue,
    /// The queue cannot be what the configuration says.
    #[error("{0}; see --amqp-url and --queue-name")]
    Queue(String),
    /// Spans cannot be sent as configured.
    #[error("{0}; see --otlp-endpoint")]
    Traces(#[from] zbl_trace::StartError),
    /// The demo account cannot be opened.
    #[error("cannot open account {DEMO_ACCOUNT}: {0}")]
    DemoAccount(#[source] error::Error),
    /// A port stopped working.
    #[error("cannot serve: {0}")]
    Serve(String),
}

impl App {
    /// Opens the store, migrates it and builds the service over it.
    ///
    /// # Errors
    /// [`Error`], before anything is served.
    pub async fn open(config: Config) -> Result<Self, Error> {
        // Only the lab holds operations.
        let addresses = [config.grpc_addr.ip(), config.http_addr.ip()];
        let gates = Access::of(&addresses, &config).has_lab().then(Arc::default);
        Self::with_gates(config, gates).await
    }

    /// The same with the lab's gates in place.
    ///
    /// # Errors
    /// [`Error`], before anything is served.
    pub async fn with_gates(config: Config, gates: Option<Arc<Gates>>) -> Result<Self, Error> {
        if config.worker && config.amqp_url.is_none() {
            return Err(Error::NoQueue);
        }
        // First, because files are quicker looked at than a database.
        let certificates = config.tls.clone().map(Certificates::load).transpose()?;
        // Before anything that counts.
        http::begin_to_count();
        let timeline = Arc::new(Timeline::new(config.timeline_capacity));
        let Service { ledger, read_side, outbox } = parts::service(&config, timeline, gates).await?;
        let traces = parts::traces(&config)?;
        let app = Self {
            traces,
            config,
            ledger,
            read_side,
            outbox,
            certificates,
            started: Instant::now(),
            quiet: Quiet::default(),
        };
        if app.config.demo_account {
            app.open_demo_account().await?;
        }
        Ok(app)
    }

    /// The service, for those who call it without a network.
    pub const fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The outbox, for those who call it without a network.
    pub const fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The certificates in use, to be read again.
    pub const fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// What accounts are stored in.
    pub fn store_name(&self) -> &'static str {
        self.ledger.bench().store.name()
    }

    async fn open_demo_account(&self) -> Result<(), Error> {
        match self.ledger.open(DEMO_ACCOUNT, DEMO_BALANCE, Uuid::new_v4()).await {
            Ok(_) | Err(error::Error::Refused(Refusal::AccountExists { .. })) => Ok(()),
            Err(error) => Err(Error::DemoAccount(error)),
        }
    }

    /// Serves both ports until `shutdown`, then lets calls in flight end for as long as the configuration grants.
    ///
    /// # Errors
    /// [`Error::Serve`].
    pub async fn serve(
        self,
        listeners: Listeners,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        let (drain, draining) = watch::channel(false);
        let (stop, stopping) = watch::channel(false);
        let (mut health, health_service) = tonic_health::server::health_reporter();
        tell(&health, ServingStatus::Serving).await;
        let bound = listeners.addresses().map_err(failed)?;
        let (grpc, back_door) = self.port("grpc", listeners.grpc, Protocols::Grpc, &stopping);
        let (http, _) = self.port("http", listeners.http, Protocols::Http, &stopping);
        let reconciler = self.reconciler();
        let projector = self.projector();
        let worker = self.config.worker.then(|| self.worker()).transpose()?;
        let gauge = depth::Gauge::of(&self.outbox);
        let hands = worker.as_ref().map(Worker::hands);
        let background = Background {
            finding: reconciler.as_ref().map(Reconciler::finding),
            progress: projector.as_ref().map(Projector::progress),
            depth: gauge.as_ref().map(depth::Gauge::seen),
            hands: hands.clone(),
        };
        let handlers = self.handlers(bound, back_door, background, &stopping);
        let mut routes = routes(&handlers)?;
        routes.add_service(health_service);
        let layers = layer::Settings {
            max_deadline: handlers.max_deadline,
            limits: Arc::clone(&handlers.limits),
            access: handlers.access.clone(),
            tracer: handlers.tracer.clone(),
        };
        let routes = routes.routes();
        let web = ports::grpc_web(layers.clone(), routes.clone(), &SERVICES);
        let grpc = ports::grpc(grpc, layers, routes, stopping.clone());
        let site = http::site(bound.http.ip(), rpc::facade(handlers.clone()).merge(web));
        let http = self.serve_http(http, handlers, site, hands, draining, stopping.clone());
        let work = make_deductions(worker, stopping.clone());
        let delay = self.config.drain_delay;
        tracing::info!(grpc = %bound.grpc, http = %bound.http, "serving");
        tokio::spawn(async move {
            shutdown.await;
            tracing::info!(?delay, "asked to stop: health says so, and calls are served for a while yet");
            // Said first, while everybody is still served: whoever balances load needs a while to hear of it.
            tell(&health, ServingStatus::NotServing).await;
            drain.send_replace(true);
            tokio::time::sleep(delay).await;
            // Streams end first: the ports wait for them. Those of health end when their service is forgotten.
            tracing::info!("stopping: no more connections are taken, and streams end");
            stop.send_replace(true);
            for service in health_of() {
                health.clear_service_status(service).await;
            }
        });
        let grace = self.config.shutdown_grace;
        let served = tokio::select! {
            served = async {
                tokio::try_join!(grpc, http, work)?;
                // Changes whose callers have gone still run to their end.
                self.ledger.drained().await;
                self.ledger.cache().pay_debts().await;
                Ok(())
            } => served,
            () = http::count() => Ok(()),
            () = reconcile(reconciler, self.config.reconcile_every, self.quiet.clone()) => Ok(()),
            () = project(projector, self.config.project_every, self.quiet.clone()) => Ok(()),
            () = look(gauge) => Ok(()),
            () = relay(self.relay(), self.quiet.clone()) => Ok(()),
            () = overdue(stopping, grace) => {
                tracing::warn!(?grace, "calls were still in flight when the time to stop was over");
                Ok(())
            }
        };
        self.traces.stop().await;
        tracing::info!("stopped");
        served
    }

    /// What compares journal and balances, where that is wanted.
    fn reconciler(&self) -> Option<Reconciler> {
        let is_wanted = !self.config.reconcile_every.is_zero();
        is_wanted.then(|| Reconciler::new(Arc::clone(&self.ledger.bench().store)))
    }

    /// What sends what was recorded and not sent, where there is a queue.
    fn relay(&self) -> Option<Relay> {
        Relay::of(&self.outbox, outbox::Patience::default())
    }

    /// What keeps the reports, where this server is to.
    fn projector(&self) -> Option<Projector> {
        let is_wanted = !self.config.project_every.is_zero();
        is_wanted.then(|| Projector::new(Arc::clone(&self.read_side.1), Patience::default()))
    }

    /// What makes deductions of the queue here.
    fn worker(&self) -> Result<Worker, Error> {
        parts::worker(&self.config, &self.ledger, &self.outbox, self.traces.tracer())
    }

    /// Opens a port.
    fn port(
        &self,
        name: &'static str,
        listener: TcpListener,
        protocols: Protocols,
        stopping: &watch::Receiver<bool>,
    ) -> (mpsc::Receiver<Connection>, BackDoor) {
        let settings = port::Settings {
            name,
            most: self.config.max_connections,
            patience: self.config.handshake_timeout,
            tls: self.certificates.clone().map(|certificates| (certificates, protocols)),
            stopping: stopping.clone(),
        };
        port::open(listener, settings)
    }

    /// The handlers that both ports share.
    fn handlers(
        &self,
        bound: Addresses,
        back_door: BackDoor,
        background: Background,
        stopping: &watch::Receiver<bool>,
    ) -> Handlers {
        let timeline = Arc::clone(&self.ledger.bench().timeline);
        let limits = Arc::new(Limits::new(parts::bounds(&self.config)));
        let changes = Arc::<rpc::Changes>::default();
        let watch = Watch {
            limits: Arc::clone(&limits),
            timeline: Arc::clone(&timeline),
            instance: self.config.instance.clone(),
            heartbeat: self.config.heartbeat,
            stopping: stopping.clone(),
        };
        let desk = rpc::Desk {
            reports: Arc::clone(&self.read_side.0),
            limits: Arc::clone(&limits),
            heartbeat: self.config.heartbeat,
            stopping: stopping.clone(),
        };
        let access = Access::of(&[bound.grpc.ip(), bound.http.ip()], &self.config);
        // With TLS the port would ask its own lab for a certificate.
        let way = match self.certificates {
            Some(_) => rpc::OwnWay::BackDoor(back_door),
            None => rpc::OwnWay::Address(reachable(bound.grpc)),
        };
        let premises = Premises {
            ledger: Arc::clone(&self.ledger),
            instance: self.config.instance.clone(),
            own: rpc::OwnService { way, token: access.own_token().cloned() },
            started: self.started,
            limits: Arc::clone(&limits),
            changes: Arc::clone(&changes),
            trace_url: self.config.trace_url.clone(),
            finding: background.finding,
            progress: background.progress,
            depth: background.depth.clone(),
            hands: background.hands,
            quiet: self.quiet.clone(),
            stopping: stopping.clone(),
        };
        Handlers {
            account: Arc::new(AccountRpc::new(
                Arc::clone(&self.ledger),
                Arc::clone(&self.outbox),
                Arc::clone(&limits),
                changes,
                watch,
            )),
            lab: Arc::new(LabRpc::new(premises)),
            report: Arc::new(ReportRpc::new(desk)),
            queue: Arc::new(QueueRpc::new(rpc::Counter {
                letters: DeadLetters::of(&self.ledger, &self.outbox).ok(),
                depth: background.depth,
                name: self.config.queue_name.clone(),
                limit: self.config.queue_limit,
            })),
            access,
            limits,
            max_deadline: self.config.max_deadline,
            tracer: self.traces.tracer().clone(),
            timeline,
        }
    }

    async fn serve_http(
        &self,
        connections: mpsc::Receiver<Connection>,
        handlers: Handlers,
        site: Router,
        hands: Option<Hands>,
        draining: watch::Receiver<bool>,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        // What the queue is needed for says itself that it is away; reads and deductions go on without it.
        let readiness = Readiness { ledger: Arc::clone(&self.ledger), queue: None, draining };
        let read_gauges = gauges(&self.ledger, &handlers.limits, hands);
        let access = handlers.access.clone();
        let turn_away = move |headers: &_| access.check(headers).err().map(|error| rpc::refused(&error));
        let router = http::router(move || readiness.clone().check(), read_gauges, turn_away, site);
        ports::http(connections, router, self.config.handshake_timeout, stopping).await
    }
}

/// What health is told for: the server as a whole, and each service.
fn health_of() -> impl Iterator<Item = &'static str> {
    [""].into_iter().chain(SERVICES)
}

async fn tell(health: &HealthReporter, status: ServingStatus) {
    for service in health_of() {
        health.set_service_status(service, status).await;
    }
}

/// Every gRPC service but health.
fn routes(handlers: &Handlers) -> Result<RoutesBuilder, Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(zbl_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that tools can show the details of our errors.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    let account = AccountServiceServer::from_arc(Arc::clone(&handlers.account));
    let lab = LabServiceServer::from_arc(Arc::clone(&handlers.lab));
    let report = ReportServiceServer::from_arc(Arc::clone(&handlers.report));
    let queue = QueueServiceServer::from_arc(Arc::clone(&handlers.queue));
    routes
        .add_service(account.max_decoding_message_size(MESSAGE_MOST))
        .add_service(report.max_decoding_message_size(MESSAGE_MOST))
        .add_service(queue.max_decoding_message_size(MESSAGE_MOST))
        .add_service(lab.max_decoding_message_size(MESSAGE_MOST))
        // Some tools (grpcui, evans) ask the first edition, others only the second.
        .add_service(reflection().build_v1alpha().map_err(failed)?)
        .add_service(reflection().build_v1().map_err(failed)?);
    Ok(routes)
}

/// Waits until the server is to stop; a sender that is gone says the same.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Serve(error.to_string())
}
