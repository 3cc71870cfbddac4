//! `netflow install` and `netflow uninstall`: the objects that run the agent on every node, and let it be asked from elsewhere.

mod secrets;

use super::failure::Failure;
use super::output::Output;
use crate::api::authority::Pair;
use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use std::time::Duration;

// Of `deploy/base`, in the order in which they are applied.
const NAMESPACE: &str = include_str!("../../../deploy/base/namespace.yaml");
const RBAC: &str = include_str!("../../../deploy/base/rbac.yaml");
const DAEMONSET: &str = include_str!("../../../deploy/base/daemonset.yaml");

/// The image that they name.
const IMAGE: &str = concat!("localhost/netflow:", env!("CARGO_PKG_VERSION"));

const DAY: Duration = Duration::from_hours(24);

/// Print the objects that run the agent on every node, for kubectl apply
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netflow install | kubectl apply -f -
  netflow install --image registry.example/netflow:1.2 | kubectl apply -f -
  kubectl rollout status --namespace netflow daemonset/netflow-agent
  netflow install --certificates | kubectl apply -f -
      new certificates for agents that run, which need no restart: the old ones are worth nothing any more
  netflow uninstall | kubectl delete -f -

The agent is in the host's network, and has the capabilities that the objects name with their reasons. It may read Services,
Pods, Nodes, Namespaces, EndpointSlices and NetworkPolicies, and nothing else. On the node it answers at
/run/netflow/netflow.sock, to root and its group; through the API server it answers whoever has the rights of the Role
netflow-asker, which nobody has until a RoleBinding names them. Both see who talks to whom in all namespaces.

Two Secrets hold certificates and their keys, made anew each time. Keep what is printed as you keep a password, or nowhere:
deploy/base holds the same objects without Secrets, for kustomize; deploy/privileged is for nodes where the capabilities do not
suffice.")]
pub struct Install {
    /// The agent's image
    #[arg(long, value_name = "NAME", default_value = IMAGE)]
    image: String,
    /// Only the Secrets: to renew certificates, and beside deploy/base
    #[arg(long, conflicts_with = "image")]
    certificates: bool,
    /// How long the certificates are valid; past that the agents are asked on their nodes only, until there are new ones
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    valid_for: u32,
}

/// Print the same objects, for kubectl delete
#[derive(Debug, Args)]
#[command(after_help = "Example:
  netflow uninstall | kubectl delete -f -")]
pub struct Uninstall {}

/// Prints what is applied.
pub fn run(args: &Install, output: &Output) -> Result<u8, Failure> {
    super::print(output, &applied(args)?)?;
    Ok(0)
}

/// Prints what is deleted.
pub fn undo(args: &Uninstall, output: &Output) -> Result<u8, Failure> {
    let Uninstall {} = args;
    super::print(output, &deleted()?)?;
    Ok(0)
}

fn applied(args: &Install) -> Result<String, Failure> {
    let Install {
        image,
        certificates,
        valid_for,
    } = args;
    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"'#{}[],&*!|>%`".contains(c);
    if image.is_empty() || image.contains(odd) {
        return Err(Failure::new(
            "image",
            format!("{image:?} is not the name of an image"),
            "as in registry.example/netflow:1.2 or registry.example/netflow@sha256:…",
        ));
    }
    let pair = Pair::issue(DAY * *valid_for)
        .map_err(|e| Failure::new("certificate", e.to_string(), ""))?;
    let secrets = yaml(&secrets::filled(pair))?;
    Ok(if *certificates {
        secrets
    } else {
        objects(image, &secrets)
    })
}

fn deleted() -> Result<String, Failure> {
    Ok(objects(IMAGE, &yaml(&secrets::empty())?))
}

/// All of them, the Secrets before the agents that want them.
fn objects(image: &str, secrets: &str) -> String {
    let named = format!("image: {image}\n");
    let agents = DAEMONSET.replace(&format!("image: {IMAGE}\n"), &named);
    [NAMESPACE, RBAC, secrets, &agents].join("---\n")
}

fn yaml(secrets: &[Secret]) -> Result<String, Failure> {
    let texts: Result<Vec<_>, _> = secrets.iter().map(serde_saphyr::to_string).collect();
    let texts = texts.map_err(|e| Failure::new("output", e.to_string(), ""))?;
    Ok(texts.join("---\n"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use crate::api::places;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use serde_json::{Value, json};

    fn read(text: &str) -> Vec<Value> {
        text.split("---\n")
            .map(|object| serde_saphyr::from_str(object).unwrap())
            .collect()
    }

    /// What `netflow install` prints with these options.
    fn installed(options: &[&str]) -> Vec<Value> {
        let words = [&["netflow", "install"], options].concat();
        let Command::Install(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("another command");
        };
        read(&applied(&args).unwrap())
    }

    fn one<'a>(all: &'a [Value], kind: &str) -> &'a Value {
        all.iter().find(|object| object["kind"] == kind).unwrap()
    }

    fn names(all: &[Value]) -> Vec<[&Value; 3]> {
        all.iter()
            .map(|object| {
                let meta = &object["metadata"];
                [&object["kind"], &meta["namespace"], &meta["name"]]
            })
            .collect()
    }

    #[test]
    fn the_image_is_the_one_that_is_named() {
        let image = "registry.example/netflow:1.2";
        for (options, wanted) in [(&["--image", image][..], image), (&[], IMAGE)] {
            let all = installed(options);
            let pods = &one(&all, "DaemonSet")["spec"]["template"]["spec"];
            assert_eq!(pods["containers"][0]["image"], wanted);
        }
    }

    #[test]
    fn the_agent_reads_names_and_nothing_more() {
        let all = installed(&[]);
        for rule in one(&all, "ClusterRole")["rules"].as_array().unwrap() {
            assert_eq!(rule["verbs"], json!(["get", "list", "watch"]));
            let resources = rule["resources"].to_string();
            assert!(
                !resources.contains("secrets") && !resources.contains('*'),
                "{resources}"
            );
        }
    }

    #[test]
    fn nobody_may_ask_before_somebody_is_named_and_then_they_may_no_more_than_ask() {
        let all = installed(&[]);
        let core =
            |resource, verbs| json!({"apiGroups": [""], "resources": [resource], "verbs": verbs});
        let mut secret = core("secrets", ["get"].as_slice());
        secret["resourceNames"] = json!([places::CLIENT_SECRET]);
        let wanted = json!([
            core("pods", &["get", "list"]),
            core("pods/portforward", &["create", "get"]),
            secret,
        ]);
        let role = one(&all, "Role");
        assert_eq!(role["rules"], wanted);
        assert_eq!(role["metadata"]["namespace"], places::NAMESPACE);
        assert!(all.iter().all(|object| object["kind"] != "RoleBinding"));
        let bound = one(&all, "ClusterRoleBinding");
        assert_eq!(bound["roleRef"]["kind"], "ClusterRole");
    }

    #[test]
    fn the_agents_listen_where_they_are_asked_with_what_their_secret_holds() {
        let all = installed(&[]);
        let pods = &one(&all, "DaemonSet")["spec"]["template"]["spec"];
        let agent = &pods["containers"][0];
        let args: Vec<&str> = agent["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|arg| arg.as_str().unwrap())
            .collect();
        let words = [&["netflow"], args.as_slice()].concat();
        let command = Cli::try_parse_from(words).unwrap().command;
        assert!(matches!(command, Command::Agent(_)), "{command:?}");
        let option = |name: &str| args.iter().find_map(|arg| arg.strip_prefix(name)).unwrap();
        let listen = format!("127.0.0.1:{}", places::PORT);
        assert_eq!(option("--listen="), listen);

        let volumes = pods["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|v| v["secret"].is_object()).unwrap();
        assert_eq!(volume["secret"]["secretName"], places::AGENT_SECRET);
        let mounts = agent["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|m| m["name"] == volume["name"]).unwrap();
        assert_eq!(mount["readOnly"], true);
        let held = one(&all, "Secret");
        assert_eq!(held["metadata"]["name"], places::AGENT_SECRET);
        for (name, file) in [
            ("--tls-cert=", "tls.crt"),
            ("--tls-key=", "tls.key"),
            ("--client-ca=", "ca.crt"),
        ] {
            let path = format!("{}/{file}", mount["mountPath"].as_str().unwrap());
            assert_eq!(option(name), path);
            assert!(held["data"][file].is_string(), "{held}");
        }
    }

    #[test]
    fn the_secrets_hold_the_certificates() {
        let text = |pem: &str| k8s_openapi::ByteString(pem.into());
        let pair = Pair::issue(DAY).unwrap();
        let wanted = [&pair.agent, &pair.client].map(|end| {
            let files = [
                ("tls.crt", &end.cert),
                ("tls.key", &end.key),
                ("ca.crt", &end.ca),
            ];
            json!(
                files
                    .map(|(file, pem)| (file, text(pem)))
                    .into_iter()
                    .collect::<std::collections::BTreeMap<_, _>>()
            )
        });
        let held = read(&yaml(&secrets::filled(pair)).unwrap());
        for (secret, wanted) in held.iter().zip(wanted) {
            assert_eq!(secret["type"], "kubernetes.io/tls");
            assert_eq!(secret["data"], wanted);
        }
        assert_eq!(held.len(), 2);
        assert_eq!(held[1]["metadata"]["name"], places::CLIENT_SECRET);
    }

    #[test]
    fn certificates_alone_are_the_same_secrets_with_others_in_them() {
        let all = installed(&[]);
        let alone = installed(&["--certificates"]);
        let secrets: Vec<_> = all
            .iter()
            .filter(|o| o["kind"] == "Secret")
            .cloned()
            .collect();
        assert_eq!(names(&alone), names(&secrets));
        assert_ne!(alone[0]["data"], secrets[0]["data"]);
    }

    #[test]
    fn what_is_deleted_is_what_was_applied_and_tells_no_secret() {
        let gone = read(&deleted().unwrap());
        assert_eq!(names(&gone), names(&installed(&[])));
        assert!(gone.iter().all(|object| object["data"].is_null()));
    }
}
