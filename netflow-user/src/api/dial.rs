//! The asker's end over TCP: a connection on which both ends know who the other is.

use super::Address;
use super::client::{AskError, PATIENCE, broken, silent};
use super::tls::{Pems, TlsError};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError};

/// Who asks, and whom it takes for the agent.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its certificates.
    pub pems: Pems,
    /// The name in the agent's certificate; `None` = the host of its address.
    pub name: Option<String>,
}

/// No connection on which both ends know who the other is.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Our own certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A name that no certificate can have.
    #[error("`{0}` is no name that a certificate can have")]
    BadName(String),
    /// An address of TCP, and no certificates.
    #[error("{} answers only those who show a certificate", .0.agent())]
    NoIdentity(Address),
    /// A socket, and certificates.
    #[error("{0} is a socket on this node, where certificates mean nothing")]
    Needless(Address),
    /// Signed by somebody else.
    #[error("the certificate of {} is not signed by an authority in {ca}", address.agent())]
    Stranger {
        /// Where.
        address: Address,
        /// Where those are whose signature was expected.
        ca: String,
    },
    /// Signed, and for another.
    #[error("the certificate of {} is not for `{name}`: {why}", address.agent())]
    OtherName {
        /// Where.
        address: Address,
        /// Who was expected.
        name: String,
        /// Who it is for.
        why: String,
    },
    /// Signed, and of no worth all the same: expired, say.
    #[error("the certificate of {} is not valid: {why}", address.agent())]
    Invalid {
        /// Where.
        address: Address,
        /// Why.
        why: String,
    },
    /// The agent does not know us.
    #[error("{} refuses the certificate in {cert}: {why}", address.agent())]
    Refused {
        /// Where.
        address: Address,
        /// Where the one is that was shown.
        cert: String,
        /// What it said.
        why: &'static str,
    },
}

/// Connects to `address`, which is `host` and `port`.
pub(super) async fn dial(
    address: &Address,
    (host, port): (&str, u16),
    identity: &Identity,
) -> Result<TlsStream<TcpStream>, AskError> {
    let name = identity.name.as_deref().unwrap_or(host);
    let connected = async {
        let tcp = TcpStream::connect((host, port)).await;
        let tcp = tcp.map_err(|e| unreached(address, &e))?;
        // It costs waiting only.
        let _ = tcp.set_nodelay(true);
        shake(address, tcp, name, &identity.pems).await
    };
    timeout(PATIENCE, connected)
        .await
        .map_err(|_| silent(address))?
}

/// Finds out over `stream` who the other is, who must have a certificate for `name`.
pub(super) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    address: &Address,
    stream: S,
    name: &str,
    pems: &Pems,
) -> Result<TlsStream<S>, AskError> {
    let expected = ServerName::try_from(name.to_owned());
    let expected = expected.map_err(|_| DialError::BadName(name.to_owned()))?;
    let config = pems.client().map_err(DialError::Tls)?;
    let connector = TlsConnector::from(Arc::new(config));
    let refused = |e: io::Error| explain(address, name, pems, &e);
    let stream = connector.connect(expected, stream).await;
    let mut stream = stream.map_err(refused)?;
    // TLS 1.3 is done for us before the agent has seen our certificate: the first that it says tells that it took it.
    match stream.fill_buf().await.map_err(refused)? {
        [] => Err(hung_up(address)),
        _ => Ok(stream),
    }
}

fn unreached(address: &Address, e: &io::Error) -> AskError {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => AskError::Absent(address.clone()),
        _ => broken(address, e),
    }
}

fn hung_up(address: &Address) -> AskError {
    AskError::Broken {
        address: address.clone(),
        why: "it hung up, as where it has as many callers as it takes".into(),
    }
}

/// What the handshake failed for.
fn explain(address: &Address, name: &str, pems: &Pems, e: &io::Error) -> AskError {
    let inner = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let address = address.clone();
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(why)) => why,
        Some(rustls::Error::AlertReceived(alert)) => {
            return alarm(address, pems, *alert);
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            let why = "it speaks no TLS: another port, perhaps".into();
            return AskError::Broken { address, why };
        }
        None if e.kind() == io::ErrorKind::UnexpectedEof => return hung_up(&address),
        _ => return broken(&address, e),
    };
    let refused = match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => DialError::Stranger {
            address,
            ca: pems.ca.place.clone(),
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            DialError::OtherName {
                address,
                name: name.to_owned(),
                why: why.to_string(),
            }
        }
        _ => DialError::Invalid {
            address,
            why: why.to_string(),
        },
    };
    refused.into()
}

/// What the agent said last.
fn alarm(address: Address, pems: &Pems, alert: AlertDescription) -> AskError {
    let why = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it is not signed by its --client-ca"
        }
        AlertDescription::CertificateExpired => "it has expired, or is not valid yet",
        AlertDescription::CertificateRequired => "it wants another",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "it is none for a client",
        AlertDescription::CertificateRevoked => "it was revoked",
        other => {
            return AskError::Broken {
                address,
                why: format!("it ends TLS with {other:?}"),
            };
        }
    };
    let cert = pems.cert.place.clone();
    DialError::Refused { address, cert, why }.into()
}
