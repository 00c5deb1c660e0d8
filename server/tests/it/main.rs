//! The server against real databases: schedules (gates), cuts (the COMMIT proxy), cancellation, and the wire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

mod app;
mod cancellation;
mod cuts;
mod idempotency;
mod schedules;
mod wire;
