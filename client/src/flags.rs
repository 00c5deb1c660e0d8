//! The flags by which every program here is told how to reach a server that asks for more than an address. Refuses to
//! repeat a token.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use clap::Args;

use crate::{
    AddressError, Client, HttpPort,
    credentials::{Credentials, CredentialsError, Identity},
};

/// How to reach a server that asks for more than an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionFlags {
    /// Shown with every call as `authorization: Bearer TOKEN`; better given by environment than by flag
    #[arg(long, value_name = "TOKEN", env = "ZBL_TOKEN", hide_env_values = true)]
    token: Option<Token>,
    /// The authorities (PEM) that an https:// server's certificate is checked against; the system's when left out
    #[arg(long, value_name = "FILE", env = "ZBL_CA_CERT")]
    ca_cert: Option<PathBuf>,
    /// The certificate (PEM) to show a server that asks for one
    #[arg(long, value_name = "FILE", env = "ZBL_CLIENT_CERT", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", env = "ZBL_CLIENT_KEY", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// What the server's certificate calls it, where that is not the host of its address
    #[arg(long, value_name = "NAME", env = "ZBL_SERVER_NAME")]
    server_name: Option<String>,
}

/// Why a server cannot be reached as the flags say.
#[derive(Debug, thiserror::Error)]
pub enum FlagsError {
    /// The address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// What goes with it.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// A token as it was given; an empty one is none, because that is how compose files and shells unset. Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token(String);

impl FromStr for Token {
    // Refused later, where the refusal does not quote it.
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ConnectionFlags {
    /// The credentials.
    ///
    /// # Errors
    /// [`CredentialsError`] names the flag.
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let identity = self.client_cert.as_deref().zip(self.client_key.as_deref());
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        let mut credentials = Credentials::default();
        if self.ca_cert.is_some() || identity.is_some() {
            credentials = credentials.with_tls(self.ca_cert.as_deref(), identity)?;
        }
        if let Some(name) = &self.server_name {
            credentials = credentials.with_server_name(name)?;
        }
        match &self.token {
            Some(Token(token)) if !token.is_empty() => credentials.with_token(token),
            _ => Ok(credentials),
        }
    }

    /// A client of the server at an address, with these credentials.
    ///
    /// # Errors
    /// [`FlagsError`].
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn client(&self, address: &str) -> Result<Client, FlagsError> {
        Ok(Client::connect_lazy_with(address, &self.credentials()?)?)
    }

    /// A server's HTTP port at an address, with these credentials.
    ///
    /// # Errors
    /// [`FlagsError`].
    pub fn http_port(&self, address: &str) -> Result<HttpPort, FlagsError> {
        Ok(HttpPort::at(address, &self.credentials()?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_never_told() {
        let flags = |token: &str| ConnectionFlags { token: token.parse().ok(), ..ConnectionFlags::default() };
        let client = flags("s3cret").client("127.0.0.1:1").unwrap();
        assert_eq!(client.authorization().unwrap(), "Bearer s3cret");
        for shown in [format!("{:?}", flags("s3cret")), format!("{client:?}"), format!("{:?}", client.authorization())]
        {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        for wrong in ["s3\tcret", "s3cret\n", "s3cr\u{e9}t"] {
            let error = flags(wrong).client("127.0.0.1:1").unwrap_err().to_string();
            assert!(error.contains("--token") && !error.contains("s3"), "{error}");
        }
        assert!(flags("").client("127.0.0.1:1").unwrap().authorization().is_none());
    }

    #[tokio::test]
    async fn files_are_named_and_certificates_are_not_left_unused() {
        let ca = |path: &str| ConnectionFlags { ca_cert: Some(path.into()), ..ConnectionFlags::default() };
        let error = ca("/no/such.pem").client("https://localhost:1").unwrap_err().to_string();
        assert!(error.contains("--ca-cert /no/such.pem: cannot be read"), "{error}");
        let error = ca("Cargo.toml").client("https://localhost:1").unwrap_err().to_string();
        assert!(error.contains("--ca-cert Cargo.toml: there is no certificate in it"), "{error}");
        let named = ConnectionFlags { server_name: Some("bank".to_owned()), ..ConnectionFlags::default() };
        let error = named.client("localhost:1").unwrap_err().to_string();
        assert!(error.contains("not encrypted"), "{error}");
    }
}
