//! A tar archive (POSIX ustar), for the layers of images and the images themselves.

/// Size of a header, and what contents are padded to.
const BLOCK: usize = 512;

/// An archive that grows.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// Adds a directory.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.header(path, mode, b'5', 0);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.header(path, mode, b'0', content.len());
        self.bytes.extend(content);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    /// Owner and time are zero: the same content is the same archive.
    fn header(&mut self, path: &str, mode: u32, kind: u8, size: usize) {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        // the checksum is taken with spaces in its place
        put(148, b"        ");
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;
    use anyhow::Result;
    use std::fs;
    use std::process::Command;

    #[test]
    fn tar_reads_what_was_written() -> Result<()> {
        let mut archive = Archive::default();
        archive.directory("tmp/", 0o1777);
        archive.file("a/program", 0o755, b"twelve bytes");
        let file = std::env::temp_dir().join(format!("netflow-tar-{}", std::process::id()));
        fs::write(&file, archive.finish())?;
        let tar = |what: &str, more: &[&str]| {
            process::read(Command::new("tar").arg(what).arg(&file).args(more))
        };
        let listed = tar("-tvf", &[]);
        let content = tar("-xOf", &["a/program"]);
        fs::remove_file(&file)?;
        let listed = listed?;
        assert!(
            listed.contains("drwxrwxrwt") && listed.contains("-rwxr-xr-x"),
            "{listed}"
        );
        assert_eq!(content?, "twelve bytes");
        Ok(())
    }
}
