//! The contract of the account service, `zbl.v1`: messages, client and server stubs, and the descriptor set that
//! reflection serves, all generated from `zbl/v1/*.proto`, where each field is explained; and what messages alone cannot
//! say: [`Money`], the meaning of the decimal strings, and [`Reason`], the errors and their effect.

pub mod money;
pub mod reason;

pub use money::{Money, MoneyError};
pub use reason::{Effect, Reason};

/// Package `zbl.v1`.
// Prost copies the comments of the `.proto` files; their shape is not rustdoc's.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    clippy::semicolon_if_nothing_returned,
    rustdoc::all
)]
pub mod v1 {
    tonic::include_proto!("zbl.v1");
}

/// The encoded `FileDescriptorSet` of the package and all it imports, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The domain of every `google.rpc.ErrorInfo` this service attaches; a status without it did not come from us.
pub const ERROR_DOMAIN: &str = "zbl.v1";

/// Response metadata key, value `true`, on the answer to a request id that had been applied before.
pub const REPLAYED_KEY: &str = "zbl-replayed";

/// Response metadata key of every answer, refusals and the heads of streams too: the trace that the call is part of, its
/// caller's or a new one, 32 hex digits.
pub const TRACE_KEY: &str = "zbl-trace-id";

/// Response metadata key of GetBalance, also where it answers that there is no such account: `hit` when the answer came
/// from the cache, `miss` when the cache had none, `bypass` when it was not asked or could not be.
pub const CACHE_KEY: &str = "zbl-cache";
