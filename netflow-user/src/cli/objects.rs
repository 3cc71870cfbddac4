//! `--manifests`: where objects come from.

use super::args::{ObjectArgs, TargetArgs};
use super::failure::Failure;
use super::output::Output;
use super::target;
use crate::cluster::manifests::ManifestSource;
use crate::model::objects::Objects;
use crate::model::source::{ObjectSource, SourceError};

/// Manifests that say on stderr what of them cannot be used.
pub struct Manifests<'a> {
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

/// Opens the source and reads it once.
pub fn read<'a>(
    args: &ObjectArgs,
    output: &'a Output,
) -> Result<(Manifests<'a>, Objects), Failure> {
    if args.manifests.is_empty() {
        return Err(Failure::new(
            "no-objects",
            "nothing says what the cluster looks like",
            "give --manifests a file or directory, for example the output of `kubectl get \
             svc,endpointslices,pods,nodes,namespaces,networkpolicies -A -o yaml`",
        ));
    }
    let source = ManifestSource::open(&args.manifests, args.lenient).map_err(SourceError::from)?;
    let mut source = Manifests { source, output };
    let objects = source.poll()?.unwrap_or_default();
    Ok((source, objects))
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
                lenient: false,
            };
            target_among_files(&mut named, &mut files);
            assert_eq!(named.target.as_deref(), want, "{words:?}");
            assert_eq!(files.manifests.len(), left, "{words:?}");
        }
    }
}
