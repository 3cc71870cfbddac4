//! Clients of another Service that stands for the same Pods.

use super::story::*;
use crate::model::Proto;
use crate::model::answer::{Answer, Verdict, Via};
use crate::model::flow::Direction;

const OTHER_VIP: &str = "10.96.0.201";

/// A client on node A dials another Service and is served by the Pod on node B. Node A was asked as well, or was not.
fn of_another(both: bool) -> Answer {
    let objects = objects(&[BACKEND, REMOTE]);
    let orig = tuple(Proto::TCP, CLIENT, 4001, OTHER_VIP, 80);
    let reply = tuple(Proto::TCP, REMOTE, 8080, CLIENT, 4001);
    let mut b = Story::new("b", objects.clone(), facts_b());
    b.syn(reply.inverse(), UPLINK, ms(11), 7, 1);
    b.syn_at(
        reply.inverse(),
        BACKEND_VETH,
        Direction::Egress,
        ms(11),
        7,
        1,
    );
    b.syn_ack(reply, BACKEND_VETH, Direction::Ingress, ms(12));
    b.syn_ack(reply, UPLINK, Direction::Egress, ms(12));
    let mut told = vec![b.told(ms(4000))];
    if both {
        let mut a = Story::new("a", objects, facts_a());
        a.syn(orig, CLIENT_VETH, ms(10), 7, 1);
        a.nat(orig, reply, ms(10));
        a.syn_at(reply.inverse(), UPLINK, Direction::Egress, ms(10), 7, 1);
        a.syn_ack(reply, UPLINK, Direction::Ingress, ms(13));
        a.syn_ack(orig.inverse(), CLIENT_VETH, Direction::Egress, ms(13));
        told.push(a.told(ms(4000)));
    }
    explain(&told)
}

#[test]
fn what_the_clients_node_saw_dialled_elsewhere_is_no_connection_to_the_pods_own_address() {
    let answer = of_another(true);
    assert_eq!(answer.paths, []);
    assert_eq!(answer.verdict, Verdict::NotEnoughEvidence);
}

#[test]
fn the_backends_node_alone_cannot_tell() {
    let answer = of_another(false);
    let via: Vec<Via> = answer.paths.iter().map(|p| p.via).collect();
    assert_eq!(via, [Via::Pod]);
}
