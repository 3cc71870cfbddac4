//! What is wrong with manifests.

use crate::model::source::SourceError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A document that cannot be used. Displays as `file:line: what`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// Line, from 1; 0 = the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl Problem {
    /// About a file as a whole.
    pub(super) fn whole(path: &Path, what: impl Into<String>) -> Problem {
        Problem {
            path: path.to_path_buf(),
            line: 0,
            what: what.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.what),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.what),
        }
    }
}

/// Manifests cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is no such file or directory.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The path given.
        path: PathBuf,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Documents are broken, and the rest was not asked for.
    #[error("{first}{}", rest(*more))]
    Broken {
        /// The first one.
        first: Problem,
        /// How many more there are.
        more: usize,
    },
    /// Nothing that explains a connection was found.
    #[error("no Kubernetes objects in {}", list(paths))]
    Empty {
        /// The paths given.
        paths: Vec<PathBuf>,
    },
}

fn rest(more: usize) -> String {
    match more {
        0 => String::new(),
        1 => " (and one more broken document)".into(),
        more => format!(" (and {more} more broken documents)"),
    }
}

/// Paths as a sentence names them.
pub(super) fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths
        .iter()
        .map(|p| match p.to_str() {
            Some("-") => "standard input".into(),
            _ => p.display().to_string(),
        })
        .collect();
    names.join(", ")
}

impl ManifestError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ManifestError::Missing { .. } => {
                "give a file, a directory with *.yaml, *.yml or *.json files, or - for standard input"
            }
            ManifestError::Unreadable { .. } => "it must be text that this user may read",
            ManifestError::Broken { .. } => {
                "correct the document, or use the other ones with --lenient"
            }
            ManifestError::Empty { .. } => {
                "make them with: kubectl get services,endpointslices,pods,nodes,namespaces,networkpolicies -A -o yaml"
            }
        }
    }
}

impl From<ManifestError> for SourceError {
    fn from(error: ManifestError) -> SourceError {
        SourceError {
            what: "manifests".into(),
            why: error.to_string(),
            hint: error.hint().into(),
        }
    }
}
