//! A distributed lock on Redis, for any code.
//!
//! A [`Lock`] gives out [`Lease`]s: on one Redis with a growing fencing token ([`Lock::single`]), or on several that are
//! independent of each other ([`Lock::redlock`]). A lease is renewed in the background until it is released.
//!
//! ```no_run
//! # async fn example() -> Result<(), zbl_lock::Error> {
//! use zbl_lock::{Lock, Owner, Settings};
//!
//! let lock = Lock::single("redis://127.0.0.1:6379", Settings::new("stock", "shop-1"))?;
//! let lease = lock.acquire("item-42", &Owner::new("order-4711")).await?;
//! tokio::select! {
//!     why = lease.lost() => return Err(why.into()),
//!     // Read and compute here.
//!     () = tokio::task::yield_now() => {}
//! }
//! // Just before the write; the token goes with it, and what is written to refuses a smaller one.
//! lease.check()?;
//! let _token = lease.token();
//! lease.release().await
//! # }
//! ```
//!
//! # What holds, and what cannot
//!
//! **While the lease holds, nobody else has the lock.** Not more: between [`Lease::check`] and the write that follows, a
//! process can be stopped for longer than the lease, and the next owner be at work when it goes on. No lock that expires
//! can prevent that (Martin Kleppmann, *How to do distributed locking*, 2016); a fencing token can, where what is written
//! to compares it. Redis must not evict keys (`maxmemory-policy noeviction`), and what it forgets in a crash or a
//! fail-over was never locked: tokens begin anew then, see [`Lock::raise_token`].
//!
//! Time is `CLOCK_MONOTONIC`, counted from before Redis was asked, less an allowance for drift. It goes on while a process
//! is stopped (`SIGSTOP`, a paused container). It stands still while the machine sleeps, as does the whole process: after
//! a suspended laptop or virtual machine wakes up, a lease may look alive that Redis has long given away.
//!
//! # How it waits
//!
//! Callers in one process queue up in order, and only the first of them asks Redis. Processes ask again after 1 to 20 ms
//! and take turns: on one node, who has waited for 20 ms is let in before the others, in the order in which they came. The
//! nodes of Redlock could not agree on an order; there chance decides, which has no favourites either.
//!
//! All keys of one lock would have to lie on one server: a Redis Cluster is refused by its own answer (`CROSSSLOT`).

mod error;
mod figures;
mod hold;
mod lease;
mod lock;
mod node;
mod owner;
mod pace;
mod queue;
mod quorum;
mod settings;

pub use error::{Error, Lost};
pub use figures::{Figures, Holding};
pub use lease::Lease;
pub use lock::Lock;
pub use owner::Owner;
pub use settings::Settings;
