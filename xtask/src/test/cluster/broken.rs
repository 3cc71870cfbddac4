//! What people and components do to a cluster, while the agents run on both nodes: asked from outside of all of them at once, netflow
//! must name the cause, and be silent of it once it is mended.

use super::fleet::Who;
use super::stopped::Stopped;
use super::traffic::Traffic;
use super::{component, feed, kubectl, xtask};
use crate::cluster;
use crate::process;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Stdio;

/// All of it, while a client dials `web`.
pub fn all(netflow: &Path, traffic: &Traffic) -> Result<()> {
    let asker = Who::with_rights(netflow, "breaker")?;
    let stage = Stage {
        asker: &asker,
        traffic,
        client: Spot::of("pod/client")?,
    };
    stage.proxy_stops()?;
    stage.slices_freeze()?;
    stage.policy_denies()?;
    stage.port_has_no_name()?;
    stage.names_are_not_resolved()?;
    stage.route_is_lost()?;
    kubectl(&["delete", "serviceaccount", "breaker"]).map(drop)
}

/// Where a Pod is.
struct Spot {
    node: String,
    ip: String,
}

impl Spot {
    fn of(pod: &str) -> Result<Spot> {
        let what = "jsonpath={.spec.nodeName} {.status.podIP}";
        let said = kubectl(&["get", pod, "-o", what])?;
        let (node, ip) = said.split_once(' ').context("node and address")?;
        Ok(Spot {
            node: node.to_owned(),
            ip: ip.to_owned(),
        })
    }
}

/// Who asks, who feels it, and where that one is.
struct Stage<'a> {
    asker: &'a Who,
    traffic: &'a Traffic,
    client: Spot,
}

impl Stage<'_> {
    /// This must be among what is found of `web`, as critical, or as a warning where clients are served all the same.
    fn is_told(&self, code: &str) -> Result<()> {
        let (_, answer, said) = self.asker.asks(&["explain", "web"])?;
        let findings = answer["findings"].as_array();
        let found = findings.into_iter().flatten().find(|f| f["code"] == code);
        let found = found.with_context(|| format!("{code} is not told: {answer:#} {said}"))?;
        ensure!(found["basis"] == "observed", "{found:#}");
        println!(
            "  {code}: {}",
            found["summary"].as_str().unwrap_or_default()
        );
        Ok(())
    }

    /// So long all are served that nothing of before is seen any more.
    fn is_well(&self) -> Result<()> {
        self.traffic.feel(40, true)?;
        let (exit, answer, said) = self.asker.asks(&["explain", "web", "--for", "4s"])?;
        let healthy = exit == Some(0) && answer["verdict"] == "healthy";
        ensure!(healthy, "not well again: {answer:#} {said}");
        Ok(())
    }

    /// A Pod of `web` that is not on the client's node.
    fn server(&self) -> Result<String> {
        let field = format!("spec.nodeName!={}", self.client.node);
        let pods = ["get", "pods", "-l", "app=web", "-o", "name"];
        let pods = kubectl(&[&pods[..], &["--field-selector", &field]].concat())?;
        let first = pods.lines().next().context("a Pod of web")?;
        Ok(first.to_owned())
    }

    /// kube-proxy of the client's node follows no more, and a Pod is replaced.
    fn proxy_stops(&self) -> Result<()> {
        let stopped = Stopped::process(component("kube-proxy", Some(&self.client.node))?)?;
        kubectl(&["delete", &self.server()?, "--grace-period=1"])?;
        rolled_out("web", "default")?;
        self.traffic.feel(1, false)?;
        self.is_told("proxy-rules-stale")?;
        drop(stopped);
        self.is_well()
    }

    /// The controllers write no slices any more, and a Pod goes.
    fn slices_freeze(&self) -> Result<()> {
        let stopped = Stopped::process(component("kube-controller-manager", None)?)?;
        kubectl(&["delete", &self.server()?, "--grace-period=1"])?;
        self.traffic.feel(1, false)?;
        self.is_told("endpointslice-stale")?;
        drop(stopped);
        rolled_out("web", "default")?;
        self.is_well()
    }

    /// A policy that does not admit the client, with the rule that a plugin would make of it: this cluster's makes none.
    fn policy_denies(&self) -> Result<()> {
        let policy = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "friends"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]}}"#;
        let server = Spot::of(&self.server()?)?;
        feed("apply", policy)?;
        let rule = format!(
            "table inet netpol {{ chain f {{ type filter hook forward priority 0; ip saddr {} ip daddr {} drop; }}; }}",
            self.client.ip, server.ip
        );
        on(&server.node, &["nft", &rule])?;
        let told = self
            .traffic
            .feel(1, false)
            .and_then(|()| self.is_told("policy-denied-ingress"));
        on(&server.node, &["nft", "delete table inet netpol"])?;
        kubectl(&["delete", "networkpolicy", "friends"])?;
        told?;
        self.is_well()
    }

    /// targetPort names a port that no container declares.
    fn port_has_no_name(&self) -> Result<()> {
        target_port(r#""http""#)?;
        let told = self
            .traffic
            .feel(1, false)
            .and_then(|()| self.is_told("named-port-unresolved"));
        target_port("8080")?;
        told?;
        self.is_well()
    }

    /// The cluster's DNS has no endpoint, and the client asks it.
    fn names_are_not_resolved(&self) -> Result<()> {
        let coredns = ["--namespace=kube-system", "deployment/coredns"];
        let scale = |replicas| kubectl(&[&["scale", replicas], &coredns[..]].concat());
        scale("--replicas=0")?;
        let dns = format!("{}:53", cluster::DNS_IP);
        let client = ["kubectl", "--", "exec", "client", "--", "/netflow-traffic"];
        let queries = ["dial", "--proto", "udp", "--to", &dns, "--count", "60"];
        let mut queries = xtask(&[&client[..], &queries].concat())?
            .stdout(Stdio::null())
            .spawn()?;
        let told = self.is_told("dns-no-endpoints");
        scale("--replicas=1")?;
        queries.wait()?;
        rolled_out("coredns", "kube-system")?;
        told?;
        self.is_well()
    }

    /// The client's node has no route to the Pods of the other, where nodes route.
    fn route_is_lost(&self) -> Result<()> {
        let node = &self.client.node;
        let routes = on(node, &["ip", "-4", "route"])?;
        let to_pods =
            |r: &&str| r.starts_with("10.244.") && r.contains(" via ") && r.contains("eth0");
        let Some(route) = routes.lines().find(to_pods) else {
            return Ok(());
        };
        let route: Vec<&str> = route.split_whitespace().collect();
        on(node, &[&["ip", "route", "del"], &route[..]].concat())?;
        let told = self
            .traffic
            .feel(1, false)
            .and_then(|()| self.is_told("never-arrived"));
        on(node, &[&["ip", "route", "add"], &route[..]].concat())?;
        told?;
        self.is_well()
    }
}

fn rolled_out(deployment: &str, namespace: &str) -> Result<()> {
    let what = format!("deployment/{deployment}");
    let status = [
        "rollout",
        "status",
        "--timeout=60s",
        "--namespace",
        namespace,
    ];
    kubectl(&[&status[..], &[&what]].concat()).map(drop)
}

fn target_port(port: &str) -> Result<()> {
    let patch = format!(r#"[{{"op":"replace","path":"/spec/ports/0/targetPort","value":{port}}}]"#);
    kubectl(&["patch", "service", "web", "--type=json", "-p", &patch]).map(drop)
}

fn on(node: &str, command: &[&str]) -> Result<String> {
    process::read(&mut xtask(&[&["exec", node, "--"], command].concat())?)
}
