//! The databases measured against: a private MariaDB, and the server that `ZBL_TEST_MYSQL_URL` names. Each gets an empty
//! database, and all must flush every commit: figures of one that does not would not be of the same thing.

use std::{collections::BTreeMap, env, rc::Rc};

use serde::Serialize;
use test_support::{MYSQL_URL_VARIABLE, MariaDb, fresh_database, query};

use crate::command::Failure;

/// Room for the working set of a million accounts and for the log between two checkpoints, as any server in earnest use
/// has. All else, the binary log included, is as the server's own defaults have it. `loose` marks what only one knows.
const OPTIONS: [&str; 3] =
    ["--innodb-buffer-pool-size=1G", "--loose-innodb-log-file-size=512M", "--loose-innodb-redo-log-capacity=512M"];

/// What is told about a server, because it decides what a commit costs.
const SETTINGS: [&str; 8] = [
    "innodb_flush_log_at_trx_commit",
    "log_bin",
    "sync_binlog",
    "innodb_buffer_pool_size",
    "innodb_log_file_size",
    "innodb_redo_log_capacity",
    "innodb_doublewrite",
    "innodb_flush_method",
];

/// The names of the databases on the private server.
const NAME: &str = "zbl";
const TWIN: &str = "zbl_twin";

/// How many accounts one statement makes: a fraction of a second each.
const SEEDED_AT_ONCE: u32 = 100_000;

/// An empty database on a running server.
#[derive(Debug)]
pub(crate) struct Database {
    url: String,
    description: Description,
    /// `None` for a server that was given; it then keeps running, without our database. A private one ends with the last
    /// database on it.
    private: Option<Rc<MariaDb>>,
}

/// What the figures were measured against.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Description {
    /// Product and version.
    pub(crate) name: String,
    /// Whether this command started it.
    pub(crate) private: bool,
    pub(crate) settings: BTreeMap<String, String>,
}

/// Accounts with consecutive ids, all opened with the same balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Accounts {
    /// The lowest id.
    pub(crate) first: i64,
    pub(crate) count: u32,
}

impl Database {
    /// Starts a private server.
    pub(crate) fn private() -> Result<Self, Failure> {
        Self::started(&OPTIONS)
    }

    fn started(options: &'static [&'static str]) -> Result<Self, Failure> {
        let server = MariaDb::start_with(options)?;
        server.create_database(NAME)?;
        let url = server.url(NAME);
        Ok(Self { description: Description::of(&url, true)?, url, private: Some(Rc::new(server)) })
    }

    /// Makes a database on the server that is given; `None` when none is.
    pub(crate) fn given() -> Result<Option<Self>, Failure> {
        if env::var_os(MYSQL_URL_VARIABLE).is_none() {
            return Ok(None);
        }
        let url = fresh_database()?;
        Ok(Some(Self { description: Description::of(&url, false)?, url, private: None }))
    }

    /// One more on the same server, as empty and with the same settings. A private server has room for one.
    pub(crate) fn twin(&self) -> Result<Self, Failure> {
        let url = match &self.private {
            Some(server) => {
                server.create_database(TWIN)?;
                server.url(TWIN)
            }
            None => fresh_database()?,
        };
        Ok(Self { url, description: self.description.clone(), private: self.private.clone() })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    /// The operating system's id of the server; `None` when it may be on another machine.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.private.as_deref().map(MariaDb::pid)
    }

    /// Opens accounts by SQL, beside the service, which must have made its tables: each with its OPEN entry, as the
    /// service would have left it. By calls a million would take many minutes.
    pub(crate) fn seed(&self, accounts: Accounts, opening: &str) -> Result<(), Failure> {
        let mut first = accounts.first;
        let end = accounts.first + i64::from(accounts.count);
        while first < end {
            let count = (end - first).min(i64::from(SEEDED_AT_ONCE));
            query(&self.url, &opened(first, count, opening))?;
            first += count;
        }
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.url.rsplit('/').next().unwrap_or_default();
        if self.private.is_none() && !name.is_empty() {
            // It is of no use to anybody; that it could not be removed must not hide why this ends.
            let _ = query(&self.url, &format!("DROP DATABASE `{name}`"));
        }
    }
}

impl Description {
    fn of(url: &str, private: bool) -> Result<Self, Failure> {
        let names = SETTINGS.map(|name| format!("'{name}'")).join(", ");
        let rows = query(url, &format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})"))?;
        let pairs = rows.into_iter().filter_map(|row| <[String; 2]>::try_from(row).ok());
        let settings: BTreeMap<String, String> = pairs.map(|[name, value]| (name, value)).collect();
        let version = query(url, "SELECT @@version")?.concat().concat();
        durable(&settings)?;
        Ok(Self { name: product(&version), private, settings })
    }

    /// Whether it belongs to the family whose aims are the lower ones, because its commit is the cheaper one.
    pub(crate) fn is_mariadb(&self) -> bool {
        self.name.starts_with("MariaDB")
    }
}

/// The product's name before its version, without what the distribution has added.
fn product(version: &str) -> String {
    match version.split_once("-MariaDB") {
        Some((version, _)) => format!("MariaDB {version}"),
        None => format!("MySQL {}", version.split('-').next().unwrap_or(version)),
    }
}

fn durable(settings: &BTreeMap<String, String>) -> Result<(), Failure> {
    let name = "innodb_flush_log_at_trx_commit";
    match settings.get(name).map_or("unknown", String::as_str) {
        "1" => Ok(()),
        other => Err(Failure::Failed(format!(
            "{name} is {other} on the server that {MYSQL_URL_VARIABLE} names: its commits would not be durable, and its \
             figures not comparable; SET GLOBAL {name} = 1"
        ))),
    }
}

/// The statements that open consecutive accounts, in one transaction. The numbers are made from digits, which both
/// products can, in ascending order, which a clustered index likes.
fn opened(first: i64, count: i64, opening: &str) -> String {
    let digit = "(SELECT 0 AS n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 \
                 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    let digits = ["a", "b", "c", "d", "e"].map(|name| format!("{digit} AS {name}")).join(", ");
    let number = "a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n";
    let last = first + count - 1;
    format!(
        "BEGIN; \
         INSERT INTO accounts (user_id, balance, version) \
         SELECT {first} + number, {opening}, 1 FROM (SELECT {number} AS number FROM {digits}) AS numbers \
         WHERE number < {count} ORDER BY number; \
         INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy) \
         SELECT user_id, 1, UNHEX(LPAD(HEX(user_id), 32, '0')), 'OPEN', balance, balance, 0, '' FROM accounts \
         WHERE user_id BETWEEN {first} AND {last} ORDER BY user_id; \
         COMMIT"
    )
}

#[cfg(test)]
mod tests;
