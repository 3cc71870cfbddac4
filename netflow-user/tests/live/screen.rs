//! `netflow watch` on a terminal: a real one, of tmux.

use crate::netflow::{Files, command};
use crate::netns::{Lab, eventually, finish};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Command, Stdio};

/// A terminal with a shell command in it, gone when the test ends.
struct Pane {
    server: String,
}

impl Pane {
    /// On the node, 80 columns by 24 lines.
    fn open(lab: &Lab, files: &Files, shell: &str) -> Result<Pane> {
        let pane = Pane {
            server: format!(
                "netflow-{}-{:?}",
                std::process::id(),
                std::thread::current().id()
            ),
        };
        let dir = files.objects();
        let dir = dir.parent().context("the directory of the objects")?;
        let mut tmux = pane.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
        ]);
        tmux.args(["sh", "-c", shell]).current_dir(dir);
        // The server that this starts stays in the node's namespace.
        lab.inside("node", || finish(&mut tmux))?;
        Ok(pane)
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &self.server]).args(args);
        tmux.env_remove("TMUX");
        tmux
    }

    fn ask(&self, args: &[&str]) -> Result<String> {
        let output = self.tmux(args).output()?;
        ensure!(output.status.success(), "tmux {args:?}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn press(&self, key: &str) -> Result<()> {
        self.ask(&["send-keys", key]).map(drop)
    }

    /// Waits until all of it is on the terminal.
    fn shows(&self, parts: &[&str]) -> Result<String> {
        let mut last = String::new();
        let shown = eventually(&format!("{parts:?} on the terminal"), || {
            last = self.ask(&["capture-pane", "-p"])?;
            let there = parts.iter().all(|part| last.contains(part));
            Ok(there.then(|| last.clone()))
        });
        shown.with_context(|| format!("it shows\n{last}"))
    }

    /// What the shell runs.
    fn children(&self) -> Result<Vec<i32>> {
        let shell = self.ask(&["display-message", "-p", "#{pane_pid}"])?;
        let shell = shell.trim();
        let text = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        let pids: Result<Vec<i32>, _> = text.split_whitespace().map(str::parse).collect();
        let pids = pids?;
        ensure!(!pids.is_empty(), "the shell runs nothing");
        Ok(pids)
    }

    /// Whether the alternate screen is on, and whether the cursor is hidden.
    fn is_taken(&self) -> Result<bool> {
        let state = self.ask(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"])?;
        Ok(state.trim() != "01")
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        let mut kill = self.tmux(&["kill-server"]);
        let _gone = kill.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Runs `netflow watch`, then says its exit status and how the terminal's settings were before and are after.
fn watch(files: &Files) -> Result<String> {
    let netflow = command(&[]);
    let program = netflow.get_program().to_str().context("a path in UTF-8")?;
    let objects = files.objects();
    Ok(format!(
        "before=$(stty -g); '{program}' watch --standalone --svc app/explained-web-01 --manifests '{}'; \
         echo \"status $?\"; [ \"$before\" = \"$(stty -g)\" ] && echo same settings; read -r _",
        objects.display()
    ))
}

/// The terminal is as it was, and the command succeeded.
fn is_given_back(pane: &Pane) -> Result<()> {
    pane.shows(&["status 0", "same settings"])?;
    ensure!(
        !pane.is_taken()?,
        "the alternate screen or the cursor stays"
    );
    Ok(())
}

#[test]
fn it_follows_what_happens_at_any_size_and_gives_the_terminal_back() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let pane = Pane::open(&lab, &files, &watch(&files)?)?;
    pane.shows(&["NOT ENOUGH EVIDENCE  app/explained-web-01", "q quit"])?;
    ensure!(pane.is_taken()?);
    // Nobody translates the Service's address, and the node has no route to it.
    lab.inside("pod", || {
        let address = "10.96.7.7:80".parse()?;
        let tried =
            std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(2));
        ensure!(tried.is_err());
        Ok(())
    })?;
    pane.shows(&["10.77.1.2", "Connections: 1", "Findings", "Path"])?;
    pane.press("j")?;
    pane.press("Enter")?;
    pane.shows(&["What was seen of it", "pod0 tc/ingress"])?;
    pane.press("?")?;
    pane.shows(&["hold everything as it is"])?;
    pane.ask(&["resize-window", "-x", "20", "-y", "10"])?;
    // Wrapped where it was one line.
    pane.shows(&["q, Ctrl-C\n", "Esc back"])?;
    pane.ask(&["resize-window", "-x", "120", "-y", "30"])?;
    pane.press("?")?;
    pane.press("e")?;
    let shown = pane.shows(&["written to netflow-app-explained-web-01-", "DIALLED"])?;
    let name = shown.split("written to ").nth(1).unwrap_or_default().trim();
    let text = std::fs::read_to_string(files.file(name)).with_context(|| name.to_owned())?;
    ensure!(text.contains("app/explained-web-01"), "{text}");
    pane.press("q")?;
    is_given_back(&pane)
}

#[test]
fn control_c_and_a_signal_give_the_terminal_back_too() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let pane = Pane::open(&lab, &files, &watch(&files)?)?;
    pane.shows(&["q quit"])?;
    pane.press("C-c")?;
    is_given_back(&pane)?;
    let pane = Pane::open(&lab, &files, &watch(&files)?)?;
    pane.shows(&["q quit"])?;
    for pid in pane.children()? {
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    }
    is_given_back(&pane)
}

/// The terminal is closed: nobody is left to be told, and nothing stays behind.
#[test]
fn it_ends_with_its_terminal() -> Result<()> {
    let (lab, files) = (Lab::up()?, Files::new()?);
    let pane = Pane::open(&lab, &files, &watch(&files)?)?;
    pane.shows(&["q quit"])?;
    let watcher = pane.children()?;
    drop(pane);
    eventually("netflow has ended", || {
        let alive = watcher.iter().any(|pid| is_alive(*pid));
        Ok((!alive).then_some(()))
    })
}

/// One that has ended and is not yet waited for is not.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}
