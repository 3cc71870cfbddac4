//! `netflow install` and `netflow uninstall`: the objects that run the agent on every node.

use super::failure::Failure;
use super::output::Output;
use clap::Args;

/// The files of `deploy/base`, in the order in which they are applied.
const OBJECTS: [&str; 3] = [
    include_str!("../../../deploy/base/namespace.yaml"),
    include_str!("../../../deploy/base/rbac.yaml"),
    include_str!("../../../deploy/base/daemonset.yaml"),
];

/// The image that they name.
const IMAGE: &str = concat!("localhost/netflow:", env!("CARGO_PKG_VERSION"));

/// Print the objects that run the agent on every node, for kubectl apply
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netflow install | kubectl apply -f -
  netflow install --image registry.example/netflow:1.2 | kubectl apply -f -
  kubectl rollout status --namespace netflow daemonset/netflow-agent
  netflow uninstall | kubectl delete -f -

The agent is in the host's network, and has the capabilities that the objects name with their reasons. It may read Services,
Pods, Nodes, Namespaces, EndpointSlices and NetworkPolicies, and nothing else. On the node it answers at
/run/netflow/netflow.sock, to root and its group: who may open that sees who talks to whom in all namespaces.

The same objects are in deploy/base, for kustomize; deploy/privileged is for nodes where the capabilities do not suffice.")]
pub struct Install {
    /// The agent's image
    #[arg(long, value_name = "NAME", default_value = IMAGE)]
    image: String,
}

/// Print the same objects, for kubectl delete
#[derive(Debug, Args)]
#[command(after_help = "Example:
  netflow uninstall | kubectl delete -f -")]
pub struct Uninstall {}

/// Prints what is applied.
pub fn run(args: &Install, output: &Output) -> Result<u8, Failure> {
    let Install { image } = args;
    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"'#{}[],&*!|>%`".contains(c);
    if image.is_empty() || image.contains(odd) {
        return Err(Failure::new(
            "image",
            format!("{image:?} is not the name of an image"),
            "as in registry.example/netflow:1.2 or registry.example/netflow@sha256:…",
        ));
    }
    super::print(output, &objects(image))?;
    Ok(0)
}

/// Prints what is deleted.
pub fn undo(args: &Uninstall, output: &Output) -> Result<u8, Failure> {
    let Uninstall {} = args;
    super::print(output, &objects(IMAGE))?;
    Ok(0)
}

fn objects(image: &str) -> String {
    OBJECTS
        .join("---\n")
        .replace(&format!("image: {IMAGE}\n"), &format!("image: {image}\n"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use serde_json::Value;

    fn read(text: &str) -> Vec<Value> {
        text.split("---\n")
            .map(|object| serde_saphyr::from_str(object).unwrap())
            .collect()
    }

    #[test]
    fn the_image_is_the_one_that_is_named() {
        let all = read(&objects("registry.example/netflow:1.2"));
        let kinds: Vec<&str> = all.iter().map(|o| o["kind"].as_str().unwrap()).collect();
        let wanted = [
            "Namespace",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "DaemonSet",
        ];
        assert_eq!(kinds, wanted);
        let container = &all[4]["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "registry.example/netflow:1.2");
        assert!(objects(IMAGE).contains(IMAGE));
    }

    #[test]
    fn the_agent_reads_names_and_nothing_more() {
        let all = read(&objects(IMAGE));
        for rule in all[2]["rules"].as_array().unwrap() {
            assert_eq!(rule["verbs"], serde_json::json!(["get", "list", "watch"]));
            let resources = rule["resources"].to_string();
            assert!(
                !resources.contains("secrets") && !resources.contains('*'),
                "{resources}"
            );
        }
    }
}
