//! Clocks that are known not to agree: what two nodes tell is in no order then.

use crate::explain::view::View;
use crate::model::answer::Blind;
use crate::model::feed::Clock;
use std::time::Duration;

/// Each node whose clock differs from that of the first by more than either was measured to.
pub(super) fn apart(views: &[View]) -> Vec<Blind> {
    let mut measured = views.iter().filter_map(|v| Some((v, v.clock?)));
    let Some((first, reference)) = measured.next() else {
        return Vec::new();
    };
    measured
        .filter_map(|(view, clock)| {
            let (ahead, within) = difference(clock, reference)?;
            let way = if ahead < 0 { "behind" } else { "ahead of" };
            let (by, within) = (ahead.unsigned_abs(), Duration::from_nanos(within));
            Some(Blind {
                code: "clocks-apart".to_owned(),
                node: view.name().to_owned(),
                capability: "flow".to_owned(),
                text: format!(
                    "The clock of {} is {:.1?} {way} that of {}, give or take {within:.1?}: times are as each node told them, and those of the two are in no order",
                    view.name(),
                    Duration::from_nanos(by),
                    first.name(),
                ),
            })
        })
        .collect()
}

/// How far one is ahead of the other and how far off that may be; `None` where they may agree.
fn difference(clock: Clock, reference: Clock) -> Option<(i64, u64)> {
    let ahead = clock.ahead.saturating_sub(reference.ahead);
    let within = clock.within.saturating_add(reference.within);
    (ahead.unsigned_abs() > within).then_some((ahead, within))
}
