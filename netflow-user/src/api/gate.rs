//! The agent's end for those who are not on its node: TCP, and TLS that both ends show a certificate for.

use super::tls::{Files, Pems, TlsError};
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// How long a caller may take to say who it is. It takes two round trips.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Callers who have not said yet who they are: nobody knows them, so they get little. More wait with the kernel.
const HANDSHAKES: usize = 32;
/// Callers who have: four times the looks that an agent has at a time, so that there is room to ask how it is meanwhile, and few
/// enough for the 1024 files that a process may have open by default.
const CALLERS: usize = 64;
/// How long it waits where no more files may be open.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// There is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address.
    #[error("cannot listen at {at}: {why}")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// Why.
        why: io::Error,
    },
}

/// Told of certificates that cannot be used, once they were changed.
pub type Trouble = Box<dyn Fn(&TlsError) + Send + Sync>;

/// An address at which those are let in whose certificate an authority has signed.
pub struct Gate {
    listener: TcpListener,
    at: SocketAddr,
    certificates: Certificates,
    /// How long a caller may take to say who it is.
    handshake: Duration,
}

impl Gate {
    /// Listens at `at`. Nobody is let in before [`Gate::callers`].
    pub fn open(at: SocketAddr, files: Files, trouble: Trouble) -> Result<Gate, GateError> {
        let certificates = Certificates::read(files, trouble)?;
        let listen = || {
            let listener = TcpListener::bind(at)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (at, listener) = listen().map_err(|why| GateError::Listen { at, why })?;
        Ok(Gate {
            listener,
            at,
            certificates,
            handshake: HANDSHAKE,
        })
    }

    /// With another deadline: tests have less time.
    #[cfg(test)]
    pub(super) fn within(self, handshake: Duration) -> Gate {
        Gate { handshake, ..self }
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Those who are let in. It is closed once the receiver is gone.
    pub(super) fn callers(self) -> io::Result<mpsc::Receiver<io::Result<Caller>>> {
        let Gate {
            listener,
            at: _,
            certificates,
            handshake,
        } = self;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (to, callers) = mpsc::channel(1);
        let porter = Porter {
            certificates,
            handshake,
            places: Arc::new(Semaphore::new(CALLERS)),
            to,
        };
        tokio::spawn(Arc::new(porter).run(listener));
        Ok(callers)
    }
}

/// Who lets in.
struct Porter {
    certificates: Certificates,
    handshake: Duration,
    places: Arc<Semaphore>,
    to: mpsc::Sender<io::Result<Caller>>,
}

impl Porter {
    async fn run(self: Arc<Porter>, listener: tokio::net::TcpListener) {
        let strangers = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let next = async {
                let place = strangers.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, came) = tokio::select! {
                next = next => next,
                () = self.to.closed() => return,
            };
            let Ok((tcp, _)) = came else {
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            };
            let porter = Arc::clone(&self);
            tokio::spawn(async move {
                let caller = porter.let_in(tcp).await;
                drop(place);
                if let Some(caller) = caller {
                    // Over, if nobody takes it.
                    let _ = porter.to.send(Ok(caller)).await;
                }
            });
        }
    }

    /// Unless it does not say in time who it is, is not known, or there are too many.
    async fn let_in(&self, tcp: TcpStream) -> Option<Caller> {
        // It costs waiting only.
        let _ = tcp.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.certificates.latest());
        let stream = tokio::time::timeout(self.handshake, acceptor.accept(tcp)).await;
        let stream = stream.ok()?.ok()?;
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some(Caller {
            stream,
            _place: place,
        })
    }
}

/// The agent's certificates, as they are in the files now.
struct Certificates {
    files: Files,
    trouble: Trouble,
    known: Mutex<Known>,
}

struct Known {
    /// What was read last, good or bad; `None` if there was nothing to be read.
    pems: Option<Pems>,
    /// Made of what was good last.
    config: Arc<ServerConfig>,
}

impl Certificates {
    fn read(files: Files, trouble: Trouble) -> Result<Certificates, TlsError> {
        let pems = files.read()?;
        let config = Arc::new(files.server(&pems)?);
        Ok(Certificates {
            files,
            trouble,
            known: Mutex::new(Known {
                pems: Some(pems),
                config,
            }),
        })
    }

    /// Certificates are renewed while the agent runs. Those that cannot be used, as while they are being written, leave the
    /// older ones in place.
    fn latest(&self) -> Arc<ServerConfig> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.files.read();
        let now = read.as_ref().ok();
        if now == known.pems.as_ref() {
            return known.config.clone();
        }
        known.pems = now.cloned();
        match read.and_then(|pems| self.files.server(&pems)) {
            Ok(config) => known.config = Arc::new(config),
            Err(e) => (self.trouble)(&e),
        }
        known.config.clone()
    }
}

/// One who was let in, and counts for as long as it stays.
pub(super) struct Caller {
    stream: TlsStream<TcpStream>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Caller {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
