//! A node: containerd and the kubelet, in namespaces of its own, with the bridge plugin for Pods.

use super::build;
use super::cgroup;
use super::daemon::Daemon;
use super::hold;
use super::image;
use super::inside::Place;
use super::network;
use super::pki::{self, certificate_of, key_of};
use super::plan::{self, Network, Node, Settings};
use super::raise::Raising;
use crate::process;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long one of them may take on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_mins(1);

/// Where containerd listens, in the node.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// The directory of plugins that the machine has, and those that the node is given.
const PLUGINS: (&str, [&str; 4]) = (
    "/usr/lib/cni",
    ["bridge", "host-local", "loopback", "portmap"],
);

/// The node's object, there before its kubelet so that its addresses for Pods are the planned ones.
pub fn object(node: Node) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name()},
        "spec": {"podCIDR": node.pods(), "podCIDRs": [node.pods()]},
    })
}

/// Everything that the kubelet needs: the node's namespaces, cgroups, containerd with its images.
pub fn prepare(raising: &Raising, node: Node, images: &[PathBuf]) -> Result<Place> {
    let place = node.place();
    cgroup::make(&place)?;
    files(raising.settings, node)?;
    let place = hold(raising, node)?;
    containerd(raising, node, &place)?;
    for image in images {
        import(&place, image)?;
    }
    Ok(place)
}

/// Gives a node's containerd an image.
pub fn import(place: &Place, archive: &Path) -> Result<()> {
    let mut import = place.command(false, Path::new("ctr"))?;
    import
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(archive);
    process::read(&mut import)?;
    Ok(())
}

fn hold(raising: &Raising, node: Node) -> Result<Place> {
    let mut command = Command::new(std::env::current_exe().context("this program")?);
    command.args(["cluster", "hold", &node.name()]);
    let mut holder = Daemon::spawn(&format!("{}-{}", hold::NAME, node.name()), &mut command)?;
    raising.note(hold::NAME, Some(node), &holder)?;
    let ready = hold::ready(node);
    holder.until(LIMIT, || ready.exists())?;
    Ok(Place::node(node, holder.process()?))
}

fn containerd(raising: &Raising, node: Node, place: &Place) -> Result<()> {
    let config = node.dir().join("containerd.toml");
    let args = [format!("--config={}", config.display())];
    let mut daemon = component(
        raising,
        node,
        place,
        "containerd",
        Path::new("containerd"),
        &args,
    )?;
    let socket = place.path(SOCKET);
    daemon.until(LIMIT, || UnixStream::connect(&socket).is_ok())
}

/// Starts the kubelet; that the node is ready is for the API server to say.
pub fn kubelet(raising: &Raising, node: Node, place: &Place) -> Result<()> {
    let name = node.name();
    let args = [
        format!("--config={}", node.dir().join("kubelet.json").display()),
        format!("--kubeconfig={}", pki::kubeconfig(&name).display()),
        format!("--hostname-override={name}"),
        format!("--node-ip={}", node.ip()),
        "--cert-dir=/var/lib/kubelet/pki".to_owned(),
    ];
    component(
        raising,
        node,
        place,
        "kubelet",
        &build::path("kubelet")?,
        &args,
    )?;
    Ok(())
}

/// Starts one of a node's components.
pub fn component(
    raising: &Raising,
    node: Node,
    place: &Place,
    name: &str,
    program: &Path,
    args: &[String],
) -> Result<Daemon> {
    let daemon = Daemon::start(place, &log(name, node), program, args)?;
    raising.note(name, Some(node), &daemon)?;
    Ok(daemon)
}

/// Name of the log of a node's component.
pub fn log(name: &str, node: Node) -> String {
    format!("{name}-{}", node.name())
}

fn files(settings: Settings, node: Node) -> Result<()> {
    for path in hold::DIRECTORIES {
        let own = hold::own(node, path);
        fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
    }
    let (from, names) = PLUGINS;
    let to = hold::own(node, "/opt/cni/bin");
    for name in names {
        fs::copy(Path::new(from).join(name), to.join(name))
            .with_context(|| format!("{from}/{name}"))?;
    }
    let pods = hold::own(node, "/etc/cni/net.d").join("10-pods.conflist");
    write(&pods, &serde_json::to_string_pretty(&cni(settings, node))?)?;
    write(&node.dir().join("containerd.toml"), &containerd_config())?;
    let kubelet = serde_json::to_string_pretty(&kubelet_config(node))?;
    write(&node.dir().join("kubelet.json"), &kubelet)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Pods on a bridge, each of which reaches itself through a Service, too.
fn cni(settings: Settings, node: Node) -> Value {
    let mut bridge = json!({
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": node.pods()}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    if settings.network == Network::Vxlan {
        bridge["mtu"] = network::TUNNEL_MTU.into();
    }
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": true}}],
    })
}

fn containerd_config() -> String {
    // a container's negative oom_score_adj needs a capability that root does not have everywhere
    format!(
        r#"version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
"#,
        image::TRAFFIC
    )
}

fn kubelet_config(node: Node) -> Value {
    let name = node.name();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki::file(pki::CA)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki::file(&certificate_of(&name)),
        "tlsPrivateKeyFile": pki::file(&key_of(&name)),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.place()),
        // the machine's own limits stay as they are
        "enforceNodeAllocatable": ["none"],
        "oomScoreAdj": 0,
        "failSwapOn": false,
        // a machine with version 1 still runs Pods
        "failCgroupV1": false,
        "clusterDNS": [plan::DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        // the disk is the machine's, and is not for a node to clean up
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
    })
}
