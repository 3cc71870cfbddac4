//! The objects of all files → one version of the cluster.

use super::document::Contents;
use super::problem::Problem;
use crate::cluster::object::{self, Kind, Object};
use crate::model::objects::Objects;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Puts the contents of files, in reading order, together. Of an object that is there twice the later one counts, with
/// a warning.
pub(super) fn collect<'a>(
    files: impl Iterator<Item = (&'a Path, &'a [Contents])>,
    warnings: &mut Vec<Problem>,
) -> Objects {
    let mut kinds = BTreeSet::new();
    let mut latest: HashMap<_, (&Path, &Object)> = HashMap::new();
    let mut order = Vec::new();
    for (path, documents) in files {
        for contents in documents {
            kinds.extend(&contents.kinds);
            for object in &contents.objects {
                let key = object.key();
                match latest.insert(key, (path, object)) {
                    None => order.push(key),
                    Some((before, _)) => warnings.push(duplicate(path, before, key)),
                }
            }
        }
    }
    let objects = order.iter().filter_map(|key| latest.get(key));
    object::version(objects.map(|(_, object)| *object), &kinds)
}

fn duplicate(path: &Path, before: &Path, (kind, namespace, name): (Kind, &str, &str)) -> Problem {
    let kind = kind.name();
    let slash = if namespace.is_empty() { "" } else { "/" };
    let before = before.display();
    Problem::whole(
        path,
        format!("{kind} {namespace}{slash}{name} was already in {before}; this one counts"),
    )
}
