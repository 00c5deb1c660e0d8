//! The server's certificates: read from files, checked before anything is served, and read again when the server is told
//! to. Owns what is offered in a handshake; refuses files that do not belong together, by name.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use zbl_client::pem::{self, FileError};

/// The files, as the settings name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by those that sign it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs the certificates of clients; without it none is asked for.
    pub client_authorities: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The certificate.
    #[error("--tls-cert {0}")]
    Certificate(FileError),
    /// The key.
    #[error("--tls-key {0}")]
    Key(FileError),
    /// The authorities of clients.
    #[error("--tls-client-ca {0}")]
    ClientAuthorities(FileError),
}

/// What a port speaks behind TLS, in the order of preference (ALPN).
#[derive(Clone, Copy, Debug)]
pub enum Protocols {
    /// HTTP/2 alone.
    Grpc,
    /// HTTP/2 or HTTP/1.1.
    Http,
}

/// The certificates in use. Clones share them.
#[derive(Clone, Debug)]
pub struct Certificates {
    files: Arc<Files>,
    current: Arc<watch::Sender<Configs>>,
}

/// What each port offers.
#[derive(Clone, Debug)]
struct Configs {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error`] names the flag and the file, and what is wrong with it.
    pub fn load(files: Files) -> Result<Self, Error> {
        let configs = Configs::read(&files)?;
        Ok(Self { files: Arc::new(files), current: Arc::new(watch::Sender::new(configs)) })
    }

    /// Reads the files again: connections made from now on get what is in them. What is wrong with them leaves the
    /// certificates as they are.
    ///
    /// # Errors
    /// [`Error`], as at first.
    pub fn reload(&self) -> Result<(), Error> {
        self.current.send_replace(Configs::read(&self.files)?);
        Ok(())
    }

    /// The handshake of a connection that is made now.
    pub(crate) fn acceptor(&self, protocols: Protocols) -> TlsAcceptor {
        let current = self.current.borrow();
        TlsAcceptor::from(Arc::clone(match protocols {
            Protocols::Grpc => &current.grpc,
            Protocols::Http => &current.http,
        }))
    }
}

impl Configs {
    fn read(files: &Files) -> Result<Self, Error> {
        let Files { certificate, key, client_authorities } = files;
        let chain = pem::certificates(certificate).map_err(Error::Certificate)?;
        let private = pem::private_key(key).map_err(Error::Key)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = match client_authorities {
            Some(path) => verifier(path, &provider)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut grpc = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Certificate(FileError::new(certificate, &error)))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private)
            .map_err(|error| unfit(files, &error))?;
        grpc.alpn_protocols = vec![b"h2".to_vec()];
        let mut http = grpc.clone();
        http.alpn_protocols.push(b"http/1.1".to_vec());
        Ok(Self { grpc: Arc::new(grpc), http: Arc::new(http) })
    }
}

/// Whoever shows a certificate that one of the file's authorities has signed, and nobody else.
fn verifier(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let refused = |problem: String| Error::ClientAuthorities(FileError::new(path, &problem));
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(path).map_err(Error::ClientAuthorities)? {
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| refused(error.to_string()))
}

/// A certificate and a key that rustls does not take together.
fn unfit(files: &Files, error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let problem = format!("it is not the key of the certificate in {}", files.certificate.display());
            Error::Key(FileError::new(&files.key, &problem))
        }
        rustls::Error::InvalidCertificate(_) => Error::Certificate(FileError::new(&files.certificate, &error)),
        _ => Error::Key(FileError::new(&files.key, &error)),
    }
}
