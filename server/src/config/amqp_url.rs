//! Where a RabbitMQ server is, as a URL names it. Never shows a password.

use std::{fmt, str::FromStr};

use url::Url;

use super::database_url::without_password;

const FORM: &str = "use amqp://[user:pass@]host[:port][/vhost]";

/// A RabbitMQ server. `Display` and `Debug` redact the password.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUrl(String);

impl AmqpUrl {
    /// The URL as a driver takes it: with the password.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for AmqpUrl {
    /// What is wrong and what to write; the text itself is not repeated, it may hold a password.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|error| {
            format!("{error} (is a special character of the password not percent-encoded?); {FORM}")
        })?;
        match url.scheme() {
            "amqp" => {}
            "amqps" => return Err("TLS to RabbitMQ is not supported; reach it through a tunnel".to_owned()),
            scheme => return Err(format!("unsupported scheme `{scheme}`; {FORM}")),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("no host; {FORM}"));
        }
        if url.path().trim_start_matches('/').contains('/') {
            return Err(format!("the name of a virtual host has its slashes percent-encoded, as in /%2f; {FORM}"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_a_driver_takes_and_shows_no_password() {
        for text in
            ["amqp://127.0.0.1:5672", "amqp://localhost", "amqp://zbl:s3cret@rabbit/%2f", "amqp://[::1]/accounts"]
        {
            let url: AmqpUrl = text.parse().expect(text);
            assert_eq!(url.expose(), text);
            assert!(!format!("{url} {url:?}").contains("s3cret"));
        }
    }

    #[test]
    fn refuses_the_rest_and_says_what_to_write() {
        let cases = [
            ("127.0.0.1:5672", "use amqp://"),
            ("http://localhost", "unsupported scheme `http`"),
            ("amqps://localhost", "TLS"),
            ("amqp://", "no host"),
            ("amqp://:pw@localhost/a/b", "%2f"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<AmqpUrl>().expect_err(text);
            assert!(error.contains(expected) && !error.contains("pw"), "{text}: {error}");
        }
    }
}
