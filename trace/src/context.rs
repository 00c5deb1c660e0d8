//! W3C Trace Context: how a call tells which span it was made from. `tracestate` is not continued: nothing is added to it
//! here, and nobody further is called.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The header that carries it.
const HEADER: HeaderName = HeaderName::from_static("traceparent");

/// A place in a trace: a span of it, and whether the trace is recorded. `Display` is the text of `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: TraceId,
    span_id: SpanId,
    sampled: bool,
}

impl TraceContext {
    /// A span that nobody records, of `parent`'s trace or of a new one.
    pub(crate) fn fresh(parent: Option<Self>, sampled: bool) -> Self {
        let (trace_id, span_id) = rand::random::<(u128, u64)>();
        // Zero is no id; it comes up as seldom as any other number.
        let trace_id = parent.map_or_else(|| TraceId::from(trace_id.max(1)), |parent| parent.trace_id);
        Self { trace_id, span_id: SpanId::from(span_id.max(1)), sampled }
    }

    /// Where a recorded span is.
    pub(crate) fn of(context: &SpanContext) -> Self {
        Self { trace_id: context.trace_id(), span_id: context.span_id(), sampled: context.is_sampled() }
    }

    /// The same for the library that records.
    pub(crate) fn remote(self) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(self.sampled);
        SpanContext::new(self.trace_id, self.span_id, flags, true, TraceState::NONE)
    }

    /// What the headers of a call say of its caller.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(&HEADER)?.to_str().ok()?)
    }

    /// Tells whoever is called with these headers.
    pub fn write(self, headers: &mut HeaderMap) {
        // Hexadecimal digits and dashes are a value.
        if let Ok(mut value) = HeaderValue::try_from(self.to_string()) {
            // It never comes again: not worth a place in the connection's table of headers.
            value.set_sensitive(true);
            headers.insert(HEADER, value);
        }
    }

    /// What a `traceparent` says; what is malformed is to be ignored, says the recommendation.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = hex(fields.next()?, 32)?;
        let span_id = u64::try_from(hex(fields.next()?, 16)?).ok()?;
        let flags = hex(fields.next()?, 2)?;
        // Later versions may have more to say; the first four fields stay what they are.
        let complete = version != 0 || fields.next().is_none();
        let valid = version != 0xff && complete && trace_id != 0 && span_id != 0;
        let sampled = flags & 1 == 1;
        valid.then(|| Self { trace_id: TraceId::from(trace_id), span_id: SpanId::from(span_id), sampled })
    }

    /// The trace.
    pub const fn trace_id(self) -> TraceId {
        self.trace_id
    }

    /// The span.
    pub const fn span_id(self) -> SpanId {
        self.span_id
    }

    /// Whether the trace is recorded, as far as whoever began it decides.
    pub const fn is_sampled(self) -> bool {
        self.sampled
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// So many lower-case hexadecimal digits.
fn hex(digits: &str, length: usize) -> Option<u128> {
    let all = digits.len() == length && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    all.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_read_as_the_recommendation_says() {
        let trace = TraceContext {
            trace_id: TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736),
            span_id: SpanId::from(0x00f0_67aa_0ba9_02b7),
            sampled: true,
        };
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!((TraceContext::parse(text), trace.to_string().as_str()), (Some(trace), text));
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        assert_eq!(TraceContext::parse(later), Some(trace));
        let unsampled = TraceContext { sampled: false, ..trace };
        assert_eq!(TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), Some(unsampled));
        for malformed in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn what_is_told_is_read_back() {
        for sampled in [true, false] {
            let (told, mut headers) = (TraceContext::fresh(None, sampled), HeaderMap::new());
            told.write(&mut headers);
            assert_eq!(TraceContext::read(&headers), Some(told));
            let next = TraceContext::fresh(Some(told), sampled);
            assert_eq!(next.trace_id(), told.trace_id());
            assert_ne!(next.span_id(), told.span_id());
        }
    }
}
