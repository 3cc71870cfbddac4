//! Who holds an address.

use super::Time;
use super::objects::Objects;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Answers "who was this address at that time" from the objects it was told.
pub trait Identity {
    /// Takes in one version of the objects, valid from `objects.time` on.
    fn learn(&mut self, objects: &Objects);

    /// Who held `ip` at `at`; `None` = nobody the objects know. For every packet, this is the way to ask.
    fn holder(&self, ip: IpAddr, at: Time) -> Option<&Who>;

    /// As [`Identity::holder`], to keep.
    fn who(&self, ip: IpAddr, at: Time) -> Option<Who> {
        self.holder(ip, at).cloned()
    }
}

/// Holder of an address. Displays as `namespace/name`, a Node as its name. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// A Pod with an address of its own (never a hostNetwork Pod: that is its Node).
    Pod {
        /// Namespace.
        namespace: Arc<str>,
        /// Name.
        name: Arc<str>,
        /// Node it is placed on.
        node: Option<Arc<str>>,
        /// Kind and name of the controlling owner (`ReplicaSet/web-7d4b9`).
        owner: Option<Arc<str>>,
    },
    /// A Service: cluster, external or load-balancer address.
    Service {
        /// Namespace.
        namespace: Arc<str>,
        /// Name.
        name: Arc<str>,
    },
    /// A Node, by name.
    Node(Arc<str>),
}

impl Who {
    /// Namespace, where it has one.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Who::Pod { namespace, .. } | Who::Service { namespace, .. } => Some(namespace),
            Who::Node(_) => None,
        }
    }

    /// Name without namespace.
    pub fn name(&self) -> &str {
        match self {
            Who::Pod { name, .. } | Who::Service { name, .. } | Who::Node(name) => name,
        }
    }

    /// The Node it is, or is placed on.
    pub fn node(&self) -> Option<&str> {
        match self {
            Who::Pod { node, .. } => node.as_deref(),
            Who::Service { .. } => None,
            Who::Node(name) => Some(name),
        }
    }

    /// Whether it is a Pod.
    pub fn is_pod(&self) -> bool {
        matches!(self, Who::Pod { .. })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Pod {
                namespace, name, ..
            }
            | Who::Service { namespace, name } => write!(f, "{namespace}/{name}"),
            Who::Node(name) => f.write_str(name),
        }
    }
}
