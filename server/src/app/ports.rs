//! How the two ports are served: gRPC by tonic, HTTP by hyper, both over connections that `port.rs` has let in. Owns the
//! bounds of the protocols.

use std::{io, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::Response,
    routing::post_service,
};
use futures::{Stream, StreamExt};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    body::Body,
    service::Routes,
    transport::{Server, server::Connected},
};

use tonic_web::GrpcWebLayer;
use tower::{ServiceBuilder, ServiceExt};

use super::{Error, failed, stopped};
use crate::{http::envelope::refusal, layer, port::Connection};

/// The most streams of one connection, each a call or a watcher.
const MAX_STREAMS: u32 = 1024;

/// The content types of gRPC-Web, as `tonic-web` takes them: no browser sends them to another's server without asking it
/// first.
const GRPC_WEB: [&str; 4] = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];

/// The largest head of a call, bytes: names, a token, a trace.
const HEAD_MOST: u32 = 16 * 1024;

/// The same in HTTP/1.1, where the largest body (`rpc/facade.rs`) has to fit in as well.
const BUFFER_MOST: usize = 64 * 1024;

/// How many calls of a connection may be taken back before they were looked at: a caller who does more of that is up to
/// something ("rapid reset", CVE-2023-44487), and is disconnected.
const RESETS_MOST: usize = 64;

/// A silent connection is asked whether it is still there this often, and dropped if it is not.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long it has to answer.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Serves gRPC until the server is to stop.
pub(super) async fn grpc(
    connections: mpsc::Receiver<Connection>,
    layers: layer::Settings,
    routes: Routes,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Error> {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
        .http2_max_header_list_size(HEAD_MOST)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MOST))
        .layer(layer::stack::<Routes>(layers))
        .add_routes(routes)
        .serve_with_incoming_shutdown(accepted(connections), async move { stopped(&mut stopping).await })
        .await
        .map_err(failed)
}

/// The same services for browsers, which speak gRPC-Web, as routes of the HTTP port: through the same layers.
pub(super) fn grpc_web(layers: layer::Settings, routes: Routes, services: &[&str]) -> Router {
    let service =
        ServiceBuilder::new().layer(GrpcWebLayer::new()).layer(layer::stack::<Routes>(layers)).service(routes);
    let service = service.map_request(|request: Request| request.map(Body::new));
    let router = services.iter().fold(Router::new(), |router, service_name| {
        router.route(&format!("/{service_name}/{{method}}"), post_service(service.clone()))
    });
    router.route_layer(middleware::from_fn(only_grpc_web))
}

/// Nothing else: a form's plain text would look like a call further in, and gRPC itself has a port of its own, with
/// reflection and health.
async fn only_grpc_web(request: Request, next: Next) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    if kind.is_some_and(|kind| GRPC_WEB.iter().any(|one| one.as_bytes() == kind)) {
        return next.run(request).await;
    }
    let message = "this port answers gRPC-Web: application/grpc-web+proto; gRPC is answered on the other port";
    refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_CONTENT_TYPE", message)
}

fn accepted(connections: mpsc::Receiver<Connection>) -> impl Stream<Item = Result<Connection, io::Error>> {
    ReceiverStream::new(connections).map(Ok)
}

/// Serves HTTP until the server is to stop; `patience` is what the head of a request may take, from the end of the one
/// before.
pub(super) async fn http(
    mut connections: mpsc::Receiver<Connection>,
    router: Router,
    patience: Duration,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(BUFFER_MOST);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(HEAD_MOST)
        .max_pending_accept_reset_streams(Some(RESETS_MOST));
    let service = TowerToHyperService::new(router);
    let open = GracefulShutdown::new();
    loop {
        let connection = tokio::select! {
            () = stopped(&mut stopping) => break,
            connection = connections.recv() => connection,
        };
        let Some(connection) = connection else { break };
        let served = builder.serve_connection(TokioIo::new(connection), service.clone()).into_owned();
        let served = open.watch(served);
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!("a connection of the HTTP port ended: {error}");
            }
        });
    }
    drop(connections);
    open.shutdown().await;
    Ok(())
}
