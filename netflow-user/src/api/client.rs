//! The other end: whoever asks an agent.

use super::Address;
use super::dial::{DialError, Identity, dial, shake};
use super::tls::Pems;
use super::v1::collect_response::What;
use super::v1::evidence_client::EvidenceClient;
use super::v1::{CollectRequest, CollectResponse, Problem, StatusRequest, StatusResponse};
use crate::causes::causes;
use crate::model::feed::Clock;
use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tower::service_fn;

/// How long an agent may take to answer at all.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// One that does not answer a ping for so long is gone.
const PONG: Duration = Duration::from_secs(15);
/// Round trips in which clocks are compared.
const MEASURED: usize = 3;
/// Messages on their way to whoever reads.
const WAITING: usize = 64;

/// An agent does not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none.
    #[error("no agent answers at {0}")]
    Absent(Address),
    /// This user may not ask it.
    #[error("{} may not be asked by this user", .0.agent())]
    NotAllowed(Address),
    /// One of the two does not take the other for who it should be.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It does not speak as agreed.
    #[error("{}: {why}", address.agent())]
    Broken {
        /// Where.
        address: Address,
        /// What it said.
        why: String,
    },
    /// It has nothing to tell.
    #[error("{}", .0.message)]
    Problem(Problem),
    /// No thread or socket could be had.
    #[error("an agent cannot be asked: {0}")]
    Io(#[from] io::Error),
}

/// An agent that answers, for whoever asks from a thread of their own.
pub struct Agent {
    runtime: Runtime,
    peer: Peer,
}

impl Agent {
    /// Connects, as `identity` where the agent is not on this node.
    pub fn connect(address: &Address, identity: Option<&Identity>) -> Result<Agent, AskError> {
        let runtime = runtime()?;
        let peer = runtime.block_on(Peer::connect(address, identity))?;
        Ok(Agent { runtime, peer })
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.peer.address
    }

    /// How it is.
    pub fn status(&mut self) -> Result<StatusResponse, AskError> {
        self.runtime.block_on(self.peer.status())
    }

    /// Asks it to look, and returns what it tells.
    pub fn collect(self, query: String) -> Result<Collecting, AskError> {
        let Agent { runtime, peer } = self;
        let collecting = runtime.block_on(peer.collect(query))?;
        Ok(collecting.within(Arc::new(runtime)))
    }
}

/// A runtime in which agents are asked; one thread is enough for all of them.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("agents")
        .enable_all()
        .build()
}

/// An agent that answers, for whoever asks within a [`runtime`].
pub struct Peer {
    address: Address,
    client: EvidenceClient<Channel>,
}

impl Peer {
    /// Connects, as `identity` where the agent is not on this node.
    pub async fn connect(address: &Address, identity: Option<&Identity>) -> Result<Peer, AskError> {
        match (address, identity) {
            (Address::Socket(path), None) => {
                knock(address, path)?;
                let channel = endpoint(address)?.connect().await;
                Ok(Peer::new(
                    address,
                    channel.map_err(|e| broken(address, &e))?,
                ))
            }
            (Address::Tls { host, port }, Some(identity)) => {
                let stream = dial(address, (host, *port), identity).await?;
                Peer::spoken(address, stream).await
            }
            (Address::Socket(_), Some(_)) => Err(DialError::Needless(address.clone()).into()),
            (Address::Tls { .. }, None) => Err(DialError::NoIdentity(address.clone()).into()),
            (Address::Pod { .. }, _) => Err(AskError::Broken {
                address: address.clone(),
                why: "only the API of its cluster leads there".into(),
            }),
        }
    }

    /// Speaks to whoever is at the other end of `stream`, if its certificate is for `name`.
    pub async fn over(
        address: &Address,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        name: &str,
        pems: &Pems,
    ) -> Result<Peer, AskError> {
        let shaken = tokio::time::timeout(PATIENCE, shake(address, stream, name, pems)).await;
        Peer::spoken(address, shaken.map_err(|_| silent(address))??).await
    }

    async fn spoken(
        address: &Address,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Peer, AskError> {
        // There is one, and it lasts for as long as the question.
        let mut stream = Some(TokioIo::new(stream));
        let taken = service_fn(move |_| {
            let stream = stream.take().ok_or(io::ErrorKind::NotConnected);
            async { stream.map_err(io::Error::from) }
        });
        let channel = endpoint(address)?.connect_with_connector(taken).await;
        Ok(Peer::new(
            address,
            channel.map_err(|e| broken(address, &e))?,
        ))
    }

    fn new(address: &Address, channel: Channel) -> Peer {
        Peer {
            address: address.clone(),
            client: EvidenceClient::new(channel),
        }
    }

    /// How it is.
    pub async fn status(&mut self) -> Result<StatusResponse, AskError> {
        let Peer { address, client } = self;
        match tokio::time::timeout(PATIENCE, client.status(StatusRequest {})).await {
            Ok(Ok(status)) => Ok(status.into_inner()),
            Ok(Err(status)) => Err(refused(address, &status)),
            Err(_) => Err(silent(address)),
        }
    }

    /// How it is, and how its clock stands to ours: of a few answers, by the one that came the soonest.
    pub async fn measure(&mut self) -> Result<(StatusResponse, Clock), AskError> {
        let mut best: Option<(StatusResponse, Clock)> = None;
        for _ in 0..MEASURED {
            let (asked, began) = (SystemTime::now(), Instant::now());
            let status = self.status().await?;
            let clock = clock(asked, began.elapsed(), status.now_ns);
            if best.as_ref().is_none_or(|(_, b)| clock.within < b.within) {
                best = Some((status, clock));
            }
        }
        best.ok_or_else(|| silent(&self.address))
    }

    /// Asks it to look, and returns what it tells.
    pub async fn collect(self, query: String) -> Result<Collecting, AskError> {
        let Peer {
            address,
            mut client,
        } = self;
        let (question, questions) = channel(1);
        // There is room for one.
        let _ = question.send(CollectRequest { query }).await;
        let asked = client.collect(ReceiverStream::new(questions));
        let mut told = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(told)) => told.into_inner(),
            Ok(Err(status)) => return Err(refused(&address, &status)),
            Err(_) => return Err(silent(&address)),
        };
        // Whether it has anything to tell shows at once.
        let first = tokio::time::timeout(PATIENCE, told.next()).await;
        let first = match first.map_err(|_| silent(&address))? {
            Some(Ok(CollectResponse {
                what: Some(What::Recording(bytes)),
            })) => bytes,
            Some(Ok(CollectResponse {
                what: Some(What::Problem(problem)),
            })) => {
                return Err(AskError::Problem(problem));
            }
            Some(Err(status)) => return Err(refused(&address, &status)),
            Some(Ok(CollectResponse { what: None })) | None => Vec::new(),
        };
        let (to, bytes) = channel(WAITING);
        // There is room for one.
        let _ = to.send(Ok(first.into())).await;
        let (close, closed) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let closing = async {
                // Closing, or being dropped, ends our side of the conversation.
                let _ = closed.await;
                drop(question);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = pass_on(told, &to) => {}
                () = closing => {}
            }
        });
        Ok(Collecting {
            close: Some(close),
            told: Some(Pieces {
                told: bytes,
                rest: Bytes::new(),
            }),
            _runtime: None,
        })
    }
}

/// The agent told the time in some moment of the round trip: it is taken to be the middle, which is off by half of it at most.
fn clock(asked: SystemTime, took: Duration, told_ns: u64) -> Clock {
    let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    let half = took / 2;
    let ours = asked.duration_since(UNIX_EPOCH).unwrap_or_default() + half;
    Clock {
        ahead: i64::try_from(told_ns).unwrap_or(i64::MAX) - nanos(ours),
        within: u64::try_from(half.as_nanos()).unwrap_or(u64::MAX),
    }
}

/// What tonic says of a socket that is not there tells less than the socket itself.
fn knock(address: &Address, path: &Path) -> Result<(), AskError> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(AskError::NotAllowed(address.clone()))
        }
        Err(_) => Err(AskError::Absent(address.clone())),
    }
}

fn endpoint(address: &Address) -> Result<Endpoint, AskError> {
    let uri = match address {
        Address::Socket(_) | Address::Tls { .. } => address.to_string(),
        // The connection is there already; this is what it is called over it.
        Address::Pod { name, .. } => format!("https://{name}"),
    };
    let endpoint = Endpoint::try_from(uri);
    let endpoint = endpoint.map_err(|e| broken(address, &e))?;
    Ok(endpoint
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true))
}

/// Passes on what is told until it ends or nobody reads.
async fn pass_on(mut told: Streaming<CollectResponse>, to: &Sender<io::Result<Bytes>>) {
    loop {
        let piece = match told.next().await {
            Some(Ok(CollectResponse {
                what: Some(What::Recording(bytes)),
            })) => Ok(bytes.into()),
            Some(Ok(_)) => continue,
            Some(Err(status)) => Err(io::Error::other(status.message().to_owned())),
            None => return,
        };
        let last = piece.is_err();
        if to.send(piece).await.is_err() || last {
            return;
        }
    }
}

/// What an agent tells of a question.
pub struct Collecting {
    close: Option<oneshot::Sender<()>>,
    told: Option<Pieces>,
    /// The one in which it is told, for as long.
    _runtime: Option<Arc<Runtime>>,
}

impl Collecting {
    /// Keeps the runtime in which it is told.
    #[must_use]
    pub fn within(self, runtime: Arc<Runtime>) -> Collecting {
        Collecting {
            _runtime: Some(runtime),
            ..self
        }
    }

    /// The recording, as it comes; once.
    pub fn recording(&mut self) -> impl Read + Send + 'static {
        self.told.take().unwrap_or_else(Pieces::none)
    }

    /// Asks for the rest.
    pub fn close(&mut self) {
        self.close.take();
    }
}

/// Bytes as they come.
struct Pieces {
    told: Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Pieces {
    fn none() -> Pieces {
        Pieces {
            told: channel(1).1,
            rest: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.told.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

pub(super) fn broken(address: &Address, error: &dyn std::error::Error) -> AskError {
    AskError::Broken {
        address: address.clone(),
        why: causes(error),
    }
}

fn refused(address: &Address, status: &Status) -> AskError {
    AskError::Broken {
        address: address.clone(),
        why: status.message().to_owned(),
    }
}

pub(super) fn silent(address: &Address) -> AskError {
    AskError::Broken {
        address: address.clone(),
        why: format!("no answer within {PATIENCE:?}"),
    }
}
