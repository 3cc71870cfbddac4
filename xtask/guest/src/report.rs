//! What the guest tells the host, a line each.

use std::fmt;
use std::str::FromStr;

/// One line on the port [`crate::REPORT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Everything is mounted; the command starts.
    Ready,
    /// The guest's user space still runs.
    Alive,
    /// The command ended by itself, with this code.
    Exited(u8),
    /// A signal ended the command.
    Killed(u8),
    /// The guest could not come to run the command.
    Failed(String),
}

/// A line that is no report.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownReport;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Ready => f.write_str("ready"),
            Report::Alive => f.write_str("alive"),
            Report::Exited(code) => write!(f, "exited {code}"),
            Report::Killed(signal) => write!(f, "killed {signal}"),
            Report::Failed(why) => write!(f, "failed {}", why.replace('\n', " ")),
        }
    }
}

impl FromStr for Report {
    type Err = UnknownReport;

    fn from_str(line: &str) -> Result<Report, UnknownReport> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" => Some(Report::Ready),
            "alive" => Some(Report::Alive),
            "exited" => rest.parse().ok().map(Report::Exited),
            "killed" => rest.parse().ok().map(Report::Killed),
            "failed" => Some(Report::Failed(rest.to_owned())),
            _ => None,
        }
        .ok_or(UnknownReport)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_back_as_what_was_said() {
        for report in [
            Report::Ready,
            Report::Alive,
            Report::Exited(0),
            Report::Exited(255),
            Report::Killed(9),
            Report::Failed("no such device".to_owned()),
        ] {
            assert_eq!(report.to_string().parse(), Ok(report));
        }
    }

    #[test]
    fn a_reason_of_many_lines_stays_one_report() {
        let said = Report::Failed("mounting:\nno such device".to_owned()).to_string();
        assert_eq!(said, "failed mounting: no such device");
    }

    #[test]
    fn other_lines_are_no_reports() {
        for line in ["", "exited", "exited 256", "killed by", "hello"] {
            assert_eq!(line.parse::<Report>(), Err(UnknownReport), "{line}");
        }
    }
}
