//! The Secrets that hold the certificates: the agents', and the client's.

use crate::api::authority::{Credentials, Pair};
use crate::api::places::{AGENT_SECRET, CLIENT_SECRET, LABEL, NAMESPACE};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// With certificates.
pub(super) fn filled(pair: Pair) -> [Secret; 2] {
    let Pair { agent, client } = pair;
    [
        fill(named(AGENT_SECRET), agent),
        fill(named(CLIENT_SECRET), client),
    ]
}

/// Without: to be deleted.
pub(super) fn empty() -> [Secret; 2] {
    [named(AGENT_SECRET), named(CLIENT_SECRET)]
}

fn named(name: &str) -> Secret {
    let label = LABEL.split_once('=');
    let labels = label.map(|(key, value)| [(key.to_owned(), value.to_owned())].into());
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            labels,
            ..ObjectMeta::default()
        },
        ..Secret::default()
    }
}

fn fill(secret: Secret, credentials: Credentials) -> Secret {
    let Credentials { cert, key, ca } = credentials;
    let data = [("tls.crt", cert), ("tls.key", key), ("ca.crt", ca)];
    let data = data.map(|(file, pem)| (file.to_owned(), ByteString(pem.into_bytes())));
    Secret {
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.into()),
        ..secret
    }
}
