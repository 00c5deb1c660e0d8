//! What a call is known by: an id of its own, which the answer repeats, and the trace it is part of.

use http::{HeaderMap, HeaderValue, Request, Response, header::HeaderName};
use tonic::{Status, body::Body};
use uuid::Uuid;

use super::Surround;

/// Where a call's id is found, in the call and in its answer.
const CALL_ID: HeaderName = HeaderName::from_static("x-request-id");

/// W3C Trace Context.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id taken from a caller: it goes into every log line of the call.
const ID_LONGEST: usize = 64;

/// Names the call.
#[derive(Clone)]
pub(super) struct CallContext;

/// The id of one call: the caller's, where he sent one that can be told, or our own. It has nothing to do with the
/// `request_id` of a change, which outlives the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallId(HeaderValue);

/// The span in the caller's trace that a call is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// The trace.
    pub(crate) trace_id: u128,
    /// The span.
    pub(crate) parent_id: u64,
    /// Whether the caller records it.
    pub(crate) sampled: bool,
}

impl CallId {
    fn of(headers: &HeaderMap) -> Self {
        let told =
            |id: &&HeaderValue| (1..=ID_LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
        headers.get(&CALL_ID).filter(told).cloned().map_or_else(Self::new, Self)
    }

    fn new() -> Self {
        let id = Uuid::new_v4().simple().to_string();
        Self(HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none")))
    }
}

impl TraceContext {
    /// What `traceparent` says; what is malformed is to be ignored.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(&TRACE_PARENT)?.to_str().ok()?;
        let mut fields = text.split('-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = hex(fields.next()?, 32)?;
        let parent_id = u64::try_from(hex(fields.next()?, 16)?).ok()?;
        let flags = hex(fields.next()?, 2)?;
        // Later versions may have more to say; the first four fields stay what they are.
        let complete = version != 0 || fields.next().is_none();
        let valid = version != 0xff && complete && trace_id != 0 && parent_id != 0;
        valid.then_some(Self { trace_id, parent_id, sampled: flags & 1 == 1 })
    }
}

/// So many lower-case hexadecimal digits.
fn hex(digits: &str, length: usize) -> Option<u128> {
    let all = digits.len() == length && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    all.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

impl Surround for CallContext {
    type Kept = CallId;

    fn before(&self, call: &mut Request<Body>) -> Result<CallId, Status> {
        let id = CallId::of(call.headers());
        if let Some(trace) = TraceContext::of(call.headers()) {
            call.extensions_mut().insert(trace);
        }
        call.extensions_mut().insert(id.clone());
        Ok(id)
    }

    fn after(id: CallId, mut answer: Response<Body>) -> Response<Body> {
        answer.headers_mut().insert(CALL_ID, id.0);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn traces_are_read_as_the_recommendation_says() {
        let read = |text| TraceContext::of(&headers(TRACE_PARENT, text));
        let trace = TraceContext {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            parent_id: 0x00f0_67aa_0ba9_02b7,
            sampled: true,
        };
        assert_eq!(read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), Some(trace));
        assert_eq!(read("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes"), Some(trace));
        let unsampled = TraceContext { sampled: false, ..trace };
        assert_eq!(read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), Some(unsampled));
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
            assert_eq!(read(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn ids_are_kept_where_they_can_be_told() {
        let id = |text| CallId::of(&headers(CALL_ID, text));
        assert_eq!(id("order-7/try-2").0, "order-7/try-2");
        let long = "x".repeat(ID_LONGEST + 1).leak();
        for untellable in ["", "two words", long] {
            assert_ne!(id(untellable).0, untellable);
            assert_eq!(id(untellable).0.len(), 32, "{untellable}");
        }
    }
}
