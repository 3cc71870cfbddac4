//! The other end: whoever asks an agent.

use super::Address;
use super::dial::{DialError, Identity, dial};
use super::v1::collect_response::What;
use super::v1::evidence_client::EvidenceClient;
use super::v1::{CollectRequest, CollectResponse, Problem, StatusRequest, StatusResponse};
use crate::causes::causes;
use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tower::service_fn;

/// How long an agent may take to answer at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// One that does not answer a ping for so long is gone.
const PONG: Duration = Duration::from_secs(15);
/// Messages on their way to whoever reads.
const WAITING: usize = 64;

/// An agent does not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none.
    #[error("no agent answers at {0}")]
    Absent(Address),
    /// This user may not ask it.
    #[error("the agent at {0} may not be asked by this user")]
    NotAllowed(Address),
    /// One of the two does not take the other for who it should be.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It does not speak as agreed.
    #[error("the agent at {address}: {why}")]
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

/// An agent that answers.
pub struct Agent {
    address: Address,
    runtime: Runtime,
    client: EvidenceClient<Channel>,
}

impl Agent {
    /// Connects, as `identity` where the agent is not on this node.
    pub fn connect(address: &Address, identity: Option<&Identity>) -> Result<Agent, AskError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let channel = match (address, identity) {
            (Address::Socket(path), None) => {
                knock(address, path)?;
                let endpoint = endpoint(address)?;
                runtime.block_on(endpoint.connect())
            }
            (Address::Tls { host, port }, Some(identity)) => {
                let stream = runtime.block_on(dial(address, (host, *port), identity))?;
                // There is one, and it lasts for as long as the question.
                let mut stream = Some(TokioIo::new(stream));
                let taken = service_fn(move |_| {
                    let stream = stream.take().ok_or(io::ErrorKind::NotConnected);
                    async { stream.map_err(io::Error::from) }
                });
                let endpoint = endpoint(address)?;
                runtime.block_on(endpoint.connect_with_connector(taken))
            }
            (Address::Socket(_), Some(_)) => {
                return Err(DialError::Needless(address.clone()).into());
            }
            (Address::Tls { .. }, None) => {
                return Err(DialError::NoIdentity(address.clone()).into());
            }
        };
        let channel = channel.map_err(|e| broken(address, &e))?;
        Ok(Agent {
            address: address.clone(),
            runtime,
            client: EvidenceClient::new(channel),
        })
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How it is.
    pub fn status(&mut self) -> Result<StatusResponse, AskError> {
        let Agent {
            address,
            runtime,
            client,
        } = self;
        let answer = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, client.status(StatusRequest {})).await
        });
        match answer {
            Ok(Ok(status)) => Ok(status.into_inner()),
            Ok(Err(status)) => Err(refused(address, &status)),
            Err(_) => Err(silent(address)),
        }
    }

    /// Asks it to look, and returns what it tells.
    pub fn collect(self, query: String) -> Result<Collecting, AskError> {
        let Agent {
            address,
            runtime,
            mut client,
        } = self;
        let (question, questions) = tokio::sync::mpsc::channel(1);
        let asked = CollectRequest { query };
        let answer = runtime.block_on(async {
            // There is room for one.
            let _ = question.send(asked).await;
            tokio::time::timeout(PATIENCE, client.collect(ReceiverStream::new(questions))).await
        });
        let mut told = match answer {
            Ok(Ok(told)) => told.into_inner(),
            Ok(Err(status)) => return Err(refused(&address, &status)),
            Err(_) => return Err(silent(&address)),
        };
        // Whether it has anything to tell shows at once.
        let first = runtime.block_on(async { tokio::time::timeout(PATIENCE, told.next()).await });
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
        let (to, bytes) = sync_channel(WAITING);
        let _ = to.send(Ok(first.into()));
        let (close, closed) = oneshot::channel::<()>();
        thread::Builder::new().name("agent".into()).spawn(move || {
            runtime.block_on(async {
                let pass = pass_on(told, &to);
                let closing = async {
                    // Closing, or being dropped, ends our side of the conversation.
                    let _ = closed.await;
                    drop(question);
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = pass => {}
                    () = closing => {}
                }
            });
        })?;
        Ok(Collecting {
            close: Some(close),
            told: Some(Pieces {
                told: bytes,
                rest: Bytes::new(),
            }),
        })
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
    let endpoint = Endpoint::try_from(address.to_string());
    let endpoint = endpoint.map_err(|e| broken(address, &e))?;
    Ok(endpoint
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true))
}

/// Passes on what is told until it ends or nobody reads.
async fn pass_on(mut told: Streaming<CollectResponse>, to: &SyncSender<io::Result<Bytes>>) {
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
        if to.send(piece).is_err() || last {
            return;
        }
    }
}

/// What an agent tells of a question.
pub struct Collecting {
    close: Option<oneshot::Sender<()>>,
    told: Option<Pieces>,
}

impl Collecting {
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
            told: sync_channel(0).1,
            rest: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.told.recv() {
                Ok(piece) => self.rest = piece?,
                Err(_) => return Ok(0),
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
