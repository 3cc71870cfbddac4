//! The path hop by hop: the way through the Service beside the way to the Pod's own address.

use super::Layout;
use super::page::{BAD, DOUBT, FAINT, GOOD, Page, STRONG, cut};
use super::words;
use crate::model::answer::{Answer, Hop, HopState, Path, ServiceInfo, State, Via};
use anstyle::Style;

/// Columns in front of the cells: mark and hop name.
const LABEL: usize = 13;
/// Evidence ids that a narrow cell shows.
const IDS: usize = 3;

/// The paths of an answer.
pub fn paths(page: &mut Page, answer: &Answer, layout: Layout) {
    let Some(first) = main_path(&answer.paths) else {
        return;
    };
    let mut left: Vec<&Path> = answer.paths.iter().collect();
    let mut next = Some(first);
    while let Some(path) = next {
        let beside = compare_with(path, &answer.paths);
        left.retain(|p| !std::ptr::eq(*p, path) && !beside.is_some_and(|b| std::ptr::eq(*p, b)));
        page.gap();
        table(page, path, beside, answer.service.as_ref());
        next = if layout.wide {
            left.first().copied()
        } else {
            None
        };
    }
    if !left.is_empty() {
        page.heading("More paths");
    }
    for path in left {
        let style = if path.outcomes.failed() > 0 {
            BAD
        } else {
            Style::new()
        };
        let line = format!(
            "{} :{} {}, {}",
            words::via(path.via),
            path.port,
            words::path_ends(path),
            words::outcomes(&path.outcomes)
        );
        page.hang("  ", Style::new(), &line, style);
    }
}

/// The path to show first: through the Service rather than past it, then the one that fails most.
fn main_path(paths: &[Path]) -> Option<&Path> {
    let rank = |p: &Path| (p.via != Via::Pod, p.outcomes.failed(), p.outcomes.attempts);
    // `max_by_key` takes the last of equals; the answer's own order should decide.
    paths.iter().rev().max_by_key(|p| rank(p))
}

/// The Pod-IP path to hold beside a path through the Service: same backend and, if possible, same client.
fn compare_with<'a>(path: &Path, paths: &'a [Path]) -> Option<&'a Path> {
    if path.via == Via::Pod || path.backend.is_none() {
        return None;
    }
    let candidates = paths
        .iter()
        .rev()
        .filter(|p| p.via == Via::Pod && p.backend == path.backend && p.family == path.family);
    candidates.max_by_key(|p| (p.from == path.from, p.outcomes.attempts))
}

fn table(page: &mut Page, path: &Path, beside: Option<&Path>, service: Option<&ServiceInfo>) {
    let shown: Vec<&Path> = std::iter::once(path).chain(beside).collect();
    let cell = (page.width() - LABEL) / shown.len();
    let line = |page: &mut Page, label: &str, style: Style, text: &dyn Fn(&Path) -> String| {
        let mut cells = vec![(format!("  {label}"), LABEL, FAINT)];
        cells.extend(shown.iter().map(|p| {
            let text = cut(&text(p), cell.saturating_sub(2));
            (text, cell, style)
        }));
        page.row(&cells);
    };
    line(page, "", STRONG, &|p| dialled(p, service));
    line(page, "from", Style::new(), &|p| p.from.clone());
    line(page, "to", Style::new(), &|p| {
        p.backend.clone().unwrap_or_else(|| "no backend".into())
    });
    line(page, "tried", Style::new(), &|p| {
        let text = words::outcomes(&p.outcomes);
        if text.chars().count() + 2 > cell {
            text.replace(" attempts", "").replace(" attempt", "")
        } else {
            text
        }
    });
    for hop in Hop::ALL {
        let states: Vec<Option<&HopState>> = shown
            .iter()
            .map(|p| p.hops.iter().find(|h| h.hop == hop))
            .collect();
        if states.iter().all(Option::is_none) {
            continue;
        }
        let broken = states.iter().flatten().any(|h| is_broken(h.state));
        let (mark, style) = if broken {
            ("→ ", BAD)
        } else {
            ("  ", Style::new())
        };
        let mut cells = vec![(format!("{mark}{}", hop.name()), LABEL, style)];
        cells.extend(states.iter().map(|h| match h {
            Some(h) => (
                hop_text(h, cell.saturating_sub(2)),
                cell,
                state_style(h.state),
            ),
            None => ("-".to_owned(), cell, FAINT),
        }));
        page.row(&cells);
    }
    if beside.is_none() && path.via != Via::Pod && path.backend.is_some() {
        page.paragraph(
            2,
            "No traffic to the Pod's own address was seen to compare with.",
            FAINT,
        );
    }
}

/// `VIP 10.96.12.7:8080`, as the client dialled it.
fn dialled(path: &Path, service: Option<&ServiceInfo>) -> String {
    let address = match path.via {
        Via::Vip => service.and_then(|s| {
            s.cluster_ips
                .iter()
                .find(|ip| ip.is_ipv6() == (path.family == "IPv6"))
        }),
        _ => None,
    };
    match address {
        Some(ip) => format!(
            "{} {}",
            words::via(path.via),
            std::net::SocketAddr::new(*ip, path.port)
        ),
        None => format!("{} port {}", words::via(path.via), path.port),
    }
}

fn is_broken(state: State) -> bool {
    matches!(state, State::Broken | State::Degraded)
}

fn state_style(state: State) -> Style {
    match state {
        State::Ok => GOOD,
        State::Broken => BAD,
        State::Degraded => DOUBT,
        State::Unseen => FAINT,
    }
}

/// State, where, and what shows it: as much as fits.
fn hop_text(hop: &HopState, room: usize) -> String {
    let state = match hop.state {
        State::Ok => "✓ ok",
        State::Broken => "✗ broken",
        State::Unseen => "· unseen",
        State::Degraded => "~ partly",
    };
    let place: Vec<&str> = hop
        .node
        .iter()
        .chain(&hop.ifname)
        .map(String::as_str)
        .collect();
    let place = place.join(" ");
    let ids = |most: usize| {
        let mut ids: Vec<String> = hop.evidence.iter().take(most).cloned().collect();
        if hop.evidence.len() > most {
            ids.push(format!("+{}", hop.evidence.len() - most));
        }
        ids.join(" ")
    };
    let all = ids(usize::MAX);
    let few = ids(IDS);
    let candidates = [[&*place, &*all], [&*place, &*few], ["", &*few]];
    let join = |[place, ids]: &[&str; 2]| {
        let parts: Vec<&str> = [state, place, ids]
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        parts.join("  ")
    };
    let texts = candidates.iter().map(join);
    let fits = texts.clone().find(|t| t.chars().count() <= room);
    fits.unwrap_or_else(|| state.to_owned())
}
