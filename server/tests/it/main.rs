//! The server against real databases: schedules (gates), cuts (the COMMIT proxy), cancellation, and the wire.

// What a test did not expect is its failure, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod app;
mod batches;
mod breakers;
mod browser;
mod cache;
mod cancellation;
mod connections;
mod costs;
mod cuts;
mod entries;
mod event_sourced;
mod explore;
mod export;
mod facade;
mod find_schedule;
mod follow;
mod histories;
mod hold;
mod idempotency;
mod lab;
mod leases;
mod metrics;
mod outbox;
mod projector;
mod queue;
mod rebuild;
mod reconcile;
mod reports;
mod run_schedule;
mod schedules;
mod stalls;
mod stream;
mod tampering;
mod timeline;
mod tls;
mod tokens;
mod traces;
mod wire;
mod worker;
