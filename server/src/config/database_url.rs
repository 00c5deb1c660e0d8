//! Where the accounts are kept, as a URL names it. Refuses what no store of this server can open, and never shows a
//! password.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use url::Url;

/// The forms that are accepted, for error messages.
const FORMS: &str = "use sqlite://PATH or mysql://user:pass@host:port/db";

/// Where MySQL listens when nothing else is said.
const MYSQL_PORT: u16 = 3306;

/// A database this server can open. `Display` and `Debug` redact the password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// The embedded store, in the file at this path.
    Sqlite(PathBuf),
    /// A MySQL or MariaDB server, as its driver takes it: with the password.
    Mysql(String),
}

/// Where a database server is, and which of its databases is meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The host, a name or an address.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// The database's name.
    pub(crate) database: String,
}

impl DatabaseUrl {
    /// Where the database is, if it is on a server.
    pub(crate) fn place(&self) -> Option<Place> {
        let Self::Mysql(url) = self else { return None };
        let url = Url::parse(url).ok()?;
        let database = url.path().trim_start_matches('/').to_owned();
        Some(Place { host: url.host_str()?.to_owned(), port: url.port().unwrap_or(MYSQL_PORT), database })
    }
}

impl FromStr for DatabaseUrl {
    /// What is wrong and what to write; the text itself is not repeated, it may hold a password.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("no `scheme://`; {FORMS}"))?;
        match scheme {
            "sqlite" => sqlite(rest),
            // MariaDB speaks the same protocol, and this is how its own tools write it.
            "mysql" | "mariadb" => mysql(&format!("mysql://{rest}")),
            _ => Err(format!("unsupported scheme `{scheme}`; {FORMS}")),
        }
    }
}

fn sqlite(path: &str) -> Result<DatabaseUrl, String> {
    if path.is_empty() {
        return Err("no path after sqlite://; write sqlite://zbl.db or sqlite:///var/lib/zbl.db".to_owned());
    }
    if path == ":memory:" {
        return Err("every connection would have a database in memory of its own; name a file".to_owned());
    }
    if path.starts_with("file:") {
        return Err("SQLite's own `file:` URIs are not supported; name the file itself".to_owned());
    }
    if path.contains('?') {
        return Err("options after `?` are not supported for sqlite://".to_owned());
    }
    if Path::new(path).is_dir() || path.ends_with('/') {
        return Err(format!("`{path}` is a directory; name a file in it"));
    }
    Ok(DatabaseUrl::Sqlite(PathBuf::from(path)))
}

fn mysql(text: &str) -> Result<DatabaseUrl, String> {
    let url = Url::parse(text)
        .map_err(|error| format!("{error} (is a special character of the password not percent-encoded?); {FORMS}"))?;
    let missing = |what: &str| Err(format!("no {what}; use mysql://user:pass@host:port/db"));
    if url.host_str().is_none_or(str::is_empty) {
        return missing("host");
    }
    if url.username().is_empty() {
        return missing("user");
    }
    if url.fragment().is_some() {
        return Err("a `#` in the password must be written %23".to_owned());
    }
    match url.path().trim_start_matches('/') {
        "" => missing("database name"),
        name if name.contains('/') => Err(format!("`{name}` is not a database name; {FORMS}")),
        _ => Ok(DatabaseUrl::Mysql(text.to_owned())),
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Mysql(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL with `***` for its password; `***` alone for what cannot be read as a URL.
pub(super) fn without_password(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return "***".to_owned() };
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "***".to_owned();
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_both_stores() {
        assert_eq!("sqlite://zbl.db".parse(), Ok(DatabaseUrl::Sqlite("zbl.db".into())));
        assert_eq!("sqlite:///var/lib/zbl.db".parse(), Ok(DatabaseUrl::Sqlite("/var/lib/zbl.db".into())));
        let url = "mysql://root:pw@127.0.0.1:3306/zbl";
        assert_eq!(url.parse(), Ok(DatabaseUrl::Mysql(url.to_owned())));
        assert_eq!("mariadb://root@db/zbl".parse(), Ok(DatabaseUrl::Mysql("mysql://root@db/zbl".to_owned())));
        assert!("mysql://root@db/zbl?require_ssl=false".parse::<DatabaseUrl>().is_ok());
    }

    #[test]
    fn refuses_the_rest_and_says_what_to_write() {
        let cases = [
            (
                "postgres://u:p@h/db",
                "unsupported scheme `postgres`; use sqlite://PATH or mysql://user:pass@host:port/db",
            ),
            ("zbl.db", "no `scheme://`"),
            ("", "no `scheme://`"),
            ("sqlite://", "no path"),
            ("sqlite://:memory:", "name a file"),
            ("sqlite:///tmp", "is a directory"),
            ("sqlite://zbl.db?mode=ro", "options"),
            ("mysql://", "no host"),
            ("mysql:///zbl", "no host"),
            ("mysql://root:pw@host", "no database name"),
            ("mysql://root:pw@host/", "no database name"),
            ("mysql://root:pw@host/a/b", "not a database name"),
            ("mysql://host/zbl", "no user"),
            ("mysql://root:a#b@host/zbl", "percent-encoded"),
            ("mysql://root:pw@host:99999/zbl", "invalid port number"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<DatabaseUrl>().expect_err(text);
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("pw") && !error.contains("a#b"), "{text:?} leaks: {error}");
        }
    }

    #[test]
    fn tells_where_a_server_is() {
        let place = |text: &str| text.parse::<DatabaseUrl>().expect(text).place();
        let at = |port| Some(Place { host: "db".to_owned(), port, database: "zbl".to_owned() });
        assert_eq!(place("mysql://root:pw@db:3307/zbl?require_ssl=false"), at(3307));
        assert_eq!(place("mariadb://root@db/zbl"), at(3306));
        assert_eq!(place("sqlite://zbl.db"), None);
    }

    #[test]
    fn never_shows_a_password() {
        for text in ["mysql://root:s3cret@db:3306/zbl", "mysql://root:s3%23cret@db/zbl?x=1"] {
            let url: DatabaseUrl = text.parse().expect(text);
            let shown = format!("{url} {url:?}");
            assert!(shown.contains("mysql://root:***@db") && !shown.contains("cret"), "{shown}");
        }
    }
}
