//! The emulator: one process per guest, killed with us.

use super::image::Image;
use crate::process;
use anyhow::{Context, Result, bail};
use netflow_guest::{HOST, REPORT, STDERR, STDOUT};
use std::fs;
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// The emulator's program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// Virtual CPUs of a guest: two, so that what runs on one CPU while another waits is tested.
const CPUS: &str = "2";

/// They take turns in one thread of the emulator. With a thread each, one can translate code while another patches it, and goes on
/// with the breakpoint that patching puts there for a moment (`text_poke_bp_batch`,
/// <https://elixir.bootlin.com/linux/v5.10/source/arch/x86/kernel/alternative.c>): the kernel finds no breakpoint in memory, goes back to
/// it, and so on for ever. Seen on 5.10, in the seconds in which one CPU sent packets and another attached filters.
const ACCELERATOR: &str = "tcg,thread=single";

/// x86-64-v2 and a source of entropy. Anything newer makes the C library choose wide vectors, which an emulator takes
/// apart again: `max` takes a quarter more time.
const CPU: &str = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand";

/// For the kernel. Its own watchdogs are patient, because a busy host steals from the emulated CPUs; a crash stays
/// on the console, since `-no-reboot` and no time for a reboot leave the last words for us. Grace periods are
/// expedited: raising a network and attaching to functions waits for hundreds of them.
const COMMAND_LINE: [&str; 11] = [
    "console=ttyS0",
    "loglevel=5",
    "rdinit=/init",
    "oops=panic",
    "panic=0",
    "mitigations=off",
    "audit=0",
    "random.trust_cpu=on",
    "rcupdate.rcu_cpu_stall_timeout=60",
    "watchdog_thresh=30",
    "rcupdate.rcu_expedited=1",
];

/// The name of the console's socket; the ports' are theirs.
const CONSOLE: &str = "console";

/// A running emulator.
pub struct Qemu {
    child: Child,
    dir: Option<Dir>,
    /// What the kernel prints.
    pub console: UnixStream,
    /// What our first process reports.
    pub report: UnixStream,
    /// The command's stdout.
    pub stdout: UnixStream,
    /// The command's stderr.
    pub stderr: UnixStream,
}

impl Qemu {
    /// Switches a guest on. Must be called by a thread that outlives the guest: the emulator ends with it.
    pub fn start(image: &Image, initrd: &[u8], memory: u32) -> Result<Qemu> {
        let dir = Dir::make()?;
        let path = dir.0.join("initrd");
        fs::write(&path, initrd).with_context(|| path.display().to_string())?;
        let listen = |name: &str| {
            let path = dir.0.join(name);
            let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
            listener.set_nonblocking(true)?;
            Ok::<_, anyhow::Error>(listener)
        };
        let sockets = [
            listen(CONSOLE)?,
            listen(REPORT)?,
            listen(STDOUT)?,
            listen(STDERR)?,
        ];
        let mut command = command(image, &dir.0, memory);
        let mut child = command.spawn().with_context(|| process::show(&command))?;
        let [console, report, stdout, stderr] = sockets.map(|socket| accept(&socket, &mut child));
        Ok(Qemu {
            console: console?,
            report: report?,
            stdout: stdout?,
            stderr: stderr?,
            child,
            dir: Some(dir),
        })
    }

    /// The guest was heard, so the emulator has read its initrd: the files go, and nothing remains of a run that is
    /// interrupted.
    pub fn forget_files(&mut self) {
        self.dir = None;
    }

    /// Switches it off; returns what the emulator itself had to say.
    pub fn stop(&mut self) -> String {
        last_words(&mut self.child)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        last_words(&mut self.child);
    }
}

fn last_words(child: &mut Child) -> String {
    // it may have ended by itself
    let _ = child.kill();
    let _ = child.wait();
    let mut said = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        let _ = pipe.read_to_string(&mut said);
    }
    said.trim().to_owned()
}

/// The connection that the emulator makes when it starts.
fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("accepting the emulator's connection"),
        }
        if child.try_wait()?.is_some() {
            bail!("the emulator did not start: {}", last_words(child));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The command line. `setpriv` lets the kernel end the emulator when we end, however that comes.
fn command(image: &Image, dir: &Path, memory: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", PROGRAM]);
    command.args(["-no-user-config", "-nodefaults", "-no-reboot"]);
    command.args(["-display", "none", "-machine", "pc"]);
    command.args(["-accel", ACCELERATOR, "-cpu", CPU]);
    command.args(["-smp", CPUS, "-m", &format!("{memory}M")]);
    command.arg("-kernel").arg(image.vmlinuz());
    command.arg("-initrd").arg(dir.join("initrd"));
    command.args(["-append", &COMMAND_LINE.join(" ")]);
    // several file systems under one tree: their inode numbers must not meet
    let share =
        format!("local,path=/,mount_tag={HOST},security_model=none,readonly=on,multidevs=remap");
    command.args(["-virtfs", &share]);
    let mut socket = |name: &str| {
        let path = dir.join(name);
        command.args([
            "-chardev",
            &format!("socket,id={name},path={}", path.display()),
        ]);
    };
    socket(CONSOLE);
    for port in [REPORT, STDOUT, STDERR] {
        socket(port);
    }
    command.args(["-serial", &format!("chardev:{CONSOLE}")]);
    command.args(["-device", "virtio-serial-pci"]);
    for port in [REPORT, STDOUT, STDERR] {
        command.args([
            "-device",
            &format!("virtserialport,chardev={port},name={port}"),
        ]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A directory for the initrd and the sockets, gone when the emulator has them. Short, as socket addresses are.
struct Dir(PathBuf);

impl Dir {
    fn make() -> Result<Dir> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "netflow-vm-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Dir(dir))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
