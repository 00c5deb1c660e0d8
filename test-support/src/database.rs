//! A database of its own for each test, on the private server or on the one that `ZBL_TEST_MYSQL_URL` names. Statements
//! go through the `mariadb` client program: this crate speaks no SQL protocol of its own.

use std::{
    env,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{Error, MariaDb, program::find_program};

/// Names the server to test against, in place of a private one: `mysql://user[:password]@host[:port]/any`. The user
/// must be allowed to create databases. The tests' databases (`zbl_test_…`) stay there.
pub const MYSQL_URL_VARIABLE: &str = "ZBL_TEST_MYSQL_URL";

const DEFAULT_PORT: u16 = 3306;

/// Creates an empty database that no other test has, and returns its URL.
///
/// # Errors
/// Whatever keeps the private server from starting ([`MariaDb::start`]) or the given one from creating a database.
pub fn fresh_database() -> Result<String, Error> {
    #[expect(clippy::disallowed_methods, reason = "a test's own setting, which no configuration of the product reads")]
    let server = match env::var(MYSQL_URL_VARIABLE) {
        Ok(url) => MysqlUrl::parse(&url)?,
        Err(_) => MysqlUrl::root_at(MariaDb::shared()?.addr()),
    };
    let name = unique_name();
    // Outside any database: the one that the URL names need not exist.
    server.with_database("").query(&format!("CREATE DATABASE {name}"))?;
    Ok(server.with_database(&name).to_string())
}

/// Runs statements in the database that `url` names; the rows come as [`MariaDb::query`] gives them.
///
/// # Errors
/// [`Error::Url`], [`Error::Missing`] where there is no client program, or [`Error::Sql`] with the server's refusal.
pub fn query(url: &str, sql: &str) -> Result<Vec<Vec<String>>, Error> {
    MysqlUrl::parse(url)?.query(sql)
}

/// A name that no other test, process or earlier run has used.
fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("zbl_test_{nanos:x}_{}_{count}", process::id())
}

/// The parts of a `mysql://` URL. The user and the password are kept as written, percent-encoding included.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct MysqlUrl {
    credentials: String,
    host: String,
    port: u16,
    database: String,
}

impl MysqlUrl {
    /// The superuser of a private server.
    pub(crate) fn root_at(address: SocketAddr) -> Self {
        Self {
            credentials: "root".into(),
            host: address.ip().to_string(),
            port: address.port(),
            database: String::new(),
        }
    }

    /// Takes `mysql://user[:password]@host[:port][/database][?options]`; the options are dropped.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Url { reason: reason.into() };
        let rest = url.strip_prefix("mysql://").ok_or_else(|| wrong("it does not begin with mysql://"))?;
        let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, server) = authority.rsplit_once('@').ok_or_else(|| wrong("it names no user"))?;
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong("its port is not a number up to 65535"))?),
            None => (server, DEFAULT_PORT),
        };
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        Ok(Self { credentials: credentials.into(), host: host.into(), port, database: database.into() })
    }

    /// The same account and server, another database.
    pub(crate) fn with_database(&self, database: &str) -> Self {
        Self { database: database.into(), ..self.clone() }
    }

    /// The same account and database, reached at another address.
    pub(crate) fn with_address(&self, address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port(), ..self.clone() }
    }

    /// The address of the server.
    pub(crate) fn address(&self) -> Result<SocketAddr, Error> {
        let doing = || format!("looking up the address of {}", self.host);
        let mut addresses =
            (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| Error::system(doing())(error))?;
        addresses.next().ok_or_else(|| Error::System { doing: doing(), reason: "it has none".into() })
    }

    /// Runs statements through the client program and splits its tab-separated output.
    pub(crate) fn query(&self, sql: &str) -> Result<Vec<Vec<String>>, Error> {
        let (user, password) = self.credentials.split_once(':').unwrap_or((&self.credentials, ""));
        let output = Command::new(find_client()?)
            .args(["--no-defaults", "--protocol=TCP", "--connect-timeout=10", "--default-character-set=utf8mb4"])
            .args(["--batch", "--skip-column-names", "--host", &self.host, "--port", &self.port.to_string()])
            .args(["--user", &decode(user), "--execute", sql, "--database", &self.database])
            // Not as an argument, where every process on the machine could read it.
            .env("MYSQL_PWD", decode(password))
            .stdin(Stdio::null())
            .output()
            .map_err(Error::system("running the mariadb client"))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Sql { sql: sql.into(), reason });
        }
        let rows = String::from_utf8_lossy(&output.stdout);
        Ok(rows.lines().map(|row| row.split('\t').map(str::to_owned).collect()).collect())
    }
}

impl std::fmt::Display for MysqlUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mysql://{}@{}:{}/{}", self.credentials, self.host, self.port, self.database)
    }
}

impl std::fmt::Debug for MysqlUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The credentials are left out: they may hold a password.
        write!(f, "mysql://…@{}:{}/{}", self.host, self.port, self.database)
    }
}

/// The client program, under either of its names.
pub(crate) fn find_client() -> Result<PathBuf, Error> {
    find_program("mariadb")
        .or_else(|| find_program("mysql"))
        .ok_or(Error::Missing { what: "`mariadb` or `mysql` client", fix: "apt-get install -y mariadb-client" })
}

/// Undoes percent-encoding. What is not a valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_put_together() {
        for (url, whole) in [
            ("mysql://root@127.0.0.1:3307/zbl", "mysql://root@127.0.0.1:3307/zbl"),
            ("mysql://a:p%40ss:w@db.example/zbl?ssl=no", "mysql://a:p%40ss:w@db.example:3306/zbl"),
            ("mysql://root@h", "mysql://root@h:3306/"),
        ] {
            assert_eq!(MysqlUrl::parse(url).unwrap().to_string(), whole);
        }
        for url in ["", "sqlite://zbl.db", "mysql://h:3306/zbl", "mysql://root@/zbl", "mysql://root@h:port/zbl"] {
            assert!(matches!(MysqlUrl::parse(url), Err(Error::Url { .. })), "{url}");
        }
    }

    #[test]
    fn a_password_is_decoded_and_never_shown() {
        for (text, decoded) in [("p%40ss", "p@ss"), ("100%", "100%"), ("%zz", "%zz"), ("%c3%a9", "é"), ("", "")] {
            assert_eq!(decode(text), decoded);
        }
        assert!(!format!("{:?}", MysqlUrl::parse("mysql://a:secret@h/d").unwrap()).contains("secret"));
    }
}
