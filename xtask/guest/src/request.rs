//! What the guest is to run: files of the initrd.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One command, as it would run on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Program and arguments.
    pub args: Vec<OsString>,
    /// Its environment.
    pub env: Vec<(OsString, OsString)>,
    /// The directory it runs in.
    pub cwd: PathBuf,
    /// The kernel's modules: a directory of the host, to stand at /lib/modules.
    pub modules: PathBuf,
}

const ARGS: &str = "request.args";
const ENV: &str = "request.env";
const CWD: &str = "request.cwd";
const TREE: &str = "request.modules";

impl Request {
    /// As files, by name. Arguments and variables end with NUL, which none of them can hold.
    pub fn files(&self) -> [(&'static str, Vec<u8>); 4] {
        let Request {
            args,
            env,
            cwd,
            modules,
        } = self;
        let words = args.iter().flat_map(|arg| ended(arg.as_bytes()));
        let variables = env.iter().flat_map(|(name, value)| {
            let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
            ended(&pair)
        });
        [
            (ARGS, words.collect()),
            (ENV, variables.collect()),
            (CWD, cwd.as_os_str().as_bytes().to_vec()),
            (TREE, modules.as_os_str().as_bytes().to_vec()),
        ]
    }

    /// Reads the files that lie in `dir`.
    pub fn read(dir: &Path) -> io::Result<Request> {
        let path = |name| Ok::<_, io::Error>(OsString::from_vec(fs::read(dir.join(name))?));
        Ok(Request {
            args: words(&fs::read(dir.join(ARGS))?),
            env: words(&fs::read(dir.join(ENV))?)
                .iter()
                .filter_map(variable)
                .collect(),
            cwd: path(CWD)?.into(),
            modules: path(TREE)?.into(),
        })
    }
}

fn ended(word: &[u8]) -> Vec<u8> {
    [word, b"\0"].concat()
}

fn words(bytes: &[u8]) -> Vec<OsString> {
    let mut words: Vec<OsString> = bytes
        .split(|byte| *byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    // what follows the last NUL
    words.pop();
    words
}

/// `NAME=VALUE`; the value may hold further equals signs.
fn variable(pair: &OsString) -> Option<(OsString, OsString)> {
    let bytes = pair.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=')?;
    let part = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Some((part(&bytes[..at]), part(&bytes[at + 1..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_as_it_was_written() -> io::Result<()> {
        let request = Request {
            args: ["echo", "", "a b\nc", "d=e"].map(OsString::from).to_vec(),
            env: vec![
                ("EMPTY".into(), "".into()),
                ("PAIR".into(), OsString::from_vec(b"x=\xff".to_vec())),
            ],
            cwd: "/some where".into(),
            modules: "/cache/lib/modules".into(),
        };
        let dir = std::env::temp_dir().join(format!("netflow-request-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        for (name, content) in request.files() {
            fs::write(dir.join(name), content)?;
        }
        let read = Request::read(&dir);
        fs::remove_dir_all(&dir)?;
        assert_eq!(read?, request);
        Ok(())
    }
}
