//! A hash map of the programs whose keys and values are plain bytes.

use super::sys::BatchLookup;
use aya::maps::{HashMap, Map, MapData, MapError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What can go wrong with a map.
#[derive(Debug, thiserror::Error)]
pub enum ByteMapError {
    /// The map's type or sizes are not those of the ABI.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Keys of `K` and values of `V` bytes.
pub struct ByteMap<const K: usize, const V: usize> {
    map: HashMap<MapData, [u8; K], [u8; V]>,
    fd: OwnedFd,
    batch: Option<BatchLookup>,
}

impl<const K: usize, const V: usize> ByteMap<K, V> {
    /// Takes over a map of the object.
    pub fn new(map: Map) -> Result<Self, ByteMapError> {
        let fd = match &map {
            Map::HashMap(data) | Map::LruHashMap(data) => data.fd().as_fd().try_clone_to_owned()?,
            _ => return Err(io::Error::from(io::ErrorKind::InvalidInput).into()),
        };
        Ok(ByteMap {
            map: HashMap::try_from(map)?,
            fd,
            batch: Some(BatchLookup::new(K, V)),
        })
    }

    /// Calls `entry` for every entry.
    pub fn for_each(&mut self, mut entry: impl FnMut(&[u8], &[u8])) -> Result<(), ByteMapError> {
        if let Some(batch) = &mut self.batch {
            match batch.for_each(self.fd.as_fd(), &mut entry) {
                // Before Linux 5.6 the command, or for this type of map the operation, does not exist; that shows
                // before the first entry.
                Err(e) if is_unsupported(&e) => self.batch = None,
                result => return Ok(result?),
            }
        }
        for item in &self.map {
            let (key, value) = item?;
            entry(&key, &value);
        }
        Ok(())
    }

    /// Deletes an entry; one that is not there is fine.
    pub fn remove(&mut self, key: &[u8; K]) -> Result<(), MapError> {
        match self.map.remove(key) {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            result => result,
        }
    }
}

fn is_unsupported(e: &io::Error) -> bool {
    /// `ENOTSUPP` of `include/linux/errno.h`, which the kernel does not translate here.
    const ENOTSUPP: i32 = 524;
    matches!(
        e.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP)
    )
}
