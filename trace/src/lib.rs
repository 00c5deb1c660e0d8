//! Traces, as the server, the load generator and the timeline's watcher all make them: where a call is in its caller's
//! trace ([`TraceContext`]), spans with exact times ([`Tracer`], [`Span`]), what everything in them is called ([`names`]),
//! and, with the feature `otlp`, where they are sent ([`Traces`]).
//!
//! It refuses two things. Nobody waits for a trace: what is not recorded costs two random numbers, and what cannot be
//! sent is dropped. And there is no span that is current for a thread or a task: whoever works for a call has its span.

mod context;
#[cfg(feature = "otlp")]
mod export;
pub mod names;
mod ratio;
mod span;

#[cfg(feature = "otlp")]
pub use export::{Endpoint, Program, StartError, Traces};
pub use opentelemetry::{
    KeyValue, Value,
    trace::{SpanId, SpanKind, TraceId},
};
pub use ratio::Ratio;
pub use span::{Part, Span, Tracer};

pub use context::TraceContext;
