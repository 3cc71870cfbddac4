//! Certificates, and the kubeconfigs that use them. Who somebody is to the API server is the name in the certificate, and
//! what he may do there follows from the roles that Kubernetes has for these names.

use super::plan::{self, Node, Settings};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

/// The authority's certificate.
pub const CA: &str = "ca.crt";

/// The service accounts' key pair.
pub const ACCOUNTS: &str = "service-accounts";

/// The group that may do anything.
const MASTERS: &str = "system:masters";

/// A file among the certificates.
pub fn file(name: &str) -> PathBuf {
    plan::dir().join("pki").join(name)
}

/// The kubeconfig of a client.
pub fn kubeconfig(name: &str) -> PathBuf {
    plan::dir().join(format!("{name}.kubeconfig"))
}

/// Makes all of it.
pub fn make(settings: Settings) -> Result<()> {
    let dir = file("");
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&dir)
        .with_context(|| dir.display().to_string())?;
    let authority = Authority::new()?;
    let accounts = KeyPair::generate()?;
    secret(&file(&key_of(ACCOUNTS)), &accounts.serialize_pem())?;
    fs::write(file(&format!("{ACCOUNTS}.pub")), accounts.public_key_pem())?;

    let (own, service) = (
        plan::CONTROL_IP.to_string(),
        plan::KUBERNETES_IP.to_string(),
    );
    let mut names = vec!["localhost", "127.0.0.1", &own, &service];
    names.extend(["kubernetes", "kubernetes.default", "kubernetes.default.svc"]);
    names.push("kubernetes.default.svc.cluster.local");
    authority.certify("kube-apiserver", "kube-apiserver", None, &names)?;
    authority.certify(
        "kubelet-client",
        "kube-apiserver-kubelet-client",
        Some(MASTERS),
        &[],
    )?;

    authority.client("admin", "admin", Some(MASTERS))?;
    for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        authority.client(name, &format!("system:{name}"), None)?;
    }
    settings.nodes().try_for_each(|node| authority.node(node))
}

/// Name of the certificate's file.
pub fn certificate_of(name: &str) -> String {
    format!("{name}.crt")
}

/// Name of the key's file.
pub fn key_of(name: &str) -> String {
    format!("{name}.key")
}

/// Who signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        params
            .distinguished_name
            .push(DnType::CommonName, "netflow-cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let pem = params.self_signed(&key)?.pem();
        fs::write(file(CA), &pem)?;
        let issuer = Issuer::new(params, key);
        Ok(Authority { issuer, pem })
    }

    /// A certificate for serving at `names` and for being a client, in files; both as PEM.
    fn certify(
        &self,
        name: &str,
        common: &str,
        group: Option<&str>,
        names: &[&str],
    ) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common);
        if let Some(group) = group {
            let kind = DnType::OrganizationName;
            params.distinguished_name.push(kind, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let pem = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        fs::write(file(&certificate_of(name)), &pem)?;
        secret(&file(&key_of(name)), &key)?;
        Ok((pem, key))
    }

    /// A certificate with a kubeconfig around it.
    fn client(&self, name: &str, common: &str, group: Option<&str>) -> Result<()> {
        let pair = self.certify(name, common, group, &[])?;
        self.configure(name, &pair)
    }

    fn node(&self, node: Node) -> Result<()> {
        let (name, ip) = (node.name(), node.ip().to_string());
        let common = format!("system:node:{name}");
        let pair = self.certify(&name, &common, Some("system:nodes"), &[&name, &ip])?;
        self.configure(&name, &pair)
    }

    fn configure(&self, name: &str, (certificate, key): &(String, String)) -> Result<()> {
        let data = |pem: &str| STANDARD.encode(pem);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "netflow", "cluster": {
                "server": format!("https://{}:6443", plan::CONTROL_IP),
                "certificate-authority-data": data(&self.pem),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate-data": data(certificate),
                "client-key-data": data(key),
            }}],
            "contexts": [{"name": "netflow", "context": {"cluster": "netflow", "user": name}}],
            "current-context": "netflow",
        });
        secret(&kubeconfig(name), &serde_json::to_string_pretty(&config)?)
    }
}

/// Writes what only its owner may read.
fn secret(path: &PathBuf, text: &str) -> Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| path.display().to_string())
}
