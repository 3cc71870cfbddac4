//! Payload is never read: known bytes sent as payload turn up nowhere.

use crate::maps;
use crate::netflow::{Files, Running, SERVICE, explain};
use crate::netns::{self, HOST, Lab, POD};
use crate::search::Canary;
use anyhow::{Context, Result, ensure};
use flate2::read::ZlibDecoder;
use netflow_ebpf::map;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

/// What was sent, by what it was sent in.
const SENT: [(&str, Canary); 3] = [
    ("TCP", Canary(*b"\x91tcp\x82-c\xa7nary\xe3\x1f\x95\x88")),
    ("UDP", Canary(*b"\x93udp\x84-c\xa9nary\xe5\x1d\x97\x8a")),
    ("ICMP", Canary(*b"\x95icm\x86-c\xabnary\xe7\x1b\x99\x8c")),
];

/// An address is no payload: these sixteen bytes must be found in the maps, or the search is worth nothing.
const PLANTED: Canary = Canary(*b"\xfdplanted-address");

/// The Service's name must be found in a recording and in the output.
const NAMED: Canary = Canary(SERVICE);

#[test]
fn no_map_and_no_ring_record_holds_payload() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let netflow = Running::on_tcx(&lab, explain(&files, &["--for", "60s"]))?;
    // so that nobody but this test takes the records out of the ring
    netflow.signal(Signal::SIGSTOP)?;
    send(&lab)?;
    send_planted(&lab)?;

    let contents = maps::contents(&lab)?;
    for (name, bytes) in &contents {
        for (carrier, canary) in &SENT {
            ensure!(!canary.is_in(bytes), "{carrier} payload is in {name}");
        }
    }
    for name in [map::FLOWS, map::RECORDS] {
        let bytes = contents
            .get(name)
            .with_context(|| format!("no map {name}"))?;
        ensure!(
            PLANTED.is_in(bytes),
            "the search does not find what is in {name}"
        );
    }
    Ok(())
}

#[test]
fn no_recording_log_or_output_holds_payload() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let recording = files.file("canary.rec");
    let mut run = explain(&files, &["--for", "60s", "-vv", "-o", "json"]);
    run.arg("--record").arg(&recording);
    let netflow = Running::on_tcx(&lab, run)?;
    send(&lab)?;
    netflow.signal(Signal::SIGINT)?;
    let output = netflow.output()?;

    let recorded = unpack(&std::fs::read(&recording)?)?;
    for (place, bytes) in [
        ("the recording", &recorded),
        ("stdout", &output.stdout),
        ("stderr", &output.stderr),
    ] {
        for (carrier, canary) in &SENT {
            ensure!(!canary.is_in_text(bytes), "{carrier} payload is in {place}");
        }
    }
    ensure!(
        NAMED.is_in_text(&recorded),
        "the search does not find what is in the recording"
    );
    ensure!(
        NAMED.is_in_text(&output.stdout),
        "the search does not find what is in the output"
    );
    Ok(())
}

/// The canaries as payload through the node: answered, refused, and dropped by it.
fn send(lab: &Lab) -> Result<()> {
    let [(_, tcp), (_, udp), (_, icmp)] = &SENT;
    let server = lab.inside("host", || Ok(TcpListener::bind((HOST, 8080))?))?;
    std::thread::scope(|scope| -> Result<()> {
        let echo = scope.spawn(move || -> Result<()> {
            let (mut client, _) = server.accept()?;
            let mut heard = [0; 64];
            client.read_exact(&mut heard)?;
            client.write_all(&heard)?;
            Ok(())
        });
        lab.inside("pod", || {
            let mut stream = TcpStream::connect((HOST, 8080))?;
            stream.write_all(&tcp.payload())?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard)?;
            ensure!(
                heard == tcp.payload(),
                "the host did not answer with what it got"
            );
            Ok(())
        })?;
        echo.join()
            .map_err(|_| anyhow::anyhow!("the server panicked"))?
    })?;

    // nobody listens there: the ICMP error quotes the payload
    lab.inside("pod", || {
        let socket = UdpSocket::bind((POD, 0))?;
        socket.connect((HOST, 9))?;
        socket.send(&udp.payload())?;
        ensure!(socket.recv(&mut [0]).is_err(), "UDP port 9 answered");
        Ok(())
    })?;

    // the node drops it
    lab.ip("node", "route replace blackhole 10.77.3.0/24")?;
    lab.inside("pod", || {
        UdpSocket::bind((POD, 0))?.send_to(&udp.payload(), "10.77.3.9:9")?;
        Ok(())
    })?;

    let pattern = icmp.hex();
    lab.inside("pod", || {
        netns::finish(Command::new("ping").args([
            "-q", "-c", "2", "-i", "0.01", "-s", "80", "-p", &pattern, HOST,
        ]))
    })?;

    // the last packet that was sent has passed when one more has been answered
    lab.ping(1)
}

/// A datagram whose source address is [`PLANTED`].
fn send_planted(lab: &Lab) -> Result<()> {
    let planted = Ipv6Addr::from(PLANTED.0);
    let node: Ipv6Addr = "fd77::1".parse()?;
    for (name, device) in [("pod", "eth0"), ("node", netns::TO_POD)] {
        lab.inside(name, || {
            std::fs::write(
                format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"),
                "0",
            )?;
            Ok(())
        })?;
    }
    lab.ip(
        "node",
        &format!("-6 addr add {node}/64 dev {} nodad", netns::TO_POD),
    )?;
    lab.ip(
        "node",
        &format!("-6 route add {planted}/128 dev {}", netns::TO_POD),
    )?;
    lab.ip("pod", &format!("-6 addr add {planted}/128 dev eth0 nodad"))?;
    lab.ip("pod", &format!("-6 route add {node}/128 dev eth0"))?;
    let server = lab.inside("node", || Ok(UdpSocket::bind((node, 9))?))?;
    lab.inside("pod", || {
        let socket = UdpSocket::bind((planted, 0))?;
        socket.send_to(b"hello", (node, 9))?;
        Ok(())
    })?;
    server.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let (_, from): (usize, SocketAddr) = server.recv_from(&mut [0; 8])?;
    ensure!(
        from.ip() == IpAddr::V6(planted),
        "the datagram came from {from}"
    );
    Ok(())
}

/// The recording without its compression: what `model::recording` says about the format, and nothing of its code.
fn unpack(recording: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut rest = recording.get(12..).context("the header")?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let Some(packed) = after.get(8..8 + length).filter(|_| length > 0) else {
            break;
        };
        ZlibDecoder::new(packed).read_to_end(&mut plain)?;
        rest = &after[8 + length..];
    }
    Ok(plain)
}
