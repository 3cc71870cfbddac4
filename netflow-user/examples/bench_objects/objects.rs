//! A big cluster, as the API has it: Deployments of some Pods, each behind two Services.

use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// Namespaces over which all is spread.
const NAMESPACES: u32 = 250;
/// Nodes on which the Pods are.
const NODES: u32 = 1_000;
/// Services that each Pod is behind, so that there are twice as many endpoints as Pods.
pub const SERVICES_OF_A_POD: u32 = 2;

/// How many there are.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Size {
    /// Pods
    #[arg(long, default_value_t = 50_000)]
    pub pods: u32,
    /// Services; each Pod is behind two
    #[arg(long, default_value_t = 5_000)]
    pub services: u32,
}

impl Size {
    fn deployments(self) -> u32 {
        (self.services / SERVICES_OF_A_POD).max(1)
    }

    /// Endpoints in all slices.
    pub fn endpoints(self) -> u32 {
        self.services()
            .map(|s| self.pods_behind(s).count() as u32)
            .sum()
    }

    fn services(self) -> impl Iterator<Item = u32> {
        0..self.services
    }

    fn pods_behind(self, service: u32) -> impl Iterator<Item = u32> {
        let first = service / SERVICES_OF_A_POD;
        (first..self.pods).step_by(self.deployments() as usize)
    }

    /// How many objects of a kind there are, as its path names it.
    pub fn count(self, kind: &str) -> u32 {
        match kind {
            "pods" => self.pods,
            "services" | "endpointslices" => self.services,
            "nodes" => NODES,
            "namespaces" => NAMESPACES,
            _ => 0,
        }
    }

    /// One of them.
    pub fn object(self, kind: &str, number: u32) -> Value {
        match kind {
            "pods" => self.pod(number, ""),
            "services" => service(number),
            "endpointslices" => self.slice(number),
            "nodes" => node(number),
            _ => namespace(number),
        }
    }

    /// A Pod with what its Ready condition says.
    pub fn pod(self, number: u32, message: &str) -> Value {
        let deployment = number % self.deployments();
        let set = replica_set(deployment);
        let status = if message.is_empty() { "True" } else { "False" };
        let condition = |kind: &str, status: &str, message: &str| {
            json!({"type": kind, "status": status, "lastProbeTime": null, "message": message,
                   "lastTransitionTime": "2026-11-30T08:00:05Z", "observedGeneration": 1})
        };
        let run = |name: &str| {
            json!({"name": name, "ready": true, "restartCount": 0, "started": true, "image": image(name),
                   "imageID": format!("{}@sha256:{:064x}", image(name), deployment),
                   "containerID": format!("containerd://{number:064x}"), "lastState": {},
                   "state": {"running": {"startedAt": "2026-11-30T08:00:04Z"}}})
        };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod_name(self, number), "generateName": format!("{set}-"), "namespace": namespace_of(deployment),
                "uid": format!("{number:08x}-70d8-4b52-9dd6-7b3d3f0c5a11"), "resourceVersion": "7",
                "creationTimestamp": "2026-11-30T08:00:00Z",
                "labels": {
                    "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": app(deployment),
                    "app.kubernetes.io/component": "server", "team": namespace_of(deployment),
                    "pod-template-hash": format!("{:010x}", u64::from(deployment) * 7_919)},
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "controller": true,
                    "blockOwnerDeletion": true, "uid": format!("{deployment:08x}-1f0a-4a6c-8d0e-5a9d6c2b7e44")}],
                "managedFields": [managed("kube-controller-manager", ""), managed("kubelet", "status")]},
            "spec": {
                "nodeName": node_name(number % NODES), "containers": [container("web", 8080), container("proxy", 9090)],
                "serviceAccountName": "default", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30, "securityContext": {},
                "volumes": [{"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
                "tolerations": [
                    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
            "status": {
                "phase": "Running", "podIP": pod_ip(number), "podIPs": [{"ip": pod_ip(number)}],
                "hostIP": node_ip(number % NODES), "startTime": "2026-11-30T08:00:00Z", "qosClass": "Burstable",
                "conditions": [
                    condition("PodReadyToStartContainers", "True", ""), condition("Initialized", "True", ""),
                    condition("Ready", status, message), condition("ContainersReady", "True", ""),
                    condition("PodScheduled", "True", "")],
                "containerStatuses": [run("web"), run("proxy")]}
        })
    }

    fn slice(self, number: u32) -> Value {
        let deployment = number / SERVICES_OF_A_POD;
        let endpoint = |pod: u32| {
            let node = pod % NODES;
            json!({"addresses": [pod_ip(pod)], "nodeName": node_name(node), "zone": zone(node),
                   "conditions": {"ready": true, "serving": true, "terminating": false},
                   "targetRef": {"kind": "Pod", "name": pod_name(self, pod), "namespace": namespace_of(deployment),
                                 "uid": format!("{pod:08x}-70d8-4b52-9dd6-7b3d3f0c5a11")}})
        };
        let endpoints: Vec<Value> = self.pods_behind(number).map(endpoint).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-x7k2p", service_name(number)), "namespace": namespace_of(deployment),
                "resourceVersion": "7", "creationTimestamp": "2026-11-30T08:00:00Z",
                "labels": {
                    "kubernetes.io/service-name": service_name(number), "app.kubernetes.io/name": "web",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "managedFields": [managed("kube-controller-manager", "")]},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "metrics", "port": 9090, "protocol": "TCP"}]
        })
    }
}

fn service(number: u32) -> Value {
    let deployment = number / SERVICES_OF_A_POD;
    let address = address([10, 96, 0, 0], number);
    let port = |name: &str, port: u16, target: &str| json!({"name": name, "protocol": "TCP", "port": port, "targetPort": target});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": service_name(number), "namespace": namespace_of(deployment), "resourceVersion": "7",
            "uid": format!("{number:08x}-2b11-4f7e-a9c0-3c1f8b1d9e02"), "creationTimestamp": "2026-11-30T08:00:00Z",
            "labels": {"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": app(deployment)},
            "managedFields": [managed("helm", "")]},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [port("http", 80, "http"), port("metrics", 9090, "metrics")],
            "selector": {"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": app(deployment)}},
        "status": {"loadBalancer": {}}
    })
}

fn node(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node_name(number), "resourceVersion": "7", "labels": {
            "kubernetes.io/hostname": node_name(number), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": zone(number), "topology.kubernetes.io/region": "region-1"}},
        "spec": {"podCIDRs": [format!("{}/26", address([10, 128, 0, 0], number * 64))]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": node_ip(number)}, {"type": "Hostname", "address": node_name(number)}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}
    })
}

fn namespace(number: u32) -> Value {
    let name = namespace_of(number);
    json!({"apiVersion": "v1", "kind": "Namespace",
           "metadata": {"name": name, "resourceVersion": "7", "labels": {"kubernetes.io/metadata.name": name}}})
}

fn container(name: &str, port: u16) -> Value {
    let probe = json!({"httpGet": {"path": "/healthz", "port": port, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1});
    let port_name = if name == "web" { "http" } else { "metrics" };
    json!({
        "name": name, "image": image(name), "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": port_name, "containerPort": port, "protocol": "TCP"}],
        "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": probe, "livenessProbe": probe,
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "volumeMounts": [{"name": "kube-api-access", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]
    })
}

/// Who wrote which fields, a good part of what the API sends.
fn managed(manager: &str, part: &str) -> Value {
    let field = |name: &str| {
        (
            format!("f:{name}"),
            json!({".": {}, "f:type": {}, "f:status": {}, "f:lastTransitionTime": {}}),
        )
    };
    let names = [
        "name",
        "image",
        "ports",
        "resources",
        "env",
        "readinessProbe",
        "volumeMounts",
        "conditions",
    ];
    let fields: serde_json::Map<String, Value> = names.into_iter().map(field).collect();
    json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-11-30T08:00:05Z",
           "fieldsType": "FieldsV1", "subresource": part, "fieldsV1": {"f:metadata": fields, "f:spec": fields}})
}

fn image(name: &str) -> String {
    format!("registry.example/shop/{name}:1.27.3")
}

fn app(deployment: u32) -> String {
    format!("web-{deployment}")
}

fn replica_set(deployment: u32) -> String {
    format!("web-{deployment}-{:010x}", u64::from(deployment) * 7_919)
}

fn pod_name(size: Size, number: u32) -> String {
    format!("{}-{number:05x}", replica_set(number % size.deployments()))
}

fn service_name(number: u32) -> String {
    let suffix = if number.is_multiple_of(SERVICES_OF_A_POD) {
        ""
    } else {
        "-internal"
    };
    format!("web-{}{suffix}", number / SERVICES_OF_A_POD)
}

fn namespace_of(deployment: u32) -> String {
    format!("team-{}", deployment % NAMESPACES)
}

fn node_name(number: u32) -> String {
    format!("worker-{number}.region-1.example")
}

fn zone(node: u32) -> String {
    format!("zone-{}", node % 3)
}

fn address(network: [u8; 4], number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::from(network).to_bits() + number + 1)
}

/// Address of a Pod.
pub fn pod_ip(number: u32) -> Ipv4Addr {
    address([10, 128, 0, 0], number)
}

fn node_ip(number: u32) -> Ipv4Addr {
    address([172, 16, 0, 0], number)
}
