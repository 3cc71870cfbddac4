//! Entries of others in a node's conntrack table, written by ctnetlink: as many as the kernel takes in a second or so.

use super::netns;
use anyhow::{Context, Result, ensure};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use std::fs;

/// `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK`
/// (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`, v6.18).
const NEW: u16 = 1 << 8;
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_CREATE`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
/// `IPS_SEEN_REPLY`, `IPS_ASSURED`, `IPS_CONFIRMED`: such an entry is not thrown out early.
const LASTING: u32 = 2 | 4 | 8;
const SECONDS: u32 = 3600;
/// Tells these entries from all others.
const MARK: u32 = 1;
const NESTED: u16 = 0x8000;
/// Other entries may come while the table is being filled: they are taken out, and it is topped up, so many times.
const ROUNDS: u32 = 4;
/// Numbers that [`entry`] knows.
const MOST: u32 = 1 << 30;
/// Bytes of messages that one send holds.
const BATCH: usize = 64 * 1024;

/// Fills the table of namespace `ns` to `percent` of what it may hold, with these entries alone: any other would end, or be
/// thrown out for an attempt (a bridge's own IGMP report is one).
pub fn fill(ns: &str, percent: u8) -> Result<()> {
    netns::within(ns, || {
        let wanted = setting("max")? * u32::from(percent) / 100;
        let socket = open()?;
        let mut batch = Vec::with_capacity(BATCH + 256);
        let mut numbers = 0..MOST;
        for _ in 0..ROUNDS {
            send(&socket, &mut message(DELETE, REQUEST | ACK, &unmarked()))?;
            let missing = wanted.saturating_sub(setting("count")?);
            for n in numbers.by_ref().take(missing as usize) {
                batch.extend(message(NEW, REQUEST | CREATE, &entry(n)));
                if batch.len() >= BATCH {
                    send(&socket, &mut batch)?;
                }
            }
            send(&socket, &mut batch)?;
        }
        let count = setting("count")?;
        ensure!(
            count >= wanted,
            "the conntrack table took {count} of {wanted} entries"
        );
        Ok(())
    })
}

/// Takes every entry out of the table of namespace `ns`.
pub fn empty(ns: &str) -> Result<()> {
    netns::within(ns, || {
        let socket = open()?;
        send(&socket, &mut message(DELETE, REQUEST | ACK, &[0; 4]))
    })
}

fn setting(name: &str) -> Result<u32> {
    let file = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    text.trim().parse().with_context(|| file)
}

fn open() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends what is gathered. The kernel works it off before it returns; what it refuses shows in the count.
fn send(socket: &Socket, batch: &mut Vec<u8>) -> Result<()> {
    if !batch.is_empty() {
        socket.send(batch, 0).context("ctnetlink")?;
        batch.clear();
    }
    Ok(())
}

/// One UDP exchange of hosts that nobody has (RFC 2544), a different one for each number.
fn entry(n: u32) -> Vec<u8> {
    let (host, port) = ((n >> 15) as u16, (n & 0x7fff) as u16);
    let [high, low] = host.to_be_bytes();
    let (a, b) = ([198, 18, high, low], [198, 19, low, high]);
    let side = |from: [u8; 4], sport: u16, to: [u8; 4], dport: u16| {
        let ip = [attribute(1, &from), attribute(2, &to)].concat();
        let ports = [
            attribute(1, &[17]),
            attribute(2, &sport.to_be_bytes()),
            attribute(3, &dport.to_be_bytes()),
        ];
        [
            attribute(1 | NESTED, &ip),
            attribute(2 | NESTED, &ports.concat()),
        ]
        .concat()
    };
    let (client, server) = (20_000 + port, 4000);
    [
        // struct nfgenmsg: AF_INET, version, res_id
        vec![2, 0, 0, 0],
        attribute(1 | NESTED, &side(a, client, b, server)),
        attribute(2 | NESTED, &side(b, server, a, client)),
        attribute(3, &LASTING.to_be_bytes()),
        attribute(7, &SECONDS.to_be_bytes()),
        attribute(8, &MARK.to_be_bytes()),
    ]
    .concat()
}

/// What to delete: entries without a mark (`CTA_MARK`, `CTA_MARK_MASK`).
fn unmarked() -> Vec<u8> {
    [
        vec![0; 4],
        attribute(8, &0_u32.to_be_bytes()),
        attribute(21, &u32::MAX.to_be_bytes()),
    ]
    .concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = Vec::with_capacity(len + 3);
    bytes.extend((len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let len = 16 + payload.len();
    let mut bytes = Vec::with_capacity(len);
    bytes.extend((len as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn entries_differ_and_are_aligned() {
        let all: BTreeSet<Vec<u8>> = (0..70_000).map(entry).collect();
        assert_eq!(all.len(), 70_000);
        assert!(all.iter().all(|e| e.len() % 4 == 0));
    }
}
