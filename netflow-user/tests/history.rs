//! That the agent's history takes no more memory than it says. Alone in its process: its memory is measured.

use anyhow::{Context, Result, ensure};
use netflow_user::flows::History;
use netflow_user::model::flow::{Direction, FlowKey, FlowSnapshot, FlowStats, TcpFlags};
use netflow_user::model::record::{Drop, Event, Record, Segment};
use netflow_user::model::{Input, Proto, Time, Tuple};
use std::fs;

const LIMIT: usize = 32 << 20;

/// Anonymous memory of this process, in bytes (`proc_pid_status(5)`).
fn resident() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    let kib = line.context("no RssAnon")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<usize>()? << 10)
}

fn tuple(n: u32) -> Tuple {
    let [_, a, b, c] = n.to_be_bytes();
    Tuple {
        proto: Proto::TCP,
        src: [10, a, b, c].into(),
        sport: 40_000,
        dst: [10, 200, 0, 9].into(),
        dport: 80,
    }
}

fn record(time: Time, tuple: Tuple, event: Event) -> Record {
    Record {
        time,
        netns: 1,
        ifindex: 7,
        tuple: Some(tuple),
        event,
    }
}

/// What the kernel tells of connection `n`; of every tenth that its SYN was dropped.
fn told(n: u32) -> [Input; 2] {
    let time = Time(u64::from(n) * 200_000);
    let syn = Segment {
        dir: Direction::Ingress,
        flags: TcpFlags(2),
        seq: n,
        ack: 0,
        mss: 1460,
        len: 60,
        ttl: 64,
    };
    let failed = n.is_multiple_of(10);
    let drop = Drop {
        reason: "NETFILTER_DROP".into(),
        place: "nf_hook_slow".into(),
        hook: None,
        flags: TcpFlags(2),
        seq: n,
        len: 60,
        ct: None,
        quoted: None,
        count: 1,
        verdict: None,
    };
    let dropped = record(time, tuple(n), Event::Drop(Box::new(drop)));
    let opened = record(time, tuple(n), Event::Syn(syn));
    let flow = |tuple, ifindex| FlowSnapshot {
        key: FlowKey {
            tuple,
            ifindex,
            dir: Direction::Ingress,
            vlan: 0,
            depth: 0,
        },
        stats: FlowStats {
            packets: 9,
            first: time,
            last: time,
            ..FlowStats::default()
        },
    };
    let sent = (7..10).map(|i| flow(tuple(n), i));
    let answered = (7..10).map(|i| flow(tuple(n).inverse(), i));
    let flows = sent.chain(answered.filter(|_| !failed)).collect();
    let records = if failed {
        vec![opened, dropped]
    } else {
        vec![opened]
    };
    [Input::Records { records }, Input::Flows { time, flows }]
}

#[test]
fn it_takes_no_more_memory_than_it_says() -> Result<()> {
    let before = resident()?;
    let mut history = History::new(LIMIT);
    let mut most = 0;
    for n in 0..200_000 {
        for input in &told(n) {
            history.take(input);
        }
        ensure!(history.stock().bytes <= LIMIT, "{:?}", history.stock());
        if n % 1_000 == 0 {
            most = most.max(resident()?.saturating_sub(before));
        }
    }
    let stock = history.stock();
    println!("{most} bytes resident at most: {stock:?}");
    // It was full many times over, and took what it may, but not what it does not count.
    ensure!(stock.healthy_evicted.connections > 100_000, "{stock:?}");
    ensure!(stock.bytes > LIMIT / 10 * 9, "{stock:?}");
    ensure!(most <= LIMIT, "{most} bytes for {LIMIT}");
    Ok(())
}
