//! The agent's end for those who are not on its node: TCP, and TLS that both ends show a certificate for.

mod caller;
mod trouble;

use self::caller::{Caller, Mute};
use self::trouble::tell;
pub use self::trouble::{Notice, Refusal, Trouble};
use super::tls::{Files, Pems, TlsError};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// How much of the agent callers may take up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long a caller may take to say who it is. It takes two round trips.
    pub(super) handshake: Duration,
    /// How long it may take, then, to begin to speak.
    pub(super) preface: Duration,
    /// Callers who have not said yet who they are: nobody knows them, so they get little. The oldest makes room
    /// for one more.
    pub(super) strangers: usize,
    /// Callers who have: four times the looks that an agent has at a time, so that there is room to ask how it is meanwhile, and
    /// few enough for the 1024 files that a process may have open by default.
    pub(super) callers: usize,
    /// How long nobody hears of trouble after having heard of some.
    pub(super) quiet: Duration,
}

pub(super) const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(10),
    preface: Duration::from_secs(10),
    strangers: 32,
    callers: 64,
    quiet: Duration::from_mins(1),
};

/// Troubles on their way to whoever counts them.
const TROUBLES: usize = 64;
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

/// An address at which those are let in whose certificate an authority has signed.
pub struct Gate {
    listener: TcpListener,
    at: SocketAddr,
    certificates: Certificates,
    notice: Notice,
    limits: Limits,
}

impl Gate {
    /// Listens at `at`. Nobody is let in before [`Gate::callers`].
    pub fn open(at: SocketAddr, files: Files, notice: Notice) -> Result<Gate, GateError> {
        let certificates = Certificates::read(files, notice.clone())?;
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
            notice,
            limits: LIMITS,
        })
    }

    /// With others: tests have less time.
    #[cfg(test)]
    pub(super) fn within(self, limits: Limits) -> Gate {
        Gate { limits, ..self }
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Those who are let in. It is closed once the receiver is gone.
    ///
    /// Within the runtime that is to answer them.
    pub(super) fn callers(self) -> Result<mpsc::Receiver<io::Result<Caller>>, GateError> {
        let Gate {
            listener,
            at,
            certificates,
            notice,
            limits,
        } = self;
        let listener = tokio::net::TcpListener::from_std(listener);
        let listener = listener.map_err(|why| GateError::Listen { at, why })?;
        let (to, callers) = mpsc::channel(limits.callers);
        let (troubles, told) = mpsc::channel(TROUBLES);
        tokio::spawn(tell(told, limits.quiet, notice));
        let porter = Porter {
            certificates,
            limits,
            places: Arc::new(Semaphore::new(limits.callers)),
            to,
            troubles,
        };
        tokio::spawn(Arc::new(porter).run(listener));
        Ok(callers)
    }
}

/// Who lets in.
struct Porter {
    certificates: Certificates,
    limits: Limits,
    places: Arc<Semaphore>,
    to: mpsc::Sender<io::Result<Caller>>,
    troubles: mpsc::Sender<Trouble>,
}

impl Porter {
    async fn run(self: Arc<Porter>, listener: tokio::net::TcpListener) {
        let mut strangers = Strangers::default();
        loop {
            let came = tokio::select! {
                came = listener.accept() => came,
                () = self.to.closed() => return,
            };
            let (tcp, from) = match came {
                Ok(came) => came,
                Err(e) => {
                    self.tell(Trouble::Accept(e)).await;
                    sleep(AGAIN_AFTER).await;
                    continue;
                }
            };
            let most = self.limits.strangers;
            if let Some(from) = strangers.make_room(most) {
                let why = Refusal::Displaced(most);
                self.tell(Trouble::SentAway { from, why }).await;
            }
            let heard = tokio::spawn(self.clone().hear(tcp, from));
            strangers.0.push_back((from, heard.abort_handle()));
        }
    }

    async fn hear(self: Arc<Porter>, tcp: TcpStream, from: SocketAddr) {
        match self.let_in(tcp, from).await {
            Ok(caller) => {
                // There is room for all who have a place. Over, if nobody takes it.
                let _ = self.to.try_send(Ok(caller));
            }
            Err(Some(why)) => self.tell(Trouble::SentAway { from, why }).await,
            Err(None) => {}
        }
    }

    /// Unless it does not say in time who it is, is not known, or there are too many. Without a reason: it left.
    async fn let_in(&self, tcp: TcpStream, from: SocketAddr) -> Result<Caller, Option<Refusal>> {
        let Limits {
            handshake,
            preface,
            callers,
            ..
        } = self.limits;
        // It costs waiting only.
        let _ = tcp.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.certificates.latest());
        let stream = timeout(handshake, acceptor.accept(tcp)).await;
        let stream = stream.map_err(|_| Refusal::Silent(handshake))?;
        let stream = stream.map_err(|e| Refusal::of(&e))?;
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| Refusal::Full(callers))?;
        let troubles = self.troubles.clone();
        let mute = Mute::new(preface, from, troubles);
        Ok(Caller::new(stream, mute, place))
    }

    async fn tell(&self, trouble: Trouble) {
        // Over, if nobody is told.
        let _ = self.troubles.send(trouble).await;
    }
}

/// Callers who have not said yet who they are, the oldest first.
#[derive(Default)]
struct Strangers(VecDeque<(SocketAddr, AbortHandle)>);

impl Strangers {
    /// Sends the oldest away if there are `most`, and says who that was. If newcomers waited instead, few who say nothing would
    /// keep everybody out.
    fn make_room(&mut self, most: usize) -> Option<SocketAddr> {
        self.0.retain(|(_, stranger)| !stranger.is_finished());
        if self.0.len() < most {
            return None;
        }
        let (from, oldest) = self.0.pop_front()?;
        oldest.abort();
        Some(from)
    }
}

/// The agent's certificates, as they are in the files now.
struct Certificates {
    files: Files,
    notice: Notice,
    known: Mutex<Known>,
}

struct Known {
    /// What was read last, good or bad; `None` if there was nothing to be read.
    pems: Option<Pems>,
    /// Made of what was good last.
    config: Arc<ServerConfig>,
}

impl Certificates {
    fn read(files: Files, notice: Notice) -> Result<Certificates, TlsError> {
        let pems = files.read()?;
        let config = Arc::new(pems.server()?);
        Ok(Certificates {
            files,
            notice,
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
        match read.and_then(|pems| pems.server()) {
            Ok(config) => known.config = Arc::new(config),
            Err(e) => (self.notice)(&Trouble::Certificates(e)),
        }
        known.config.clone()
    }
}
