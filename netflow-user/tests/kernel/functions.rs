//! What the programs on functions tell: each cause is made in namespaces of the test's own, and its record looked for.
//!
//! A kernel without kprobes cannot run them; there it is asked for that it says so.

use super::{BACKEND, Netns, PATIENCE, Routed, Seen, VIP, from_port, nat_of, to_port};
use netflow_user::kernel::{Kernel, Options, tiers};
use netflow_user::model::capability::Capability;
use netflow_user::model::record::{
    Drop, Event, NfFamily, NfHook, Record, Rejection, Rules, Verdict,
};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{Backlog, listen};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Starts with kprobes; `None` where there are none, which each capability that wants them then says.
fn start() -> Option<Kernel> {
    let kernel = Kernel::start(Options::default()).unwrap();
    if tiers::kernel_has_kprobes() {
        return Some(kernel);
    }
    let nat = &kernel.tiers()[1];
    assert_eq!(nat.capability, Capability::Nat);
    assert_eq!(nat.reasons, ["kprobe: this kernel has no kprobes"]);
    None
}

/// Major and minor version of the running kernel.
fn release() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = text.split(['.', '-']).map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

/// Module types are described since 5.11: what needs them is said to be missing before.
fn has_module_types() -> bool {
    release() >= (5, 11)
}

#[test]
fn the_best_tiers() {
    let node = Netns::new();
    node.inside(|| {
        let Some(kernel) = start() else { return };
        for status in kernel.tiers() {
            match status.capability {
                Capability::Nat | Capability::CtEvents | Capability::Mtu => {
                    assert!(status.best, "{status:?}");
                }
                _ if has_module_types() && release() >= (6, 6) => {
                    assert!(status.best, "{status:?}");
                }
                _ => assert!(status.best || !status.reasons.is_empty(), "{status:?}"),
            }
        }
        drop(kernel);
        let kernel = Kernel::start(Options {
            without_kprobes: true,
            ..Options::default()
        })
        .unwrap();
        let nat = &kernel.tiers()[1];
        assert_eq!(nat.tier.as_deref(), Some("tp_btf:net_dev_start_xmit"));
    });
}

/// A second dropped packet of a kind names the rules: the first has made netflow listen.
fn verdict_on(
    lab: &Routed,
    seen: &mut Seen,
    kernel: &mut Kernel,
    to: &str,
    port: u16,
) -> (Drop, Verdict) {
    assert!(!lab.connect(to));
    let dropped = |r: &Record| matches!(r.event, Event::Drop(_)) && to_port(r, port);
    seen.record(kernel, "a first drop", dropped);
    assert!(!lab.connect(to));
    let record = seen.record(kernel, "a drop with its rules", |r| {
        matches!(&r.event, Event::Drop(d) if d.verdict.as_ref().is_some_and(|v| v.rules.is_some()))
            && to_port(r, port)
    });
    let Event::Drop(drop) = record.event else {
        unreachable!()
    };
    let verdict = drop.verdict.clone().unwrap();
    (*drop, verdict)
}

#[test]
fn a_drop_names_its_rules() {
    for iptables in ["iptables-legacy", "iptables-nft"] {
        let lab = Routed::new(iptables);
        lab.node.inside(|| {
            let Some(mut kernel) = start() else { return };
            if !has_module_types() {
                return;
            }
            lab.node.run(
                iptables,
                "-A FORWARD -p tcp --dport 8083 -j REJECT --reject-with tcp-reset",
            );
            let mut seen = Seen::default();
            let vip = format!("{VIP}:81");
            let (drop, verdict) = verdict_on(&lab, &mut seen, &mut kernel, &vip, 8081);
            assert_eq!(drop.hook, Some(NfHook::Forward));
            assert_eq!(verdict.family, Some(NfFamily::Ip));
            assert!(verdict.input != 0 && verdict.output != 0 && verdict.input != verdict.output);
            assert_eq!(verdict.reject, None);
            let rules = match iptables {
                "iptables-legacy" => Rules::Iptables {
                    table: "filter".to_owned(),
                },
                _ => Rules::Nftables {
                    family: Some(NfFamily::Ip),
                    table: "filter".to_owned(),
                    chain: "FORWARD".to_owned(),
                },
            };
            assert_eq!(verdict.rules.as_ref(), Some(&rules), "{iptables}");
            for (port, reject) in [
                (8082, Rejection::Unreachable { code: 3 }),
                (8083, Rejection::Reset),
            ] {
                let to = format!("{BACKEND}:{port}");
                let (_, verdict) = verdict_on(&lab, &mut seen, &mut kernel, &to, port);
                assert_eq!(verdict.reject, Some(reject), "{iptables}");
                assert_eq!(verdict.rules.as_ref(), Some(&rules), "{iptables}");
            }
            assert_eq!(seen.lost.get("garbled"), None);
        });
    }
}

/// What netfilter itself drops, at a hook after the rules, is not laid to the rules that were asked last.
#[test]
fn what_conntrack_drops_is_no_rules_doing() {
    let lab = Routed::new("iptables-legacy");
    // One port for all: a second connection to the same place cannot have a reply tuple of its own.
    lab.node.run(
        "iptables-legacy",
        &format!(
            "-t nat -A POSTROUTING -p tcp -d {BACKEND} --dport 8080 -j SNAT --to 10.92.2.1:5000"
        ),
    );
    lab.node.inside(|| {
        let Some(mut kernel) = start() else { return };
        let listener = lab.backend.inside(|| TcpListener::bind((BACKEND, 8080)).unwrap());
        let vip = format!("{VIP}:80").parse().unwrap();
        let first = lab.client.inside(|| TcpStream::connect_timeout(&vip, Duration::from_secs(3)).unwrap());
        assert!(!lab.connect(&format!("{VIP}:80")));
        let mut seen = Seen::default();
        let failed = seen.record(&mut kernel, "the failed insertion", |r| {
            matches!(r.event, Event::CtInsertFailed { .. })
        });
        let Event::CtInsertFailed { ct, clash } = failed.event else {
            unreachable!()
        };
        assert!(clash && ct.is_dnat() && ct.is_snat(), "{ct:?}");
        assert_eq!(ct.orig.dst.to_string(), VIP);
        assert_eq!(failed.netns, kernel.own_netns().inum);
        seen.record(&mut kernel, "its packet's drop", |r| {
            matches!(r.event, Event::Drop(_)) && to_port(r, 8080)
        });
        assert!(!lab.connect(&format!("{VIP}:80")));
        let drop = seen.record(&mut kernel, "the next packet's drop", |r| {
            matches!(&r.event, Event::Drop(d) if d.verdict.as_ref().is_some_and(|v| v.family.is_some()))
                && to_port(r, 8080)
        });
        let Event::Drop(drop) = drop.event else {
            unreachable!()
        };
        assert_eq!(drop.hook, Some(NfHook::Postrouting));
        assert_eq!(drop.verdict.unwrap().rules, None);
        drop_all(first, listener);
    });
}

fn drop_all<A, B>(_: A, _: B) {}

/// One record for each translation, whoever tells it.
#[test]
fn a_translation_is_told_once() {
    for without_kprobes in [false, true] {
        let lab = Routed::new("iptables-legacy");
        lab.node.inside(|| {
            let mut kernel = Kernel::start(Options {
                without_kprobes,
                ..Options::default()
            })
            .unwrap();
            lab.traffic();
            let mut seen = Seen::default();
            nat_of(&mut seen, &mut kernel);
            // The ring keeps its order: what was to come before this is there with it.
            assert!(!lab.connect(&format!("{BACKEND}:8083")));
            seen.record(&mut kernel, "the refusal after it", |r| {
                matches!(r.event, Event::Rst(_)) && from_port(r, 8083)
            });
            let told = seen
                .records
                .iter()
                .filter(|r| matches!(&r.event, Event::Nat { ct, .. } if ct.orig.dport == 80))
                .count();
            assert_eq!(told, 1, "without kprobes: {without_kprobes}");
        });
    }
}

#[test]
fn an_entry_ends() {
    let lab = Routed::new("iptables-legacy");
    lab.node.inside(|| {
        let Some(mut kernel) = start() else { return };
        lab.traffic();
        let mut seen = Seen::default();
        nat_of(&mut seen, &mut kernel);
        lab.node.run("conntrack", "-F");
        let end = seen.record(
            &mut kernel,
            "the end of the entry",
            |r| matches!(&r.event, Event::CtEnd { ct, .. } if ct.orig.dport == 80),
        );
        let Event::CtEnd { ct, evicted } = end.event else {
            unreachable!()
        };
        assert!(ct.is_dnat() && !evicted);
        assert_eq!(seen.lost.get("kprobe:return-missed"), None);
    });
}

/// The limit can be set in the first network namespace only, for all: a machine that others use is not for this.
#[test]
fn a_full_table() {
    const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    let lab = Routed::new("iptables-legacy");
    // Entries that may be evicted are those without a reply.
    let listener = lab
        .backend
        .inside(|| TcpListener::bind((BACKEND, 8080)).unwrap());
    lab.node.inside(|| {
        let Some(mut kernel) = start() else { return };
        let vip = format!("{VIP}:80").parse().unwrap();
        let open = || TcpStream::connect_timeout(&vip, Duration::from_millis(600));
        let kept: Vec<_> = (0..3).map(|_| lab.client.inside(open)).collect();
        let before =
            std::thread::spawn(|| first_namespace(|| std::fs::read_to_string(MAX).unwrap()))
                .join()
                .unwrap();
        let set = |value: String| {
            std::thread::spawn(move || first_namespace(|| std::fs::write(MAX, value).unwrap()))
                .join()
                .unwrap();
        };
        set("2".to_owned());
        let refused = lab.client.inside(open);
        set(before);
        assert!(refused.is_err());
        let mut seen = Seen::default();
        let full = seen.record(&mut kernel, "the full table", |r| r.event == Event::CtFull);
        let tuple = full.tuple.unwrap();
        assert_eq!(tuple.destination().to_string(), format!("{VIP}:80"));
        assert_eq!(full.netns, kernel.own_netns().inum);
        drop_all(kept, &listener);
    });
}

/// In the namespace of the machine's first process.
fn first_namespace<T>(body: impl FnOnce() -> T) -> T {
    let first = std::fs::File::open("/proc/1/ns/net").unwrap();
    setns(first, CloneFlags::CLONE_NEWNET).unwrap();
    body()
}

#[test]
fn a_path_mtu_is_told_received_and_learnt() {
    let lab = Routed::new("iptables-legacy");
    lab.node.ip("link set to-b mtu 1400");
    let client = lab.client.id();
    let listener = lab
        .backend
        .inside(|| TcpListener::bind((BACKEND, 8080)).unwrap());
    lab.node.inside(|| {
        let Some(mut kernel) = start() else { return };
        kernel.watch_netns(&[client]).unwrap();
        let to = format!("{BACKEND}:8080").parse().unwrap();
        lab.client.inside(|| {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3)).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut all = vec![0; 20_000];
            stream.write_all(&all).unwrap();
            accepted.read_exact(&mut all).unwrap();
        });
        let mut seen = Seen::default();
        let sent = seen.record(&mut kernel, "the message that is sent", |r| {
            matches!(
                r.event,
                Event::IcmpSent {
                    icmp_type: 3,
                    code: 4,
                    ..
                }
            )
        });
        assert!(
            matches!(sent.event, Event::IcmpSent { mtu: 1400, .. }),
            "{sent:?}"
        );
        let got = seen.record(&mut kernel, "the message that is received", |r| {
            matches!(r.event, Event::PmtuReceived { .. })
        });
        let Event::PmtuReceived {
            mtu,
            quoted,
            socket,
        } = got.event
        else {
            unreachable!()
        };
        assert_eq!((mtu, socket, got.netns), (1400, true, client.inum));
        assert_eq!(quoted.unwrap().destination(), to);
        let learnt = seen.record(&mut kernel, "what is learnt", |r| {
            matches!(r.event, Event::PmtuLearned { .. })
        });
        assert_eq!(learnt.netns, client.inum);
        let backend: IpAddr = BACKEND.parse().unwrap();
        assert_eq!(
            learnt.event,
            Event::PmtuLearned {
                dst: backend,
                mtu: 1400,
                link_mtu: 1500
            }
        );
        assert!(learnt.ifindex != 0);
        drop_all(&listener, ());
    });
}

#[test]
fn a_packet_is_cut() {
    let lab = Routed::new("iptables-legacy");
    let client = lab.client.id();
    lab.node.inside(|| {
        let Some(mut kernel) = start() else { return };
        kernel.watch_netns(&[client]).unwrap();
        lab.client.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(&[0; 3000], (BACKEND, 5400)).unwrap();
        });
        let mut seen = Seen::default();
        let cut = seen.record(&mut kernel, "the fragmentation", |r| {
            matches!(r.event, Event::Fragmented { .. }) && to_port(r, 5400)
        });
        assert_eq!(
            cut.event,
            Event::Fragmented {
                len: 3028,
                link_mtu: 1500
            }
        );
        assert_eq!(cut.netns, client.inum);
    });
}

#[test]
fn a_listener_is_overrun() {
    let lab = Routed::new("iptables-legacy");
    let pod = lab.backend.id();
    lab.node.inside(|| {
        let Some(mut kernel) = start() else { return };
        kernel.watch_netns(&[pod]).unwrap();
        let listener = lab
            .backend
            .inside(|| TcpListener::bind((BACKEND, 8080)).unwrap());
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let to: std::net::SocketAddr = format!("{BACKEND}:8080").parse().unwrap();
        let open = || TcpStream::connect_timeout(&to, Duration::from_millis(300));
        let kept: Vec<_> = (0..4).map(|_| lab.client.inside(open)).collect();
        let mut seen = Seen::default();
        let full = seen.record(&mut kernel, "the overflow", |r| {
            matches!(r.event, Event::ListenOverflow { .. })
        });
        assert_eq!(full.tuple.unwrap().destination(), to);
        assert_eq!(full.netns, pod.inum);
        assert_eq!(
            full.event,
            Event::ListenOverflow {
                backlog: 1,
                limit: 0
            }
        );
        drop_all(kept, listener);
    });
}
