//! Both ends over TCP of this machine, with certificates made for the test.

use crate::api::Address;
use crate::api::client::{Agent, AskError, Peer, runtime};
use crate::api::dial::{DialError, Identity};
use crate::api::gate::{Gate, GateError, LIMITS, Limits, Trouble};
use crate::api::server::{Desk, Look, Serving, Told};
use crate::api::tls::Files;
use crate::api::v1::{Problem, StatusResponse};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, Stream, StreamOwned};

/// What is waited for where it is to be over.
const SHORT: Duration = Duration::from_millis(200);
/// What nobody waits for, unless something is broken.
const LONG: Duration = Duration::from_mins(2);

/// Tells that it was asked how it is, and says it once it may.
#[derive(Default)]
pub(super) struct Fake(Option<Mutex<(Sender<()>, Receiver<()>)>>);

impl Desk for Fake {
    fn collect(&self, query: &str, mut to: Told) -> Result<Arc<dyn Look>, Problem> {
        let query = query.to_owned();
        std::thread::spawn(move || write!(to, "seen: {query}"));
        Ok(Arc::new(Fake::default()))
    }

    fn status(&self) -> Result<StatusResponse, Problem> {
        if let Some(pair) = &self.0 {
            let (asked, may) = &*pair.lock().unwrap();
            asked.send(()).unwrap();
            may.recv_timeout(LONG).unwrap();
        }
        Ok(StatusResponse {
            node: "node-1".into(),
            ..StatusResponse::default()
        })
    }
}

impl Look for Fake {
    fn close(&self) {}

    fn abandon(&self) {}
}

/// Signs.
struct Authority {
    dir: PathBuf,
    name: &'static str,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(dir: &Path, name: &'static str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.join(name), certificate.pem()).unwrap();
        Authority {
            dir: dir.to_path_buf(),
            name,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for `subject`, in files of whoever trusts this authority.
    fn files(&self, subject: &str) -> Files {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![subject.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |what| self.dir.join(format!("{}-{subject}.{what}", self.name));
        let files = Files {
            cert: file("crt"),
            key: file("key"),
            ca: self.dir.join(self.name),
        };
        fs::write(&files.cert, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// An agent of 127.0.0.1, and two authorities, of which it knows the first.
struct Place {
    ours: Authority,
    theirs: Authority,
    agent: Files,
    at: SocketAddr,
    troubles: Receiver<String>,
    _serving: Serving,
    _dir: TempDir,
}

impl Place {
    fn new() -> Place {
        // What takes long here is no fault of a caller.
        Place::within(Limits {
            handshake: LONG,
            preface: LONG,
            ..LIMITS
        })
    }

    fn within(limits: Limits) -> Place {
        Place::of(limits, Fake::default())
    }

    fn of(limits: Limits, desk: Fake) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let ours = Authority::new(dir.path(), "ours");
        let theirs = Authority::new(dir.path(), "theirs");
        let agent = ours.files("127.0.0.1");
        let (to, troubles) = channel();
        let notice = move |trouble: &Trouble| to.send(trouble.to_string()).unwrap_or_default();
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let gate = Gate::open(anywhere, agent.clone(), Arc::new(notice)).unwrap();
        let at = gate.at();
        let socket = dir.path().join("netflow.sock");
        let serving = Serving::start(&socket, Some(gate.within(limits)), desk).unwrap();
        Place {
            ours,
            theirs,
            agent,
            at,
            troubles,
            _serving: serving,
            _dir: dir,
        }
    }

    fn ask(&self, files: &Files) -> Result<Agent, AskError> {
        self.ask_for(files, None)
    }

    fn ask_for(&self, files: &Files, name: Option<&str>) -> Result<Agent, AskError> {
        let address = format!("https://{}", self.at).parse().unwrap();
        let name = name.map(str::to_owned);
        let pems = files.read().unwrap();
        Agent::connect(&address, Some(&Identity { pems, name }))
    }

    fn refusal(&self, files: &Files) -> AskError {
        self.ask(files).err().unwrap()
    }

    /// What is told of the agent, where it is.
    fn trouble(&self) -> String {
        self.troubles.recv_timeout(LONG).unwrap()
    }

    /// Asks until there is an answer: that a place was left shows a moment later.
    fn answered(&self, files: &Files) -> Agent {
        let until = Instant::now() + LONG;
        loop {
            let mut agent = self.ask(files);
            match agent.as_mut().map(Agent::status) {
                Ok(Ok(_)) => return agent.unwrap(),
                _ if Instant::now() < until => std::thread::yield_now(),
                Ok(Err(e)) => panic!("{e}"),
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// TLS, without a word over it.
    fn mute(&self, files: &Files) -> StreamOwned<ClientConnection, TcpStream> {
        let config = files.read().unwrap().client().unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = TcpStream::connect(self.at).unwrap();
        tcp.set_read_timeout(Some(LONG)).unwrap();
        StreamOwned::new(tls, tcp)
    }
}

/// Reads until the agent hangs up, as it does on whom it gives up: without a word of TLS.
fn hung_up(mut caller: impl Read) {
    let read = caller.read_to_end(&mut Vec::new());
    let error = read.unwrap_err();
    let kinds = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
    assert!(kinds.contains(&error.kind()), "{error}");
}

#[test]
fn whoever_is_known_gets_an_answer() {
    let place = Place::new();
    let me = place.ours.files("me");
    let status = place.ask(&me).unwrap().status().unwrap();
    assert_eq!(status.node, "node-1");

    let mut told = String::new();
    let mut collecting = place.ask(&me).unwrap().collect("{}".into()).unwrap();
    collecting.recording().read_to_string(&mut told).unwrap();
    assert_eq!(told, "seen: {}");
}

/// As where an API server forwards the connection.
#[test]
fn whoever_is_led_there_is_answered_over_any_stream() {
    let place = Place::new();
    let me = place.ours.files("me").read().unwrap();
    let address = Address::Pod {
        namespace: "netflow".into(),
        name: "agent-x".into(),
        node: "node-1".into(),
    };
    let over = async |name: &str| {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut tcp = tokio::net::TcpStream::connect(place.at).await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut far, &mut tcp).await });
        Peer::over(&address, near, name, &me).await
    };
    let runtime = runtime().unwrap();
    let (mut collecting, clock) = runtime.block_on(async {
        let mut peer = over("127.0.0.1").await.unwrap();
        let (status, clock) = peer.measure().await.unwrap();
        assert_eq!(status.node, "node-1");
        (peer.collect("{}".into()).await.unwrap(), clock)
    });
    let mut told = String::new();
    collecting.recording().read_to_string(&mut told).unwrap();
    assert_eq!(told, "seen: {}");
    // It told no time: its clock is that of 1970, and the round trip took no longer than the test.
    assert!(clock.ahead < 0 && clock.within < LONG.as_nanos() as u64);

    let error = runtime.block_on(over("netflow-agent")).err().unwrap();
    let text = error.to_string();
    let told = "the certificate of the agent on node node-1 (Pod netflow/agent-x) is not for `netflow-agent`";
    assert!(text.starts_with(told), "{text}");
}

#[test]
fn an_answer_that_takes_long_keeps_nobody_waiting() {
    let (to, asked) = channel();
    let (may, waits) = channel();
    let place = Place::of(LIMITS, Fake(Some(Mutex::new((to, waits)))));
    let me = place.ours.files("me");
    let mut agent = place.ask(&me).unwrap();
    let status = std::thread::spawn(move || agent.status());
    asked.recv_timeout(LONG).unwrap();
    // Others are let in, and answered, meanwhile.
    let mut told = String::new();
    let mut collecting = place.ask(&me).unwrap().collect("{}".into()).unwrap();
    collecting.recording().read_to_string(&mut told).unwrap();
    assert_eq!(told, "seen: {}");
    may.send(()).unwrap();
    // It may have been given up.
    let _ = status.join().unwrap();
}

#[test]
fn the_socket_is_answered_at_beside_it() {
    let place = Place::new();
    let address = Address::Socket(place.ours.dir.join("netflow.sock"));
    let mut agent = Agent::connect(&address, None).unwrap();
    assert_eq!(agent.status().unwrap().node, "node-1");
}

#[test]
fn whoever_another_authority_knows_is_refused() {
    let place = Place::new();
    let files = Files {
        ca: place.ours.files("me").ca,
        ..place.theirs.files("me")
    };
    let error = place.refusal(&files);
    assert!(
        matches!(error, AskError::Dial(DialError::Refused { .. })),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains("theirs-me.crt: it is not signed"), "{text}");
    let trouble = place.trouble();
    assert!(trouble.starts_with("127.0.0.1:"), "{trouble}");
    assert!(
        trouble.ends_with(" was sent away: its certificate is not signed by --client-ca"),
        "{trouble}"
    );
}

#[test]
fn whoever_shows_nothing_gets_nothing() {
    let place = Place::new();
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(&place.agent.ca).unwrap();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = TcpStream::connect(place.at).unwrap();
    let mut told = Vec::new();
    let read = Stream::new(&mut tls, &mut tcp).read_to_end(&mut told);
    let error = read.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
    assert!(told.is_empty(), "{told:?}");
    let trouble = place.trouble();
    assert!(trouble.ends_with("it shows no certificate"), "{trouble}");
}

#[test]
fn an_agent_of_another_authority_is_not_asked() {
    let place = Place::new();
    let files = Files {
        ca: place.theirs.files("me").ca,
        ..place.ours.files("me")
    };
    let error = place.refusal(&files);
    assert!(
        matches!(error, AskError::Dial(DialError::Stranger { .. })),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains("not signed by an authority in "), "{text}");
    assert!(text.ends_with("theirs"), "{text}");
    let trouble = place.trouble();
    assert!(trouble.contains("who signed --tls-cert"), "{trouble}");
}

#[test]
fn an_agent_is_asked_by_the_name_in_its_certificate() {
    let place = Place::new();
    let me = place.ours.files("me");
    let error = place.ask_for(&me, Some("node-2")).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("is not for `node-2`"), "{text}");

    let named = place.ours.files("node-2");
    fs::copy(&named.cert, &place.agent.cert).unwrap();
    fs::copy(&named.key, &place.agent.key).unwrap();
    assert!(place.ask_for(&me, Some("node-2")).is_ok());

    let error = place.ask_for(&me, Some("no name")).err().unwrap();
    assert!(error.to_string().contains("`no name`"), "{error}");
}

#[test]
fn certificates_are_read_again_and_bad_ones_change_nothing() {
    let place = Place::new();
    let me = place.ours.files("me");
    fs::write(&place.agent.key, "half a key").unwrap();
    assert!(place.ask(&me).is_ok());
    assert!(place.ask(&me).is_ok());
    let told: Vec<_> = place.troubles.try_iter().collect();
    let [trouble] = told.as_slice() else {
        panic!("told once: {told:?}");
    };
    assert!(trouble.contains("holds no private key"), "{trouble}");
    assert!(trouble.ends_with("stay in use"), "{trouble}");

    let renewed = place.theirs.files("127.0.0.1");
    for (from, to) in [
        (&renewed.cert, &place.agent.cert),
        (&renewed.key, &place.agent.key),
        (&renewed.ca, &place.agent.ca),
    ] {
        fs::copy(from, to).unwrap();
    }
    // What is at `ours` now is what `theirs` signs with.
    assert!(place.ask(&place.theirs.files("me")).is_ok());
    let error = place.refusal(&Files {
        ca: renewed.ca,
        ..me
    });
    assert!(
        matches!(error, AskError::Dial(DialError::Refused { .. })),
        "{error}"
    );
}

#[test]
fn whoever_says_nothing_is_given_up() {
    let place = Place::within(Limits {
        handshake: SHORT,
        ..LIMITS
    });
    let mut silent = TcpStream::connect(place.at).unwrap();
    silent.set_read_timeout(Some(LONG)).unwrap();
    let mut told = Vec::new();
    silent.read_to_end(&mut told).unwrap();
    assert!(told.is_empty(), "{told:?}");
    let trouble = place.trouble();
    assert!(trouble.contains("certificate within 200ms"), "{trouble}");
}

#[test]
fn whoever_is_known_and_does_not_speak_is_given_up() {
    let place = Place::within(Limits {
        handshake: LONG,
        preface: SHORT,
        callers: 2,
        ..LIMITS
    });
    let me = place.ours.files("me");
    let mute = place.mute(&me);
    let mut slow = place.mute(&me);
    // It may have been given up already.
    let _ = slow.write_all(b"PRI * HTTP/2.0");
    hung_up(mute);
    hung_up(slow);
    let trouble = place.trouble();
    assert!(trouble.contains("HTTP/2 within 200ms"), "{trouble}");
    let mut agent = place.answered(&me);
    // It has spoken: its time is not measured any more.
    std::thread::sleep(2 * SHORT);
    assert_eq!(agent.status().unwrap().node, "node-1");
}

#[test]
fn the_silent_keep_nobody_out() {
    let place = Place::new();
    let silent = (0..100).map(|_| TcpStream::connect(place.at).unwrap());
    let mut silent: Vec<_> = silent.collect();
    assert!(place.ask(&place.ours.files("me")).is_ok());
    let oldest = &mut silent[0];
    oldest.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(oldest.read(&mut [0]).unwrap(), 0);
    let trouble = place.trouble();
    assert!(trouble.ends_with("before 32 others came"), "{trouble}");
}

#[test]
fn more_than_it_takes_are_sent_away_until_one_has_left() {
    let place = Place::new();
    let me = place.ours.files("me");
    let mut inside: Vec<_> = (0..64).map(|_| place.ask(&me).unwrap()).collect();
    let error = place.refusal(&me).to_string();
    assert!(error.contains("as many callers as it takes"), "{error}");
    let trouble = place.trouble();
    assert!(trouble.ends_with("64 others are answered"), "{trouble}");
    assert!(inside[0].status().is_ok());
    inside.pop();
    place.answered(&me);
}

#[test]
fn where_no_tls_is_spoken_is_said() {
    let place = Place::new();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", plain.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut tcp, _) = plain.accept().unwrap();
        // All of the greeting, or what is unread would take the answer with it.
        let _ = tcp.read(&mut [0; 1 << 14]).unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let identity = Identity {
        pems: place.ours.files("me").read().unwrap(),
        name: None,
    };
    let error = Agent::connect(&address.parse().unwrap(), Some(&identity));
    let text = error.err().unwrap().to_string();
    assert!(text.contains("it speaks no TLS"), "{text}");
    answering.join().unwrap();
}

#[test]
fn where_nobody_listens_is_told_from_where_nobody_is_known() {
    let place = Place::new();
    let me = place.ours.files("me");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = format!("https://{}", free.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(free);
    let identity = Identity {
        pems: me.read().unwrap(),
        name: None,
    };
    let error = Agent::connect(&address, Some(&identity)).err().unwrap();
    assert!(matches!(error, AskError::Absent(_)), "{error}");

    let error = Agent::connect(&address, None).err().unwrap();
    assert!(
        error.to_string().contains("who show a certificate"),
        "{error}"
    );
    let socket = Address::Socket("/run/a.sock".into());
    let error = Agent::connect(&socket, Some(&identity)).err().unwrap();
    assert!(
        error.to_string().contains("certificates mean nothing"),
        "{error}"
    );
}

#[test]
fn an_agent_without_usable_certificates_does_not_begin() {
    let dir = tempfile::tempdir().unwrap();
    let good = Authority::new(dir.path(), "ours").files("127.0.0.1");
    let other = Authority::new(dir.path(), "theirs").files("127.0.0.1");
    let open = |files| {
        let at = "127.0.0.1:0".parse().unwrap();
        let gate = Gate::open(at, files, Arc::new(|_| ()));
        gate.err().unwrap().to_string()
    };
    let missing = open(Files {
        cert: dir.path().join("none.crt"),
        ..good.clone()
    });
    assert!(missing.contains("none.crt cannot be read"), "{missing}");
    let swapped = open(Files {
        ca: good.key.clone(),
        ..good.clone()
    });
    assert!(swapped.contains("holds no certificate in PEM"), "{swapped}");
    let mixed = open(Files {
        key: other.key,
        ..good.clone()
    });
    assert!(mixed.contains("is not that of the certificate"), "{mixed}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let gate = Gate::open(at, good, Arc::new(|_| ()));
    assert!(matches!(gate, Err(GateError::Listen { .. })));
}
