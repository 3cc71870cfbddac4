//! Short connections through a VIP.

use crate::budget::Figure;
use crate::netflow::Netflow;
use anyhow::{Context, Result, ensure};
use netflow_tests::lab::{Lab, netns};
use netflow_tests::world::{Party, World};
use netflow_user::model::Input;
use netflow_user::model::recording::Reader;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Connections of one round. Each keeps a port of the client for a minute after it has ended (`TCP_TIMEWAIT_LEN`): all rounds together
/// must not use them up, or what is measured is the search for a free one.
const CONNECTIONS: u32 = 2_000;
/// Connections whose records are counted.
const COUNTED: u32 = 300;
/// What a connection asks for, in bytes: the first four that it sends say how much to answer.
const ANSWER: u32 = 200;

/// What a round cost.
pub struct Cost {
    /// CPU time of the whole machine for one connection, microseconds.
    pub cpu: f64,
    /// Of that, netflow's own process.
    pub own: f64,
    /// Connections in a second, one after the other.
    pub rate: f64,
}

/// Dials in a round, beside netflow or without it.
pub fn cost(lab: &Lab, world: &World, netflow: Option<&Netflow>) -> Result<Cost> {
    let own = || netflow.map_or(Ok(0.0), Netflow::cpu);
    let cpus = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)?;
    let cpus = cpus.context("no number of CPUs")? as f64;
    let (idle, own_before, began) = (idle()?, own()?, Instant::now());
    connect(lab, world, CONNECTIONS)?;
    let seconds = began.elapsed().as_secs_f64();
    let busy = seconds * 1e6 * cpus - (self::idle()? - idle);
    let own = own()? - own_before;
    let count = f64::from(CONNECTIONS);
    Ok(Cost {
        cpu: busy / count,
        own: own / count,
        rate: count / seconds,
    })
}

/// Lets the client use every port there is.
pub fn open_ports(lab: &Lab) -> Result<()> {
    let client = lab.party(Party::Client);
    netns::sysctl(&client, &[("net.ipv4.ip_local_port_range", "1024 65535")])
}

/// So many connections to the Service, one after the other: a request, an answer, the end.
pub fn connect(lab: &Lab, world: &World, count: u32) -> Result<()> {
    let to = world.via_vip.first().context("nobody to dial")?.to;
    netns::within(&lab.party(Party::Client), || {
        (0..count).try_for_each(|_| request(to))
    })
}

/// How many connections a round makes.
pub fn of_a_round(lab: &Lab, world: &World) -> Result<f64> {
    connect(lab, world, CONNECTIONS)?;
    Ok(f64::from(CONNECTIONS))
}

fn request(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.write_all(&ANSWER.to_be_bytes())?;
    let mut answer = [0; ANSWER as usize];
    stream.read_exact(&mut answer)?;
    Ok(())
}

/// Records of the ring per connection: all that the recording holds of what was dialled.
pub fn records(lab: &Lab, world: &World) -> Result<Figure> {
    connect(lab, world, COUNTED)?;
    let (netflow, _) = Netflow::recording(lab, world)?;
    connect(lab, world, COUNTED)?;
    let recording = netflow.stop()?.context("no recording")?;
    let records = f64::from(count(&recording)?) / f64::from(COUNTED);
    ensure!(
        records >= 1.0,
        "the recording holds nothing of what was dialled"
    );
    Ok(Figure::new("records of the ring per TCP connection", records, "").at_most(4.0))
}

fn count(recording: &Path) -> Result<u32> {
    let mut records = 0;
    for input in Reader::open(recording)? {
        if let Input::Records { records: some } = input {
            records += some.len() as u32;
        }
    }
    Ok(records)
}

/// Microseconds that the CPUs were idle since the machine started, or taken by its host. These a kernel with `NO_HZ` keeps exactly
/// (`get_cpu_idle_time_us`, v6.18 kernel/time/tick-sched.c); what CPUs are busy with it samples at its tick only.
fn idle() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal …
    let idle = [3, 4, 7].iter().filter_map(|i| ticks.get(*i));
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
    let per_second = per_second.context("no clock tick")? as f64;
    Ok(idle.sum::<f64>() * 1e6 / per_second)
}
