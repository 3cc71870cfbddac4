//! Namespace.

use super::{Invalid, Subject};
use crate::model::objects::Namespace;
use k8s_openapi::api::core::v1;

/// Reduces a Namespace.
pub fn namespace(mut object: v1::Namespace) -> Result<Namespace, Invalid> {
    let subject = Subject::cluster("Namespace", &mut object.metadata)?;
    Ok(Namespace {
        labels: object
            .metadata
            .labels
            .unwrap_or_default()
            .into_iter()
            .collect(),
        name: subject.name,
    })
}
