//! What everything in a span is called: the OpenTelemetry semantic conventions in the version of [`SCHEMA_URL`], and our
//! own names, which begin with `zbl.`. The one place for all of them, those of messages too, which the queue will use.
//!
//! A phase's span is named after the phase, as in the timeline, and not after its statement, as the conventions would
//! have a statement's span named: it is often more than one of them.

pub use opentelemetry_semantic_conventions::{
    SCHEMA_URL,
    attribute::{
        DB_COLLECTION_NAME, DB_NAMESPACE, DB_OPERATION_NAME, DB_SYSTEM_NAME, ERROR_TYPE, HTTP_REQUEST_METHOD,
        HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_DESTINATION_NAME,
        MESSAGING_MESSAGE_ID, MESSAGING_OPERATION_NAME, MESSAGING_OPERATION_TYPE, MESSAGING_SYSTEM, RPC_METHOD,
        RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME, SERVER_ADDRESS, SERVER_PORT, SERVICE_INSTANCE_ID, SERVICE_VERSION,
    },
};

/// The value of [`RPC_SYSTEM_NAME`], and the name of a call whose method is not known.
pub const GRPC: &str = "grpc";

/// The value of [`RPC_METHOD`] of a call whose method is not known: what callers invent is no name.
pub const OTHER_METHOD: &str = "_OTHER";

/// The id of the call, which its log lines carry and its answer repeats.
pub const CALL_ID: &str = "zbl.call_id";

/// The account.
pub const USER_ID: &str = "zbl.user_id";

/// The id of the change, which outlives the call.
pub const REQUEST_ID: &str = "zbl.request_id";

/// The strategy in use.
pub const STRATEGY: &str = "zbl.strategy";

/// Which attempt at the change, from 1.
pub const ATTEMPT: &str = "zbl.attempt";

/// The version that was read.
pub const VERSION_SEEN: &str = "zbl.version.seen";

/// The version that was written.
pub const VERSION_WRITTEN: &str = "zbl.version.written";

/// How many changes shared the transaction, where they did.
pub const BATCH_SIZE: &str = "zbl.batch.size";

/// What a settlement found: `journaled`, `absent` or `voided`.
pub const SETTLED: &str = "zbl.settled";

/// gRPC's codes, by number.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Those that are the server's fault, by the conventions; to the client every code but OK is an error.
const SERVER_ERRORS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

/// The name of a gRPC code.
#[must_use]
pub fn grpc_code(code: i32) -> &'static str {
    usize::try_from(code).ok().and_then(|code| GRPC_CODES.get(code)).copied().unwrap_or("UNKNOWN")
}

/// Whether a call that ended with this code is an error to the server.
pub(crate) fn is_server_error(code: &str) -> bool {
    SERVER_ERRORS.contains(&code)
}
