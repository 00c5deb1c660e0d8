//! The account service: every concurrency-control strategy over one journal, and the timeline that shows them at work.
//!
//! Calls flow one way: `rpc` → [`ledger`] → [`strategy`] → [`store`]; [`account`] holds the rules and [`error`] the one
//! domain error. Only [`app`] knows everything.

pub mod access;
pub mod account;
pub mod app;
pub mod banner;
pub mod breaker;
pub mod cache;
mod call;
pub mod chain;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod demo;
pub mod depth;
pub mod error;
pub mod explore;
pub mod export;
pub mod gate;
pub mod healthcheck;
pub mod history;
pub mod http;
mod layer;
pub mod ledger;
pub mod limit;
pub mod listeners;
pub mod logging;
pub mod outbox;
mod port;
pub mod project;
pub mod projector;
pub mod queue;
pub mod quiet;
pub mod reconcile;
pub mod reload;
pub mod report;
pub mod rpc;
mod screen;
pub mod shutdown;
pub mod store;
pub mod strategy;
pub mod timeline;
pub mod tls;
pub mod trace;
pub mod verify;
pub mod waiting;
pub mod worker;
