//! One who was let in.

use super::trouble::{Refusal, Trouble};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Bytes with which everybody begins who speaks HTTP/2.
const PREFACE: usize = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Counts as a caller for as long as it stays.
pub(in crate::api) struct Caller {
    stream: TlsStream<TcpStream>,
    /// Until it has said the preface. Who has is asked for signs of life by HTTP/2 itself; before, nobody would ever give it up.
    mute: Option<Mute>,
    _place: OwnedSemaphorePermit,
}

/// What a caller owes.
pub(super) struct Mute {
    missing: usize,
    patience: Duration,
    until: Pin<Box<Sleep>>,
    from: SocketAddr,
    troubles: Sender<Trouble>,
}

impl Mute {
    /// It has `patience` to begin to speak.
    pub(super) fn new(patience: Duration, from: SocketAddr, troubles: Sender<Trouble>) -> Mute {
        Mute {
            missing: PREFACE,
            patience,
            until: Box::pin(sleep(patience)),
            from,
            troubles,
        }
    }

    fn given_up(&self) -> io::Error {
        let why = Refusal::Mute(self.patience);
        let from = self.from;
        // With no room for it there are others to tell of.
        let _ = self.troubles.try_send(Trouble::SentAway { from, why });
        io::ErrorKind::TimedOut.into()
    }
}

impl Caller {
    /// It has a place, and nothing to say yet.
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        mute: Mute,
        place: OwnedSemaphorePermit,
    ) -> Caller {
        Caller {
            stream,
            mute: Some(mute),
            _place: place,
        }
    }
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
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        let Some(mute) = &mut self.mute else {
            return read;
        };
        if read.is_ready() {
            mute.missing = mute.missing.saturating_sub(into.filled().len() - before);
            if mute.missing == 0 {
                self.mute = None;
            }
            return read;
        }
        ready!(mute.until.as_mut().poll(cx));
        Poll::Ready(Err(mute.given_up()))
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
