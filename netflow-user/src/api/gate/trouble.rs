//! What goes wrong at the gate: whoever keeps the agent is told, in few lines however many come.

use crate::api::tls::TlsError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// What goes wrong.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The files were changed, and are of no use now.
    #[error("{0}: the certificates from before stay in use")]
    Certificates(TlsError),
    /// A caller got no answer.
    #[error("{from} was sent away: {why}")]
    SentAway {
        /// Who.
        from: SocketAddr,
        /// Why.
        why: Refusal,
    },
    /// Nobody can come in.
    #[error("callers cannot be taken at the moment: {0}")]
    Accept(io::Error),
    /// It went on.
    #[error("{count} more since, at last: {last}")]
    More {
        /// How often.
        count: u64,
        /// The last of it.
        last: Box<Trouble>,
    },
}

/// Why a caller gets no answer.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No certificate at all.
    #[error("it shows no certificate")]
    Nameless,
    /// Somebody else's.
    #[error("its certificate is not signed by --client-ca")]
    Stranger,
    /// It wants nothing of us.
    #[error("it ends TLS with {0:?}, as where it does not know who signed --tls-cert")]
    Unwilling(AlertDescription),
    /// Something else of TLS.
    #[error("{0}")]
    Tls(Error),
    /// It says nothing.
    #[error("it did not show a certificate within {0:?}")]
    Silent(Duration),
    /// It says nothing, and others came.
    #[error("it showed no certificate before {0} others came")]
    Displaced(usize),
    /// It is known, and says nothing.
    #[error("it did not begin to speak HTTP/2 within {0:?}")]
    Mute(Duration),
    /// There are too many.
    #[error("{0} others are answered")]
    Full(usize),
}

impl Refusal {
    /// What a handshake failed for; `None`: the other end left, which is its own affair.
    pub(super) fn of(e: &io::Error) -> Option<Refusal> {
        let e = e.get_ref()?.downcast_ref::<Error>()?;
        Some(match e {
            Error::NoCertificatesPresented => Refusal::Nameless,
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Refusal::Stranger,
            Error::AlertReceived(alert) => Refusal::Unwilling(*alert),
            other => Refusal::Tls(other.clone()),
        })
    }
}

/// Who is told of it.
pub type Notice = Arc<dyn Fn(&Trouble) + Send + Sync>;

/// Tells of the first at once, and then how many more there were until it has been `quiet` for so long: whoever tries all day
/// does not fill the log.
pub(super) async fn tell(mut troubles: Receiver<Trouble>, quiet: Duration, notice: Notice) {
    while let Some(first) = troubles.recv().await {
        notice(&first);
        if let Some(more) = gather(&mut troubles, quiet).await {
            notice(&more);
        }
    }
}

async fn gather(troubles: &mut Receiver<Trouble>, quiet: Duration) -> Option<Trouble> {
    let until = Instant::now() + quiet;
    let (mut count, mut last) = (0, None);
    while let Ok(Some(trouble)) = timeout_at(until, troubles.recv()).await {
        count += 1;
        last = Some(Box::new(trouble));
    }
    last.map(|last| Trouble::More { count, last })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::runtime::Builder;
    use tokio::sync::mpsc::channel;

    fn refused(port: u16) -> Trouble {
        Trouble::SentAway {
            from: ([10, 0, 0, 9], port).into(),
            why: Refusal::Nameless,
        }
    }

    /// What is told of so many, who come at once.
    fn told(count: u16) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let to = lines.clone();
        let notice: Notice = Arc::new(move |t| to.lock().unwrap().push(t.to_string()));
        let (from, troubles) = channel(usize::from(count));
        for port in 1..=count {
            from.try_send(refused(port)).unwrap();
        }
        drop(from);
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(tell(troubles, Duration::from_hours(1), notice));
        lines.lock().unwrap().clone()
    }

    #[test]
    fn one_is_told_of_at_once_and_many_in_one_line() {
        let first = "10.0.0.9:1 was sent away: it shows no certificate";
        assert_eq!(told(1), [first]);
        let more = "999 more since, at last: 10.0.0.9:1000 was sent away: it shows no certificate";
        assert_eq!(told(1000), [first, more]);
    }
}
