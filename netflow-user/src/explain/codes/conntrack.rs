//! Conntrack and the translation that rests on it.

use super::{CheckStep, Code, Family, FixStep};
use crate::model::answer::{Changes, Hop, Severity};

const ENTRIES: CheckStep = CheckStep {
    text: "On the node: where conntrack sends these connections (source of the second tuple)",
    command: "conntrack -L -p {l4} --orig-dst {vip}",
};

const STATISTICS: CheckStep = CheckStep {
    text: "On the node: what conntrack could not do, per CPU (drop, insert_failed, early_drop, invalid)",
    command: "conntrack -S",
};

const FILL: CheckStep = CheckStep {
    text: "On the node: entries, and how many there may be",
    command: "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
};

const BRIDGE_NF: CheckStep = CheckStep {
    text: "On the node: 0 or missing (module br_netfilter not loaded) means that bridged packets pass no rules",
    command: "sysctl net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables",
};

const LARGER_TABLE: FixStep = FixStep {
    text: "Give the table more room: kube-proxy sets it by conntrack.maxPerCore and conntrack.min of its configuration",
    command: "kubectl edit configmap kube-proxy -n kube-system",
    changes: Changes::Cluster,
};

pub(super) static HAIRPIN: Code = Code {
    code: "hairpin",
    title: "A Pod does not reach itself through the Service",
    severity: Severity::Critical,
    hop: Hop::Snat,
    family: Family::Proxy,
    meaning: "The Service chose the very Pod that dialled it. The packet has to turn round on the node: the bridge must \
              send it back through the port that it came from (hairpin mode), and it needs another source address \
              (masquerade), since a host drops what comes in from its own address. One of the two is missing. Other \
              clients are served.",
    looked_at: "Connections with the same Pod at both ends: where they were dropped, through which interface they went \
                back and with which source; hairpin mode of the port.",
    check: &[
        CheckStep {
            text: "On the node: hairpin mode of every bridge port",
            command: "bridge -d link show | grep -B1 hairpin",
        },
        CheckStep {
            text: "On the node: the rules that masquerade a Pod which reaches itself",
            command: "(iptables-save -t nat; ip6tables-save -t nat; nft list ruleset) | grep -wF {pod_ip}",
        },
        ENTRIES,
    ],
    mitigate: &[
        FixStep {
            text: "Let the network plugin set hairpin mode (CNI bridge plugin: \"hairpinMode\": true); Pods take it over when they are made anew",
            command: "",
            changes: Changes::Node,
        },
        FixStep {
            text: "Let the Service proxy write its rules anew, which masquerade a Pod's connection to itself",
            command: "kubectl delete pod -n kube-system -l k8s-app=kube-proxy --field-selector spec.nodeName={client_node}",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["one-bad-endpoint", "reply-bypasses-nat", "firewall-drop"],
};

pub(super) static REPLY_BYPASSES_NAT: Code = Code {
    code: "reply-bypasses-nat",
    title: "The backend's answer is not translated back",
    severity: Severity::Critical,
    hop: Hop::Unnat,
    family: Family::Proxy,
    meaning: "The backend answers, and its answer reaches the client with the Pod's own address as source. The client \
              dialled the Service's address and knows no such connection: it resets it. Typical of client and backend \
              on one bridge whose packets do not pass the rules of the IP layer.",
    looked_at: "Answers as they are delivered to the client, the client's RST to an address that it never dialled, \
                bridge-nf-call-iptables, the bridge that both are on.",
    check: &[
        BRIDGE_NF,
        CheckStep {
            text: "On the node: conntrack never saw an answer ([UNREPLIED])",
            command: "conntrack -L -p {l4} --orig-dst {vip} | grep UNREPLIED",
        },
    ],
    mitigate: &[FixStep {
        text: "Let bridged packets pass the rules, now and after a restart (module br_netfilter, /etc/sysctl.d)",
        command: "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
        changes: Changes::Node,
    }],
    confusable: &["conntrack-invalid", "hairpin", "lost-beyond-node"],
};

pub(super) static CONNTRACK_STALE: Code = Code {
    code: "conntrack-stale",
    title: "Conntrack still sends to a backend that is gone",
    severity: Severity::Critical,
    hop: Hop::Dnat,
    family: Family::Proxy,
    meaning: "The rules are up to date, but a conntrack entry from before still translates this client's packets to an \
              address that is no endpoint any more. Rules are asked only for the first packet of a connection; a UDP client \
              that keeps its port keeps its entry alive with each datagram, and an open TCP connection stays where it \
              was. New connections are fine.",
    looked_at: "The conntrack entry and whether it stood before, the EndpointSlices since then, what the current rules \
                choose, packets to the old address.",
    check: &[
        ENTRIES,
        CheckStep {
            text: "The addresses that the Service stands for now",
            command: "kubectl get endpointslice -n {ns} -l kubernetes.io/service-name={svc} -o wide",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Remove this one entry; the client's next packet gets a new one by the current rules",
            command: "conntrack -D -p {l4} --orig-src {client_ip} --orig-port-src {client_port} --orig-dst {vip}",
            changes: Changes::Node,
        },
        FixStep {
            text: "Let the client open a new connection (restart its Pod)",
            command: "kubectl delete pod {client} -n {client_ns}",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["proxy-rules-stale", "backend-gone", "one-bad-endpoint"],
};

pub(super) static CONNTRACK_FULL: Code = Code {
    code: "conntrack-full",
    title: "The conntrack table is full",
    severity: Severity::Critical,
    hop: Hop::Vip,
    family: Family::Proxy,
    meaning: "Conntrack holds as many connections as it may, none of them can be thrown out early, and every packet that \
              would begin another is dropped. Established connections go on. It hits everything on the node that is new.",
    looked_at: "Drops where conntrack first sees a packet, without an entry and without a rule that would drop; entries \
                and limit of the table; conntrack's own count of such drops.",
    check: &[
        FILL,
        STATISTICS,
        CheckStep {
            text: "On the node: the kernel says it itself",
            command: "dmesg | grep 'nf_conntrack: .*table full'",
        },
    ],
    mitigate: &[
        LARGER_TABLE,
        FixStep {
            text: "See whose entries fill the table",
            command: r"conntrack -L | sed -nE 's/^([a-z]+) .* src=([^ ]+) .* src=.*/\1 \2/p' | sort | uniq -c | sort -rn | head",
            changes: Changes::Nothing,
        },
    ],
    confusable: &["firewall-drop", "conntrack-pressure"],
};

pub(super) static CONNTRACK_PRESSURE: Code = Code {
    code: "conntrack-pressure",
    title: "The conntrack table is nearly full",
    severity: Severity::Warning,
    hop: Hop::Vip,
    family: Family::Proxy,
    meaning: "More than nine of ten entries that conntrack may hold are in use. Nothing fails yet; when the table is full, \
              every new connection on the node is dropped.",
    looked_at: "Entries and limit of the table.",
    check: &[FILL, STATISTICS],
    mitigate: &[LARGER_TABLE],
    confusable: &["conntrack-full"],
};

pub(super) static CONNTRACK_CLASH: Code = Code {
    code: "conntrack-clash",
    title: "Conntrack entries of one connection clash",
    severity: Severity::Critical,
    hop: Hop::Snat,
    family: Family::Proxy,
    meaning: "Two packets began the same connection at once (a resolver that asks for A and AAAA from one socket), each got \
              an entry, and the second one could not be put into the table: that packet is dropped and its sender waits \
              for a timeout. As info: the kernel resolved such races, and nothing was lost.",
    looked_at: "Drops after all rules, of entries that are not confirmed; conntrack's insert_failed and clash_resolve.",
    check: &[STATISTICS],
    mitigate: &[FixStep {
        text: "For DNS: let each node answer from a local cache (NodeLocal DNSCache), or the resolver ask from two sockets (options single-request-reopen in the Pod's dnsConfig)",
        command: "",
        changes: Changes::Cluster,
    }],
    confusable: &["snat-ports-exhausted", "conntrack-full", "firewall-drop"],
};

pub(super) static CONNTRACK_INVALID: Code = Code {
    code: "conntrack-invalid",
    title: "Packets that conntrack calls INVALID are not translated",
    severity: Severity::Critical,
    hop: Hop::Unnat,
    family: Family::Proxy,
    meaning: "Within an open connection the backend sent a packet that conntrack does not place (outside of the window that \
              it expects, after loss or reordering). It is passed on untranslated, reaches the client as from an address \
              that it never dialled, and the client's RST cuts the connection at the backend.",
    looked_at: "Untranslated answers within translated connections, the client's RST to the backend's address, conntrack's \
                count of INVALID packets.",
    check: &[
        STATISTICS,
        CheckStep {
            text: "On the node: 0 means that conntrack judges sequence numbers strictly",
            command: "sysctl net.netfilter.nf_conntrack_tcp_be_liberal",
        },
        CheckStep {
            text: "On the node: whether the proxy drops INVALID packets, which keeps the connection",
            command: "iptables-save -t filter | grep INVALID; nft list ruleset | grep 'ct state invalid'",
        },
    ],
    mitigate: &[FixStep {
        text: "Let conntrack take packets outside of its window (kube-proxy: conntrack.tcpBeLiberal: true)",
        command: "sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1",
        changes: Changes::Node,
    }],
    confusable: &["reply-bypasses-nat", "one-bad-endpoint"],
};

pub(super) static SNAT_PORTS_EXHAUSTED: Code = Code {
    code: "snat-ports-exhausted",
    title: "No source port is left for masqueraded connections",
    severity: Severity::Critical,
    hop: Hop::Snat,
    family: Family::Proxy,
    meaning: "The connection is masqueraded, and every source port that the rule may choose is in use toward this very \
              destination. It gets a port that another connection holds, its entry cannot be inserted, and the packet \
              is dropped.",
    looked_at: "Drops after all rules, of entries with a new source that are not confirmed; who holds that source port \
                toward the destination; how many ports are in use.",
    check: &[
        STATISTICS,
        CheckStep {
            text: "On the node: source ports in use toward the backend",
            command: "conntrack -L -p {l4} --reply-src {pod_ip} | wc -l",
        },
        CheckStep {
            text: "On the node: the range that the rule or the kernel allows",
            command: "iptables-save -t nat | grep MASQUERADE; nft list ruleset | grep masquerade; sysctl net.ipv4.ip_local_port_range",
        },
    ],
    mitigate: &[
        FixStep {
            text: "Widen the range of ports of the masquerading rule, or let connections be reused (keep-alive, pools)",
            command: "",
            changes: Changes::Node,
        },
        FixStep {
            text: "Spread the load over more backends: each has a range of its own",
            command: "",
            changes: Changes::Cluster,
        },
    ],
    confusable: &["conntrack-clash", "conntrack-full", "firewall-drop"],
};

pub(super) static SOURCE_IP_MASQUERADED: Code = Code {
    code: "source-ip-masqueraded",
    title: "The backend does not see the client's address",
    severity: Severity::Info,
    hop: Hop::Snat,
    family: Family::Proxy,
    meaning: "The node replaced the client's address by its own, so that answers come back through it. Logs, rate limits and \
              NetworkPolicies of the backend see the node.",
    looked_at: "The source of the same connection before and after translation.",
    check: &[
        ENTRIES,
        CheckStep {
            text: "Cluster masquerades what comes from outside, Local keeps the client's address",
            command: "kubectl get svc {svc} -n {ns} -o jsonpath='{.spec.externalTrafficPolicy}'",
        },
    ],
    mitigate: &[FixStep {
        text: "Where the backend needs the address: externalTrafficPolicy: Local, with a backend on each node that gets traffic",
        command: "",
        changes: Changes::Cluster,
    }],
    confusable: &[],
};

pub(super) static PROXY_MODE: Code = Code {
    code: "proxy-mode",
    title: "How the node translates Services",
    severity: Severity::Info,
    hop: Hop::Dnat,
    family: Family::Proxy,
    meaning: "Which rule system on the client's node translates the Service's address, and what that costs: iptables walks \
              its rules one after the other for the first packet of a connection, nftables and IPVS look them up.",
    looked_at: "The rules of each system for the Service's addresses.",
    check: &[CheckStep {
        text: "What kube-proxy says of itself (on the node)",
        command: "curl -s localhost:10249/proxyMode",
    }],
    mitigate: &[],
    confusable: &[],
};
