//! What many objects have in common, kept once: the Pods of a ReplicaSet differ in little but their names and addresses.

use super::object::Object;
use crate::model::objects::{Condition, ContainerPort, Endpoint, Labels, Pod};
use crate::model::shared::{Held, Map, Name, Shared};
use foldhash::quality::RandomState;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// It is not looked for what nobody holds any more before there are so many values.
const FEW: usize = 4_096;

/// Values of the objects that went through it.
#[derive(Debug, Default)]
pub(super) struct Pool {
    names: Values<Name>,
    labels: Values<Labels>,
    conditions: Values<Map<Condition>>,
    containers: Values<Shared<Name>>,
    ports: Values<Shared<ContainerPort>>,
}

impl Pool {
    /// Lets an object hold what others hold already.
    pub fn share(&mut self, object: &mut Object) {
        match object {
            Object::Pod(pod) => self.pod(Arc::make_mut(pod)),
            Object::Slice(slice) => {
                let slice = Arc::make_mut(slice);
                self.names.share(&mut slice.namespace);
                self.names.share(&mut slice.service);
                for endpoint in &mut slice.endpoints {
                    self.endpoint(endpoint);
                }
            }
            // There are few of them.
            _ => {}
        }
    }

    fn pod(&mut self, pod: &mut Pod) {
        self.names.share(&mut pod.namespace);
        self.names.share(&mut pod.name);
        self.names.share(&mut pod.phase);
        self.names.share_some(&mut pod.node);
        self.names.share_some(&mut pod.owner);
        // Those of a StatefulSet have a label each that nobody else has.
        let names = &mut self.names;
        self.labels.share_with(&mut pod.labels, |labels| {
            let entries = labels.iter();
            *labels = entries.map(|(k, v)| (names.one(k), names.one(v))).collect();
        });
        self.conditions.share(&mut pod.conditions);
        self.containers.share(&mut pod.containers);
        self.ports.share(&mut pod.ports);
    }

    fn endpoint(&mut self, endpoint: &mut Endpoint) {
        self.names.share_some(&mut endpoint.pod);
        self.names.share_some(&mut endpoint.node);
        self.containers.share(&mut endpoint.zones);
        self.containers.share(&mut endpoint.node_hints);
    }
}

/// Values of one kind.
#[derive(Debug)]
struct Values<T> {
    all: HashSet<T, RandomState>,
    /// How many there may be before those are forgotten that nobody holds.
    most: usize,
}

impl<T> Default for Values<T> {
    fn default() -> Values<T> {
        Values {
            all: HashSet::default(),
            most: FEW,
        }
    }
}

impl<T: Clone + Eq + Hash + Held> Values<T> {
    fn share(&mut self, value: &mut T) {
        self.share_with(value, |_| {});
    }

    fn share_some(&mut self, value: &mut Option<T>) {
        if let Some(value) = value {
            self.share(value);
        }
    }

    /// A new value is prepared before others share it.
    fn share_with(&mut self, value: &mut T, prepare: impl FnOnce(&mut T)) {
        if let Some(known) = self.all.get(value) {
            value.clone_from(known);
            return;
        }
        prepare(value);
        if self.all.len() >= self.most {
            self.all.retain(T::is_held);
            self.all.shrink_to_fit();
            self.most = FEW.max(self.all.len() * 2);
        }
        self.all.insert(value.clone());
    }

    fn one(&mut self, value: &T) -> T {
        let mut value = value.clone();
        self.share(&mut value);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    fn pod(name: &str, message: &str) -> Object {
        let condition = Condition {
            status: message.is_empty(),
            reason: message.into(),
        };
        Object::from(Pod {
            namespace: "app".into(),
            name: name.into(),
            labels: [("app", "web")].into(),
            conditions: [("Ready", condition)].into(),
            containers: vec!["web".into()].into(),
            ..Pod::default()
        })
    }

    #[test]
    fn what_two_pods_have_in_common_is_there_once_and_nothing_is_changed() {
        let mut pool = Pool::default();
        let mut objects = [pod("a", ""), pod("b", "")];
        for object in &mut objects {
            pool.share(object);
        }
        assert_eq!(objects, [pod("a", ""), pod("b", "")]);
        let [Object::Pod(a), Object::Pod(b)] = &objects else {
            panic!("no Pods")
        };
        assert!(ptr::eq(a.namespace.as_str(), b.namespace.as_str()));
        assert!(ptr::eq(&raw const *a.containers, &raw const *b.containers));
        let label = |pod: &Pod| pod.labels.get("app").map(|v| ptr::from_ref(v.as_str()));
        assert_eq!(label(a), label(b));
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut pool = Pool::default();
        let mut kept = pod("kept", "reason of old");
        pool.share(&mut kept);
        for number in 0..10 * FEW {
            pool.share(&mut pod(&format!("web-{number}"), &number.to_string()));
        }
        assert!(pool.names.all.len() <= 2 * FEW, "{}", pool.names.all.len());
        assert!(pool.conditions.all.len() <= 2 * FEW);
        let held = pool.names.all.contains("kept");
        assert!(held);
    }
}
