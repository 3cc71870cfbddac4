//! The authority that signs the certificates of agents and of those who ask them. It is made for a pair of them, and its key is
//! kept nowhere: nobody can sign more, and whom it signed nobody trusts any more once the next pair is there.

use super::places::AGENT_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use std::time::{Duration, SystemTime};

/// Certificates are valid from so long ago on: the clocks of nodes differ.
const SKEW: Duration = Duration::from_hours(24);

/// No certificates.
#[derive(Debug, thiserror::Error)]
#[error("certificates could not be made: {0}")]
pub struct IssueError(#[from] rcgen::Error);

/// What one end has, in PEM.
pub struct Credentials {
    /// Its certificate.
    pub cert: String,
    /// The key of it.
    pub key: String,
    /// The authority that signed the other end's.
    pub ca: String,
}

/// What both ends have.
pub struct Pair {
    /// All agents.
    pub agent: Credentials,
    /// Whoever asks.
    pub client: Credentials,
}

impl Pair {
    /// A new authority's.
    pub fn issue(valid_for: Duration) -> Result<Pair, IssueError> {
        let authority = Authority::new(valid_for)?;
        let agent = authority.sign(AGENT_NAME, ExtendedKeyUsagePurpose::ServerAuth)?;
        let client = authority.sign("netflow-client", ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(Pair { agent, client })
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    valid_for: Duration,
}

impl Authority {
    fn new(valid_for: Duration) -> Result<Authority, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = params("netflow", valid_for)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority {
            issuer: Issuer::new(params, key),
            pem,
            valid_for,
        })
    }

    /// A certificate for one purpose: an agent's makes nobody a client.
    fn sign(
        &self,
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Credentials, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = params(name, self.valid_for)?;
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        Ok(Credentials {
            cert: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
            ca: self.pem.clone(),
        })
    }
}

fn params(name: &str, valid_for: Duration) -> Result<CertificateParams, IssueError> {
    let epoch = SystemTime::UNIX_EPOCH;
    // A clock before 1970 is wrong by more than a certificate could make up for.
    let now = SystemTime::now().duration_since(epoch).unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + now;
    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - SKEW;
    params.not_after = now + valid_for;
    Ok(params)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use tokio_rustls::rustls::client::WebPkiServerVerifier;
    use tokio_rustls::rustls::client::danger::ServerCertVerifier;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::{CertificateError, Error, RootCertStore};

    /// What a client that trusts `ca` says of `cert` then.
    fn judged(cert: &str, ca: &str, then: Duration) -> Result<(), Error> {
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der(ca)).unwrap();
        let provider = ring::default_provider().into();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let name = ServerName::try_from(AGENT_NAME).unwrap();
        let then = UnixTime::since_unix_epoch(then);
        let verifier = verifier.build().unwrap();
        let judged = verifier.verify_server_cert(&der(cert), &[], &name, &[], then);
        judged.map(drop)
    }

    #[test]
    fn they_are_valid_for_as_long_as_was_asked_and_a_while_before() {
        let epoch = SystemTime::UNIX_EPOCH;
        let now = SystemTime::now().duration_since(epoch).unwrap();
        let (lasts, minute) = (Duration::from_hours(72), Duration::from_mins(1));
        let Pair { agent, client } = Pair::issue(lasts).unwrap();
        let judged = |then| judged(&agent.cert, &client.ca, then);
        let (early, end) = ((now + minute).checked_sub(SKEW), now + lasts);
        assert_eq!(judged(early.unwrap()), Ok(()));
        assert_eq!(judged(end.checked_sub(minute).unwrap()), Ok(()));
        let late = judged(end + minute);
        assert!(
            matches!(
                late,
                Err(Error::InvalidCertificate(
                    CertificateError::ExpiredContext { .. }
                ))
            ),
            "{late:?}"
        );
    }
}
