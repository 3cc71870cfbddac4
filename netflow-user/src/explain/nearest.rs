//! Which existing Services a wrong name may have meant.

use crate::model::objects::Objects;
use crate::model::query::{Query, Target};

/// How many names are offered.
const OFFERED: usize = 3;

/// `namespace/name` of the Services nearest to what was asked: the same name in another namespace first, then names
/// within a few letters, in the namespace asked first. Empty for an address.
pub fn services(objects: &Objects, query: &Query) -> Vec<String> {
    let Target::Name(wanted) = &query.target else {
        return Vec::new();
    };
    let limit = (wanted.chars().count() / 3).max(2);
    let mut near: Vec<(usize, bool, String)> = objects
        .services
        .iter()
        .filter_map(|s| {
            let namespace = if s.namespace == query.namespace {
                0
            } else {
                distance(&s.namespace, &query.namespace)
            };
            let contains = s.name.contains(wanted.as_str()) || wanted.contains(s.name.as_str());
            let name = distance(&s.name, wanted).min(if contains { limit } else { usize::MAX });
            (name <= limit).then(|| (name, namespace > 0, format!("{}/{}", s.namespace, s.name)))
        })
        .collect();
    near.sort();
    near.into_iter()
        .map(|(.., name)| name)
        .take(OFFERED)
        .collect()
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::objects::Service;

    fn objects(names: &[(&str, &str)]) -> Objects {
        let service = |(ns, name): &(&str, &str)| Service {
            namespace: (*ns).into(),
            name: (*name).into(),
            ..Service::default()
        };
        Objects {
            services: names.iter().map(service).collect(),
            ..Objects::default()
        }
    }

    fn ask(namespace: &str, name: &str) -> Query {
        Query {
            namespace: namespace.into(),
            target: Target::Name(name.into()),
            ..Query::default()
        }
    }

    #[test]
    fn distances() {
        assert_eq!(distance("web-api", "web-api"), 0);
        assert_eq!(distance("web-api", "web-apl"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn typo_and_wrong_namespace_are_offered_strangers_are_not() {
        let known = objects(&[("app", "web-api"), ("shop", "web-api"), ("app", "redis")]);
        assert_eq!(
            services(&known, &ask("app", "web-apl")),
            ["app/web-api", "shop/web-api"]
        );
        assert_eq!(services(&known, &ask("ap", "redis")), ["app/redis"]);
        assert!(services(&known, &ask("app", "payments")).is_empty());
    }
}
