//! Who one is, and whom one trusts: certificates in PEM files, of either end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, version};

/// What gRPC is spoken over.
const HTTP2: &[u8] = b"h2";

/// Where the certificates of one end are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Its own, followed by those between it and the authority.
    pub cert: PathBuf,
    /// The key of it.
    pub key: PathBuf,
    /// The authorities whose certificates the other end may have.
    pub ca: PathBuf,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No such file, or none that may be read.
    #[error("{} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// It is there, and something else.
    #[error("{} holds no {what} in PEM", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// The two do not belong together.
    #[error("the key in {} is not that of the certificate in {}", key.display(), cert.display())]
    OtherKey {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// It is PEM, and nothing that TLS can be spoken with.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// What is in the files.
#[derive(Clone, PartialEq, Eq)]
pub struct Pems {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl Files {
    /// Reads them.
    pub fn read(&self) -> Result<Pems, TlsError> {
        let Files { cert, key, ca } = self;
        Ok(Pems {
            cert: read(cert)?,
            key: read(key)?,
            ca: read(ca)?,
        })
    }

    /// For who answers, and only those whom the authority knows.
    pub fn server(&self, pems: &Pems) -> Result<ServerConfig, TlsError> {
        let roots = Arc::new(self.roots(pems)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let verifier = verifier.build().map_err(|e| unusable(&self.ca, &e))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| self.refused(&e))?
            .with_client_cert_verifier(verifier);
        let config = config.with_single_cert(self.chain(pems)?, self.key(pems)?);
        let mut config = config.map_err(|e| self.refused(&e))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // Who comes back shows the certificate again: it may have expired since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For who asks.
    pub fn client(&self, pems: &Pems) -> Result<ClientConfig, TlsError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| self.refused(&e))?
            .with_root_certificates(self.roots(pems)?)
            .with_client_auth_cert(self.chain(pems)?, self.key(pems)?);
        let mut config = config.map_err(|e| self.refused(&e))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(config)
    }

    fn roots(&self, pems: &Pems) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.ca, &pems.ca)? {
            roots.add(root).map_err(|e| unusable(&self.ca, &e))?;
        }
        Ok(roots)
    }

    fn chain(&self, pems: &Pems) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.cert, &pems.cert)
    }

    fn key(&self, pems: &Pems) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&pems.key).map_err(|_| TlsError::NotPem {
            path: self.key.clone(),
            what: "private key",
        })
    }

    fn refused(&self, error: &rustls::Error) -> TlsError {
        match error {
            rustls::Error::InconsistentKeys(_) => TlsError::OtherKey {
                cert: self.cert.clone(),
                key: self.key.clone(),
            },
            _ => unusable(&self.cert, error),
        }
    }
}

/// kube brings ring too: which provider is the process's is nobody's to say.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|why| TlsError::Unreadable {
        path: path.to_path_buf(),
        why,
    })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| TlsError::NotPem {
        path: path.to_path_buf(),
        what: "certificate",
    })
}

fn unusable(path: &Path, why: &dyn std::error::Error) -> TlsError {
    TlsError::Unusable {
        path: path.to_path_buf(),
        why: why.to_string(),
    }
}
