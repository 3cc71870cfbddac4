//! A big cluster.

use netflow_user::model::Time;
use netflow_user::model::objects::{Objects, Pod, Service};
use std::net::{IpAddr, Ipv4Addr};

/// Pods that are known.
pub const PODS: u32 = 10_000;
/// Services that are known.
pub const SERVICES: u32 = 1_000;
/// What every Service listens on.
pub const PORT: u16 = 80;

/// Address of a Pod.
pub fn pod(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 0, 0).to_bits() + number % PODS + 1)
}

/// Address of a Service.
pub fn service(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + number % SERVICES + 1)
}

/// Where Services listen.
pub fn servers() -> impl Iterator<Item = (IpAddr, u16)> {
    (0..SERVICES).map(|number| (service(number).into(), PORT))
}

/// The objects.
pub fn cluster() -> Objects {
    let pods = (0..PODS).map(|number| Pod {
        namespace: format!("team-{}", number % 50).into(),
        name: format!("web-{}-7d4b9c6f-{number:05x}", number % 500).into(),
        node: Some(format!("worker-{}", number % 100).into()),
        ips: vec![pod(number).into()],
        ..Pod::default()
    });
    let services = (0..SERVICES).map(|number| Service {
        namespace: format!("team-{}", number % 50),
        name: format!("web-{number}"),
        kind: "ClusterIP".to_owned(),
        cluster_ips: vec![service(number).into()],
        ..Service::default()
    });
    Objects {
        time: Time(1),
        pods: pods.collect(),
        services: services.collect(),
        ..Objects::default()
    }
}
