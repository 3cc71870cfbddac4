//! Modules that are loaded while netflow runs.
//!
//! The kernel sends a uevent when a module has been started (`do_init_module`, kernel/module/main.c, v6.18), to listeners in every
//! network namespace of the first user namespace. By then its symbols and its BTF are there.

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// The group that the kernel itself sends to; others are udev's.
const KERNEL: u32 = 1;

/// The longest uevent is 2 KiB of environment (`UEVENT_BUFFER_SIZE`, include/linux/kobject.h, v6.18) and its path.
const BUFFER: usize = 8 << 10;

/// A listener.
#[derive(Debug)]
pub struct Modules {
    socket: Socket,
}

/// What was loaded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Names.
    pub names: Vec<String>,
    /// More was announced than the socket could hold: others may have been, too.
    pub overrun: bool,
}

impl Modules {
    /// Begins to listen.
    pub fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
        socket.bind(&SocketAddr::new(0, KERNEL))?;
        socket.set_non_blocking(true)?;
        Ok(Modules { socket })
    }

    /// The modules loaded since the call before.
    pub fn loaded(&mut self) -> Loaded {
        let mut loaded = Loaded::default();
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(0) => return loaded,
                Ok(_) => loaded.names.extend(added(&buffer)),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => loaded.overrun = true,
                Err(_) => return loaded,
            }
        }
    }
}

/// The module that a uevent tells of: it begins with `ACTION@PATH` and a zero.
pub(super) fn added(event: &[u8]) -> Option<String> {
    let head = event.split(|&b| b == 0).next()?;
    let name = str::from_utf8(head).ok()?.strip_prefix("add@/module/")?;
    (!name.contains('/')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_told_from_the_rest() {
        let of = |text: &str| added(text.as_bytes());
        let event = "add@/module/nf_tables\0ACTION=add\0DEVPATH=/module/nf_tables\0";
        assert_eq!(of(event).as_deref(), Some("nf_tables"));
        assert_eq!(of("remove@/module/nf_tables\0ACTION=remove\0"), None);
        assert_eq!(of("add@/module/x/holders\0"), None);
        assert_eq!(of("add@/devices/virtual/net/veth0\0"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn nothing_waits_at_first() -> io::Result<()> {
        assert_eq!(Modules::listen()?.loaded(), Loaded::default());
        Ok(())
    }
}
