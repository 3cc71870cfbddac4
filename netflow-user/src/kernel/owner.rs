//! Who a clsact filter belongs to, and whether that process still runs.
//!
//! A filter stays when its process is killed, so its name carries the process's pid and start time. A pid means nothing
//! in another pid namespace (an agent in a container), so whether the owner lives is asked of the kernel
//! in a way that does not depend on pids: it holds an abstract Unix socket of that name, in the network
//! namespace that holds the filters too, and the kernel frees the name when the process ends, however it ends.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Names tried before giving up: each is taken by another live owner with the same pid and start time.
const ATTEMPTS: u32 = 64;

/// This process as an owner, for as long as the value lives.
#[derive(Debug)]
pub struct Owner {
    token: String,
    _held: UnixDatagram,
}

impl Owner {
    /// Takes a name in the network namespace of the calling thread.
    pub fn claim() -> io::Result<Owner> {
        let pid = std::process::id();
        let started = start_time().unwrap_or_default();
        for attempt in 0..ATTEMPTS {
            let token = format!("{pid}-{started}-{attempt}");
            match hold(&token) {
                Ok(held) => return Ok(Owner { token, _held: held }),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::from(io::ErrorKind::AddrInUse))
    }

    /// The name: `PID-STARTTIME-N`, start time in clock ticks since boot.
    pub fn token(&self) -> &str {
        &self.token
    }
}

/// Whether the owner of that name runs. In doubt it does.
///
/// Asked by connecting, which is refused where nobody holds the name (`unix_find_abstract`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/unix/af_unix.c>). Taking the name for a moment would tell as well, but
/// whoever asked meanwhile would take that for the owner.
pub fn is_alive(token: &str) -> bool {
    let asked = || UnixDatagram::unbound()?.connect_addr(&name(token)?);
    !asked().is_err_and(|e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused)
}

fn hold(token: &str) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&name(token)?)
}

fn name(token: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("netflow/{token}"))
}

/// Field 22 of `/proc/self/stat`; the second field is in parentheses and may hold anything.
fn start_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let after = &stat[stat.rfind(')')? + 1..];
    after.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_owner_lives_as_long_as_it_is_held() {
        let first = Owner::claim().unwrap();
        let second = Owner::claim().unwrap();
        assert_ne!(first.token(), second.token());
        let token = first.token().to_owned();
        assert!(is_alive(&token));
        drop(first);
        assert!(!is_alive(&token));
        assert!(is_alive(second.token()));
    }

    #[test]
    fn many_may_ask_at_once() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| assert!(!is_alive("1-2-3"))));
            }
        });
    }

    #[test]
    fn the_token_says_which_process() {
        let owner = Owner::claim().unwrap();
        let mut parts = owner.token().split('-');
        assert_eq!(parts.next().unwrap(), std::process::id().to_string());
        assert!(parts.next().unwrap().parse::<u64>().unwrap() > 0);
    }
}
