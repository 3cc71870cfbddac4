//! A small client and server: the applications of the lab. Everything it does is bounded in time and count; what
//! happened is printed as JSON lines.

use clap::{Args, Parser, Subcommand};
use netflow_tests::stray;
use netflow_tests::traffic::{Attempt, Line, Outcome, Tally};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sockopt,
};
use nix::unistd::Pid;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

#[derive(Parser)]
#[command(
    name = "netflow-traffic",
    about = "Small TCP and UDP client and server of the netflow lab"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers: sends as many bytes as the client's first four bytes ask for, discards the rest of what it gets.
    Serve(Serve),
    /// Makes attempts and says how each one ended.
    Dial(Dial),
    /// Does nothing until SIGTERM: what holds a Pod's namespaces open.
    Pause,
}

#[derive(Args)]
struct Serve {
    /// `tcp:ADDR:PORT`, `udp:ADDR:PORT`, `reset:ADDR:PORT` (accepts, then answers with a RST), or `stray:ADDR:PORT` (accepts,
    /// then sends segments from outside of the connection's window).
    #[arg(long = "listen", required = true)]
    listen: Vec<Listen>,
    /// A client that TCP sockets treat as `reset` does.
    #[arg(long)]
    shun: Vec<IpAddr>,
    /// Ends after so many seconds.
    #[arg(long = "for", default_value_t = 900)]
    seconds: u64,
    /// Bytes that replies consist of, repeated.
    #[arg(long, default_value = "x")]
    canary: String,
}

#[derive(Args, Clone)]
struct Dial {
    /// `tcp` or `udp`.
    #[arg(long, default_value = "tcp")]
    proto: String,
    /// Where to.
    #[arg(long)]
    to: SocketAddr,
    /// Own address (port 0: any).
    #[arg(long)]
    bind: Option<SocketAddr>,
    /// Attempts.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Milliseconds between the starts of attempts.
    #[arg(long, default_value_t = 200)]
    interval: u64,
    /// Bytes to send per attempt.
    #[arg(long, default_value_t = 32)]
    send: usize,
    /// Bytes to ask for per attempt.
    #[arg(long, default_value_t = 32)]
    receive: u32,
    /// Keep the connection open and send again after so many milliseconds, until the end.
    #[arg(long)]
    hold: Option<u64>,
    /// Milliseconds to wait for a connection (UDP: for a reply).
    #[arg(long, default_value_t = 2000)]
    connect_timeout: u64,
    /// Milliseconds without progress after which a transfer has stalled.
    #[arg(long, default_value_t = 3000)]
    stall_timeout: u64,
    /// Ends after so many seconds, whatever is left to do.
    #[arg(long = "for", default_value_t = 60)]
    seconds: u64,
    /// Dials so many ports one after the other, from the one given on.
    #[arg(long, default_value_t = 1)]
    sweep: u16,
    /// UDP: send each datagram twice at the same moment, from two processors.
    #[arg(long)]
    twice: bool,
    /// Bytes that the payload consists of, repeated.
    #[arg(long, default_value = "x")]
    canary: String,
}

#[derive(Clone)]
struct Listen {
    kind: Kind,
    addr: SocketAddr,
}

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    Reset,
    Stray,
    Udp,
}

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Listen, String> {
        let (kind, addr) = text.split_once(':').ok_or("no protocol")?;
        let kind = match kind {
            "tcp" => Kind::Tcp,
            "reset" => Kind::Reset,
            "stray" => Kind::Stray,
            "udp" => Kind::Udp,
            other => return Err(format!("unknown kind {other}")),
        };
        let addr = addr.parse().map_err(|e| format!("{addr}: {e}"))?;
        Ok(Listen { kind, addr })
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(serve) => run_server(&serve),
        Command::Dial(dial) => {
            run_client(&dial);
            Ok(())
        }
        Command::Pause => Termination::expect().and_then(|end| end.wait(PollTimeout::NONE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("netflow-traffic: {e}");
            ExitCode::from(2)
        }
    }
}

fn say(line: &Line) {
    if let Ok(text) = serde_json::to_string(line) {
        let mut out = io::stdout().lock();
        // The reader may be gone; the traffic still counts.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

fn filled(canary: &str, len: usize) -> Vec<u8> {
    canary.bytes().cycle().take(len).collect()
}

/// SIGTERM, waited for: the first process of a container is not ended by it otherwise.
struct Termination(SignalFd);

impl Termination {
    /// From now on, also in threads that are started later.
    fn expect() -> io::Result<Termination> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        Ok(Termination(SignalFd::new(&signals)?))
    }

    fn wait(&self, limit: PollTimeout) -> io::Result<()> {
        let Termination(fd) = self;
        poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], limit)?;
        Ok(())
    }
}

fn run_server(serve: &Serve) -> io::Result<()> {
    let end = Termination::expect()?;
    let canary = Arc::new(filled(&serve.canary, 64 * 1024));
    for listen in &serve.listen {
        let (addr, canary) = (listen.addr, Arc::clone(&canary));
        let context = |e: io::Error| io::Error::new(e.kind(), format!("listening on {addr}: {e}"));
        match listen.kind {
            Kind::Udp => {
                let socket = UdpSocket::bind(addr).map_err(context)?;
                thread::spawn(move || serve_udp(&socket, &canary));
            }
            kind @ (Kind::Tcp | Kind::Reset | Kind::Stray) => {
                let listener = TcpListener::bind(addr).map_err(context)?;
                let shunned = serve.shun.clone();
                thread::spawn(move || accept(&listener, kind, &shunned, &canary));
            }
        }
    }
    say(&Line::Listening);
    let limit = Duration::from_secs(serve.seconds);
    end.wait(PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX))
}

fn serve_udp(socket: &UdpSocket, canary: &[u8]) {
    let mut buffer = vec![0; 65536];
    while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
        let want = wanted(&buffer[..len]).clamp(1, 1400);
        // A client that went away is its own business.
        let _ = socket.send_to(&canary[..want], peer);
    }
}

fn wanted(header: &[u8]) -> usize {
    header
        .first_chunk::<4>()
        .map_or(0, |b| u32::from_be_bytes(*b) as usize)
}

fn accept(listener: &TcpListener, kind: Kind, shunned: &[IpAddr], canary: &Arc<Vec<u8>>) {
    for stream in listener.incoming().flatten() {
        let canary = Arc::clone(canary);
        let is_shunned = |peer: SocketAddr| shunned.contains(&peer.ip().to_canonical());
        let kind = if stream.peer_addr().is_ok_and(is_shunned) {
            Kind::Reset
        } else {
            kind
        };
        thread::spawn(move || {
            // Failures are the client's to report.
            let _ = match kind {
                Kind::Reset => serve_reset(stream),
                Kind::Stray => serve_stray(stream, &canary),
                Kind::Tcp | Kind::Udp => serve_tcp(stream, &canary),
            };
        });
    }
}

/// Closes with data unread and no linger, so that the kernel sends a RST.
fn serve_reset(mut stream: TcpStream) -> io::Result<()> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    socket::setsockopt(&stream, sockopt::Linger, &at_once)?;
    Ok(())
}

/// Serves, and from then on sends after each segment of the client one of its own that lies far beyond the window. What the
/// client asked for is on its way before: a connection that is cut earlier leaves it waiting, or not, as threads are scheduled.
fn serve_stray(mut stream: TcpStream, canary: &[u8]) -> io::Result<()> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    send_all(&mut stream, canary, wanted(&header))?;
    // A socket for both families knows IPv4 by mapped addresses.
    let plain = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    let (own, peer) = (plain(stream.local_addr()?), plain(stream.peer_addr()?));
    let family = if own.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let raw = socket::socket(
        family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Tcp,
    )?;
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok(len) = socket::recv(raw.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            let answer = stray::answer(&buffer[..len], own, peer);
            if let Some(segment) = answer {
                // IPv6 takes a port for a protocol here (`rawv6_sendmsg`, v6.18 net/ipv6/raw.c).
                let to = SockaddrStorage::from(SocketAddr::new(peer.ip(), 0));
                // A client that is gone gets none.
                let _ = socket::sendto(raw.as_raw_fd(), &segment, &to, MsgFlags::empty());
            }
        }
    });
    read_all(&mut stream)
}

fn serve_tcp(mut stream: TcpStream, canary: &[u8]) -> io::Result<()> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut writer = stream.try_clone()?;
    let left = wanted(&header);
    thread::scope(|scope| {
        scope.spawn(move || send_all(&mut writer, canary, left));
        read_all(&mut stream)
    })
}

/// Until the client has no more to say.
fn read_all(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while stream.read(&mut buffer)? > 0 {}
    stream.shutdown(Shutdown::Both)
}

fn send_all(stream: &mut TcpStream, pattern: &[u8], mut left: usize) -> io::Result<()> {
    while left > 0 {
        let n = stream.write(&pattern[..left.min(pattern.len())])?;
        left -= n;
    }
    Ok(())
}

fn run_client(dial: &Dial) {
    let end = Instant::now() + Duration::from_secs(dial.seconds);
    let total = Arc::new(Mutex::new(Tally::default()));
    let running = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    for number in 0..dial.count {
        let start = Instant::now();
        if start >= end {
            break;
        }
        // A client whose attempts hang does not pile up threads for ever.
        if running.load(Ordering::Relaxed) < 64 {
            running.fetch_add(1, Ordering::Relaxed);
            let (mut dial, total, running) =
                (dial.clone(), Arc::clone(&total), Arc::clone(&running));
            let step = number % u32::from(dial.sweep.max(1));
            dial.to.set_port(dial.to.port().saturating_add(step as u16));
            threads.push(thread::spawn(move || {
                let attempt = attempt(&dial, number, end);
                say(&Line::Attempt(attempt.clone()));
                if let Ok(mut total) = total.lock() {
                    total.add(&attempt);
                }
                running.fetch_sub(1, Ordering::Relaxed);
            }));
        }
        if number + 1 < dial.count {
            let next = start + Duration::from_millis(dial.interval);
            thread::sleep(next.min(end).saturating_duration_since(Instant::now()));
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
    if let Ok(total) = total.lock() {
        say(&Line::Total(total.clone()));
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}

fn attempt(dial: &Dial, number: u32, end: Instant) -> Attempt {
    let mut attempt = Attempt {
        number,
        start: now(),
        ..Attempt::default()
    };
    say(&Line::Start {
        number,
        start: attempt.start,
    });
    attempt.outcome = match dial.proto.as_str() {
        "udp" => exchange_udp(dial, &mut attempt, end),
        _ => exchange_tcp(dial, &mut attempt, end),
    };
    attempt.end = now();
    attempt
}

fn outcome_of(error: &io::Error) -> Outcome {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => Outcome::Refused,
        Some(Errno::ECONNRESET | Errno::EPIPE) => Outcome::Reset,
        Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH) => Outcome::Unreachable,
        Some(Errno::ETIMEDOUT | Errno::EAGAIN) => Outcome::Timeout,
        _ => Outcome::Other,
    }
}

fn request(dial: &Dial) -> Vec<u8> {
    let mut bytes = dial.receive.to_be_bytes().to_vec();
    bytes.extend(filled(&dial.canary, dial.send.max(4) - 4));
    bytes
}

fn exchange_udp(dial: &Dial, attempt: &mut Attempt, end: Instant) -> Outcome {
    let run = |attempt: &mut Attempt| -> io::Result<()> {
        let any: IpAddr = match dial.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(dial.bind.unwrap_or(SocketAddr::new(any, 0)))?;
        socket.connect(dial.to)?;
        let wait = dial.hold.map_or(dial.connect_timeout, |pause| pause.max(1));
        socket.set_read_timeout(Some(Duration::from_millis(wait)))?;
        loop {
            attempt.sent += send_datagram(dial, &socket)? as u64;
            let mut buffer = [0; 2048];
            let answer = socket.recv(&mut buffer);
            let Some(pause) = dial.hold.filter(|_| Instant::now() < end) else {
                attempt.received += answer? as u64;
                return Ok(());
            };
            // Who keeps a socket goes on with it, answered or not.
            attempt.received += answer.unwrap_or(0) as u64;
            thread::sleep(Duration::from_millis(pause));
        }
    };
    run(attempt).map_or_else(|e| outcome_of(&e), |()| Outcome::Ok)
}

fn send_datagram(dial: &Dial, socket: &UdpSocket) -> io::Result<usize> {
    let bytes = request(dial);
    if !dial.twice {
        return socket.send(&bytes);
    }
    let start = Barrier::new(2);
    let from_processor = |n: usize| {
        let mut own = CpuSet::new();
        // On a machine with one processor both are sent from it.
        let _ = own
            .set(n)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &own));
        start.wait();
        socket.send(&bytes)
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| from_processor(1));
        let first = scope.spawn(|| from_processor(0));
        let gone = |_| io::Error::from(ErrorKind::Other);
        let sent = first.join().map_err(gone)?? + other.join().map_err(gone)??;
        Ok(sent)
    })
}

fn exchange_tcp(dial: &Dial, attempt: &mut Attempt, end: Instant) -> Outcome {
    let mut stream = match connect(dial, end) {
        Ok(stream) => stream,
        Err(e) => return outcome_of(&e),
    };
    match transfer(dial, &mut stream, attempt, end) {
        Ok(()) => Outcome::Ok,
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Outcome::Stalled
        }
        Err(e) if outcome_of(&e) == Outcome::Timeout => Outcome::Stalled,
        Err(e) => outcome_of(&e),
    }
}

/// Connects from the wanted address within the wanted time.
fn connect(dial: &Dial, end: Instant) -> io::Result<TcpStream> {
    let family = match dial.to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd: OwnedFd = socket::socket(
        family,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    if let Some(own) = dial.bind {
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(own))?;
    }
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(dial.to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    let left = end.saturating_duration_since(Instant::now());
    let wait = left.min(Duration::from_millis(dial.connect_timeout));
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, timeout)? == 0 {
        return Err(Errno::ETIMEDOUT.into());
    }
    let error = socket::getsockopt(&fd, sockopt::SocketError)?;
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn transfer(
    dial: &Dial,
    stream: &mut TcpStream,
    attempt: &mut Attempt,
    end: Instant,
) -> io::Result<()> {
    let stall = Duration::from_millis(dial.stall_timeout);
    stream.set_read_timeout(Some(stall))?;
    stream.set_write_timeout(Some(stall))?;
    stream.set_nodelay(true)?;
    let mut reader = stream.try_clone()?;
    let (sent, received) = thread::scope(|scope| {
        let read = scope.spawn(move || receive(&mut reader, dial.receive as usize));
        // What the server needs to know goes ahead in a packet of its own, so that both ends send at the same time.
        let request = request(dial);
        let sent = stream
            .write_all(&request[..4])
            .and_then(|()| stream.write_all(&request[4..]))
            .map(|()| request.len() as u64);
        let received = read.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()));
        (sent, received)
    });
    attempt.sent += sent?;
    attempt.received += received?;
    if let Some(pause) = dial.hold {
        let chunk = filled(&dial.canary, dial.send.max(4));
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(pause));
            stream.write_all(&chunk)?;
            attempt.sent += chunk.len() as u64;
        }
    }
    drained(stream, stall)
}

fn receive(stream: &mut TcpStream, want: usize) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut got = 0;
    while got < want {
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => got += n,
        }
    }
    Ok(got as u64)
}

/// Bytes in the send queue are not delivered yet: says we are done and waits until the server has seen all of it and
/// closes too.
fn drained(stream: &mut TcpStream, stall: Duration) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(stall))?;
    let mut rest = [0; 4096];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}
