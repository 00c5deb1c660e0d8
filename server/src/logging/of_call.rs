//! What a log line says of the call that it is about: the trace's id and the call's, before all else. They are looked up
//! when there is something to log; entering a `tracing` span for every call would cost each of them more than that.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::call::Call;

/// Lines in another format, with the call's ids.
pub(super) struct OfCall<F> {
    lines: F,
    shape: Shape,
}

/// How the ids are put into a line.
#[derive(Clone, Copy)]
enum Shape {
    /// As the first members of the object that the line is.
    Json,
    /// Before the text.
    Text,
}

impl<F> OfCall<F> {
    pub(super) const fn json(lines: F) -> Self {
        Self { lines, shape: Shape::Json }
    }

    pub(super) const fn text(lines: F) -> Self {
        Self { lines, shape: Shape::Text }
    }
}

impl<S, N, F> FormatEvent<S, N> for OfCall<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(call) = Call::current() else { return self.lines.format_event(context, writer, event) };
        let (trace_id, call_id) = (call.trace_id(), call.id());
        match self.shape {
            Shape::Text => {
                write!(writer, "trace_id={trace_id} call_id={call_id} ")?;
                self.lines.format_event(context, writer, event)
            }
            Shape::Json => {
                // Of visible ASCII, Rust escapes what JSON does, and in the same way.
                write!(writer, r#"{{"trace_id":"{trace_id}","call_id":{call_id:?},"#)?;
                let mut line = String::new();
                self.lines.format_event(context, Writer::new(&mut line), event)?;
                writer.write_str(line.strip_prefix('{').unwrap_or(&line))
            }
        }
    }
}
