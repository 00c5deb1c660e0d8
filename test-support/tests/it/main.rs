//! The tests of this crate against real servers and processes, in one binary.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod cut_proxy;
mod mariadb;
mod process;
mod rabbitmq;
mod redis;
