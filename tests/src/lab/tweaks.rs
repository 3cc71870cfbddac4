//! What was done to single machines by hand.

use super::{Lab, netns};
use crate::world::{Site, Step, Tweak};
use anyhow::Result;

/// Undoes what is not wanted any more, the latest first.
pub fn undo(lab: &mut Lab, wanted: &[Tweak]) -> Result<()> {
    let (stay, go): (Vec<Tweak>, Vec<Tweak>) = std::mem::take(&mut lab.tweaks)
        .into_iter()
        .partition(|t| wanted.contains(t));
    lab.tweaks = stay;
    for tweak in go.iter().rev() {
        take(lab, tweak, &tweak.undone)?;
    }
    Ok(())
}

/// Does what is not done yet.
pub fn make(lab: &mut Lab, wanted: &[Tweak]) -> Result<()> {
    for tweak in wanted {
        if !lab.tweaks.contains(tweak) {
            take(lab, tweak, &tweak.done)?;
            lab.tweaks.push(tweak.clone());
        }
    }
    Ok(())
}

fn take(lab: &Lab, tweak: &Tweak, steps: &[Step]) -> Result<()> {
    let ns = match &tweak.site {
        Site::Node(n) => lab.node(*n),
        Site::Router => lab.router(),
        Site::Pod(ip) => match lab.plan.pods().find(|p| p.ip == *ip) {
            Some(pod) => lab.pod(pod),
            None => anyhow::bail!("no Pod has {ip}"),
        },
    };
    for step in steps {
        match step {
            Step::Ip(line) => netns::batch(&ns, std::slice::from_ref(line))?,
            Step::Sysctl(name, value) => netns::sysctl(&ns, &[(name, value)])?,
            Step::Nft(rules) => netns::within(&ns, || netns::feed("nft", &["-f", "-"], rules))?,
        }
    }
    Ok(())
}
