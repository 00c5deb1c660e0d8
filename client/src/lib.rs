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

mod account;
mod address;
mod calls;
mod error;
pub mod lanes;
mod paint;
mod retry;
mod timeline;
#[cfg(feature = "timeline")]
pub mod watch;

pub use account::{Account, Change, Entry, EntryPage, Fate, Receipt, Strategies, Strategy};
pub use address::AddressError;
pub use calls::{Client, DEFAULT_DEADLINE};
pub use error::Error;
pub use paint::Paint;
pub use retry::{Backoff, Retry};
pub use timeline::{Position, Start, Timeline, TimelineItem};
pub use zbl_proto::v1::{EntryKind, Guarantee};
pub use zbl_proto::{Effect, Money, Reason};
