//! Who one is, and whom one trusts: certificates in PEM, of either end.

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
    #[error("{place} holds no {what} in PEM")]
    NotPem {
        /// Where it is.
        place: String,
        /// What should be in it.
        what: &'static str,
    },
    /// The two do not belong together.
    #[error("the key in {key} is not that of the certificate in {cert}")]
    OtherKey {
        /// Where the certificate is.
        cert: String,
        /// Where the key is.
        key: String,
    },
    /// It is PEM, and nothing that TLS can be spoken with.
    #[error("{place} cannot be used: {why}")]
    Unusable {
        /// Where it is.
        place: String,
        /// Why.
        why: String,
    },
}

/// A text in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// Where it is, as messages name it.
    pub place: String,
    /// What is there.
    pub text: Vec<u8>,
}

/// What is in the files, or where else certificates are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Pems {
    /// One's own, followed by those between it and the authority.
    pub cert: Pem,
    /// The key of it.
    pub key: Pem,
    /// The authorities whose certificates the other end may have.
    pub ca: Pem,
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
}

impl Pems {
    /// For who answers, and only those whom the authority knows.
    pub fn server(&self) -> Result<ServerConfig, TlsError> {
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let verifier = verifier.build().map_err(|e| unusable(&self.ca, &e))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| self.refused(&e))?
            .with_client_cert_verifier(verifier);
        let config = config.with_single_cert(certificates(&self.cert)?, self.key()?);
        let mut config = config.map_err(|e| self.refused(&e))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // Who comes back shows the certificate again: it may have expired since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For who asks.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| self.refused(&e))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(certificates(&self.cert)?, self.key()?);
        let mut config = config.map_err(|e| self.refused(&e))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.ca)? {
            roots.add(root).map_err(|e| unusable(&self.ca, &e))?;
        }
        Ok(roots)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.key.text).map_err(|_| TlsError::NotPem {
            place: self.key.place.clone(),
            what: "private key",
        })
    }

    fn refused(&self, error: &rustls::Error) -> TlsError {
        match error {
            rustls::Error::InconsistentKeys(_) => TlsError::OtherKey {
                cert: self.cert.place.clone(),
                key: self.key.place.clone(),
            },
            _ => unusable(&self.cert, error),
        }
    }
}

/// kube brings ring too: which provider is the process's is nobody's to say.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(path: &Path) -> Result<Pem, TlsError> {
    let text = fs::read(path).map_err(|why| TlsError::Unreadable {
        path: path.to_path_buf(),
        why,
    })?;
    let place = path.display().to_string();
    Ok(Pem { place, text })
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.text).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| TlsError::NotPem {
        place: pem.place.clone(),
        what: "certificate",
    })
}

fn unusable(pem: &Pem, why: &dyn std::error::Error) -> TlsError {
    TlsError::Unusable {
        place: pem.place.clone(),
        why: why.to_string(),
    }
}
