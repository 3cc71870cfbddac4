//! Network namespaces of the node: its own, and those of its Pods.
//!
//! One kernel may carry several nodes as namespaces, even with the same Pod addresses, so holding an address is not
//! enough: an interface of the namespace must have its other end (veth, netkit) or its lower device (macvlan, ipvlan)
//! in this node's own namespace. What is behind an uplink never counts. Namespaces are entered by a thread that ends
//! with the visit: the caller stays where it is.

use super::links::{self, Interface};
use super::neighbors;
use super::netlink::{Netlink, NetlinkError, Request, bytes_at};
use super::routes;
use crate::kernel::sys;
use crate::model::NetnsId;
use nix::sched::{CloneFlags, setns};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Where container runtimes keep namespaces by name; others are found among the mounts and the processes.
const NAMED: [&str; 4] = [
    "/run/netns",
    "/var/run/netns",
    "/run/docker/netns",
    "/var/run/docker/netns",
];
/// `NETNSA_NSID`, `NETNSA_FD` (`include/uapi/linux/net_namespace.h`).
const NSID: u16 = 1;
const FD: u16 = 3;

/// Namespaces could not be looked for.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// This thread's own namespace cannot be read.
    #[error("own network namespace: {0}")]
    Own(#[source] io::Error),
    /// A namespace cannot be entered.
    #[error("entering a network namespace: {0}")]
    Enter(#[source] io::Error),
    /// Netlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The thread for visits could not be started, or ended by a panic.
    #[error("the thread that visits network namespaces failed")]
    Thread,
}

/// A namespace with Pod addresses.
#[derive(Debug)]
pub struct PodNamespace {
    /// Which one.
    pub id: NetnsId,
    /// The addresses asked for that it holds.
    pub ips: Vec<IpAddr>,
    /// How to get in; `None` for the node's own namespace. Kept only for the visit: it keeps the namespace alive.
    file: Option<File>,
}

impl PodNamespace {
    /// Moves the calling thread there; to the node's own namespace it does not. Only for a thread of [`start`].
    pub(super) fn enter(&self) -> Result<(), NetnsError> {
        self.file.as_ref().map_or(Ok(()), enter)
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// The namespaces.
    pub namespaces: Vec<PodNamespace>,
    /// Namespaces that could not be looked into: how many, and the last reason.
    pub closed: Option<(usize, String)>,
}

/// The calling thread's network namespace.
pub fn own() -> Result<NetnsId, NetnsError> {
    sys::current_netns().map_err(NetnsError::Own)
}

/// The namespaces of this node that hold `ips`, addresses of Pods placed on it. Pods of the host's network are in the
/// node's own namespace, which is listed then.
pub fn pods(ips: &[IpAddr]) -> Result<Found, NetnsError> {
    apart(|| Ok(find_pods(&Home::here()?, ips)))?
}

/// The namespaces whose packets go to this one first: their default next hop is here. For a node of whose Pods no
/// objects tell.
pub fn by_next_hop() -> Result<Found, NetnsError> {
    apart(|| {
        let home = Home::here()?;
        let proxying = home.proxying();
        let mut found = Found::default();
        let mut seen = BTreeSet::from([home.id.inum]);
        for candidate in named().into_iter().chain(processes()) {
            let visited = visit(&candidate, &home, &mut seen, |file| {
                let mut there = There::look(&home)?;
                Ok(there.returns(&home, &proxying)?.then_some(PodNamespace {
                    id: own()?,
                    ips: there.held.iter().copied().collect(),
                    file: Some(file),
                }))
            });
            found.take(visited);
        }
        Ok(found)
    })?
}

/// Starts `work` on a thread of its own, which may move between namespaces.
pub(super) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, NetnsError> {
    Builder::new()
        .name("netflow-netns".into())
        .spawn_scoped(scope, work)
        .map_err(|_| NetnsError::Thread)
}

/// Does `work` on such a thread and waits for it.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    std::thread::scope(|scope| {
        let thread = start(scope, work)?;
        thread.join().map_err(|_| NetnsError::Thread)
    })
}

fn enter(file: &File) -> Result<(), NetnsError> {
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| NetnsError::Enter(e.into()))
}

impl Found {
    fn take(&mut self, visited: Result<Option<PodNamespace>, NetnsError>) {
        match visited {
            Ok(namespace) => self.namespaces.extend(namespace),
            Err(e) => {
                let closed = self.closed.get_or_insert_default();
                *closed = (closed.0 + 1, e.to_string());
            }
        }
    }
}

/// The node's own namespace, as the search needs it.
pub(super) struct Home {
    pub(super) id: NetnsId,
    pub(super) file: File,
    /// Device number of every namespace file.
    device: u64,
    interfaces: Vec<Interface>,
}

impl Home {
    /// The namespace that the calling thread is in.
    pub(super) fn here() -> Result<Home, NetnsError> {
        let file = File::open("/proc/thread-self/ns/net").map_err(NetnsError::Own)?;
        let device = file.metadata().map_err(NetnsError::Own)?.dev();
        let interfaces = links::interfaces(&mut Netlink::open(libc::NETLINK_ROUTE)?)?;
        Ok(Home {
            id: own()?,
            file,
            device,
            interfaces,
        })
    }

    fn holds(&self, ip: IpAddr) -> bool {
        let mut addrs = self.interfaces.iter().flat_map(|i| &i.link.addrs);
        addrs.any(|(held, _)| *held == ip)
    }

    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.link.ifindex == ifindex)
    }

    /// Interfaces that answer ARP for any address. To be called in this namespace.
    fn proxying(&self) -> BTreeSet<u32> {
        let asks = |name: &str| {
            let path = Path::new("/proc/sys/net/ipv4/conf").join(name);
            fs::read_to_string(path.join("proxy_arp")).is_ok_and(|v| v.trim() != "0")
        };
        self.interfaces
            .iter()
            .filter(|i| i.link.link_elsewhere && asks(&i.link.name))
            .map(|i| i.link.ifindex)
            .collect()
    }
}

/// Another namespace, seen from inside.
struct There {
    route: Netlink,
    held: BTreeSet<IpAddr>,
    interfaces: Vec<Interface>,
    /// Interfaces whose other end is at home: index here, index at home.
    attached: BTreeMap<u32, u32>,
}

impl There {
    /// Looks around in the namespace that the calling thread is in.
    fn look(home: &Home) -> Result<There, NetlinkError> {
        let mut route = Netlink::open(libc::NETLINK_ROUTE)?;
        let interfaces = links::interfaces(&mut route)?;
        // The listing made the kernel give an id to every namespace on the other end of something.
        let home_id = id_of(&mut route, &home.file)?;
        let attached = interfaces
            .iter()
            .filter(|i| i.peer_netns.is_some() && i.peer_netns == home_id)
            .map(|i| (i.link.ifindex, i.link.link))
            .collect();
        let addrs = interfaces.iter().flat_map(|i| &i.link.addrs);
        Ok(There {
            held: addrs.map(|(ip, _)| *ip).collect(),
            route,
            interfaces,
            attached,
        })
    }

    /// How near this namespace is to home.
    fn nearness(&mut self, home: &Home) -> Result<Option<Nearness>, NetlinkError> {
        if !self.attached.is_empty() {
            let returns = self.returns(home, &BTreeSet::new())?;
            return Ok(Some(if returns {
                Nearness::Returns
            } else {
                Nearness::Attached
            }));
        }
        let elsewhere = self.interfaces.iter().any(|i| i.peer_netns.is_some());
        Ok((!elsewhere).then_some(Nearness::Unattached))
    }

    /// Whether the default route leads out of an attached interface to something that answers at home: an address of
    /// it, a proxy for any address, or the very device on the other end.
    fn returns(&mut self, home: &Home, proxying: &BTreeSet<u32>) -> Result<bool, NetlinkError> {
        if self.attached.is_empty() {
            return Ok(false);
        }
        let defaults: Vec<_> = routes::routes(&mut self.route)?
            .into_iter()
            .filter(|r| r.prefix == 0 && r.kind == "unicast")
            .filter_map(|r| Some((r.via, *self.attached.get(&r.ifindex)?, r.ifindex)))
            .collect();
        for (via, at_home, ifindex) in defaults {
            let Some(via) = via else { return Ok(true) };
            if home.holds(via) || proxying.contains(&at_home) {
                return Ok(true);
            }
            let device = home.interface(at_home).and_then(|i| i.link.lladdr.clone());
            let entries = neighbors::neighbors(&mut self.route)?;
            if entries.iter().any(|n| {
                n.ifindex == ifindex && n.ip == via && n.lladdr.is_some() && n.lladdr == device
            }) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// How sure it is that a namespace with a Pod's address is this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    /// It has no other end anywhere (a device that was moved in): nothing speaks against it.
    Unattached,
    /// It has an interface with the other end at home.
    Attached,
    /// And its default route leads home.
    Returns,
}

/// The id by which the calling thread's namespace knows `other`.
fn id_of(route: &mut Netlink, other: &File) -> Result<Option<i32>, NetlinkError> {
    // struct rtgenmsg: family
    let fd = other.as_raw_fd().to_ne_bytes();
    let request = Request::new(libc::RTM_GETNSID, &[0; 4]).with(FD, &fd);
    route.get(&request, |m| {
        let (_, mut attributes) = m.split::<4>()?;
        let id = attributes.find(|(kind, _)| *kind == NSID)?;
        Some(
            bytes_at(id.1, 0)
                .map(i32::from_ne_bytes)
                .filter(|id| *id >= 0),
        )
    })
}

/// The search of [`pods`]. Only for a thread of [`start`].
pub(super) fn find_pods(home: &Home, ips: &[IpAddr]) -> Found {
    let (at_home, mut missing): (Vec<_>, BTreeSet<_>) = {
        let (a, b): (BTreeSet<_>, BTreeSet<_>) = ips.iter().partition(|ip| home.holds(**ip));
        (a.into_iter().collect(), b)
    };
    let mut found = Found::default();
    let mut near: Vec<(Nearness, PodNamespace)> = Vec::new();
    let mut seen = BTreeSet::from([home.id.inum]);
    // Processes are many, and the namespaces of Pods have names: only for what is still missing.
    let places: [fn() -> Vec<PathBuf>; 2] = [named, processes];
    for place in places {
        if missing.is_empty() {
            break;
        }
        for candidate in place() {
            let visited = visit(&candidate, home, &mut seen, |file| holder(home, ips, file));
            match visited {
                Ok(Some(holder)) => near.push(holder),
                Ok(None) => {}
                Err(e) => found.take(Err(e)),
            }
        }
        for (nearness, namespace) in &near {
            if *nearness > Nearness::Unattached {
                missing.retain(|ip| !namespace.ips.contains(ip));
            }
        }
    }
    found.namespaces = nearest(near);
    if !at_home.is_empty() {
        found.namespaces.push(PodNamespace {
            id: home.id,
            ips: at_home,
            file: None,
        });
    }
    found
}

/// The namespace that the calling thread is in, if it holds one of `ips` and may be this node's.
fn holder(
    home: &Home,
    ips: &[IpAddr],
    file: File,
) -> Result<Option<(Nearness, PodNamespace)>, NetnsError> {
    let held: BTreeSet<_> = {
        let mut route = Netlink::open(libc::NETLINK_ROUTE)?;
        let all = links::addresses(&mut route)?;
        all.into_iter().map(|(_, ip, _)| ip).collect()
    };
    let ips: BTreeSet<_> = ips.iter().copied().filter(|ip| held.contains(ip)).collect();
    if ips.is_empty() {
        return Ok(None);
    }
    let Some(nearness) = There::look(home)?.nearness(home)? else {
        return Ok(None);
    };
    let namespace = PodNamespace {
        id: own()?,
        ips: ips.into_iter().collect(),
        file: Some(file),
    };
    Ok(Some((nearness, namespace)))
}

/// Gives each address to the nearest of the namespaces that hold it. Of several that nothing ties to the node none is
/// taken: one of them may be another node's.
fn nearest(mut near: Vec<(Nearness, PodNamespace)>) -> Vec<PodNamespace> {
    let mut best: BTreeMap<IpAddr, (Nearness, usize)> = BTreeMap::new();
    for (nearness, namespace) in &near {
        for ip in &namespace.ips {
            let entry = best.entry(*ip).or_insert((*nearness, 0));
            match nearness.cmp(&entry.0) {
                std::cmp::Ordering::Greater => *entry = (*nearness, 1),
                std::cmp::Ordering::Equal => entry.1 += 1,
                std::cmp::Ordering::Less => {}
            }
        }
    }
    for (nearness, namespace) in &mut near {
        namespace.ips.retain(|ip| {
            best.get(ip).is_some_and(|(of, count)| {
                of == nearness && (*nearness > Nearness::Unattached || *count == 1)
            })
        });
    }
    let taken = near.into_iter().map(|(_, namespace)| namespace);
    taken.filter(|n| !n.ips.is_empty()).collect()
}

/// Enters the namespace at `path` and looks, unless it was seen before or is none.
fn visit<T>(
    path: &Path,
    home: &Home,
    seen: &mut BTreeSet<u32>,
    look: impl FnOnce(File) -> Result<Option<T>, NetnsError>,
) -> Result<Option<T>, NetnsError> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        // Gone meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(e) => return Err(NetnsError::Enter(e)),
    };
    // A plain file is what is left of a name after a restart; opening something else might block.
    let Ok(inum) = u32::try_from(meta.ino()) else {
        return Ok(None);
    };
    if meta.dev() != home.device || !seen.insert(inum) {
        return Ok(None);
    }
    let file = File::open(path).map_err(NetnsError::Enter)?;
    enter(&file)?;
    look(file)
}

/// Namespaces that have a name, or are mounted anywhere.
fn named() -> Vec<PathBuf> {
    let listed = NAMED.iter().filter_map(|dir| fs::read_dir(dir).ok());
    let mut paths: Vec<_> = listed.flatten().flatten().map(|e| e.path()).collect();
    let mounts = fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    paths.extend(mounted(&String::from_utf8_lossy(&mounts)));
    paths
}

/// Mount points of network namespaces: the root of such a mount is `net:[4026532345]`.
fn mounted(mountinfo: &str) -> impl Iterator<Item = PathBuf> + '_ {
    mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let root = fields.next()?;
        let point = fields.next()?;
        root.starts_with("net:[").then(|| unescaped(point))
    })
}

/// A mount point as `mountinfo` writes it: space, tab, newline and backslash as octal numbers.
fn unescaped(point: &str) -> PathBuf {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let plain = escapes
        .iter()
        .fold(point.to_owned(), |s, (from, to)| s.replace(from, to));
    PathBuf::from(plain)
}

/// The namespaces of all processes.
fn processes() -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    list.flatten()
        .filter(|e| {
            e.file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .map(|e| e.path().join("ns/net"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Nearness::{Attached, Returns, Unattached};
    use super::*;

    fn namespace(inum: u32, ips: &[[u8; 4]]) -> PodNamespace {
        PodNamespace {
            id: NetnsId { inum, cookie: 0 },
            ips: ips.iter().map(|ip| IpAddr::from(*ip)).collect(),
            file: None,
        }
    }

    fn taken(near: Vec<(Nearness, PodNamespace)>) -> Vec<(u32, usize)> {
        let taken = nearest(near);
        taken.iter().map(|n| (n.id.inum, n.ips.len())).collect()
    }

    #[test]
    fn the_nearest_namespace_gets_the_address() {
        let ip = [10, 0, 0, 1];
        let near = |nearness, inum| (nearness, namespace(inum, &[ip]));
        assert_eq!(taken(vec![near(Unattached, 1)]), [(1, 1)]);
        assert_eq!(taken(vec![near(Unattached, 1), near(Unattached, 2)]), []);
        assert_eq!(
            taken(vec![near(Unattached, 1), near(Attached, 2)]),
            [(2, 1)]
        );
        assert_eq!(taken(vec![near(Returns, 1), near(Attached, 2)]), [(1, 1)]);
        let two = namespace(3, &[ip, [10, 0, 0, 2]]);
        assert_eq!(
            taken(vec![near(Returns, 1), (Attached, two)]),
            [(1, 1), (3, 1)]
        );
    }

    #[test]
    fn mounts_of_namespaces_are_found() {
        let text = "24 1 0:22 / /proc rw - proc proc rw\n\
                    90 1 0:4 net:[4026532345] /run/cni\\040x/a rw shared:5 - nsfs nsfs rw\n\
                    91 1 0:4 mnt:[4026532346] /run/m rw - nsfs nsfs rw\nshort line\n";
        let found: Vec<_> = mounted(text).collect();
        assert_eq!(found, [PathBuf::from("/run/cni x/a")]);
    }
}
