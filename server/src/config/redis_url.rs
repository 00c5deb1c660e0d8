//! Where a Redis server is, as a URL names it. Never shows a password.

use std::{fmt, str::FromStr};

use url::Url;

use super::database_url::without_password;

const FORM: &str = "use redis://[user:pass@]host:port[/number]";

/// A Redis server. `Display` and `Debug` redact the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The URL as a driver takes it: with the password.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for RedisUrl {
    /// What is wrong and what to write; the text itself is not repeated, it may hold a password.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|error| {
            format!("{error} (is a special character of the password not percent-encoded?); {FORM}")
        })?;
        match url.scheme() {
            "redis" => {}
            "rediss" => return Err("TLS to Redis is not supported; reach it through a tunnel".to_owned()),
            scheme => return Err(format!("unsupported scheme `{scheme}`; {FORM}")),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("no host; {FORM}"));
        }
        let number = url.path().trim_start_matches('/');
        if !number.is_empty() && number.parse::<u16>().is_err() {
            return Err(format!("what follows the host is not the number of a database; {FORM}"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_a_driver_takes_and_shows_no_password() {
        for text in ["redis://127.0.0.1:6379", "redis://localhost", "redis://[::1]:6379/2", "redis://:s3cret@redis/0"] {
            let url: RedisUrl = text.parse().expect(text);
            assert_eq!(url.expose(), text);
            assert!(!format!("{url} {url:?}").contains("s3cret"));
        }
    }

    #[test]
    fn refuses_the_rest_and_says_what_to_write() {
        let cases = [
            ("127.0.0.1:6379", "use redis://"),
            ("http://localhost", "unsupported scheme `http`"),
            ("rediss://localhost", "TLS"),
            ("redis://", "no host"),
            ("redis://:pw@localhost/one", "number"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<RedisUrl>().expect_err(text);
            assert!(error.contains(expected) && !error.contains("pw"), "{text}: {error}");
        }
    }
}
