//! The recording that the fuzzer begins with: attempts through a Service that end in different ways.

use super::story::*;
use crate::fuzz;
use crate::model::flow::Direction;
use crate::model::recording::{self, Reader};
use crate::model::{Input, Proto};
use std::net::SocketAddr;
use std::{fs, io, path::Path};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/seeds/recording");

fn told() -> Vec<Input> {
    let backend = SocketAddr::new(ip(BACKEND), 8080);
    let facts = routed(ruled(facts_a(), rules_to(&[backend])), REMOTE, Some(NODE_B));
    let mut story = Story::new("a", objects(&[BACKEND, REMOTE]), facts);
    story.served(4001, backend, BACKEND_VETH, ms(10));
    let vip = |port| tuple(Proto::TCP, CLIENT, port, VIP, 80);
    let refused = (vip(4002), tuple(Proto::TCP, BACKEND, 8080, CLIENT, 4002));
    story.syn(refused.0, CLIENT_VETH, ms(20), 7, 1);
    story.nat(refused.0, refused.1, ms(20));
    story.rst(refused.1, BACKEND_VETH, Direction::Ingress, ms(21));
    let far = (vip(4003), tuple(Proto::TCP, REMOTE, 8080, CLIENT, 4003));
    story.syn(far.0, CLIENT_VETH, ms(30), 9, 3);
    story.unreachable(NODE_B, far.1.inverse(), 1, 0, ms(31));
    story.told(ms(4000))
}

fn lines() -> io::Result<Vec<u8>> {
    let lines: Result<Vec<String>, _> = told().iter().map(serde_json::to_string).collect();
    Ok(lines?.join("\n").into_bytes())
}

#[test]
fn the_seed_is_read_whole() -> Result<(), Box<dyn std::error::Error>> {
    let file = fs::read(Path::new(SEEDS).join("whole.nfr"))?;
    let mut reader = Reader::new(io::Cursor::new(file), Path::new("seed"))?;
    assert_eq!(reader.by_ref().count(), told().len());
    assert_eq!((reader.skipped(), reader.lost_tail()), (0, None));
    Ok(())
}

#[test]
fn the_seed_is_what_is_recorded_now() -> io::Result<()> {
    let lines = lines()?;
    let whole = recording::of_lines(&lines)?;
    for (name, bytes) in [("lines", lines), ("whole.nfr", whole)] {
        fuzz::keep(&Path::new(SEEDS).join(name), &bytes)?;
    }
    Ok(())
}
