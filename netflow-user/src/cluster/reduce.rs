//! Kubernetes objects as the API has them → the fields that explain a connection.
//!
//! Everything else ends here: annotations, environment, volumes, credentials.

mod endpoints;
mod namespace;
mod node;
mod pod;
mod policy;
mod service;

pub use endpoints::{endpoints, slice};
pub use namespace::namespace;
pub use node::node;
pub use pod::pod;
pub use policy::policy;
pub use service::service;

use crate::model::Proto;
use crate::model::objects::{Labels, TargetPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A field that Kubernetes itself would not have accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {what}")]
pub struct Invalid {
    /// Kind and name (`Service app/web`).
    pub object: String,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

/// Labels, as they are kept.
fn labels(all: Option<BTreeMap<String, String>>) -> Labels {
    all.unwrap_or_default().into_iter().collect()
}

/// An object under reduction, to name it in errors.
struct Subject {
    kind: &'static str,
    namespace: String,
    name: String,
}

impl Subject {
    /// A namespaced object; without a namespace it is in `default`, as for kubectl.
    fn namespaced(kind: &'static str, meta: &mut ObjectMeta) -> Result<Subject, Invalid> {
        let namespace = meta.namespace.take().filter(|n| !n.is_empty());
        let mut subject = Subject {
            kind,
            namespace: namespace.unwrap_or_else(|| "default".into()),
            name: String::new(),
        };
        subject.name = subject.take_name(meta)?;
        Ok(subject)
    }

    /// An object of the cluster as a whole.
    fn cluster(kind: &'static str, meta: &mut ObjectMeta) -> Result<Subject, Invalid> {
        let mut subject = Subject {
            kind,
            namespace: String::new(),
            name: String::new(),
        };
        subject.name = subject.take_name(meta)?;
        Ok(subject)
    }

    fn take_name(&self, meta: &mut ObjectMeta) -> Result<String, Invalid> {
        match meta.name.take() {
            Some(name) if !name.is_empty() => Ok(name),
            _ => Err(self.invalid("metadata.name", "is missing")),
        }
    }

    fn invalid(&self, field: impl Into<String>, what: impl Into<String>) -> Invalid {
        let object = match (self.namespace.as_str(), self.name.as_str()) {
            (_, "") => self.kind.to_owned(),
            ("", name) => format!("{} {name}", self.kind),
            (namespace, name) => format!("{} {namespace}/{name}", self.kind),
        };
        Invalid {
            object,
            field: field.into(),
            what: what.into(),
        }
    }

    fn ip(&self, field: &str, text: &str) -> Result<IpAddr, Invalid> {
        text.parse()
            .map_err(|_| self.invalid(field, format!("{text:?} is not an IP address")))
    }

    fn ips<'a>(
        &self,
        field: &str,
        texts: impl IntoIterator<Item = &'a String>,
    ) -> Result<Vec<IpAddr>, Invalid> {
        let texts = texts.into_iter().filter(|t| !t.is_empty());
        // A box has no room to spare: there are 100,000s of these.
        let ips: Result<Box<[_]>, _> = texts.map(|t| self.ip(field, t)).collect();
        ips.map(Into::into)
    }

    fn port(&self, field: &str, number: i32) -> Result<u16, Invalid> {
        match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(self.invalid(field, format!("{number} is not a port number"))),
        }
    }

    fn port_or_name(&self, field: &str, value: IntOrString) -> Result<TargetPort, Invalid> {
        match value {
            IntOrString::Int(number) => Ok(TargetPort::Number(self.port(field, number)?)),
            IntOrString::String(name) => Ok(TargetPort::Name(name)),
        }
    }

    /// TCP where nothing is said.
    fn proto(&self, field: &str, name: Option<&str>) -> Result<Proto, Invalid> {
        let name = name.unwrap_or("TCP");
        Proto::parse(name)
            .ok_or_else(|| self.invalid(field, format!("{name:?} is not TCP, UDP or SCTP")))
    }
}
