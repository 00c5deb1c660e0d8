//! What a client shows a server, and what it asks of it: a token for its calls, a certificate of its own, the authorities
//! it trusts. Refuses to connect without checking who the server is.

use std::{fmt, path::Path, sync::Arc};

use http::HeaderValue;
use rustls::{ClientConfig, Error, RootCertStore, crypto::ring, pki_types::ServerName};

use crate::pem::{self, FileError};

/// The only protocol that gRPC is spoken in.
const ALPN: &[u8] = b"h2";

/// What a client shows and asks. The default shows nothing and trusts what the system trusts.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    bearer: Bearer,
    tls: Option<Arc<ClientConfig>>,
    server_name: Option<ServerName<'static>>,
}

/// Why credentials are of no use. Never repeats a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The token cannot be sent.
    #[error("--token: a token has printable ASCII characters only")]
    Token,
    /// The authorities' certificates cannot be used.
    #[error("--ca-cert {0}")]
    Authorities(#[source] FileError),
    /// The client's certificate cannot be used.
    #[error("--client-cert {0}")]
    Certificate(#[source] FileError),
    /// The client's key cannot be used.
    #[error("--client-key {0}")]
    Key(#[source] FileError),
    /// The server's name is none.
    #[error("--server-name: it is neither a DNS name nor an IP address")]
    ServerName,
    /// The system trusts nobody.
    #[error("no authority's certificates are installed on this system; give --ca-cert FILE")]
    NoAuthorities,
}

/// The files of a certificate and its key.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The certificate, followed by those that sign it.
    pub certificate: &'a Path,
    /// Its private key.
    pub key: &'a Path,
}

impl Credentials {
    /// The same with a token, shown with every call.
    ///
    /// # Errors
    /// [`CredentialsError::Token`].
    pub fn with_token(self, token: &str) -> Result<Self, CredentialsError> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| CredentialsError::Token)?;
        if token.is_empty() || !token.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(CredentialsError::Token);
        }
        // Neither logged nor compressed along with what others may choose.
        bearer.set_sensitive(true);
        Ok(Self { bearer: Bearer(Some(bearer)), ..self })
    }

    /// The same, trusting the authorities of a file, or the system's where there is none, and showing a certificate to a
    /// server that asks for one.
    ///
    /// # Errors
    /// [`CredentialsError`] names the file and what is wrong with it.
    pub fn with_tls(
        self,
        authorities: Option<&Path>,
        identity: Option<Identity<'_>>,
    ) -> Result<Self, CredentialsError> {
        let roots = authorities.map_or_else(system_roots, roots_of)?;
        Ok(Self { tls: Some(Arc::new(config(roots, identity)?)), ..self })
    }

    /// The same, where the server's certificate names it otherwise than its address does.
    ///
    /// # Errors
    /// [`CredentialsError::ServerName`].
    pub fn with_server_name(self, name: &str) -> Result<Self, CredentialsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| CredentialsError::ServerName)?;
        Ok(Self { server_name: Some(name), ..self })
    }

    /// Whether certificates were asked for, so that nothing may be sent in the clear.
    pub(crate) const fn are_for_tls(&self) -> bool {
        self.tls.is_some() || self.server_name.is_some()
    }

    /// What calls carry.
    pub(crate) const fn bearer(&self) -> &Bearer {
        &self.bearer
    }

    /// How to speak TLS to a server that is known as `host`.
    pub(crate) fn tls(&self, host: &str) -> Result<(Arc<ClientConfig>, ServerName<'static>), CredentialsError> {
        let config = match &self.tls {
            Some(config) => Arc::clone(config),
            None => Arc::new(config(system_roots()?, None)?),
        };
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|_| CredentialsError::ServerName)?,
        };
        Ok((config, name))
    }
}

fn config(roots: RootCertStore, identity: Option<Identity<'_>>) -> Result<ClientConfig, CredentialsError> {
    // The provider has every version that rustls speaks.
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| CredentialsError::NoAuthorities)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity @ Identity { certificate, key }) => {
            let chain = pem::certificates(certificate).map_err(CredentialsError::Certificate)?;
            let private = pem::private_key(key).map_err(CredentialsError::Key)?;
            builder.with_client_auth_cert(chain, private).map_err(|error| unfit(identity, &error))?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// A certificate and a key that rustls does not take together.
fn unfit(Identity { certificate, key }: Identity<'_>, error: &Error) -> CredentialsError {
    let Error::InvalidCertificate(invalid) = error else { return CredentialsError::Key(FileError::new(key, error)) };
    let cause = format!("{invalid:?}");
    let problem = if cause.contains("UnsupportedCertVersion") {
        "it is no X.509 v3 certificate; sign it again with extensions (openssl x509 -req ... -extfile FILE)".to_owned()
    } else {
        error.to_string()
    };
    CredentialsError::Certificate(FileError::new(certificate, &problem))
}

fn roots_of(path: &Path) -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(path).map_err(CredentialsError::Authorities)? {
        let refused = |error| CredentialsError::Authorities(FileError::new(path, &error));
        roots.add(certificate).map_err(refused)?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    // Some of a system's certificates are older than any rule; the others serve.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(CredentialsError::NoAuthorities) } else { Ok(roots) }
}

/// What shows the token with each call.
#[derive(Clone, Default)]
pub(crate) struct Bearer(Option<HeaderValue>);

impl Bearer {
    /// The header, where there is a token.
    pub(crate) const fn header(&self) -> Option<&HeaderValue> {
        self.0.as_ref()
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "***" } else { "none" })
    }
}
