//! What tests need from outside the project: private servers (MariaDB, Redis, RabbitMQ), a proxy that cuts a database's links, a
//! process under test, a collector of traces. It owns starting, killing and cleaning up after them; it knows nothing of
//! accounts, and but for the collector (a feature) carries no runtime, so that `xtask` stays quick to build.

mod authority;
#[cfg(feature = "collector")]
mod collector;
mod cut_proxy;
mod database;
mod error;
mod leash;
mod mariadb;
mod poll;
mod process;
mod program;
mod rabbitmq;
mod redis;

pub use authority::{Authority, Signed};
#[cfg(feature = "collector")]
pub use collector::{CollectedSpan, Collector};
pub use cut_proxy::{Cut, CutProxy, NewConnections};
pub use database::{MYSQL_URL_VARIABLE, fresh_database, query};
pub use error::Error;
pub use mariadb::MariaDb;
pub use poll::{free_port, poll_until};
pub use process::Process;
pub use rabbitmq::RabbitMq;
pub use redis::Redis;
