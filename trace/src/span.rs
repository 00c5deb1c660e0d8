//! Spans. What is recorded has exact times: a span's clock is read once, when it begins, and everything within it is
//! placed by the monotonic time that has passed since, so that a clock that is set meanwhile moves nothing about.

use std::{
    borrow::Cow,
    fmt,
    ops::Range,
    sync::Arc,
    time::{Instant, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    global::BoxedTracer,
    trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _},
};

use crate::{
    Ratio, TraceContext,
    names::{self, ERROR_TYPE, GRPC, RPC_METHOD, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME},
};

/// Begins spans. Whether a trace is recorded is decided where it begins, and then holds for all of it.
#[derive(Clone, Debug)]
pub struct Tracer {
    /// How many of the traces that begin here are recorded, by us or by those we call.
    sample: Ratio,
    recorder: Option<Arc<BoxedTracer>>,
}

impl Tracer {
    /// One that records nothing itself; ids are handed on all the same.
    #[must_use]
    pub const fn unrecorded(sample: Ratio) -> Self {
        Self { sample, recorder: None }
    }

    /// One that records what is sampled.
    #[cfg(feature = "otlp")]
    pub(crate) fn recording(sample: Ratio, recorder: BoxedTracer) -> Self {
        Self { sample, recorder: Some(Arc::new(recorder)) }
    }

    /// Begins a span: where there is a parent, within its trace, and recorded if its caller says so.
    #[must_use]
    pub fn begin(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind, parent: Option<TraceContext>) -> Span {
        let sampled = parent.map_or_else(|| self.sample.draw(), TraceContext::is_sampled);
        let Some(recorder) = self.recorder.as_ref().filter(|_| sampled) else {
            return Span { context: TraceContext::fresh(parent, sampled), recorded: None };
        };
        let within = parent.map(|parent| Context::new().with_remote_span_context(parent.remote()));
        Recorded::begin(recorder, name.into(), kind, &within.unwrap_or_default(), Clock::read())
    }

    /// Begins the trace of a call that we make, to the method of this full name.
    #[must_use]
    pub fn begin_call(&self, method: impl Into<Cow<'static, str>>) -> Span {
        let method = method.into();
        let span = self.begin(method.clone(), SpanKind::Client, None);
        span.set(|| [KeyValue::new(RPC_SYSTEM_NAME, GRPC), KeyValue::new(RPC_METHOD, method)]);
        span
    }
}

/// A span under way; clones are the same one. It ends with [`Span::end`], or with the last of its clones.
#[derive(Clone, Debug)]
pub struct Span {
    context: TraceContext,
    recorded: Option<Arc<Recorded>>,
}

struct Recorded {
    recorder: Arc<BoxedTracer>,
    /// What holds the span, and is its children's parent.
    context: Context,
    kind: SpanKind,
    clock: Clock,
}

/// When something began, by both clocks.
#[derive(Clone, Copy)]
struct Clock {
    began: Instant,
    began_at: SystemTime,
}

/// A part of a span that is over.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Whether it was spent within or on somebody else.
    pub kind: SpanKind,
    /// From when to when.
    pub time: Range<Instant>,
    /// What there is to say about it.
    pub attributes: Vec<KeyValue>,
    /// Why it failed, if it did, in a word.
    pub error: Option<&'static str>,
}

impl Span {
    /// Where it is.
    #[must_use]
    pub const fn context(&self) -> TraceContext {
        self.context
    }

    /// Says something about it, if it is recorded.
    pub fn set<A: IntoIterator<Item = KeyValue>>(&self, attributes: impl FnOnce() -> A) {
        if let Some(recorded) = &self.recorded {
            recorded.context.span().set_attributes(attributes());
        }
    }

    /// Begins a span within it.
    #[must_use]
    pub fn child(&self, name: &'static str, kind: SpanKind) -> Self {
        match &self.recorded {
            None => {
                Self { context: TraceContext::fresh(Some(self.context), self.context.is_sampled()), recorded: None }
            }
            Some(own) => {
                let clock = own.clock.at(Instant::now());
                Recorded::begin(&own.recorder, name.into(), kind, &own.context, clock)
            }
        }
    }

    /// Records a part of it that is over, if it is recorded.
    pub fn record(&self, part: impl FnOnce() -> Part) {
        let Some(own) = &self.recorded else { return };
        let Part { name, kind, time, attributes, error } = part();
        let begun = own.recorder.span_builder(name).with_kind(kind).with_start_time(own.clock.at(time.start).began_at);
        let mut span = own.recorder.build_with_context(begun.with_attributes(attributes), &own.context);
        if let Some(error) = error {
            span.set_attribute(KeyValue::new(ERROR_TYPE, error));
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(own.clock.at(time.end).began_at);
    }

    /// Ends it.
    pub fn end(&self, error: Option<&'static str>) {
        let Some(own) = &self.recorded else { return };
        let span = own.context.span();
        if let Some(error) = error {
            span.set_attribute(KeyValue::new(ERROR_TYPE, error));
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(own.clock.at(Instant::now()).began_at);
    }

    /// Ends it as a call that came to this gRPC code.
    pub fn end_call(&self, code: i32) {
        let Some(own) = &self.recorded else { return };
        let code = names::grpc_code(code);
        own.context.span().set_attribute(KeyValue::new(RPC_RESPONSE_STATUS_CODE, code));
        let is_error = if own.kind == SpanKind::Client { code != "OK" } else { names::is_server_error(code) };
        self.end(is_error.then_some(code));
    }
}

impl Recorded {
    fn begin(
        recorder: &Arc<BoxedTracer>,
        name: Cow<'static, str>,
        kind: SpanKind,
        parent: &Context,
        clock: Clock,
    ) -> Span {
        let builder = recorder.span_builder(name).with_kind(kind.clone()).with_start_time(clock.began_at);
        let span = recorder.build_with_context(builder, parent);
        let place = TraceContext::of(span.span_context());
        let context = Context::new().with_span(span);
        Span { context: place, recorded: Some(Arc::new(Self { recorder: Arc::clone(recorder), context, kind, clock })) }
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Clock {
    fn read() -> Self {
        Self { began: Instant::now(), began_at: SystemTime::now() }
    }

    /// The same clock at a moment before or after.
    fn at(self, moment: Instant) -> Self {
        let began_at = match moment.checked_duration_since(self.began) {
            Some(later) => self.began_at + later,
            None => self.began_at - self.began.duration_since(moment),
        };
        Self { began: moment, began_at }
    }
}
