//! Routes, overlays, MTU, and the way between nodes.

use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

pub(super) static MTU_BLACKHOLE: Code = Code {
    code: "mtu-blackhole",
    title: "Big packets vanish on the way",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "Connections are set up and small messages pass, but full-size packets disappear and the sender is not told \
              (or does not heed) the smaller MTU of the path. Transfers hang after the handshake. Typical of an overlay \
              whose header does not fit, with ICMP filtered.",
    looked_at: "Handshakes that succeed while full-size segments are retransmitted, sizes that do pass, ICMP \
                fragmentation-needed seen and PMTU learned, MTU of each link on the way.",
    check: &[
        CheckStep {
            text: "From the sender: the largest payload that passes unfragmented, plus 28 bytes of headers, is the path MTU (IPv4)",
            command: "ping -M do -c 3 -s {payload} {pod_ip}",
        },
        CheckStep {
            text: "MTU of each link, on both nodes; an overlay must be smaller than its underlay by its header",
            command: "ip -d link show",
        },
        CheckStep {
            text: "On the sender: what PMTU it has learned, if any",
            command: "ip route get {pod_ip}",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Let ICMP type 3 code 4 (ICMPv6 type 2) through every filter on the path",
            command: "",
            changes: Changes::Node,
        },
        FixStep {
            text: "Set the network plugin's MTU to what the smallest link carries, less its overlay header; Pods take it over when they are made anew",
            command: "",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["lost-beyond-node", "pmtu-learned", "firewall-drop"],
};

pub(super) static PMTU_LEARNED: Code = Code {
    code: "pmtu-learned",
    title: "A smaller path MTU was learned and used",
    severity: Severity::Info,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "A router said that packets were too big, and the sender made them smaller: path MTU discovery works. Each \
              new destination loses its first big packet to it.",
    looked_at: "ICMP fragmentation-needed (ICMPv6 packet-too-big) that quotes one of these connections, the size sent \
                afterwards.",
    check: &[CheckStep {
        text: "On the sender: the learned MTU and when it expires",
        command: "ip route get {pod_ip}",
    }],
    mitigate: &[FixStep {
        text: "Nothing is broken; with one MTU on all links (overlay header included) the loss at each start goes away",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &["mtu-blackhole"],
};

pub(super) static BACKEND_NODE_DOWN: Code = Code {
    code: "backend-node-down",
    title: "The backend's node is not Ready",
    severity: Severity::Critical,
    hop: Hop::Backend,
    family: Family::Route,
    meaning: "The packets left for a Pod on a node whose Ready condition is False or Unknown, and nothing came back. Its \
              kubelet has stopped reporting, or reports that the node cannot run Pods. Endpoints of such a node are \
              withdrawn only once the control plane has noticed; until then, and with publishNotReadyAddresses after it, \
              they still get connections.",
    looked_at: "The Ready condition of the node on which the chosen endpoint is placed, the packets that left for it, and \
                drops on this node. The node itself was not asked.",
    check: &[
        CheckStep {
            text: "Status and reasons of the node",
            command: "kubectl describe node {node}",
        },
        CheckStep {
            text: "What else runs there, and in what state",
            command: "kubectl get pods -A -o wide --field-selector spec.nodeName={node}",
        },
        CheckStep {
            text: "Whether another node reaches it at all",
            command: "ping -c3 $(kubectl get node {node} -o jsonpath='{.status.addresses[0].address}')",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Bring the node back: its machine, its kubelet, its network",
            command: "",
            changes: Changes::Node,
        },
        FixStep {
            text: "Meanwhile keep new Pods off it",
            command: "kubectl cordon {node}",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["lost-beyond-node", "overlay-peer-lost", "backend-gone"],
};

pub(super) static LOST_BEYOND_NODE: Code = Code {
    code: "lost-beyond-node",
    title: "Packets left this node and nothing came back",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "The packets were translated and left this node on an uplink; nothing here dropped them and no answer came \
              in. The cause is on the way or on the other node, which was not asked.",
    looked_at: "The packets at each interface of this node, drops here, answers on the uplink.",
    check: &[
        CheckStep {
            text: "Ask the agents of all nodes",
            command: "netflow explain --svc {ns}/{svc} --cluster",
        },
        CheckStep {
            text: "Without agents: ask the other node",
            command: "netflow explain --standalone --svc {ns}/{svc} --manifests OBJECTS.yaml --record {node}.nfr  # on {node}",
        },
        CheckStep {
            text: "Both recordings together are one path",
            command: "netflow explain --replay {here}.nfr {node}.nfr",
        },
        CheckStep {
            text: "Whether that node is well",
            command: "kubectl get node {node} -o wide",
        },
        CheckStep {
            text: "The network plugin's Pods on both nodes",
            command: "kubectl get pods -n kube-system -o wide",
        },
    ],
    mitigate: &[FixStep {
        text: "Run netflow on the other node too; the cause shows there",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &["never-arrived", "backend-gone", "mtu-blackhole"],
};

pub(super) static NEVER_ARRIVED: Code = Code {
    code: "never-arrived",
    title: "The client's packets never reached this node",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "Asked on the backend's node: attempts are known from the other side, but none of their packets came in on \
              this node. They were lost before it.",
    looked_at: "The attempts as the client's node saw them, and all interfaces of this node.",
    check: &[
        CheckStep {
            text: "Routes from the client's node to the Pod (on that node)",
            command: "ip route get {pod_ip}",
        },
        CheckStep {
            text: "Whether the network plugin runs on both nodes",
            command: "kubectl get pods -n kube-system -o wide",
        },
    ],
    mitigate: &[FixStep {
        text: "Look between the nodes: security groups, firewalls, routes for the Pod range, tunnel ports of the overlay",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &["lost-beyond-node", "firewall-drop"],
};

pub(super) static NO_ROUTE: Code = Code {
    code: "no-route",
    title: "No route to where the packets go",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "A node, a Pod's namespace or a router on the way has no route for the packet's destination, or one that says \
              unreachable, prohibit or blackhole. Typical of a Pod network whose routes were not announced or were removed \
              (network plugin down, cloud route table full), of answers whose way back nobody configured, and of a Pod \
              that was set up by halves: what it sends fails before there is a packet.",
    looked_at: "Packets that the kernel dropped for want of a route, the kernel's own answer for that address in that \
                namespace, ICMP network-unreachable from routers in between; of a Pod itself, the route lookups of its \
                sockets that fail (IPv4).",
    check: &[
        CheckStep {
            text: "On {here}: the kernel's answer for the address",
            command: "ip route get {to}",
        },
        CheckStep {
            text: "On {here}: routes that refuse",
            command: "(ip route show table all; ip -6 route show table all) | grep -E 'unreachable|blackhole|prohibit'",
        },
        CheckStep {
            text: "The Pod range of each node, for which every other one needs a route",
            command: "kubectl get nodes -o 'custom-columns=NAME:.metadata.name,CIDR:.spec.podCIDRs,IP:.status.addresses[0].address'",
        },
    ],
    mitigate: &[FixStep {
        text: "Let the network plugin write its routes again; its log says why it did not",
        command: "kubectl get pods -n kube-system -o wide --field-selector spec.nodeName={here}",
        changes: Changes::Nothing,
    }],
    confusable: &["backend-gone", "forwarding-disabled", "neighbor-failed"],
};

pub(super) static FORWARDING_DISABLED: Code = Code {
    code: "forwarding-disabled",
    title: "The node does not forward packets",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "The node drops what it should send on because forwarding is off, as a whole or on the interface where the \
              packet came in. Something reset the sysctl: a hardening script, a network manager, a reboot.",
    looked_at: "Packets that the kernel dropped for it, and the forwarding setting of that interface.",
    check: &[
        CheckStep {
            text: "On {here}: both must be 1 (IPv4: the interface decides, the first sets all of them)",
            command: "sysctl net.ipv4.ip_forward net/ipv4/conf/{dev}/forwarding net.ipv6.conf.all.forwarding",
        },
        CheckStep {
            text: "On {here}: which file sets it",
            command: "grep -rs forward /etc/sysctl.conf /etc/sysctl.d /run/sysctl.d /usr/lib/sysctl.d",
        },
    ],
    mitigate: &[FixStep {
        text: "Make the setting last, in a file that is read after the one that turns it off",
        command: "",
        changes: Changes::Node,
    }],
    confusable: &["no-route", "firewall-drop"],
};

pub(super) static NEIGHBOR_FAILED: Code = Code {
    code: "neighbor-failed",
    title: "The next hop does not answer ARP or ND",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "The packet has a route, but nobody answers for the link-layer address of the next hop: a gateway that is down, \
              a node that is off, a Pod whose interface is down or filters ARP. After about three seconds the client is told \
              host unreachable.",
    looked_at: "Packets that wait for a neighbour and are dropped, neighbour requests without answer, the neighbour table, \
                ICMP host-unreachable from routers in between.",
    check: &[
        CheckStep {
            text: "On {here}: FAILED or INCOMPLETE",
            command: "ip neigh show {to}",
        },
        CheckStep {
            text: "On {here}: whether it answers now",
            command: "arping -c 3 -I {dev} {to}",
        },
    ],
    mitigate: &[FixStep {
        text: "Look at the machine or Pod that should answer: is it up, does its interface have the address and a carrier",
        command: "",
        changes: Changes::Nothing,
    }],
    confusable: &["backend-gone", "neighbor-stale", "no-route"],
};

pub(super) static NEIGHBOR_STALE: Code = Code {
    code: "neighbor-stale",
    title: "Frames go to an old link-layer address",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "An address has moved to another interface or machine, and a neighbour cache (or a permanent entry that the \
              network plugin wrote) still has the old link-layer address. The frames are sent, and whoever gets them takes \
              them for another's.",
    looked_at: "Frames that arrive where the IP address is and are dropped as another station's, the node's neighbour \
                entries against the Pods' interfaces.",
    check: &[
        CheckStep {
            text: "On the sending node: the entry and its link-layer address",
            command: "ip neigh show {to}",
        },
        CheckStep {
            text: "In the namespace that holds the address: what it should be",
            command: "ip -br link",
        },
    ],
    mitigate: &[FixStep {
        text: "Delete the outdated entry, so that it is asked for again; a permanent one belongs to whoever wrote it",
        command: "ip neigh del {to} dev {dev}",
        changes: Changes::Node,
    }],
    confusable: &["neighbor-failed", "lost-beyond-node"],
};

pub(super) static ASYMMETRIC_RETURN: Code = Code {
    code: "asymmetric-return",
    title: "Packets come in where the route back does not lead",
    severity: Severity::Critical,
    hop: Hop::Return,
    family: Family::Route,
    meaning: "The way back is another one than the way there: packets arrive through an interface by which the node would not \
              answer their sender, and its reverse path filter drops them. Typical of nodes with several uplinks, of policy \
              routing, and of answers that leave by another node.",
    looked_at: "Packets that the reverse path filter dropped, its setting, and the node's route to their sender.",
    check: &[
        CheckStep {
            text: "On {here}: the interface by which it would answer",
            command: "ip route get {to}",
        },
        CheckStep {
            text: "On {here}: 1 is strict, 2 accepts any interface that has a route; the greater of both counts",
            command: "sysctl net.ipv4.conf.all.rp_filter net/ipv4/conf/{dev}/rp_filter",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Make both directions use one interface: the node's route to the sender, or the sender's way here",
            command: "",
            changes: Changes::Node,
        },
        FixStep {
            text: "Where two ways are meant, let the filter be loose on that interface",
            command: "sysctl -w net/ipv4/conf/{dev}/rp_filter=2",
            changes: Changes::Node,
        },
    ],
    confusable: &["lost-beyond-node", "firewall-drop", "no-route"],
};

pub(super) static BAD_CHECKSUM: Code = Code {
    code: "bad-checksum",
    title: "Packets arrive with a wrong checksum",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "The receiver's kernel throws the packets away because a checksum does not fit. Where it happens to all packets of \
              a path, a network card or driver computes the checksum of encapsulated packets wrongly, or something on the way \
              rewrites packets without correcting it.",
    looked_at: "Packets that the kernel dropped for a wrong checksum, error counters, tunnels of the node.",
    check: &[
        CheckStep {
            text: "On {here}: errors that rise",
            command: "nstat -az TcpInCsumErrors UdpInCsumErrors IcmpInCsumErrors",
        },
        CheckStep {
            text: "On both nodes: whether the card computes checksums (the uplink and the tunnel device)",
            command: "ethtool -k {dev}",
        },
    ],
    mitigate: &[FixStep {
        text: "As a test, turn the offload off on the sending node's tunnel device or uplink; if that heals it, update driver or firmware",
        command: "ethtool -K {dev} tx-checksum-ip-generic off",
        changes: Changes::Node,
    }],
    confusable: &["mtu-blackhole", "firewall-drop"],
};

pub(super) static PMTU_IGNORED: Code = Code {
    code: "pmtu-ignored",
    title: "A smaller path MTU was told and is not used",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "A router said that packets are too big, the message reached the sender's side, and full-size packets go on being \
              sent: a filter inside the sender's namespace throws ICMP away, or the message speaks of an address that the \
              sender never dialled because nobody translated it back; or a node learnt the MTU of its tunnel's path and does not \
              tell the Pod behind it.",
    looked_at: "ICMP fragmentation-needed (ICMPv6 packet-too-big) delivered to the sender, sizes sent afterwards, drops of the \
                message itself, the path MTU of the sender's socket.",
    check: &[
        CheckStep {
            text: "In the sender's namespace: the path MTU that it believes in",
            command: "ip route get {pod_ip}",
        },
        CheckStep {
            text: "In the sender's namespace: rules that drop ICMP",
            command: "nft list ruleset; iptables-save",
        },
        CheckStep {
            text: "The largest payload that passes unfragmented, plus 28 bytes of headers, is the path MTU (IPv4)",
            command: "ping -M do -c 3 -s {payload} {pod_ip}",
        },
    ],
    mitigate: &[FixStep {
        text: "Let ICMP type 3 code 4 (ICMPv6 type 2) through inside the sender's Pod as well; or give Pods the MTU of the smallest link",
        command: "",
        changes: Changes::Cluster,
    }],
    confusable: &["mtu-blackhole", "pmtu-learned"],
};

pub(super) static FRAGMENTATION: Code = Code {
    code: "fragmentation",
    title: "Packets are split on the way",
    severity: Severity::Warning,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "Packets bigger than a link are sent without the don't-fragment bit and travel in pieces. It works until a filter, \
              a load balancer or a busy receiver loses one piece; it costs time on every node that puts them together.",
    looked_at: "Fragments between the two ends of the connections, where they were first seen.",
    check: &[CheckStep {
        text: "On both nodes: fragments made and put together, and failures",
        command: "nstat -az IpFragCreates IpFragFails IpReasmOKs IpReasmFails",
    }],
    mitigate: &[FixStep {
        text: "Send smaller datagrams (DNS: EDNS buffer of 1232 bytes), or use TCP for what is bigger",
        command: "",
        changes: Changes::Cluster,
    }],
    confusable: &["mtu-blackhole", "pmtu-learned"],
};

pub(super) static OVERLAY_PEER_LOST: Code = Code {
    code: "overlay-peer-lost",
    title: "The tunnel to the other node brings nothing back",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "Packets for a Pod of another node go into the overlay's tunnel and leave this node inside tunnel packets, and \
              not one tunnel packet comes from that node: it is down, it does not know this node as a peer, or something \
              between them swallows the tunnel. Where nothing but this Service uses the tunnel, a drop on the other node looks \
              the same: ask that node, too.",
    looked_at: "The packets at the tunnel device, the tunnel's own packets to and from the other node at the uplink, what the \
                device says of its port and peers.",
    check: &[
        CheckStep {
            text: "On {here}: port, local address and peers of the tunnel",
            command: "ip -d link show {dev}; bridge fdb show dev {dev}; wg show {dev}",
        },
        CheckStep {
            text: "On the other node: whether tunnel packets arrive",
            command: "tcpdump -ni any {tunnel_packets}",
        },
        CheckStep {
            text: "The network plugin's Pods on both nodes",
            command: "kubectl get pods -n kube-system -o wide",
        },
    ],
    mitigate: &[FixStep {
        text: "Allow the tunnel's packets ({tunnel_packets}) between all nodes, both ways, in security groups and firewalls; see that both nodes know each other's address",
        command: "",
        changes: Changes::Node,
    }],
    confusable: &["tunnel-port-blocked", "lost-beyond-node", "mtu-blackhole"],
};

pub(super) static TUNNEL_PORT_BLOCKED: Code = Code {
    code: "tunnel-port-blocked",
    title: "A filter drops the overlay's tunnel packets",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "A node's own filter throws away the packets in which the overlay carries Pod traffic between nodes. Services with \
              endpoints on one node work, those across nodes do not.",
    looked_at: "Drops of the tunnel's packets between the two nodes, Pod packets at the tunnel device.",
    check: &[
        CheckStep {
            text: "On {here}: rules that drop it, with counters",
            command: "nft list ruleset | grep -n -B5 drop; iptables-save -c | grep -e DROP -e REJECT",
        },
        CheckStep {
            text: "On {here}: port of the tunnel",
            command: "ip -d link show {dev}; wg show {dev}",
        },
    ],
    mitigate: &[FixStep {
        text: "On {here}: accept {tunnel_packets} from the other nodes, in the table of whoever owns the rule",
        command: "",
        changes: Changes::Node,
    }],
    confusable: &["overlay-peer-lost", "firewall-drop"],
};

pub(super) static MTU_MISMATCH: Code = Code {
    code: "mtu-mismatch",
    title: "The overlay's MTU does not fit its underlay",
    severity: Severity::Critical,
    hop: Hop::Route,
    family: Family::Route,
    meaning: "A tunnel device takes packets which, with the tunnel's headers around them, are bigger than the link that carries \
              them. Full-size packets are split or lost, small ones pass.",
    looked_at: "MTU of the tunnel device and of the interface by which its packets leave, the overhead of the encapsulation, \
                full-size segments without acknowledgement.",
    check: &[CheckStep {
        text: "On {here}: the device's MTU must be smaller than the uplink's by the tunnel's header",
        command: "ip -d link show {dev}; ip route get {to}",
    }],
    mitigate: &[FixStep {
        text: "Lower the network plugin's MTU (or raise the uplink's, on all machines in between); Pods take it over when they are made anew",
        command: "",
        changes: Changes::Cluster,
    }],
    confusable: &["mtu-blackhole", "pmtu-ignored", "fragmentation"],
};
