//! The client against a server that does what a script says: fails, hangs up, comes back.

// A script that cannot be read is a broken test.
#![allow(clippy::unwrap_used)]

mod calls;
mod deduct_stream;
mod entries;
mod queue;
mod scripted;
mod service_config;
mod timeline;
mod tls;
#[cfg(feature = "timeline")]
mod traces;
#[cfg(feature = "timeline")]
mod watcher;
