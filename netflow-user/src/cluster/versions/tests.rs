use super::*;
use std::net::IpAddr;

/// All but Pods of the namespace `far`.
struct Near;

impl Wanted for Near {
    fn service(&self, _: &Service) -> bool {
        true
    }
    fn slice(&self, _: &EndpointSlice) -> bool {
        true
    }
    fn pod(&self, pod: &Pod) -> bool {
        pod.namespace != "far"
    }
    fn node(&self, _: &Node) -> bool {
        true
    }
}

fn pod(namespace: &str, name: &str, last: u8) -> Pod {
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        ips: vec![IpAddr::from([10, 1, 1, last])],
        ..Pod::default()
    }
}

fn version(at: u64, pods: &[Pod]) -> Objects {
    Objects {
        time: Time(at),
        pods: pods.to_vec().into(),
        ..Objects::default()
    }
}

/// What was learned, one after the other, and the latest.
fn learned(limit: usize, all: &[Objects]) -> (Versions, Objects) {
    let mut versions = Versions::new(all[0].time, limit);
    for pair in all.windows(2) {
        versions.replace(&pair[0], &pair[1]);
    }
    (versions, all[all.len() - 1].clone())
}

/// Time and names of Pods of each.
fn shown(all: &[Objects]) -> Vec<(u64, String)> {
    let names = |o: &Objects| o.pods.iter().map(|p| p.name.as_str()).collect();
    all.iter().map(|o| (o.time.0, names(o))).collect()
}

fn named(all: &[(u64, &str)]) -> Vec<(u64, String)> {
    all.iter().map(|(t, n)| (*t, (*n).to_owned())).collect()
}

#[test]
fn what_was_replaced_is_known_with_its_time() {
    let (a, b, c) = (pod("app", "a", 1), pod("app", "b", 2), pod("app", "c", 1));
    let all = [
        version(10, &[b.clone(), a.clone()]),
        version(20, std::slice::from_ref(&b)),
        version(30, &[c.clone(), b.clone()]),
        version(40, &[c]),
    ];
    let (versions, latest) = learned(1 << 20, &all);
    let before = |from| shown(&versions.before(&latest, Time(from), &Near));
    assert_eq!(before(5), named(&[(10, "ab"), (20, "b"), (30, "bc")]));
    assert_eq!(before(25), named(&[(25, "b"), (30, "bc")]));
    assert_eq!(before(30), named(&[(30, "bc")]));
    assert_eq!(before(40), [], "the latest is in force since then");
}

#[test]
fn an_object_has_the_form_of_its_time() {
    let (old, mut new) = (pod("app", "a", 1), pod("app", "a", 1));
    new.phase = "Running".into();
    let all = [version(10, std::slice::from_ref(&old)), version(20, &[new])];
    let (versions, latest) = learned(1 << 20, &all);
    assert_eq!(
        versions.before(&latest, Time(15), &Near)[0].pods,
        vec![old].into()
    );
}

#[test]
fn what_nobody_asked_for_makes_no_version() {
    let near = [pod("app", "a", 1), pod("app", "b", 2)];
    let far = |n: u8| pod("far", "x", n);
    let all = [
        version(10, &[near[0].clone(), far(1)]),
        version(20, &[near[0].clone(), far(2)]),
        version(30, &[near[0].clone(), near[1].clone(), far(2)]),
        version(40, &[near[0].clone(), near[1].clone(), far(3)]),
    ];
    let (versions, latest) = learned(1 << 20, &all);
    let before = shown(&versions.before(&latest, Time(5), &Near));
    assert_eq!(before, named(&[(10, "a"), (30, "ab")]));
}

#[test]
fn it_is_bounded_and_says_from_when_on_it_knows() {
    let of = |n: u64| version(n, &[pod("app", &format!("p{n}"), 1)]);
    let all: Vec<Objects> = (0..1_000).map(of).collect();
    let (versions, latest) = learned(10_000, &all);
    assert!(versions.bytes() <= 10_000 && versions.bytes() > 8_000);
    let since = versions.since();
    assert!(since > Time(900), "{since:?}");
    let before = versions.before(&latest, Time(0), &Near);
    assert_eq!(before[0].time, since);
    assert_eq!(before[0].pods[0].name, format!("p{}", since.0));
    assert_eq!(learned(0, &all).0.bytes(), 0);
}
