use super::chunk::{self, HEAD, Head};
use super::writer::Sink;
use super::*;
use crate::model::feed::Start;
use crate::model::flow::{Direction, TcpFlags};
use crate::model::objects::{Labels, Objects, Pod, Service, ServicePort, TargetPort};
use crate::model::record::{
    Drop, Event, IpvsMethod, NfFamily, NfHook, Record, Rejection, Rules, Segment, Verdict,
};
use crate::model::{Input, Proto, Time, Tuple};
use bytes::{BufMut, BytesMut};
use proptest::prelude::*;
use std::error::Error;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

type Outcome = Result<(), Box<dyn Error>>;

/// Every input of a recording, and the reader at its end.
fn read(bytes: &[u8]) -> Result<(Vec<Input>, Reader), RecordingError> {
    let mut reader = Reader::new(io::Cursor::new(bytes.to_vec()), Path::new("test"))?;
    let inputs = reader.by_ref().collect();
    Ok((inputs, reader))
}

fn record(inputs: &[Input]) -> Result<Vec<u8>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("run");
    let mut writer = Writer::create(&path)?;
    for input in inputs {
        writer.write(input)?;
    }
    writer.finish()?;
    Ok(fs::read(path)?)
}

fn tick(ms: u64) -> Input {
    Input::Tick {
        time: Time(ms * 1_000_000),
    }
}

/// Ten seconds, ten inputs each.
fn run() -> Vec<Input> {
    let start = Input::Start(Box::new(Start {
        node: "n1".into(),
        ..Start::default()
    }));
    let ticks = (1..100).map(|n| tick(n * 100));
    [start].into_iter().chain(ticks).collect()
}

fn header() -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&MAGIC);
    bytes.put_u16(VERSION);
    bytes.put_u16(MINOR);
    bytes
}

#[test]
fn what_was_written_is_read() -> Outcome {
    let (inputs, reader) = read(&record(&run())?)?;
    assert_eq!(inputs, run());
    assert_eq!(reader.lost_tail(), None);
    assert_eq!(reader.skipped(), 0);
    let (inputs, reader) = read(&record(&[])?)?;
    assert!(inputs.is_empty());
    assert_eq!(reader.lost_tail(), None);
    Ok(())
}

#[test]
fn only_the_owner_reads_it() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("run");
    fs::write(&path, "older, longer and open to all")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Writer::create(&path)?.finish()?;
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&path)?.len(), (HEADER + HEAD) as u64);
    Ok(())
}

/// At every byte where a recording can be cut, all chunks that are whole come out, and the rest is counted.
#[test]
fn a_cut_tail_loses_only_the_chunk_it_cuts() -> Outcome {
    let whole = record(&run())?;
    let mut before = 0;
    for cut in 0..=whole.len() {
        let found = read(&whole[..cut]);
        if cut < HEADER {
            assert!(matches!(found, Err(RecordingError::NotARecording { .. })));
            continue;
        }
        let (inputs, reader) = found?;
        assert_eq!(inputs, run()[..inputs.len()], "cut at {cut}");
        assert!(inputs.len() >= before, "cut at {cut}");
        let lost = reader.lost_tail();
        if cut == whole.len() {
            assert_eq!(lost, None);
        } else if inputs.len() > before || cut == HEADER {
            assert_eq!(lost, Some(0), "cut between chunks at {cut}");
        } else {
            assert!(lost.is_some_and(|l| l > 0), "cut at {cut}");
        }
        before = inputs.len();
    }
    assert_eq!(before, run().len());
    Ok(())
}

#[test]
fn a_damaged_byte_loses_only_what_follows() -> Outcome {
    let whole = record(&run())?;
    for at in HEADER..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let (inputs, reader) = read(&bytes)?;
        assert_eq!(inputs, run()[..inputs.len()], "damaged at {at}");
        assert!(reader.lost_tail().is_some_and(|l| l > 0), "damaged at {at}");
    }
    Ok(())
}

#[test]
fn a_killed_writer_has_written_all_but_the_last_second() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("run");
    let mut writer = Writer::create(&path)?;
    for (n, input) in run().iter().enumerate() {
        writer.write(input)?;
        let (inputs, _) = read(&fs::read(&path)?)?;
        assert!(
            n + 1 - inputs.len() <= 10,
            "{} of {} after a kill",
            inputs.len(),
            n + 1
        );
    }
    Ok(())
}

#[test]
fn a_full_disk_is_told_once() -> Outcome {
    let mut writer = Writer::create("/dev/full")?;
    let first = writer.write(&tick(1));
    assert!(
        matches!(first, Err(RecordingError::Stopped { .. })),
        "{first:?}"
    );
    writer.write(&tick(5_000))?;
    writer.finish()?;

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("run");
    let mut writer = Writer::create(&path)?;
    writer.write(&tick(1))?;
    writer.flush()?;
    writer.sink = Some(Sink::File(
        OpenOptions::new().write(true).open("/dev/full")?,
    ));
    writer.write(&tick(2))?;
    let error = writer
        .write(&tick(9_000))
        .err()
        .ok_or("a full disk took it")?;
    assert!(error.to_string().contains("No space left"), "{error}");
    writer.write(&tick(20_000))?;
    writer.finish()?;
    let (inputs, _) = read(&fs::read(&path)?)?;
    assert_eq!(inputs, [tick(1)]);
    Ok(())
}

#[test]
fn what_is_no_recording_is_refused() -> Outcome {
    let dir = tempfile::tempdir()?;
    let missing = Reader::open(dir.path().join("missing"));
    assert!(matches!(missing, Err(RecordingError::Unreadable { .. })));
    let directory = Reader::open(dir.path());
    assert!(matches!(directory, Err(RecordingError::Unreadable { .. })));
    for other in ["", "apiVersion: v1\nkind: Service\n", "\u{8f}NFREC\n\n    "] {
        let found = read(other.as_bytes());
        assert!(matches!(found, Err(RecordingError::NotARecording { .. })));
    }
    let nowhere = Writer::create(dir.path().join("no/such/directory"));
    assert!(matches!(nowhere, Err(RecordingError::NotCreated { .. })));

    let mut newer = header();
    newer[MAGIC.len() + 1] = 7;
    let Err(error) = read(&newer) else {
        return Err("a newer format was read".into());
    };
    assert_eq!(
        error.to_string(),
        "test was recorded in format 7; this netflow reads formats up to 1"
    );
    Ok(())
}

#[test]
fn what_a_later_minor_version_adds_is_skipped_and_counted() -> Outcome {
    let lines = concat!(
        r#"{"input":"tick","time":1,"new":true}"#,
        "\n",
        r#"{"input":"weather","time":2}"#,
        "\n",
        r#"{"input":"records","records":[{"time":3,"netns":1,"event":{"kind":"reset-sent"}},"#,
        r#"{"time":4,"netns":1,"event":{"kind":"snow"}}]}"#,
        "\n",
        r#"{"input":"end","time":5}"#,
        "\n",
    );
    let mut bytes = header();
    bytes[MAGIC.len() + 3] = 9;
    bytes.put(chunk::pack(lines.as_bytes())?);
    Head::END.put(&mut bytes);
    let (inputs, reader) = read(&bytes)?;
    let reset = Record {
        time: Time(3),
        netns: 1,
        ifindex: 0,
        tuple: None,
        event: Event::ResetSent,
    };
    let records = vec![reset];
    let wanted = [
        Input::Tick { time: Time(1) },
        Input::Records { records },
        Input::End { time: Time(5) },
    ];
    assert_eq!(inputs, wanted);
    assert_eq!(reader.skipped(), 2);
    assert_eq!(reader.lost_tail(), None);
    Ok(())
}

#[test]
fn it_is_compressed() -> Outcome {
    let inputs = run();
    let plain: usize = inputs
        .iter()
        .map(|i| serde_json::to_string(i).map_or(0, |s| s.len()))
        .sum();
    assert!(record(&inputs)?.len() * 2 < plain);
    Ok(())
}

fn any_tuple() -> impl Strategy<Value = Tuple> {
    let ends = any::<(std::net::IpAddr, u16, std::net::IpAddr, u16, u8)>();
    ends.prop_map(|(src, sport, dst, dport, proto)| Tuple {
        proto: Proto(proto),
        src,
        sport,
        dst,
        dport,
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let segment = any::<(u8, u32, u32, u16)>().prop_map(|(flags, seq, ack, len)| Segment {
        dir: Direction::Egress,
        flags: TcpFlags(flags),
        seq,
        ack,
        mss: len / 2,
        len,
        ttl: 64,
    });
    let drop = (".*", any::<u32>(), any_tuple()).prop_map(|(reason, seq, quoted)| Drop {
        reason,
        place: "nf_hook_slow".into(),
        hook: Some(NfHook::Forward),
        flags: TcpFlags(2),
        seq,
        len: 60,
        ct: None,
        quoted: Some(quoted),
        count: 1,
        verdict: Some(Verdict {
            family: Some(NfFamily::Ip),
            input: seq,
            output: 0,
            rules: Some(Rules::Iptables {
                table: "filter".into(),
            }),
            reject: Some(Rejection::Unreachable { code: 13 }),
        }),
    });
    let ipvs = any::<Option<std::net::SocketAddrV4>>().prop_map(|to| Event::Ipvs {
        method: IpvsMethod::NoDestination,
        to: to.map(Into::into),
    });
    prop_oneof![
        segment.clone().prop_map(Event::Syn),
        segment.prop_map(Event::FirstPacket),
        drop.prop_map(|drop| Event::Drop(Box::new(drop))),
        ipvs,
        Just(Event::ResetReceived),
        Just(Event::CtFull),
        any::<(std::net::IpAddr, i32, u32)>().prop_map(|(dst, err, table)| Event::FibError {
            dst,
            err,
            table
        }),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let place = any::<(u64, u32, u32)>();
    (place, proptest::option::of(any_tuple()), any_event()).prop_map(
        |((time, netns, ifindex), tuple, event)| Record {
            time: Time(time),
            netns,
            ifindex,
            tuple,
            event,
        },
    )
}

fn any_objects() -> impl Strategy<Value = Objects> {
    let labels = proptest::collection::btree_map(".*", ".*", 0..4);
    let labels = labels.prop_map(|all| all.into_iter().collect::<Labels>());
    let ips = proptest::collection::vec(any::<std::net::IpAddr>(), 0..3);
    let target = prop_oneof![
        any::<u16>().prop_map(TargetPort::Number),
        "[a-z]{1,15}".prop_map(TargetPort::Name)
    ];
    (any::<u64>(), ".*", labels, ips, target).prop_map(|(time, name, labels, ips, target)| {
        let port = ServicePort {
            name: String::new(),
            proto: Proto::TCP,
            port: 80,
            target,
            node_port: None,
        };
        let service = Service {
            name: name.clone(),
            cluster_ips: ips.clone(),
            selector: Some(labels.clone()),
            ports: vec![port],
            ..Service::default()
        };
        let pod = Pod {
            name: name.into(),
            labels,
            ips,
            unready_containers: vec![("main".into(), "CrashLoopBackOff".into())].into(),
            ..Pod::default()
        };
        Objects {
            time: Time(time),
            services: vec![service].into(),
            pods: vec![pod].into(),
            ..Objects::default()
        }
    })
}

fn any_input() -> impl Strategy<Value = Input> {
    let lost = proptest::collection::btree_map("[a-z:]{0,12}", any::<u64>(), 0..4);
    let records = proptest::collection::vec(any_record(), 0..20);
    prop_oneof![
        any_objects().prop_map(|o| Input::Objects(Box::new(o))),
        records.prop_map(|records| Input::Records { records }),
        lost.prop_map(|lost| Input::Lost { lost }),
        any::<u64>().prop_map(|t| Input::Tick { time: Time(t) }),
        any::<u64>().prop_map(|t| Input::End { time: Time(t) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_inputs_come_back_in_order(
        inputs in proptest::collection::vec(any_input(), 0..30),
        cut in any::<proptest::sample::Index>(),
    ) {
        let bytes = record(&inputs).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let (back, reader) = read(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&back, &inputs);
        prop_assert_eq!((reader.lost_tail(), reader.skipped()), (None, 0));
        let cut = HEADER + cut.index(bytes.len() - HEADER);
        let (some, reader) = read(&bytes[..cut]).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&some[..], &inputs[..some.len()]);
        prop_assert!(reader.lost_tail().is_some());
    }
}
