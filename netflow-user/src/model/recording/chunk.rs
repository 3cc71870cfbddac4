//! One chunk: framed, checked, compressed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use std::io::{self, Read, Write};

/// Length of a chunk's head.
pub(super) const HEAD: usize = 12;

/// No chunk is longer, packed or plain; a head that says so is damaged.
const LONGEST: u32 = 1 << 30;

/// What stands before the packed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Length of the packed bytes; 0 marks the end of the recording.
    pub packed: u32,
    /// Length of the unpacked bytes.
    plain: u32,
    crc: u32,
}

impl Head {
    /// The mark at the end of a recording.
    pub const END: Head = Head {
        packed: 0,
        plain: 0,
        crc: 0,
    };

    pub fn parse(mut bytes: &[u8]) -> Option<Head> {
        if bytes.len() < HEAD {
            return None;
        }
        let head = Head {
            packed: bytes.get_u32(),
            plain: bytes.get_u32(),
            crc: bytes.get_u32(),
        };
        let sane = head == Head::END
            || (head.packed > 0 && head.packed <= LONGEST && head.plain <= LONGEST);
        sane.then_some(head)
    }

    pub fn put(self, into: &mut BytesMut) {
        into.put_u32(self.packed);
        into.put_u32(self.plain);
        into.put_u32(self.crc);
    }
}

/// Packs lines into a chunk, head included.
pub(super) fn pack(lines: &[u8]) -> io::Result<Bytes> {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(lines.len() / 4), Compression::fast());
    encoder.write_all(lines)?;
    let packed = encoder.finish()?;
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "an input of over 1 GiB");
    let head = Head {
        packed: u32::try_from(packed.len()).map_err(too_long)?,
        plain: u32::try_from(lines.len()).map_err(too_long)?,
        crc: crc(&packed),
    };
    let mut chunk = BytesMut::with_capacity(HEAD + packed.len());
    head.put(&mut chunk);
    chunk.put_slice(&packed);
    Ok(chunk.freeze())
}

/// Unpacks the bytes behind a head; `None` = damaged.
pub(super) fn unpack(head: Head, packed: &[u8]) -> Option<Bytes> {
    if crc(packed) != head.crc {
        return None;
    }
    // The head itself may be damaged: room is made as bytes come.
    let mut plain = Vec::with_capacity(packed.len());
    ZlibDecoder::new(packed)
        .take(u64::from(head.plain) + 1)
        .read_to_end(&mut plain)
        .ok()?;
    (plain.len() == head.plain as usize).then(|| plain.into())
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
