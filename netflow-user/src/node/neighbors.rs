//! Neighbour entries: ARP and ND (rtnetlink `RTM_GETNEIGH`).

use super::netlink::{Message, Netlink, NetlinkError, Request, address, u16_at, u32_at};
use crate::model::node::{Neighbor, TunnelPeer};

/// Neighbour entries of both families, without those of multicast groups.
pub fn neighbors(route: &mut Netlink) -> Result<Vec<Neighbor>, NetlinkError> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or(0);
        let mut fixed = [0; 12];
        fixed[0] = family;
        let rows = route.dump(&Request::new(libc::RTM_GETNEIGH, &fixed), |m| {
            neighbor(&m, family)
        })?;
        all.extend(rows);
    }
    Ok(all)
}

/// Where tunnel devices send frames: those entries of forwarding databases that name a remote address (`NTF_SELF` entries of
/// VXLAN devices, <https://elixir.bootlin.com/linux/v6.18/source/drivers/net/vxlan/vxlan_core.c>).
pub fn tunnel_peers(route: &mut Netlink) -> Result<Vec<TunnelPeer>, NetlinkError> {
    let mut fixed = [0; 12];
    fixed[0] = u8::try_from(libc::AF_BRIDGE).unwrap_or(0);
    route.dump(&Request::new(libc::RTM_GETNEIGH, &fixed), |m| {
        tunnel_peer(&m)
    })
}

pub(super) fn tunnel_peer(message: &Message<'_>) -> Option<TunnelPeer> {
    let (fixed, attributes) = message
        .split::<12>()
        .filter(|_| message.kind == libc::RTM_NEWNEIGH)?;
    let (mut remote, mut lladdr) = (None, None);
    for (kind, value) in attributes {
        match kind {
            libc::NDA_DST => remote = address(value),
            libc::NDA_LLADDR => lladdr = Some(lladdr_text(value)),
            _ => {}
        }
    }
    Some(TunnelPeer {
        ifindex: u32_at(fixed, 4)?,
        lladdr: lladdr?,
        remote: remote?,
    })
}

pub(super) fn neighbor(message: &Message<'_>, family: u8) -> Option<Neighbor> {
    if message.kind != libc::RTM_NEWNEIGH {
        return None;
    }
    // struct ndmsg: family, pad, pad (u16), ifindex (i32), state (u16), flags, type
    let (fixed, attributes) = message.split::<12>()?;
    if fixed[0] != family {
        return None;
    }
    let (mut ip, mut lladdr) = (None, None);
    for (kind, value) in attributes {
        match kind {
            libc::NDA_DST => ip = address(value),
            libc::NDA_LLADDR => lladdr = Some(lladdr_text(value)),
            _ => {}
        }
    }
    let ip = ip.filter(|ip| !ip.is_multicast())?;
    Some(Neighbor {
        ip,
        ifindex: u32_at(fixed, 4)?,
        state: state_name(u16_at(fixed, 8)?).to_owned(),
        lladdr,
    })
}

/// As people write it: `02:00:00:00:00:01`.
pub fn lladdr_text(bytes: &[u8]) -> String {
    let octets: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    octets.join(":")
}

fn state_name(state: u16) -> &'static str {
    match state {
        libc::NUD_INCOMPLETE => "incomplete",
        libc::NUD_REACHABLE => "reachable",
        libc::NUD_STALE => "stale",
        libc::NUD_DELAY => "delay",
        libc::NUD_PROBE => "probe",
        libc::NUD_FAILED => "failed",
        libc::NUD_NOARP => "noarp",
        libc::NUD_PERMANENT => "permanent",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::tests::{attributes, torture};
    use super::*;

    fn entry(state: u16, ip: [u8; 4], list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        bytes.extend(4_u32.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([0, 1]);
        bytes.extend(attributes(&[(1, &ip)]));
        bytes.extend(attributes(list));
        bytes
    }

    fn read(payload: &[u8]) -> Option<Neighbor> {
        let kind = libc::RTM_NEWNEIGH;
        neighbor(&Message { kind, payload }, 2)
    }

    #[test]
    fn states_and_addresses() {
        let bytes = entry(0x02, [10, 0, 0, 7], &[(2, &[2, 0, 0, 0, 0, 0x1f])]);
        assert_eq!(
            read(&bytes),
            Some(Neighbor {
                ip: [10, 0, 0, 7].into(),
                ifindex: 4,
                state: "reachable".into(),
                lladdr: Some("02:00:00:00:00:1f".into()),
            })
        );
        torture(&bytes, read);
        let failed = read(&entry(0x20, [10, 0, 0, 7], &[]));
        assert_eq!(
            failed.map(|n| (n.state, n.lladdr)),
            Some(("failed".into(), None))
        );
    }

    #[test]
    fn entries_with_a_remote_address_are_tunnel_peers() {
        let peer = |payload: &[u8]| {
            let kind = libc::RTM_NEWNEIGH;
            tunnel_peer(&Message { kind, payload })
        };
        let mut bytes = vec![7, 0, 0, 0];
        bytes.extend(9_u32.to_ne_bytes());
        bytes.extend([0x80, 0, 2, 0]);
        let frame = (2, &[2, 0, 0, 0, 0, 0x22][..]);
        let local = [bytes.clone(), attributes(&[frame])].concat();
        assert_eq!(peer(&local), None);
        bytes.extend(attributes(&[frame, (1, &[192, 0, 2, 7])]));
        assert_eq!(
            peer(&bytes),
            Some(TunnelPeer {
                ifindex: 9,
                lladdr: "02:00:00:00:00:22".into(),
                remote: [192, 0, 2, 7].into(),
            })
        );
        torture(&bytes, peer);
    }

    #[test]
    fn groups_are_left_out() {
        assert_eq!(read(&entry(0x40, [224, 0, 0, 22], &[])), None);
    }
}
