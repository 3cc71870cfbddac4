//! A cpio archive as the kernel unpacks one for its first root (Documentation/driver-api/early-userspace/
//! buffer-format.rst).

/// What the header says of a file besides its name.
#[derive(Clone, Copy)]
enum Kind {
    File {
        executable: bool,
    },
    Directory,
    /// A character device.
    Device {
        major: u32,
        minor: u32,
    },
    End,
}

/// An archive that grows.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory. The kernel makes no parents by itself.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, Kind::Directory, &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, Kind::File { executable: false }, content);
    }

    /// Adds a program.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, Kind::File { executable: true }, content);
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, Kind::Device { major, minor }, &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", Kind::End, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, kind: Kind, content: &[u8]) {
        self.entries += 1;
        let (mode, links, (major, minor)) = match kind {
            Kind::File { executable: false } => (0o100_644, 1, (0, 0)),
            Kind::File { executable: true } => (0o100_755, 1, (0, 0)),
            Kind::Directory => (0o040_755, 2, (0, 0)),
            Kind::Device { major, minor } => (0o020_600, 1, (major, minor)),
            Kind::End => (0, 1, (0, 0)),
        };
        let (uid, gid, mtime, check) = (0, 0, 0, 0);
        let fields = [
            self.entries,
            mode,
            uid,
            gid,
            links,
            mtime,
            content.len() as u32,
            0,
            0,
            major,
            minor,
            path.len() as u32 + 1,
            check,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    /// Header with name, and content, each end at a multiple of four.
    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, Result, ensure};

    /// One entry as read back: name, mode, content.
    type Entry = (String, u32, Vec<u8>);

    fn read(mut bytes: &[u8]) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let all = bytes.len();
        while !bytes.is_empty() {
            let (header, _) = bytes.split_at_checked(110).context("a header")?;
            ensure!(header.starts_with(b"070701"), "the magic number");
            let field = |n: usize| -> Result<usize> {
                let digits = std::str::from_utf8(&header[6 + 8 * n..14 + 8 * n])?;
                Ok(usize::from_str_radix(digits, 16)?)
            };
            let (mode, size, length) = (field(1)?, field(6)?, field(11)?);
            let start = (all - bytes.len() + 110 + length).next_multiple_of(4);
            let name = String::from_utf8(bytes[110..110 + length - 1].to_vec())?;
            let skip = start - (all - bytes.len());
            let content = bytes[skip..skip + size].to_vec();
            entries.push((name, mode as u32, content));
            let end = (start + size).next_multiple_of(4) - (all - bytes.len());
            bytes = &bytes[end..];
        }
        Ok(entries)
    }

    #[test]
    fn an_archive_reads_back() -> Result<()> {
        let mut archive = Archive::default();
        archive.directory("dev");
        archive.device("dev/console", 5, 1);
        archive.program("init", b"\x7fELF");
        for length in 0..5 {
            archive.file(&"n".repeat(length + 1), &vec![7; length]);
        }
        let entries = read(&archive.finish())?;
        let of = |name: &str| {
            entries
                .iter()
                .find(|(entry, _, _)| entry == name)
                .map(|(_, mode, content)| (*mode, content.as_slice()))
        };
        assert_eq!(of("dev"), Some((0o040_755, &[][..])));
        assert_eq!(of("dev/console"), Some((0o020_600, &[][..])));
        assert_eq!(of("init"), Some((0o100_755, &b"\x7fELF"[..])));
        assert_eq!(of("nnn"), Some((0o100_644, &[7, 7][..])));
        assert_eq!(
            entries.last().map(|entry| entry.0.as_str()),
            Some("TRAILER!!!")
        );
        assert_eq!(entries.len(), 9);
        Ok(())
    }

    #[test]
    fn a_device_carries_its_numbers() {
        let mut archive = Archive::default();
        archive.device("null", 1, 3);
        let bytes = archive.finish();
        assert_eq!(&bytes[6 + 8 * 9..6 + 8 * 11], b"0000000100000003");
    }
}
