//! How much gets through.

use anyhow::{Context, Result, ensure};
use netflow_tests::lab::plan::PodPlan;
use netflow_tests::lab::{Lab, netns};
use netflow_tests::world::{Party, World};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of one transfer, with segments that the stack may keep together and without.
const BULK: u32 = 2 << 30;
const SEGMENTS: u32 = 512 << 20;
/// How long datagrams are sent.
const SENDING: Duration = Duration::from_secs(2);
/// What fills a frame of 64 bytes: Ethernet takes 14, IPv4 20, UDP 8.
const DATAGRAM: usize = 22;
/// A port that nothing of the lab listens on.
const PORT: u16 = 9;

/// MB/s from the Service.
pub fn bulk(lab: &Lab, world: &World) -> Result<f64> {
    transfer(lab, world, BULK)
}

/// The same when every packet is one segment: the backends' interfaces keep none together.
pub fn segments(lab: &Lab, world: &World) -> Result<f64> {
    keep_together(lab, 1)?;
    let rate = transfer(lab, world, SEGMENTS);
    keep_together(lab, u32::from(u16::MAX))?;
    rate
}

fn keep_together(lab: &Lab, segments: u32) -> Result<()> {
    for pod in &lab.plan.backends {
        let PodPlan { ifname, .. } = pod;
        let line = format!("link set dev {ifname} gso_max_segs {segments}");
        netns::batch(&lab.pod(pod), &[line])?;
    }
    Ok(())
}

fn transfer(lab: &Lab, world: &World, bytes: u32) -> Result<f64> {
    let to = world.via_vip.first().context("nobody to dial")?.to;
    netns::within(&lab.party(Party::Client), || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.write_all(&bytes.to_be_bytes())?;
        let mut buffer = vec![0; 256 << 10];
        let (began, mut left) = (Instant::now(), bytes as usize);
        while left > 0 {
            let some = stream.read(&mut buffer)?;
            ensure!(some > 0, "the transfer ended early");
            left = left.saturating_sub(some);
        }
        Ok(f64::from(bytes) / 1e6 / began.elapsed().as_secs_f64())
    })
}

/// Datagrams that arrive in a second at a backend's own address.
pub fn datagrams(lab: &Lab) -> Result<f64> {
    let Datagrams { arrived, took, .. } = send_datagrams(lab)?;
    Ok(arrived as f64 / took.as_secs_f64())
}

/// How many a round sends.
pub fn datagrams_of_a_round(lab: &Lab) -> Result<f64> {
    Ok(send_datagrams(lab)?.sent as f64)
}

/// A round of them.
struct Datagrams {
    sent: u64,
    arrived: u64,
    took: Duration,
}

fn send_datagrams(lab: &Lab) -> Result<Datagrams> {
    let pod = lab.plan.backends.first().context("no backend")?;
    let to = SocketAddr::new(pod.ip, PORT);
    let socket = netns::within(&lab.pod(pod), || Ok(UdpSocket::bind(to)?))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let sent_all = AtomicBool::new(false);
    thread::scope(|scope| {
        let arrived = scope.spawn(|| arrived(&socket, &sent_all));
        let sent = netns::within(&lab.party(Party::Client), || send(to));
        sent_all.store(true, Ordering::Relaxed);
        let arrived = arrived
            .join()
            .map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        let (sent, took) = sent?;
        ensure!(arrived > 0, "no datagram arrived at {to}");
        Ok(Datagrams {
            sent,
            arrived,
            took,
        })
    })
}

/// How many were sent, and how long that took.
fn send(to: SocketAddr) -> Result<(u64, Duration)> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let mut sent = 0;
    let began = Instant::now();
    while began.elapsed() < SENDING {
        for _ in 0..64 {
            socket.send(&[0; DATAGRAM])?;
            sent += 1;
        }
    }
    Ok((sent, began.elapsed()))
}

fn arrived(socket: &UdpSocket, sent_all: &AtomicBool) -> u64 {
    let mut arrived = 0;
    let mut buffer = [0; 64];
    loop {
        if socket.recv(&mut buffer).is_ok() {
            arrived += 1;
        } else if sent_all.load(Ordering::Relaxed) {
            return arrived;
        }
    }
}
