//! What tests need from outside the project: a private database server, a proxy that cuts its links, a process under
//! test. It owns starting, killing and cleaning up after them; it knows nothing of accounts, and carries no runtime,
//! so that `xtask` stays quick to build.

mod cut_proxy;
mod database;
mod error;
mod leash;
mod mariadb;
mod poll;
mod process;

pub use cut_proxy::{Cut, CutProxy, NewConnections};
pub use database::{MYSQL_URL_VARIABLE, fresh_database, query};
pub use error::Error;
pub use mariadb::MariaDb;
pub use poll::{free_port, poll_until};
pub use process::Process;
