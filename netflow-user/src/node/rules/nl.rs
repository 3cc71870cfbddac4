//! Requests to nfnetlink's nftables subsystem, and the attributes of its answers.

use crate::node::netlink::{self, Message, Netlink, NetlinkError, Request};

/// `NFNL_SUBSYS_NFTABLES` (`include/uapi/linux/netfilter/nfnetlink.h`, v6.18).
const SUBSYS_NFTABLES: u16 = 10;
/// `struct nfgenmsg`: family, version, resource id.
const NFGENMSG: usize = 4;

/// `NFT_MSG_GET*` (`include/uapi/linux/netfilter/nf_tables.h`, v6.18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Get {
    /// Tables.
    Table = 1,
    /// Chains.
    Chain = 4,
    /// Rules.
    Rule = 7,
    /// Sets and maps.
    Set = 10,
    /// Elements of one set.
    SetElem = 13,
    /// Generation of the ruleset.
    Gen = 16,
    /// Named counters and other objects.
    Obj = 19,
    /// Flowtables.
    Flowtable = 23,
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NlError {
    /// Over netlink.
    #[error(transparent)]
    Netlink(NetlinkError),
    /// The ruleset changed while it was read.
    #[error("rules changed while they were read")]
    Interrupted,
}

impl From<NetlinkError> for NlError {
    fn from(e: NetlinkError) -> Self {
        // A dump that finds another generation half-way ends so (`nf_tables_dump_rules`, v6.18).
        if e.errno() == Some(libc::EINTR) {
            NlError::Interrupted
        } else {
            NlError::Netlink(e)
        }
    }
}

/// A socket to nftables in the network namespace of the thread that opened it.
pub struct Nftables(Netlink);

impl Nftables {
    /// Opens the socket.
    pub fn open() -> Result<Self, NlError> {
        Ok(Self(Netlink::open(libc::NETLINK_NETFILTER)?))
    }

    /// Generation of the ruleset: changes with every transaction.
    pub fn generation(&mut self) -> Result<u32, NlError> {
        const NFTA_GEN_ID: u16 = 1;
        let read = |message: Message<'_>| split(message)?.1.be32(NFTA_GEN_ID);
        Ok(self.0.get(&request(Get::Gen, 0), read)?)
    }
}

/// Where the objects of nftables come from.
pub trait Dumps {
    /// Dumps what `get` names; `each` is given the family and the attributes of every object. `names` are string
    /// attributes of the request.
    fn dump(
        &mut self,
        get: Get,
        family: u8,
        names: &[(u16, &str)],
        each: &mut dyn FnMut(u8, Attributes<'_>),
    ) -> Result<(), NlError>;
}

impl Dumps for Nftables {
    fn dump(
        &mut self,
        get: Get,
        family: u8,
        names: &[(u16, &str)],
        each: &mut dyn FnMut(u8, Attributes<'_>),
    ) -> Result<(), NlError> {
        let mut request = request(get, family);
        for (kind, name) in names {
            let mut value = name.as_bytes().to_vec();
            value.push(0);
            request = request.with(*kind, &value);
        }
        let torn = self.0.dump_once(&request, &mut |message| {
            if let Some((family, attributes)) = split(message) {
                each(family, attributes);
            }
        })?;
        if torn {
            return Err(NlError::Interrupted);
        }
        Ok(())
    }
}

fn request(get: Get, family: u8) -> Request {
    Request::new(SUBSYS_NFTABLES << 8 | get as u16, &[family, 0, 0, 0])
}

/// The type of the messages that answer a dump (`NFT_MSG_NEW*`).
#[cfg(any(test, fuzzing))]
pub fn answer(get: Get) -> u16 {
    SUBSYS_NFTABLES << 8 | (get as u16 - 1)
}

/// Family and attributes of an object.
pub fn split(message: Message<'_>) -> Option<(u8, Attributes<'_>)> {
    let (head, attributes) = message.split::<NFGENMSG>()?;
    Some((head[0], Attributes(attributes.0)))
}

/// Netlink attributes, in order. Iteration ends at the first one whose length cannot be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this kind.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|(k, _)| *k == kind).map(|(_, v)| v)
    }

    /// The attributes nested in this one.
    pub fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.get(kind).map(Attributes)
    }

    /// A big-endian number, as nftables writes all its own.
    pub fn be32(self, kind: u16) -> Option<u32> {
        netlink::be32_at(self.get(kind)?, 0)
    }

    /// A big-endian number.
    pub fn be64(self, kind: u16) -> Option<u64> {
        netlink::bytes_at(self.get(kind)?, 0).map(u64::from_be_bytes)
    }

    /// A string, up to its NUL.
    pub fn text(self, kind: u16) -> Option<String> {
        self.get(kind).map(netlink::text)
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = netlink::Attributes<'a>;

    fn into_iter(self) -> netlink::Attributes<'a> {
        netlink::Attributes(self.0)
    }
}
