//! Plain HTTP for those who watch over the agent: metrics, and whether it is well. Nothing else is served.

use crate::cli::failure::Failure;
use crate::model::capability::Capability;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};

/// What the metrics are written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// What a request and its headers may take.
const BUFFER: usize = 16 << 10;
/// Where no connection can be taken (no file descriptor is left), it is tried again after this.
const REST: Duration = Duration::from_millis(500);

/// What there is to read.
pub trait Pages: Send + Sync + 'static {
    /// All metrics, as OpenMetrics text. May wait for a moment.
    fn metrics(&self) -> Result<String, Unwell>;

    /// Whether all is well. May wait for a moment.
    fn health(&self) -> Result<(), Unwell>;
}

/// Why all is not well: one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwell {
    /// The thread that owns the programs takes no questions any more.
    #[error("the agent is ending")]
    Ending,
    /// It does not answer.
    #[error("the thread that reads the kernel's records has not answered within {0:?}")]
    Silent(Duration),
    /// Nothing is known of a capability.
    #[error("it is not settled on which tier {} runs", .0.name())]
    Unsettled(Capability),
    /// There is no text of the metrics.
    #[error("the metrics could not be written")]
    Unwritten,
    /// The thread that answers broke.
    #[error("the answer broke off")]
    Broken,
}

impl From<BindError> for Failure {
    fn from(e: BindError) -> Failure {
        Failure::new("metrics-address", e.to_string(), e.hint())
    }
}

/// The address cannot be answered at.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be told at {address}: {why}")]
pub struct BindError {
    address: SocketAddr,
    why: io::Error,
}

impl BindError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let port = self.address.port();
        match self.why.kind() {
            io::ErrorKind::AddrInUse => format!(
                "`ss -ltnp sport = :{port}` shows who has it; --metrics takes another port as well"
            ),
            io::ErrorKind::AddrNotAvailable => {
                "--metrics takes an address of this node, or 0.0.0.0 or [::] for all of them".into()
            }
            _ => "--metrics takes another address and port; without it none are told".into(),
        }
    }
}

/// How much of the agent those who ask may take up.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections at a time; more wait until one ends.
    connections: usize,
    /// For a request to come.
    request: Duration,
    /// For a connection, from its first byte to its last.
    connection: Duration,
}

const LIMITS: Limits = Limits {
    connections: 8,
    request: Duration::from_secs(5),
    connection: Duration::from_secs(10),
};

/// An address that is ours, at which nobody is answered yet.
pub struct Bound {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Takes it.
    pub fn at(address: SocketAddr) -> Result<Bound, BindError> {
        let failed = |why| BindError { address, why };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Bound { listener, address })
    }

    /// Answers, from a thread of its own.
    pub fn serve(self, pages: impl Pages) -> Result<Answering, BindError> {
        self.serve_within(LIMITS, pages)
    }

    fn serve_within(self, limits: Limits, pages: impl Pages) -> Result<Answering, BindError> {
        let Bound { listener, address } = self;
        let failed = |why| BindError { address, why };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener).map_err(failed)?
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let begun = thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        // Dropped or told: it is over.
                        _ = stopped => {}
                        () = accept(listener, limits, Arc::new(pages)) => {}
                    }
                });
                // Who still waits for an answer does so alone.
                runtime.shutdown_background();
            });
        Ok(Answering {
            address,
            stop: Some(stop),
            thread: Some(begun.map_err(failed)?),
        })
    }
}

/// An address that is answered at. Dropping it ends that.
pub struct Answering {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    /// With the port that was had, where any was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked it has ended as well.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, limits: Limits, pages: Arc<impl Pages>) {
    let places = Arc::new(Semaphore::new(limits.connections));
    // Nobody closes it.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, limits, pages.clone(), place));
            }
            Err(_) => sleep(REST).await,
        }
    }
}

/// One request, one answer: who keeps a connection would keep a place.
async fn converse(
    stream: TcpStream,
    limits: Limits,
    pages: Arc<impl Pages>,
    _place: OwnedSemaphorePermit,
) {
    let service = service_fn(|request| respond(request, pages.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever breaks off or dawdles is not answered, and knows.
    let _ = timeout(limits.connection, connection).await;
}

async fn respond(
    request: Request<Incoming>,
    pages: Arc<impl Pages>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = page(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "ask with GET\n".into(),
        );
        let get = http::HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, get);
        return Ok(refused);
    }
    let answer = match request.uri().path() {
        "/metrics" => wait(move || pages.metrics())
            .await
            .map(|m| (OPEN_METRICS, m)),
        "/healthz" => wait(move || pages.health())
            .await
            .map(|()| (TEXT, "ok\n".into())),
        _ => {
            let hint = "there are /metrics, and /healthz\n".into();
            return Ok(page(StatusCode::NOT_FOUND, TEXT, hint));
        }
    };
    Ok(match answer {
        Ok((kind, text)) => page(StatusCode::OK, kind, text),
        Err(why) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    })
}

/// Off this thread, which others want answers of.
async fn wait<T: Send + 'static>(
    answer: impl FnOnce() -> Result<T, Unwell> + Send + 'static,
) -> Result<T, Unwell> {
    let answered = tokio::task::spawn_blocking(answer).await;
    answered.unwrap_or(Err(Unwell::Broken))
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;

    /// Tells the same each time.
    #[derive(Clone)]
    struct Told(Result<(), Unwell>);

    impl Pages for Told {
        fn metrics(&self) -> Result<String, Unwell> {
            self.0.clone().map(|()| "# EOF\n".into())
        }

        fn health(&self) -> Result<(), Unwell> {
            self.0.clone()
        }
    }

    fn anywhere() -> Bound {
        Bound::at("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    fn ask(at: SocketAddr, method: &str, path: &str) -> String {
        let mut client = Client::connect(at).unwrap();
        write!(client, "{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Status and text of what is answered.
    fn get(told: Result<(), Unwell>, path: &str) -> (String, String) {
        let answering = anywhere().serve(Told(told)).unwrap();
        let answer = ask(answering.address(), "GET", path);
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), text.to_owned())
    }

    #[test]
    fn who_is_well_says_so() {
        let (head, text) = get(Ok(()), "/healthz");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(text, "ok\n");
        let (head, text) = get(Ok(()), "/metrics?name=x");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains(OPEN_METRICS), "{head}");
        assert_eq!(text, "# EOF\n");
    }

    #[test]
    fn who_is_not_says_why() {
        for path in ["/healthz", "/metrics"] {
            let (head, text) = get(Err(Unwell::Unsettled(Capability::Nat)), path);
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            assert_eq!(text, "it is not settled on which tier nat runs\n");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found_and_nothing_is_changed() {
        let (head, text) = get(Ok(()), "/");
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        assert!(text.contains("/metrics") && text.contains("/healthz"));
        let answering = anywhere().serve(Told(Ok(()))).unwrap();
        let at = answering.address();
        assert!(ask(at, "POST", "/metrics").starts_with("HTTP/1.1 405 "));
        let head = ask(at, "HEAD", "/healthz");
        assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("ok"));
        drop(answering);
        assert!(Client::connect(at).is_err());
    }

    #[test]
    fn who_dawdles_keeps_nobody_from_being_answered() {
        let limits = Limits {
            connections: 1,
            request: Duration::from_millis(50),
            ..LIMITS
        };
        let answering = anywhere().serve_within(limits, Told(Ok(()))).unwrap();
        let at = answering.address();
        let mut silent = Client::connect(at).unwrap();
        let mut slow = Client::connect(at).unwrap();
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
        assert!(ask(at, "GET", "/healthz").ends_with("ok\n"));
        // They are told, at most, that it took too long.
        for client in [&mut silent, &mut slow] {
            let mut said = String::new();
            client.read_to_string(&mut said).unwrap();
            assert!(!said.contains("200 OK"), "{said}");
        }
    }

    #[test]
    fn an_address_that_is_taken_is_said_to_be() {
        let first = anywhere();
        let Err(e) = Bound::at(first.address) else {
            panic!("it was had twice");
        };
        assert!(e.to_string().contains(&first.address.to_string()));
        assert!(e.hint().contains("ss -ltnp"), "{}", e.hint());
    }
}
