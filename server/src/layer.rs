//! What stands between the network and the handlers of gRPC, for every call alike: one column, in the order in which a
//! call meets it. Each layer looks at the call on its way in and at the answer on its way out; what it refuses goes no
//! further in, and is seen by all that are further out.

mod authentication;
mod concurrency;
mod context;
mod deadline;
mod measure;
mod message;
mod method;
mod rate;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service, ServiceBuilder};
use zbl_trace::Tracer;

use self::{
    authentication::Authentication, concurrency::Concurrency, context::CallContext, deadline::Deadlines,
    measure::Measure, message::Messages, rate::RateLimit,
};
pub(crate) use self::{deadline::Deadline, message::Timed};
use crate::{access::Access, limit::Limits};

/// What the layers are made with.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The longest that a call may go on.
    pub max_deadline: Duration,
    /// How much is taken on.
    pub limits: Arc<Limits>,
    /// Who may call what.
    pub access: Access,
    /// What begins the spans of calls.
    pub tracer: Tracer,
}

/// The column.
pub(crate) fn stack<S>(settings: Settings) -> impl Layer<S, Service: Rpc> + Clone
where
    S: Rpc,
{
    ServiceBuilder::new()
        // First, so that whatever comes of a call can be told by its id, a refusal too.
        .layer(Around(CallContext(settings.tracer)))
        // Outside of all that refuses: what is refused counts as handled.
        .layer(Around(Measure))
        // Before anything is spent on a stranger.
        .layer(Around(Authentication(settings.access)))
        // The clock runs from the head of the call on, and inside of it everything may ask how long there is.
        .layer(Around(Deadlines { most: settings.max_deadline }))
        // Load is shed here rather than queued. Before the rate: a call for which there is no room costs no token.
        .layer(Around(Concurrency(Arc::clone(&settings.limits))))
        // Behind what sheds, so that only what goes on to be served is counted against the rate.
        .layer(Around(RateLimit(settings.limits)))
        // Last: what is left is to read the message and to answer it.
        .layer(Around(Messages))
}

/// A service that answers gRPC.
pub(crate) trait Rpc:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Rpc for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// What a layer does to a call and to its answer.
trait Surround: Clone + Send + 'static {
    /// What is kept while the call is under way; dropped with it, if it is cut off.
    type Kept: Send + 'static;

    /// Looks at a call before it goes further in.
    ///
    /// # Errors
    /// The answer, if it does not.
    fn before(&self, call: &mut Request<Body>) -> Result<Self::Kept, Status>;

    /// Hands the call further in: what is done there before there is anything to wait for.
    fn enter<T>(_: &Self::Kept, further_in: impl FnOnce() -> T) -> T {
        further_in()
    }

    /// Runs the rest of what is further in.
    fn within<F: Future + Send>(
        _: &Self::Kept,
        further_in: F,
    ) -> impl Future<Output = F::Output> + Send + use<Self, F> {
        further_in
    }

    /// Looks at the answer. That of a stream is its head; the rest follows.
    fn after(_: Self::Kept, answer: Response<Body>) -> Response<Body> {
        answer
    }
}

/// A layer as tower has them.
#[derive(Clone)]
struct Around<A>(A);

impl<A: Clone, S> Layer<S> for Around<A> {
    type Service = Surrounded<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Surrounded { around: self.0.clone(), inner }
    }
}

/// A service within a layer.
#[derive(Clone)]
struct Surrounded<A, S> {
    around: A,
    inner: S,
}

impl<A: Surround, S: Rpc> Service<Request<Body>> for Surrounded<A, S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut call: Request<Body>) -> Self::Future {
        match self.around.before(&mut call) {
            Ok(kept) => {
                let answer = A::enter(&kept, || self.inner.call(call));
                let answer = A::within(&kept, answer);
                Box::pin(async move { answer.await.map(|answer| A::after(kept, answer)) })
            }
            Err(status) => Box::pin(async move { Ok(status.into_http()) }),
        }
    }
}
