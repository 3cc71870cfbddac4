//! Where objects come from: the API, or files (`--manifests`).

use super::args::{ApiArgs, ObjectArgs, TargetArgs};
use super::failure::Failure;
use super::output::Output;
use super::target;
use crate::cluster::access::{Access, AccessError, Wish};
use crate::cluster::live::LiveSource;
use crate::cluster::manifests::ManifestSource;
use crate::model::objects::Objects;
use crate::model::query::{From, Query};
use crate::model::source::{ObjectSource, SourceError};

/// Manifests that say on stderr what of them cannot be used.
struct Manifests<'a> {
    source: ManifestSource,
    output: &'a Output,
}

impl ObjectSource for Manifests<'_> {
    fn poll(&mut self) -> Result<Option<Objects>, SourceError> {
        let objects = self.source.poll();
        for problem in self.source.take_warnings() {
            self.output.notice(format_args!("{problem} (left out)"));
        }
        objects
    }
}

/// Nothing tells of a cluster.
const NO_OBJECTS: &str = "no-objects";

/// The namespace that is meant where files tell nothing of a context.
pub const FILES_NAMESPACE: &str = "default";

/// What is mistyped is said before anything is looked for.
pub fn check(target: &TargetArgs) -> Result<(), Failure> {
    if !target.is_named() {
        return Err(super::explain::no_target());
    }
    target.query(FILES_NAMESPACE).map(drop)
}

/// What is asked, and where the objects come from that decide it.
pub fn query(target: &TargetArgs, files: &ObjectArgs) -> Result<(Query, Place), Failure> {
    let place = Place::of(files)?;
    let query = target.query(place.namespace())?;
    Ok((query.ok_or_else(super::explain::no_target)?, place))
}

/// What an agent is asked: it has its own objects. Of the user's kubeconfig, if there is one, the namespace is taken, and the
/// context that commands are to name.
pub fn query_of_agent(
    target: &TargetArgs,
    files: &ObjectArgs,
    output: &Output,
) -> Result<(Query, Place), Failure> {
    let place = Place::of(files).unwrap_or_else(|e| {
        if e.code != NO_OBJECTS {
            output.notice(format_args!(
                "{e}: the namespace is {FILES_NAMESPACE} where none is named"
            ));
        }
        Place::Files
    });
    let query = target.query(place.namespace())?;
    Ok((query.ok_or_else(super::explain::no_target)?, place))
}

/// Where objects are to come from.
pub enum Place {
    /// From files.
    Files,
    /// From the API.
    Api(Box<Access>),
}

impl Place {
    /// As the options say.
    pub fn of(args: &ObjectArgs) -> Result<Place, Failure> {
        if !args.manifests.is_empty() {
            return Ok(Place::Files);
        }
        Place::of_api(&args.api).map(|access| Place::Api(Box::new(access)))
    }

    /// The API, as the options say.
    pub fn of_api(args: &ApiArgs) -> Result<Access, Failure> {
        let ApiArgs {
            kubeconfig,
            context,
            act_as,
            request_timeout,
        } = args.clone();
        let access = Access::find(&Wish {
            kubeconfig,
            context,
            act_as,
            timeout: request_timeout,
        });
        access.map_err(|e| match e {
            AccessError::Nothing => Failure::new(
                NO_OBJECTS,
                format!("nothing says what the cluster looks like: {e}"),
                e.hint(),
            ),
            e => SourceError::from(e).into(),
        })
    }

    /// The namespace that is meant where none is named.
    pub fn namespace(&self) -> &str {
        match self {
            Place::Files => FILES_NAMESPACE,
            Place::Api(access) => access.namespace(),
        }
    }

    /// Kube context and API server; empty with files.
    pub fn cluster(&self) -> (&str, &str) {
        match self {
            Place::Files => ("", ""),
            Place::Api(access) => (&access.context, &access.server),
        }
    }

    /// Opens the source and reads it once.
    pub fn read<'a>(
        &self,
        args: &ObjectArgs,
        query: &Query,
        output: &'a Output,
    ) -> Result<(Box<dyn ObjectSource + 'a>, Objects), Failure> {
        let mut source: Box<dyn ObjectSource + 'a> = match self {
            Place::Files => {
                let source = ManifestSource::open(&args.manifests, args.lenient);
                let source = source.map_err(SourceError::from)?;
                Box::new(Manifests { source, output })
            }
            Place::Api(access) => {
                output.progress(&format!("reading the objects of {}", access.title()));
                let source = LiveSource::open(access, &namespaces(query));
                output.progress("");
                Box::new(source?)
            }
        };
        let objects = source.poll()?.unwrap_or_default();
        Ok((source, objects))
    }
}

/// Those that a query cannot be answered without.
fn namespaces(query: &Query) -> Vec<String> {
    let mut all = vec![query.namespace.clone()];
    let other = match &query.from {
        Some(From::Pod(Some(n), _) | From::Deploy(Some(n), _) | From::Namespace(n)) => Some(n),
        _ => None,
    };
    all.extend(other.filter(|n| **n != query.namespace).cloned());
    all
}

/// `--manifests` takes every word up to the next option. A last one that is no file but reads as a target is the target.
pub fn target_among_files(named: &mut TargetArgs, files: &mut ObjectArgs) {
    if named.target.is_some() || named.svc.is_some() || files.manifests.len() < 2 {
        return;
    }
    let last = files.manifests.last().and_then(|p| p.to_str());
    if let Some(last) = last
        && !std::path::Path::new(last).exists()
        && target::parse(last).is_ok()
    {
        named.target = Some(last.to_owned());
        files.manifests.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_word_that_is_no_file_is_the_target() {
        let table = [
            (vec!["a.yaml", "app/web"], None, Some("app/web"), 1),
            (vec!["a.yaml", "Cargo.toml"], None, None, 2),
            (vec!["app/web"], None, None, 1),
            (vec!["a.yaml", "app/web"], Some("x"), Some("x"), 2),
            (vec!["a.yaml", "/no/such/file.yaml"], None, None, 2),
        ];
        for (words, typed, want, left) in table {
            let mut named = TargetArgs {
                target: typed.map(str::to_owned),
                ..TargetArgs::default()
            };
            let mut files = ObjectArgs {
                manifests: words.iter().map(Into::into).collect(),
                ..ObjectArgs::default()
            };
            target_among_files(&mut named, &mut files);
            assert_eq!(named.target.as_deref(), want, "{words:?}");
            assert_eq!(files.manifests.len(), left, "{words:?}");
        }
    }
}
