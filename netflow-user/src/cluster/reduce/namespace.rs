//! Namespace.

use super::{Invalid, Subject, labels};
use crate::model::objects::Namespace;
use k8s_openapi::api::core::v1;

/// Reduces a Namespace.
pub fn namespace(mut object: v1::Namespace) -> Result<Namespace, Invalid> {
    let subject = Subject::cluster("Namespace", &mut object.metadata)?;
    Ok(Namespace {
        labels: labels(object.metadata.labels),
        name: subject.name,
    })
}
