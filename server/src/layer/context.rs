//! What a call is known by, for everything further in and in its answer; see `call.rs`.

use http::{Request, Response};
use tonic::{Status, body::Body};
use zbl_trace::{KeyValue, Tracer, names};

use super::{Surround, method::counted};
use crate::call::Call;

/// Names the call, and begins its span, which ends where its end is seen (`measure.rs`).
#[derive(Clone)]
pub(super) struct CallContext(pub(super) Tracer);

impl Surround for CallContext {
    type Kept = Call;

    fn before(&self, call: &mut Request<Body>) -> Result<Call, Status> {
        let method = counted(call.uri().path());
        let this = Call::begin(&self.0, method.span_name(), call.headers());
        this.span().set(|| {
            [KeyValue::new(names::RPC_SYSTEM_NAME, names::GRPC), KeyValue::new(names::RPC_METHOD, method.name.as_str())]
        });
        call.extensions_mut().insert(this.clone());
        Ok(this)
    }

    fn enter<T>(call: &Call, further_in: impl FnOnce() -> T) -> T {
        call.clone().enter(further_in)
    }

    fn within<F: Future + Send>(call: &Call, further_in: F) -> impl Future<Output = F::Output> + Send + use<F> {
        call.clone().scope(further_in)
    }

    fn after(call: Call, mut answer: Response<Body>) -> Response<Body> {
        call.mark(answer.headers_mut());
        answer
    }
}
