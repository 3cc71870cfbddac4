//! The agent's end: a socket, a gate if there is one, and who answers what comes in.

use super::gate::{Gate, GateError};
use super::v1::collect_response::What;
use super::v1::evidence_server::{Evidence, EvidenceServer};
use super::v1::{CollectRequest, CollectResponse, Problem, StatusRequest, StatusResponse};
use crate::causes::causes;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router};
use tonic::{Request, Response, Status, Streaming};

/// Pieces that wait to be sent; whoever tells more waits.
const WAITING: usize = 64;
/// Bytes of a message: a client of gRPC takes none of over 4 MiB, unless told otherwise.
const PIECE: usize = 1 << 18;
/// A caller that is stopped answers no ping, and is given up.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(20);
/// Questions of a caller at a time; ours have one.
const QUESTIONS: u32 = 16;
/// Only root and its group may ask: whoever does sees who talks to whom in all namespaces.
const SOCKET_MODE: u32 = 0o660;
/// Others may see that there is an agent.
const DIRECTORY_MODE: u32 = 0o755;

/// Who answers.
pub trait Desk: Send + Sync + 'static {
    /// Begins to tell `to` all there is of a question, from a thread of its own.
    fn collect(&self, query: &str, to: Told) -> Result<Arc<dyn Look>, Problem>;

    /// How things are. May wait for a moment.
    fn status(&self) -> Result<StatusResponse, Problem>;
}

/// A look that goes on.
pub trait Look: Send + Sync {
    /// The caller wants the rest now.
    fn close(&self);

    /// The caller is gone.
    fn abandon(&self);
}

/// What a caller is told, as it comes.
pub struct Told(mpsc::Sender<CollectResponse>);

impl Told {
    /// There is nothing to tell.
    pub fn problem(&self, problem: Problem) {
        self.send(What::Problem(problem));
    }

    fn send(&self, what: What) {
        let response = CollectResponse { what: Some(what) };
        // Whoever is gone need not know.
        let _ = self.0.blocking_send(response);
    }
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.chunks(PIECE) {
            // Whoever is gone has abandoned the look, which is how it ends.
            self.send(What::Recording(piece.to_vec()));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Nobody can be answered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another agent does already.
    #[error("an agent answers at {} already", .0.display())]
    Taken(PathBuf),
    /// Something that is no socket is in its place.
    #[error("{} is there and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {}: {why}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// The gate cannot be opened.
    #[error(transparent)]
    Gate(#[from] GateError),
}

/// A socket that is answered at. Dropping it takes it away, and takes no more questions.
pub struct Serving {
    path: PathBuf,
    /// Held for as long as the socket is ours.
    lock: File,
    /// Tells the thread by being dropped.
    _stop: watch::Sender<()>,
    ended: Receiver<()>,
}

/// Questions that were asked before it was over.
pub struct Ending(Receiver<()>);

impl Ending {
    /// Waits until all are answered, or until then.
    pub fn wait(self, until: Instant) {
        // The thread says nothing, it ends.
        let _ = self
            .0
            .recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl Serving {
    /// Answers at `path`, and those whom `gate` lets in, from a thread of its own.
    pub fn start(path: &Path, gate: Option<Gate>, desk: impl Desk) -> Result<Serving, ServeError> {
        let failed = |why| ServeError::Io {
            path: path.to_path_buf(),
            why,
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let entered = runtime.enter();
        let far = gate.map(Gate::callers).transpose()?;
        let (listener, lock) = listen(path)?;
        let near = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
        drop(entered);
        let (stop, stopped) = watch::channel(());
        let (alive, ended) = channel();
        let router = router(desk);
        let begun = thread::Builder::new().name("api".into()).spawn(move || {
            let _alive: Sender<()> = alive;
            let near = UnixListenerStream::new(near);
            let near = answer(near, router.clone(), stopped.clone());
            runtime.block_on(async {
                match far.map(ReceiverStream::new) {
                    Some(far) => _ = tokio::join!(near, answer(far, router, stopped)),
                    None => near.await,
                }
            });
        });
        begun.map_err(failed)?;
        Ok(Serving {
            path: path.to_path_buf(),
            lock,
            _stop: stop,
            ended,
        })
    }

    /// Takes no more questions. The socket goes at once: the next agent may put its own there.
    pub fn stop(mut self) -> Ending {
        Ending(std::mem::replace(&mut self.ended, channel().1))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Gone already: nothing more to do. The lock goes last.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(lock_of(&self.path));
        let _ = self.lock.unlock();
    }
}

fn router(desk: impl Desk) -> Router {
    Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .max_concurrent_streams(Some(QUESTIONS))
        .add_service(EvidenceServer::new(Answers(Arc::new(desk))))
}

/// Answers those who come, until `stopped` tells or is dropped.
async fn answer<C>(
    callers: impl Stream<Item = io::Result<C>>,
    router: Router,
    mut stopped: watch::Receiver<()>,
) where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let over = async move {
        let _ = stopped.changed().await;
    };
    // It ends when it is told to; single connections that break are theirs to mend who made them.
    let _ = router.serve_with_incoming_shutdown(callers, over).await;
}

/// Beside the socket: whoever has it locked owns the socket.
fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// A socket there, in place of one that a killed agent left. It gets its name once its rights are set.
fn listen(path: &Path) -> Result<(UnixListener, File), ServeError> {
    let failed = |why| ServeError::Io {
        path: path.to_path_buf(),
        why,
    };
    if let Some(parent) = path.parent() {
        let mut directory = DirBuilder::new();
        directory.recursive(true).mode(DIRECTORY_MODE);
        directory.create(parent).map_err(failed)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
        return Err(ServeError::NoSocket(path.to_path_buf()));
    }
    let lock = File::create(lock_of(path)).map_err(failed)?;
    if lock.try_lock().is_err() || UnixStream::connect(path).is_ok() {
        return Err(ServeError::Taken(path.to_path_buf()));
    }
    let own = path.with_extension(std::process::id().to_string());
    let listener = UnixListener::bind(&own).map_err(failed)?;
    fs::set_permissions(&own, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    fs::rename(&own, path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok((listener, lock))
}

struct Answers<D>(Arc<D>);

#[tonic::async_trait]
impl<D: Desk> Evidence for Answers<D> {
    type CollectStream = Telling;

    async fn collect(
        &self,
        request: Request<Streaming<CollectRequest>>,
    ) -> Result<Response<Telling>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?;
        let asked = first.ok_or_else(|| Status::invalid_argument("nothing was asked"))?;
        let (to, told) = mpsc::channel(WAITING);
        let look = match self.0.collect(&asked.query, Told(to.clone())) {
            Ok(look) => look,
            Err(problem) => {
                let what = Some(What::Problem(problem));
                // There is room: nothing was sent before.
                let _ = to.try_send(CollectResponse { what });
                return Ok(Response::new(Telling { told, look: None }));
            }
        };
        drop(to);
        let closing = look.clone();
        tokio::spawn(async move {
            match requests.message().await {
                // Nothing may follow the question: whoever sends more is taken to be done.
                Ok(_) => closing.close(),
                Err(_) => closing.abandon(),
            }
        });
        Ok(Response::new(Telling {
            told,
            look: Some(look),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let desk = self.0.clone();
        // Off this thread, which all others are answered from.
        let status = tokio::task::spawn_blocking(move || desk.status()).await;
        let status = status.map_err(|e| Status::internal(causes(&e)))?;
        status
            .map(Response::new)
            .map_err(|p| Status::unavailable(p.message))
    }
}

/// What a look tells, on its way out. The look ends with it.
pub struct Telling {
    told: mpsc::Receiver<CollectResponse>,
    look: Option<Arc<dyn Look>>,
}

impl Stream for Telling {
    type Item = Result<CollectResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.told.poll_recv(cx).map(|next| next.map(Ok))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(look) = &self.look {
            look.abandon();
        }
    }
}
