//! The control plane: etcd, the API server, the controllers, the scheduler.

use super::build;
use super::daemon::Daemon;
use super::inside::Place;
use super::kubectl;
use super::pki::{self, certificate_of, key_of};
use super::plan::{self, CONTROL_IP, PODS, SERVICES};
use super::raise::Raising;
use anyhow::Result;
use std::time::Duration;

/// How long the API server may take on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_mins(2);

const ETCD: &str = "http://127.0.0.1:2379";
const PEER: &str = "http://127.0.0.1:2380";

/// Starts it; done when the API server serves and the others run.
pub fn start(raising: &Raising) -> Result<()> {
    let _etcd = component(raising, "etcd", &etcd())?;
    // it waits for etcd by itself
    let mut server = component(raising, "kube-apiserver", &server())?;
    server.until(LIMIT, || kubectl::answers(&["get", "--raw", "/readyz"]))?;
    component(raising, "kube-controller-manager", &controllers())?;
    component(raising, "kube-scheduler", &scheduler())?;
    Ok(())
}

fn component(raising: &Raising, name: &str, args: &[String]) -> Result<Daemon> {
    let daemon = Daemon::start(&Place::control(), name, &build::path(name)?, args)?;
    raising.note(name, None, &daemon)?;
    Ok(daemon)
}

fn etcd() -> Vec<String> {
    let data = plan::dir().join("etcd");
    vec![
        "--name=etcd".to_owned(),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={PEER}"),
        format!("--initial-advertise-peer-urls={PEER}"),
        format!("--initial-cluster=etcd={PEER}"),
        // what a cluster keeps ends with it: nothing has to outlast the machine's power
        "--unsafe-no-fsync=true".to_owned(),
    ]
}

fn server() -> Vec<String> {
    let file = |name: String| pki::file(&name).display().to_string();
    let (certificate, key) = (certificate_of("kube-apiserver"), key_of("kube-apiserver"));
    let (client, client_key) = (certificate_of("kubelet-client"), key_of("kubelet-client"));
    let ca = file(pki::CA.to_owned());
    let accounts = pki::ACCOUNTS;
    vec![
        format!("--etcd-servers={ETCD}"),
        format!("--bind-address={CONTROL_IP}"),
        format!("--advertise-address={CONTROL_IP}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--tls-cert-file={}", file(certificate)),
        format!("--tls-private-key-file={}", file(key)),
        format!("--client-ca-file={ca}"),
        format!("--kubelet-certificate-authority={ca}"),
        format!("--kubelet-client-certificate={}", file(client)),
        format!("--kubelet-client-key={}", file(client_key)),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!(
            "--service-account-key-file={}",
            file(format!("{accounts}.pub"))
        ),
        format!(
            "--service-account-signing-key-file={}",
            file(key_of(accounts))
        ),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        // agents on the nodes need to be
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

/// There is one of each: nobody has to be elected, which takes seconds.
fn follower(name: &str) -> Vec<String> {
    let config = pki::kubeconfig(name).display().to_string();
    let mut args: Vec<String> = [
        "kubeconfig",
        "authentication-kubeconfig",
        "authorization-kubeconfig",
    ]
    .map(|flag| format!("--{flag}={config}"))
    .to_vec();
    args.extend(
        [
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--profiling=false",
        ]
        .map(str::to_owned),
    );
    args
}

fn controllers() -> Vec<String> {
    let mut args = follower("kube-controller-manager");
    args.extend([
        format!(
            "--service-account-private-key-file={}",
            pki::file(&key_of(pki::ACCOUNTS)).display()
        ),
        format!("--root-ca-file={}", pki::file(pki::CA).display()),
        // each controller has a role of its own; all of them together have none
        "--use-service-account-credentials=true".to_owned(),
        format!("--cluster-cidr={PODS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        // the nodes' are planned
        "--allocate-node-cidrs=false".to_owned(),
    ]);
    args
}

fn scheduler() -> Vec<String> {
    follower("kube-scheduler")
}
