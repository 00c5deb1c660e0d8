//! Certificates for tests, made when they are needed and gone with the test: an authority, and what it signs. None is
//! committed, so none runs out.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;

use crate::Error;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Someone who signs certificates, and the directory where they lie.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// The files of a certificate and its key (PEM).
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Authority {
    /// An authority that nobody knows yet.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn new() -> Result<Self, Error> {
        let directory = TempDir::new().map_err(Error::system("making a directory for certificates"))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each has a name of its own: a certificate names its issuer.
        params.distinguished_name.push(DnType::CommonName, directory.path().to_string_lossy().as_ref());
        let key = KeyPair::generate().map_err(failed)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        write(&directory.path().join("ca.pem"), &issuer.pem())?;
        Ok(Self { issuer, directory })
    }

    /// Its own certificate, for those who are to trust it.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate, good for today, in files of this name, which are replaced where they are there.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn sign(&self, file: &str, names: &[&str]) -> Result<Signed, Error> {
        let now = SystemTime::now();
        self.sign_for(file, names, now - DAY, now + DAY)
    }

    /// One that ran out yesterday.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn sign_expired(&self, file: &str, names: &[&str]) -> Result<Signed, Error> {
        let now = SystemTime::now();
        self.sign_for(file, names, now - 2 * DAY, now - DAY)
    }

    fn sign_for(&self, file: &str, names: &[&str], from: SystemTime, until: SystemTime) -> Result<Signed, Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(failed)?;
        (params.not_before, params.not_after) = (from.into(), until.into());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let pair = KeyPair::generate().map_err(failed)?;
        let signed = params.signed_by(&pair, &self.issuer).map_err(failed)?;
        let path = |suffix: &str| self.directory.path().join(format!("{file}{suffix}"));
        let (certificate, key) = (path(".pem"), path(".key"));
        write(&certificate, &signed.pem())?;
        write(&key, &pair.serialize_pem())?;
        Ok(Signed { certificate, key })
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::system(format!("writing {}", path.display())))
}

fn failed(error: rcgen::Error) -> Error {
    Error::system("making a certificate")(std::io::Error::other(error))
}
