//! Kubernetes objects from files: YAML or JSON, single objects, several documents, or a `List` as `kubectl get -o yaml`
//! prints it. Files are read again when they change, and each version is dated.

mod collect;
mod document;
mod located;
mod problem;
mod text;
mod whole;

pub use problem::{ManifestError, Problem};

use crate::model::Time;
use crate::model::objects::Objects;
use crate::model::source::{ObjectSource, SourceError};
use document::Contents;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use text::Text;

/// Path that stands for standard input.
const STDIN: &str = "-";

/// Endings of the files that a directory is searched for.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// How often files are looked at; `poll` may be called as often as one likes.
const PERIOD: Duration = Duration::from_millis(200);

/// A file written so shortly ago may still be being written.
const SETTLE: Duration = Duration::from_millis(100);

/// Objects from files.
#[derive(Debug)]
pub struct ManifestSource {
    paths: Vec<PathBuf>,
    lenient: bool,
    /// Files in reading order: place among the paths given, then path.
    files: BTreeMap<(usize, PathBuf), File>,
    warnings: Vec<Problem>,
    /// The version that `poll` has still to hand out.
    next: Option<Objects>,
    /// Time of the newest version.
    newest: Time,
    /// When the files were last looked at.
    looked: Instant,
}

/// One file as it was last read.
#[derive(Debug)]
struct File {
    stamp: Stamp,
    documents: Vec<Contents>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        Stamp {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// When it became what it is. Unlike the modification time nobody can set this one, and a rename moves it.
    fn time(&self) -> Time {
        let (secs, nanos) = self.changed;
        let nanos = i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        Time(u64::try_from(nanos).unwrap_or(0))
    }
}

impl ManifestSource {
    /// Reads files, directories (with all below them) and, as `-`, standard input. A broken document is an error, or
    /// with `lenient` a warning.
    pub fn open(paths: &[PathBuf], lenient: bool) -> Result<ManifestSource, ManifestError> {
        let mut source = ManifestSource {
            paths: paths.to_vec(),
            lenient,
            files: BTreeMap::new(),
            warnings: Vec::new(),
            next: None,
            newest: Time::default(),
            looked: Instant::now(),
        };
        source.load()?;
        source.next = Some(source.version(now()));
        Ok(source)
    }

    /// What was found wrong since the last call and did not stop the reading.
    pub fn take_warnings(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.warnings)
    }

    /// Objects of kinds that explain no connection, and so were left out.
    pub fn skipped(&self) -> usize {
        let documents = self.files.values().flat_map(|f| &f.documents);
        documents.map(|d| d.skipped).sum()
    }

    /// First reading: everything must be there.
    fn load(&mut self) -> Result<(), ManifestError> {
        let mut problems = Vec::new();
        for (place, path) in self.paths.clone().into_iter().enumerate() {
            for (path, meta) in files_at(&path)? {
                let text = read(&path)?;
                let text = Text::read(&path, &text);
                problems.extend(text.problems);
                let file = File {
                    stamp: meta.as_ref().map(Stamp::of).unwrap_or_default(),
                    documents: text.documents,
                };
                self.files.insert((place, path), file);
            }
        }
        let nothing = self.files.values().all(|f| f.documents.is_empty());
        match problems.first() {
            Some(first) if nothing || !self.lenient => Err(ManifestError::Broken {
                first: first.clone(),
                more: problems.len() - 1,
            }),
            None if nothing => Err(ManifestError::Empty {
                paths: self.paths.clone(),
            }),
            _ => {
                self.warnings.extend(problems);
                Ok(())
            }
        }
    }

    /// Reads again what changed; the time of the latest change, if there was one.
    fn refresh(&mut self) -> Option<Time> {
        let mut latest: Option<Time> = None;
        for (place, root) in self.paths.clone().into_iter().enumerate() {
            if root.as_os_str() == STDIN {
                continue;
            }
            let Ok(found) = files_at(&root) else {
                // Away for a moment: it is being replaced.
                continue;
            };
            let gone = self.forget_missing(place, &found);
            latest = latest.max(gone);
            for (path, meta) in found {
                let Some(meta) = meta else { continue };
                latest = latest.max(self.reread(place, path, &meta));
            }
        }
        latest
    }

    /// Forgets files of a directory that are no longer there.
    fn forget_missing(
        &mut self,
        place: usize,
        found: &[(PathBuf, Option<Metadata>)],
    ) -> Option<Time> {
        let before = self.files.len();
        self.files
            .retain(|(p, path), _| *p != place || found.iter().any(|(f, _)| f == path));
        (self.files.len() < before).then(now)
    }

    /// Reads a file that is new or changed. What cannot be parsed is half written: the version before stands.
    fn reread(&mut self, place: usize, path: PathBuf, meta: &Metadata) -> Option<Time> {
        let stamp = Stamp::of(meta);
        let key = (place, path);
        let known = self.files.get(&key);
        if known.is_some_and(|f| f.stamp == stamp) || now().since(stamp.time()) < SETTLE {
            return None;
        }
        let path = &key.1;
        let text = match read(path) {
            Ok(text) => Text::read(path, &text),
            Err(error) => {
                self.warnings.push(Problem::whole(path, error.to_string()));
                return None;
            }
        };
        let emptied = text.documents.is_empty() && known.is_some_and(|f| !f.documents.is_empty());
        let broken = !text.problems.is_empty();
        if broken && !self.lenient || emptied {
            let what = match text.problems.first() {
                Some(problem) => format!("{}; the version before still counts", problem.what),
                None => "is empty now; the version before still counts".into(),
            };
            let line = text.problems.first().map_or(0, |p| p.line);
            self.warnings.push(Problem {
                path: path.clone(),
                line,
                what,
            });
            // Told once per version of the file.
            let documents = Vec::new();
            let file = self.files.entry(key);
            file.or_insert(File { stamp, documents }).stamp = stamp;
            return None;
        }
        self.warnings.extend(text.problems);
        let documents = text.documents;
        self.files.insert(key, File { stamp, documents });
        Some(stamp.time())
    }

    /// What the files hold, as of `time`.
    fn version(&mut self, time: Time) -> Objects {
        let files = self.files.iter();
        let contents = files.map(|((_, path), file)| (path.as_path(), &file.documents[..]));
        let mut objects = collect::collect(contents, &mut self.warnings);
        objects.source = format!("manifests: {}", problem::list(&self.paths));
        objects.time = time;
        self.newest = time;
        objects
    }
}

impl ObjectSource for ManifestSource {
    fn poll(&mut self) -> Result<Option<Objects>, SourceError> {
        if let Some(first) = self.next.take() {
            return Ok(Some(first));
        }
        if self.looked.elapsed() < PERIOD {
            return Ok(None);
        }
        self.looked = Instant::now();
        let Some(changed) = self.refresh() else {
            return Ok(None);
        };
        // Versions are in order, and none is from the future.
        let after = self.newest + Duration::from_nanos(1);
        let time = changed.min(now()).max(after);
        Ok(Some(self.version(time)))
    }
}

/// The objects of one file's text and what is wrong with it; the path says whether it is JSON, and stands in messages.
#[cfg(any(test, fuzzing))]
pub fn read_text(path: &Path, text: &str) -> (Objects, Vec<Problem>) {
    let Text {
        documents,
        mut problems,
    } = Text::read(path, text);
    let objects = collect::collect([(path, &documents[..])].into_iter(), &mut problems);
    (objects, problems)
}

/// The files that a path stands for, with their metadata (standard input has none).
fn files_at(path: &Path) -> Result<Vec<(PathBuf, Option<Metadata>)>, ManifestError> {
    if path.as_os_str() == STDIN {
        return Ok(vec![(path.to_path_buf(), None)]);
    }
    let meta = fs::metadata(path).map_err(|e| failed(path, e))?;
    if !meta.is_dir() {
        return Ok(vec![(path.to_path_buf(), Some(meta))]);
    }
    let mut files = Vec::new();
    let mut directories = vec![path.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).map_err(|e| failed(&directory, e))? {
            let path = entry.map_err(|e| failed(&directory, e))?.path();
            // A file that vanishes between the two calls was not there; a link that leads nowhere is none.
            let Ok(meta) = fs::metadata(&path) else {
                continue;
            };
            let hidden = path
                .file_name()
                .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            if meta.is_dir() {
                let link = fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink());
                if !hidden && !link {
                    directories.push(path);
                }
            } else if !hidden && has_ending(&path) {
                files.push((path, Some(meta)));
            }
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

fn has_ending(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    ending.is_some_and(|e| ENDINGS.contains(&e))
}

fn read(path: &Path) -> Result<String, ManifestError> {
    let read = if path.as_os_str() == STDIN {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    read.map_err(|e| failed(path, e))
}

fn failed(path: &Path, source: io::Error) -> ManifestError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound => ManifestError::Missing { path },
        _ => ManifestError::Unreadable { path, source },
    }
}

fn now() -> Time {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    Time::default() + elapsed.unwrap_or_default()
}

#[cfg(test)]
mod tests;
