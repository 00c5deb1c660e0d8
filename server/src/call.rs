//! The call that a task works for: the id it is told by, and its span in its caller's trace. It is there for whatever runs
//! in that task, because everything may have something to log; what works for many calls at once, as a committer does, has
//! none, and asks the operations.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, header::HeaderName};
use uuid::Uuid;
use zbl_proto::TRACE_KEY;
use zbl_trace::{KeyValue, Span, SpanKind, TraceContext, TraceId, Tracer, names};

/// Where a call's id is found, in the call and in its answer.
const CALL_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where the answer says which trace it is part of.
const TRACE_ID: HeaderName = HeaderName::from_static(TRACE_KEY);

/// The longest id taken from a caller: it goes into every log line of the call.
const ID_LONGEST: usize = 64;

tokio::task_local! {
    static CURRENT: Option<Call>;
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The caller's, where he sent one that can be told, or our own. It has nothing to do with the `request_id` of a
    /// change, which outlives the call.
    id: HeaderValue,
    span: Span,
}

fn id_of(headers: &HeaderMap) -> HeaderValue {
    let told =
        |id: &&HeaderValue| (1..=ID_LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let own = || value(Uuid::new_v4().simple().encode_lower(&mut Uuid::encode_buffer()));
    headers.get(&CALL_ID).filter(told).cloned().unwrap_or_else(own)
}

/// A header of visible characters.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

impl Call {
    /// A call that arrives with these headers.
    pub(crate) fn begin(tracer: &Tracer, name: impl Into<Cow<'static, str>>, headers: &HeaderMap) -> Self {
        let span = tracer.begin(name, SpanKind::Server, TraceContext::read(headers));
        let call = Self { id: id_of(headers), span };
        call.span.set(|| [KeyValue::new(names::CALL_ID, call.id().to_owned())]);
        call
    }

    /// The work on a message: a call that nobody waits for. It belongs to the trace of whoever sent the message, and is told by
    /// that message's id.
    pub(crate) fn of_message(
        tracer: &Tracer,
        name: impl Into<Cow<'static, str>>,
        traceparent: Option<&str>,
        message_id: Uuid,
    ) -> Self {
        let span = tracer.begin(name, SpanKind::Consumer, traceparent.and_then(TraceContext::parse));
        let call = Self { id: value(message_id.simple().encode_lower(&mut Uuid::encode_buffer())), span };
        call.span.set(|| [KeyValue::new(names::CALL_ID, call.id().to_owned())]);
        call
    }

    /// A part of it that is answered by itself.
    pub(crate) fn item(&self, name: &'static str) -> Self {
        Self { id: self.id.clone(), span: self.span.child(name, SpanKind::Internal) }
    }

    /// The id it is told by: visible ASCII.
    pub(crate) fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// Its trace.
    pub(crate) fn trace_id(&self) -> TraceId {
        self.span.context().trace_id()
    }

    /// Its span.
    pub(crate) const fn span(&self) -> &Span {
        &self.span
    }

    /// Says in its answer which call it was.
    pub(crate) fn mark(self, answer: &mut HeaderMap) {
        for (name, mut value) in [(TRACE_ID, value(&self.trace_id().to_string())), (CALL_ID, self.id)] {
            // Never the same twice: compressed, it would only push out what is.
            value.set_sensitive(true);
            answer.insert(name, value);
        }
    }

    /// The call that the present task works for.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok().flatten()
    }

    /// Does work for it.
    pub(crate) fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(Some(self), work)
    }

    /// Does what needs no waiting for it.
    pub(crate) fn enter<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Some(self), work)
    }

    /// Work that goes on in a task of its own for the same call, if there is one.
    pub(crate) fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(Self::current(), work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_where_they_can_be_told() {
        let id = |text| id_of(&HeaderMap::from_iter([(CALL_ID, HeaderValue::from_static(text))]));
        assert_eq!(id("order-7/try-2"), "order-7/try-2");
        let long = "x".repeat(ID_LONGEST + 1).leak();
        for untellable in ["", "two words", long] {
            assert_ne!(id(untellable), untellable);
            assert_eq!(id(untellable).len(), 32, "{untellable}");
        }
    }

    #[tokio::test]
    async fn a_task_of_its_own_works_for_the_same_call() {
        let call = Call::begin(&Tracer::unrecorded(zbl_trace::Ratio::ALL), "call", &HeaderMap::new());
        let trace_id = call.trace_id();
        let current = || Call::current().map(|call| call.trace_id());
        let spawned = call.scope(async { tokio::spawn(Call::inherited(async move { current() })).await.unwrap() });
        assert_eq!(spawned.await, Some(trace_id));
        assert_eq!(tokio::spawn(Call::inherited(async move { current() })).await.unwrap(), None);
    }
}
