//! Running other programs.

use anyhow::{Context, Result, bail};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

/// The command as one would type it.
pub fn show(command: &Command) -> String {
    let mut text = String::new();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    for word in words {
        let word = word.to_string_lossy();
        if !text.is_empty() {
            text.push(' ');
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            text.push_str(&word);
        } else {
            text.push('\'');
            text.push_str(&word.replace('\'', r"'\''"));
            text.push('\'');
        }
    }
    text
}

/// Runs it with our own stdout and stderr; an error unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| show(command))?;
    if !status.success() {
        bail!("{}: {status}", show(command));
    }
    Ok(())
}

/// Runs it and returns what it printed on stdout; an error, with its stderr, unless it succeeds.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| show(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", show(command), output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| show(command))
}

/// Runs it, passing each line of its stdout on to ours and to `each`.
pub fn tee(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| show(command))?;
    let pipe = child.stdout.take().context("stdout was not piped")?;
    let mut stdout = std::io::stdout().lock();
    for line in BufReader::new(pipe).split(b'\n') {
        let line = line?;
        stdout.write_all(&line)?;
        stdout.write_all(b"\n")?;
        each(&String::from_utf8_lossy(&line));
    }
    stdout.flush()?;
    child.wait().with_context(|| show(command))
}

/// Where `program` is, among PATH and the directories that Debian keeps root's tools in.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_show_as_typed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo it's", "", "a=b"]);
        assert_eq!(show(&command), r"sh -c 'echo it'\''s' '' a=b");
    }

    #[test]
    fn a_failing_command_is_an_error_that_quotes_its_stderr() -> Result<()> {
        let Err(error) = read(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])) else {
            bail!("succeeded");
        };
        let text = format!("{error:#}");
        assert!(text.contains("broken") && text.contains('3'), "{text}");
        Ok(())
    }

    #[test]
    fn tee_hears_every_line_and_the_status() -> Result<()> {
        let mut heard = Vec::new();
        let status = tee(
            Command::new("sh").args(["-c", "printf 'one\\ntwo'; exit 4"]),
            |line| heard.push(line.to_owned()),
        )?;
        assert_eq!(heard, ["one", "two"]);
        assert_eq!(status.code(), Some(4));
        Ok(())
    }

    #[test]
    fn programs_are_found_only_where_they_are() {
        assert!(find("sh").is_some());
        assert!(find("netflow-no-such-program").is_none());
    }
}
