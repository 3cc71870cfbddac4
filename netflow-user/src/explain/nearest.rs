//! Which existing Services a wrong name may have meant.

use crate::model::objects::Objects;
use crate::model::query::{Query, Target};
use crate::model::spelling::{alike, distance};

/// How many names are offered.
const OFFERED: usize = 3;

/// `namespace/name` of the Services nearest to what was asked: the same name in another namespace first, then names
/// within a few letters, in the namespace asked first. Empty for an address.
pub fn services(objects: &Objects, query: &Query) -> Vec<String> {
    let Target::Name(wanted) = &query.target else {
        return Vec::new();
    };
    let mut near: Vec<(usize, bool, String)> = objects
        .services
        .iter()
        .filter(|s| alike(wanted, &s.name))
        .map(|s| {
            let elsewhere = s.namespace != query.namespace;
            (
                distance(&s.name, wanted),
                elsewhere,
                format!("{}/{}", s.namespace, s.name),
            )
        })
        .collect();
    near.sort();
    near.into_iter()
        .map(|(.., name)| name)
        .take(OFFERED)
        .collect()
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
