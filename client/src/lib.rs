//! A typed client of the account service. It owns what every caller needs and none should write twice: request ids, so
//! that each call can be repeated safely; deadlines; bounded retries; errors that say what happened to the money; and a
//! timeline that resumes. It refuses to guess: an outcome it cannot know is reported as unknown.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use zbl_client::{Change, Client, Money};
//!
//! let client = Client::connect_lazy("127.0.0.1:50051")?;
//! let account = client.open_account(None, Money::parse("1000.00")?).await?;
//! let receipt = client.deduct(&Change::new(account.user_id, Money::parse("10.00")?)).await?;
//! assert_eq!(receipt.balance, Money::parse("990.00")?);
//! # Ok(())
//! # }
//! ```
//!
//! `client/examples/deduct.rs` goes on from there: repeating a request, settling one whose outcome is unknown, and a
//! timeline that another process can resume.
//!
//! # Clients in other languages
//!
//! `client/service_config.json` is the [gRPC service config] for them; pass it as the channel's default. It sets the
//! timeouts this client uses and lets the library retry, on UNAVAILABLE alone, the calls that are safe to repeat whatever
//! they carry: the reads, and `GetDeduction`, whose settling is the same the second time. `OpenAccount`, `Deduct`,
//! `DeductAsync`, `Deposit` and `ResetAccount` are not among them: repeating one is safe only when the caller has set its `request_id`,
//! which a service config cannot see. Such callers repeat the call themselves, under the same id. ABORTED is never
//! retried by the library: contention is an answer, and the caller knows whether to add to it.
//!
//! [gRPC service config]: https://grpc.io/docs/guides/service-config/

mod account;
mod address;
mod calls;
mod channel;
mod connection;
mod credentials;
mod deduct_stream;
mod entries;
mod error;
#[cfg(feature = "flags")]
mod flags;
mod hold;
mod http_port;
pub mod lanes;
mod link;
mod paint;
pub mod pem;
mod queue;
mod remedy;
mod reports;
mod retry;
mod timeline;
#[cfg(feature = "timeline")]
pub mod watch;

pub use account::{
    Account, AsOf, Change, Entry, EntryPage, Fate, LostEntry, Mending, NotMade, PastBalance, Rebuilt, Receipt,
    Strategies, Strategy,
};
pub use address::AddressError;
pub use calls::{Client, DEFAULT_DEADLINE, LONGEST_DEADLINE};
pub use connection::{Connection, Wire};
pub use credentials::{Credentials, CredentialsError, Identity};
pub use deduct_stream::{Answered, DeductStream, NotOpened};
pub use entries::{EntryFilter, EntryStream, EntryStreamItem};
pub use error::Error;
#[cfg(feature = "flags")]
pub use flags::{ConnectionFlags, FlagsError, Token};
pub use hold::Hold;
pub use http_port::HttpPort;
pub use paint::Paint;
pub use queue::{Acceptance, FateStream, FateStreamItem};
pub use reports::{Days, Spenders};
pub use retry::{Backoff, Retry};
pub use timeline::{Position, Start, Timeline, TimelineItem};
pub use zbl_proto::v1::{EntryKind, EntryOrder, Guarantee, Phase};
pub use zbl_proto::{Effect, Money, Reason};
