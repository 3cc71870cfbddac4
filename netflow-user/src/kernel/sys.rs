//! Safe wrappers for the few system calls that no safe library offers.
#![expect(
    unsafe_code,
    reason = "raw system calls; each wrapper owns the memory that the kernel reads or fills"
)]

use crate::model::NetnsId;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_attr__bindgen_ty_14, bpf_cmd};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h, v6.18), since Linux 5.14.
const SO_NETNS_COOKIE: i32 = 71;

/// `BPF_F_BEFORE` (`include/uapi/linux/bpf.h`, v6.18).
const BPF_F_BEFORE: u32 = 1 << 3;

/// `BPF_F_QUERY_EFFECTIVE` of the same file.
const BPF_F_QUERY_EFFECTIVE: u32 = 1;

/// `getsockopt` into `value`; returns how many bytes the kernel filled.
///
/// `value` also goes in: some options (`IPT_SO_GET_INFO`) read the name of what is asked from it.
pub fn getsockopt_bytes(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(value.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `value` is writable for `len` bytes, and the kernel writes no more than `len`.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((len as usize).min(value.len()))
}

/// Memory of big blocks goes back to the kernel when they are freed. By itself glibc keeps it from the first one on (its
/// `M_MMAP_THRESHOLD` grows up to 32 MiB, mallopt(3)), and what lives long settles between the holes.
#[cfg(target_env = "gnu")]
pub fn give_back_big_blocks() {
    /// glibc's own value before it grows.
    const BIG: i32 = 128 << 10;
    // SAFETY: takes two numbers, and is safe to call from any thread.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, BIG) };
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_big_blocks() {}

/// `SO_RCVBUFFORCE`: a receive buffer of `bytes`, beyond `net.core.rmem_max` where privileges allow it.
pub fn force_receive_buffer(fd: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int from `bytes`.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Cookie of the network namespace that `socket` was opened in. `ENOPROTOOPT` before Linux 5.14.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut value = [0_u8; 8];
    match getsockopt_bytes(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut value)? {
        8 => Ok(u64::from_ne_bytes(value)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// The network namespace of the calling thread. A kernel without cookies gives cookie 0.
pub fn current_netns() -> io::Result<NetnsId> {
    let inum = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
    let inum = u32::try_from(inum).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // A socket belongs to the namespace of the thread that opens it, and a Unix socket touches no protocol there.
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    let cookie = match netns_cookie(socket.as_fd()) {
        Ok(cookie) => cookie,
        Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => 0,
        Err(e) => return Err(e),
    };
    Ok(NetnsId { inum, cookie })
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec to write to; the clock id exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Nanoseconds of a kernel tick (`TICK_NSEC`), which is what the coarse clock resolves
/// (`posix_get_coarse_res`, <https://elixir.bootlin.com/linux/v6.18/source/kernel/time/posix-timers.c>).
pub fn tick_ns() -> u32 {
    let mut tick = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `tick` is a valid timespec to write to; the clock id exists on every Linux.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut tick) };
    u32::try_from(tick.tv_nsec).unwrap_or(0)
}

fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole, initialised bpf_attr; the callers keep alive what it points to.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rc)
}

/// Attaches a tc program before all others on one side of an interface (TCX, Linux 6.6). It stays attached for
/// as long as the link that is returned lives; the kernel drops it when the process ends, however it ends.
pub fn tcx_attach_first(
    program: BorrowedFd<'_>,
    ifindex: u32,
    egress: bool,
) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid bpf_attr.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    let link = bpf_attr_link(&mut attr);
    link.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    link.__bindgen_anon_2.target_ifindex = ifindex;
    link.attach_type = if egress {
        bpf_attach_type::BPF_TCX_EGRESS
    } else {
        bpf_attach_type::BPF_TCX_INGRESS
    } as u32;
    // Before nothing in particular is before everything (bpf_mprog_attach in kernel/bpf/mprog.c, v6.18).
    link.flags = BPF_F_BEFORE;
    let fd = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf_attr_link(attr: &mut bpf_attr) -> &mut bpf_attr__bindgen_ty_14 {
    // SAFETY: the member of BPF_LINK_CREATE; any bytes are valid for its integers.
    unsafe { &mut attr.link_create }
}

/// Ids of the programs that are in force for a cgroup at a hook, those of the cgroups above it included, in the order in
/// which they run.
pub fn effective_programs(cgroup: BorrowedFd<'_>, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    // A hook takes no more of each cgroup (`BPF_CGROUP_MAX_PROGS`, `kernel/bpf/cgroup.c`, v6.18).
    let mut ids = vec![0_u32; 64];
    loop {
        // SAFETY: all-zero is a valid bpf_attr.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: `query` is the member that this command reads; `ids` has room for `prog_cnt` during the call.
        let query = unsafe { &mut attr.query };
        query.__bindgen_anon_1.target_fd = cgroup.as_raw_fd().cast_unsigned();
        query.attach_type = hook as u32;
        query.query_flags = BPF_F_QUERY_EFFECTIVE;
        query.prog_ids = ids.as_mut_ptr() as u64;
        query.__bindgen_anon_2.prog_cnt = ids.len() as u32;
        let outcome = bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr);
        // SAFETY: the kernel wrote how many there are into the same member.
        let count = unsafe { attr.query.__bindgen_anon_2.prog_cnt } as usize;
        match outcome {
            Ok(_) => {
                ids.truncate(count);
                return Ok(ids);
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && count > ids.len() => {
                ids.resize(count, 0);
            }
            Err(e) => return Err(e),
        }
    }
}

/// Reads a hash map in chunks with `BPF_MAP_LOOKUP_BATCH` (Linux 5.6): a fraction of the system calls of an iteration,
/// and no restart when the program deletes the key that an iteration stands on.
#[derive(Debug)]
pub struct BatchLookup {
    key_size: usize,
    value_size: usize,
    capacity: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl BatchLookup {
    /// A reader for maps with these sizes; sizes of 0 are taken as 1.
    pub fn new(key_size: usize, value_size: usize) -> Self {
        let (key_size, value_size) = (key_size.max(1), value_size.max(1));
        let mut batch = Self {
            key_size,
            value_size,
            capacity: 0,
            keys: Vec::new(),
            values: Vec::new(),
        };
        batch.grow(4096);
        batch
    }

    fn grow(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.keys.resize(capacity * self.key_size, 0);
        self.values.resize(capacity * self.value_size, 0);
    }

    /// Calls `entry(key, value)` for every entry of the map. An entry that is inserted or deleted meanwhile may be
    /// missed or still shown, as with any walk over a live hash map.
    pub fn for_each(
        &mut self,
        map: BorrowedFd<'_>,
        mut entry: impl FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        // The cursor of a hash map is a bucket number (4 bytes), of other maps a key (kernel/bpf/hashtab.c and
        // kernel/bpf/syscall.c, v6.18): room for both.
        let mut cursor = vec![0_u8; self.key_size.max(8)];
        let mut next = cursor.clone();
        let mut started = false;
        loop {
            // SAFETY: all-zero is a valid bpf_attr.
            let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
            // SAFETY: `batch` is the member that this command reads; every pointer stays valid during the call and
            // holds `count` entries of the map's own key and value size.
            let batch = unsafe { &mut attr.batch };
            batch.in_batch = if started { cursor.as_ptr() as u64 } else { 0 };
            batch.out_batch = next.as_mut_ptr() as u64;
            batch.keys = self.keys.as_mut_ptr() as u64;
            batch.values = self.values.as_mut_ptr() as u64;
            batch.count = self.capacity as u32;
            batch.map_fd = map.as_raw_fd().cast_unsigned();
            let outcome = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
            let done = match outcome {
                Ok(_) => false,
                Err(e) => match e.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    Some(libc::EINTR) => continue,
                    // One bucket holds more entries than the buffers: nothing was copied.
                    Some(libc::ENOSPC) if self.capacity < 1 << 22 => {
                        self.grow(self.capacity * 2);
                        continue;
                    }
                    _ => return Err(e),
                },
            };
            // SAFETY: the kernel wrote `count` of the same member.
            let count = (unsafe { attr.batch.count } as usize).min(self.capacity);
            let keys = self.keys.chunks_exact(self.key_size);
            let values = self.values.chunks_exact(self.value_size);
            for (key, value) in keys.zip(values).take(count) {
                entry(key, value);
            }
            if done {
                return Ok(());
            }
            std::mem::swap(&mut cursor, &mut next);
            started = true;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn reads_a_socket_option() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut value = [0xff_u8; 16];
        let n =
            getsockopt_bytes(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE, &mut value).unwrap();
        assert_eq!(n, 4);
        assert_eq!(value[..4], libc::SOCK_DGRAM.to_ne_bytes());
        let unknown = getsockopt_bytes(socket.as_fd(), libc::SOL_SOCKET, 60_000, &mut value);
        assert_eq!(unknown.unwrap_err().raw_os_error(), Some(libc::ENOPROTOOPT));
    }

    #[test]
    fn netns_of_this_thread() {
        let a = current_netns().unwrap();
        assert_ne!(a.inum, 0);
        let other = std::thread::spawn(current_netns).join().unwrap().unwrap();
        assert_eq!(a, other);
    }

    #[test]
    fn a_tick_is_a_hundredth_to_a_thousandth_second() {
        assert!((500_000..=10_000_000).contains(&tick_ns()));
    }

    #[test]
    fn the_clock_runs() {
        let a = monotonic_ns();
        assert!(a > 0);
        assert!(monotonic_ns() >= a);
    }
}
