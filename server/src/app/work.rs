//! The worker as a process: the parts of a service without its gRPC port.

use std::{sync::Arc, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, sync::watch, time::sleep};

use super::{
    Error,
    background::{look, relay},
    failed, parts,
    parts::Service,
    ports,
    probes::{Readiness, gauges},
};
use crate::{
    access::Access,
    config::Config,
    depth, http,
    limit::Limits,
    outbox::{self, Relay},
    port,
    queue::{LinkState, Pause},
    quiet::Quiet,
    rpc,
    timeline::Timeline,
    tls::{Certificates, Protocols},
};

/// How often it is looked whether RabbitMQ is connected for the first time.
const LOOK: Duration = Duration::from_millis(50);

/// Opens the service and makes deductions of its queue until `shutdown`; what is in hand then may end within the grace. Calls `ready`
/// once RabbitMQ is connected.
///
/// # Errors
/// [`Error`].
pub async fn work(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
    ready: impl FnOnce(),
) -> Result<(), Error> {
    let certificates = config.tls.clone().map(Certificates::load).transpose()?;
    http::begin_to_count();
    let timeline = Arc::new(Timeline::new(config.timeline_capacity));
    let Service { ledger, outbox, .. } = parts::service(&config, timeline, None).await?;
    let queue = outbox.queue().cloned().ok_or(Error::NoQueue)?;
    let traces = parts::traces(&config)?;
    let worker = parts::worker(&config, &ledger, &outbox, traces.tracer())?;
    let (stop, stopping) = watch::channel(false);
    // Health is told until the end: nobody closes the port before.
    let (_close, closing) = watch::channel(false);
    let settings = port::Settings {
        name: "http",
        most: config.max_connections,
        patience: config.handshake_timeout,
        tls: certificates.map(|certificates| (certificates, Protocols::Http)),
        stopping: closing.clone(),
    };
    let access = Access::of(&[listener.local_addr().map_err(failed)?.ip()], &config);
    let (connections, _) = port::open(listener, settings);
    let limits = Arc::new(Limits::new(parts::bounds(&config)));
    let readiness = Readiness { ledger: Arc::clone(&ledger), queue: Some(queue.clone()), draining: stopping.clone() };
    let read_gauges = gauges(&ledger, &limits, Some(worker.hands()));
    let turn_away = move |headers: &_| access.check(headers).err().map(|error| rpc::refused(&error));
    let router = http::router(move || readiness.clone().check(), read_gauges, turn_away, Router::new());
    let http = ports::http(connections, router, config.handshake_timeout, closing);
    tokio::spawn(async move {
        shutdown.await;
        tracing::info!("asked to stop: no more deductions are taken");
        stop.send_replace(true);
    });
    let connected = async {
        let mut pause = Pause::new();
        while queue.connected().await.is_err() && queue.state() != LinkState::Up {
            sleep(pause.next().max(LOOK)).await;
        }
        ready();
        std::future::pending::<()>().await;
    };
    let done = async {
        worker.run(stopping).await;
        ledger.cache().pay_debts().await;
    };
    tokio::select! {
        () = done => {}
        served = http => served?,
        () = http::count() => {}
        () = relay(Relay::of(&outbox, outbox::Patience::default()), Quiet::default()) => {}
        () = look(depth::Gauge::of(&outbox)) => {}
        () = connected => {}
    }
    traces.stop().await;
    tracing::info!("stopped");
    Ok(())
}
