//! The server against real databases: schedules (gates), cuts (the COMMIT proxy), cancellation, and the wire.

mod app;
mod cancellation;
mod cuts;
mod idempotency;
mod schedules;
mod timeline;
mod wire;
