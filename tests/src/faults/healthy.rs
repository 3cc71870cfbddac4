//! Labs that work: plain, noisy, and with things that look like a fault but are none.

use super::policy::{Denial, denying};
use super::{At, Expect, Fault, Form, Vantage, service};
use crate::lab::plan::{Placement, Plan};
use crate::manifests::make_unready;
use crate::proxy::Mode;
use crate::traffic::{Dial, Listen, Outcome};
use crate::world::{Deed, Filter, Hook, Lost, Party, Spot, World};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use std::net::{IpAddr, SocketAddr};

pub(super) const ALL: &[&dyn Fault] = &[
    &Healthy(Kind::Plain),
    &Healthy(Kind::Bulk),
    &Healthy(Kind::Noisy),
    &Healthy(Kind::Rollout),
    &Healthy(Kind::OwnRollout),
    &Healthy(Kind::PolicyUnenforced),
    &Healthy(Kind::PolicyAdmits),
    &Healthy(Kind::UnrelatedDrop),
    &Healthy(Kind::UndeclaredPort),
    &Healthy(Kind::NamedPort),
    &Healthy(Kind::OneUnready),
    &Healthy(Kind::OtherPodGone),
    &Healthy(Kind::SidecarOnLoopback),
    &Healthy(Kind::SmallOnNarrowPath),
    &Healthy(Kind::OtherNodeCutOff),
];

/// What there is besides the working Service.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Bulk,
    Noisy,
    Rollout,
    OwnRollout,
    PolicyUnenforced,
    PolicyAdmits,
    UnrelatedDrop,
    UndeclaredPort,
    NamedPort,
    OneUnready,
    OtherPodGone,
    SidecarOnLoopback,
    SmallOnNarrowPath,
    OtherNodeCutOff,
}

struct Healthy(Kind);

impl Fault for Healthy {
    fn name(&self) -> &'static str {
        match self.0 {
            Kind::Plain => "healthy",
            Kind::Bulk => "healthy-bulk",
            Kind::Noisy => "healthy-noisy",
            Kind::Rollout => "healthy-rollout",
            Kind::OwnRollout => "healthy-own-rollout",
            Kind::PolicyUnenforced => "near-policy-unenforced",
            Kind::PolicyAdmits => "near-policy-admits",
            Kind::UnrelatedDrop => "near-unrelated-drop",
            Kind::UndeclaredPort => "near-undeclared-port",
            Kind::NamedPort => "near-named-port",
            Kind::OneUnready => "near-one-unready",
            Kind::OtherPodGone => "near-other-pod-gone",
            Kind::SidecarOnLoopback => "near-sidecar-on-loopback",
            Kind::SmallOnNarrowPath => "near-small-on-narrow-path",
            Kind::OtherNodeCutOff => "near-other-node-cut-off",
        }
    }

    fn breaks(&self) -> &'static str {
        match self.0 {
            Kind::Plain => "nothing",
            Kind::Bulk => "nothing: connections that transfer all the time",
            Kind::Noisy => {
                "nothing: a port scan, probes that fail elsewhere, and another Service that fails"
            }
            Kind::Rollout => "nothing: another workload is rolled out meanwhile",
            Kind::OwnRollout => {
                "nothing: one of the Service's own Pods shuts down meanwhile and leaves the slice"
            }
            Kind::PolicyUnenforced => {
                "nothing: a NetworkPolicy denies the client, nobody enforces it"
            }
            Kind::PolicyAdmits => {
                "nothing: an enforced NetworkPolicy admits the client by label and port"
            }
            Kind::UnrelatedDrop => {
                "nothing: a firewall rule drops another connection of the same client"
            }
            Kind::UndeclaredPort => {
                "nothing: the Pods listen on a targetPort that they do not declare"
            }
            Kind::NamedPort => "nothing: targetPort is a name that the Pods' containers have",
            Kind::OneUnready => "nothing: one of the Pods is not Ready and gets no traffic",
            Kind::OtherPodGone => {
                "nothing: a Pod of another workload is gone, and something still dials it"
            }
            Kind::SidecarOnLoopback => "nothing: a sidecar listens on loopback only",
            Kind::SmallOnNarrowPath => {
                "nothing: a narrow path that says nothing, and only small transfers"
            }
            Kind::OtherNodeCutOff => "nothing that matters: the other node's Pods are cut off",
        }
    }

    fn inflict(&self, plan: &Plan, world: &mut World) -> Result<()> {
        match self.0 {
            Kind::Plain => {}
            Kind::Bulk => transfer_on(world),
            Kind::Noisy => noisy(plan, world),
            Kind::Rollout => {
                // The rollout itself happens while netflow looks.
                world
                    .noise
                    .push((Party::Node(plan.spare.node), probe(plan.spare.ip, 8080)));
            }
            // Nobody dials a Pod's own address while it shuts down; the rollout itself happens while netflow looks.
            Kind::OwnRollout => {
                world.via_pod.remove(0);
            }
            Kind::PolicyUnenforced => {
                world.enforced = false;
                world.objects.policies.push(denying(plan, Denial::All)?);
            }
            Kind::PolicyAdmits => admit(plan, world)?,
            Kind::UnrelatedDrop => unrelated_drop(plan, world),
            Kind::UndeclaredPort => {
                for pod in &plan.backends {
                    let spec = world
                        .objects
                        .pod_mut(pod)?
                        .spec
                        .as_mut()
                        .context("no spec")?;
                    spec.containers[0].ports = None;
                }
            }
            Kind::NamedPort => service::by_name(plan, world, service::DECLARED)?,
            Kind::OneUnready => {
                make_unready(
                    world.objects.pod_mut(&plan.backends[0])?,
                    "ContainersNotReady",
                    "",
                );
                world.objects.reconcile();
                world.listen(&plan.backends[0], Vec::new());
                world.via_pod.remove(0);
            }
            Kind::OtherPodGone => {
                world.gone.push(plan.spare.ip);
                let dial = Dial::tcp(SocketAddr::new(plan.spare.ip, plan.port().target));
                world.noise.push((Party::Client, dial));
            }
            Kind::SidecarOnLoopback => {
                for pod in &plan.backends {
                    let listens = world.listens.entry(pod.ip).or_default();
                    listens.push(Listen::loopback("tcp", 15_000));
                }
            }
            Kind::SmallOnNarrowPath => {
                world.between.path_mtu = Some(plan.small_mtu);
                world.between.mute = true;
            }
            Kind::OtherNodeCutOff => world.between.lost = Some(Lost::Node(1)),
        }
        Ok(())
    }

    fn expect(&self, at: At) -> Expect {
        match (at.form, at.vantage) {
            (Form::Idle, _) | (_, Vantage::Backend) => Expect::unharmed(),
            _ => Expect::healthy(),
        }
    }

    fn client_sees(&self, _plan: &Plan, _mode: Mode) -> Vec<Outcome> {
        vec![Outcome::Ok]
    }

    fn placements(&self) -> &'static [Placement] {
        match self.0 {
            Kind::SmallOnNarrowPath => &[Placement::Cross],
            Kind::OtherNodeCutOff => &[Placement::Same],
            _ => &Placement::ALL,
        }
    }

    fn forms(&self) -> &'static [Form] {
        match self.0 {
            Kind::Plain => &[Form::Fresh, Form::Retrying, Form::VipOnly, Form::Idle],
            _ => &Form::WITH_TRAFFIC,
        }
    }

    fn is_node_wide(&self) -> bool {
        // The second Service is part of the noise, or unreachable in part.
        matches!(self.0, Kind::Noisy | Kind::OtherNodeCutOff)
    }

    fn meanwhile(&self, plan: &Plan, world: &mut World) -> bool {
        let leaves = match self.0 {
            Kind::Rollout => &plan.spare,
            Kind::OwnRollout => &plan.backends[0],
            _ => return false,
        };
        let is_it = |p: &Pod| {
            let meta = &p.metadata;
            (meta.namespace.as_ref(), meta.name.as_ref())
                == (Some(&leaves.namespace), Some(&leaves.name))
        };
        world.objects.pods.retain(|p| !is_it(p));
        if self.0 == Kind::OwnRollout {
            world.objects.reconcile();
            world.listen(leaves, Vec::new());
        } else {
            world.gone.push(leaves.ip);
        }
        true
    }
}

/// Some connections that never pause.
pub(super) fn transfer_on(world: &mut World) {
    for dial in world.via_vip.iter_mut().chain(&mut world.via_pod) {
        *dial = Dial {
            count: 4,
            send: 200_000,
            hold: Some(10),
            ..dial.clone()
        };
    }
}

/// A probe as a kubelet makes it: a connection every second that is closed at once.
fn probe(ip: IpAddr, port: u16) -> Dial {
    Dial {
        interval: 1000,
        send: 4,
        receive: 0,
        ..Dial::tcp(SocketAddr::new(ip, port))
    }
}

fn noisy(plan: &Plan, world: &mut World) {
    let (backend, node) = (&plan.backends[0], plan.backend_node());
    world.noise = vec![
        (Party::Node(node), probe(backend.ip, plan.port().target)),
        (Party::Node(node), probe(plan.spare.ip, 8080)),
        (
            Party::Outside,
            Dial {
                sweep: 200,
                count: 200,
                interval: 20,
                ..Dial::tcp(SocketAddr::new(plan.spare.ip, 8000))
            },
        ),
        (
            Party::Outside,
            Dial {
                sweep: 200,
                count: 200,
                interval: 20,
                ..Dial::tcp(SocketAddr::new(plan.nodes[node].ip, 1))
            },
        ),
        (
            Party::Client,
            Dial::tcp(SocketAddr::new(plan.second.vip, plan.second.ports[0].port)),
        ),
    ];
    for pod in &plan.seconds {
        world.listen(pod, Vec::new());
    }
}

fn admit(plan: &Plan, world: &mut World) -> Result<()> {
    let mut policy = denying(plan, Denial::Label)?;
    let (key, value) = &plan.client.label;
    let spec = policy.spec.as_mut().context("no spec")?;
    for peer in spec
        .ingress
        .iter_mut()
        .flatten()
        .flat_map(|r| r.from.iter_mut().flatten())
    {
        let selector = peer.pod_selector.get_or_insert_default();
        selector.match_labels = Some([(key.clone(), value.clone())].into());
    }
    world.objects.policies.push(policy);
    Ok(())
}

fn unrelated_drop(plan: &Plan, world: &mut World) {
    let port = plan.port().target;
    world.filters.push(Filter {
        spot: Spot::Node(0),
        hook: Hook::Forward,
        proto: "tcp",
        dst: plan.spare.ip,
        dport: port,
        deed: Deed::Drop,
    });
    let dial = Dial::tcp(SocketAddr::new(plan.spare.ip, port));
    world.noise.push((Party::Client, dial));
}
