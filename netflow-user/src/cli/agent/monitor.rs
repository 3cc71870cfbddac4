//! What is told of the agent over HTTP: asked for anew each time, of the thread that owns the programs.

use super::desk::Looks;
use super::http::{Pages, Unwell};
use super::hub::{Health, Order};
use super::metrics::Readings;
use super::process;
use crate::model::capability::{Capability, TierStatus};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// The thread that owns the programs has answered by then, or hangs.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks.
pub struct Monitor {
    orders: Sender<Order>,
    looks: Looks,
    started: Option<u64>,
}

impl Monitor {
    /// Asks by way of `orders`.
    pub fn new(orders: Sender<Order>, looks: Looks) -> Monitor {
        Monitor {
            orders,
            looks,
            started: process::started(),
        }
    }
}

impl Pages for Monitor {
    fn metrics(&self) -> Result<String, Unwell> {
        let readings = Readings {
            health: health(&self.orders, PATIENCE)?,
            ended: self.looks.ended().get(),
            started: self.started,
        };
        readings.render().map_err(|_| Unwell::Unwritten)
    }

    fn health(&self) -> Result<(), Unwell> {
        settled(&health(&self.orders, PATIENCE)?.tiers)
    }
}

fn health(orders: &Sender<Order>, patience: Duration) -> Result<Health, Unwell> {
    let (to, answer) = channel();
    orders.send(Order::Health(to)).map_err(|_| Unwell::Ending)?;
    answer.recv_timeout(patience).map_err(|e| match e {
        RecvTimeoutError::Timeout => Unwell::Silent(patience),
        RecvTimeoutError::Disconnected => Unwell::Ending,
    })
}

/// Each capability has a tier, or it is known why it has none.
fn settled(tiers: &[TierStatus]) -> Result<(), Unwell> {
    let is_settled = |capability| {
        let mut of_it = tiers.iter().filter(|t| t.capability == capability);
        of_it.any(|t| t.tier.is_some() || !t.reasons.is_empty())
    };
    match Capability::ALL.into_iter().find(|c| !is_settled(*c)) {
        None => Ok(()),
        Some(capability) => Err(Unwell::Unsettled(capability)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn tier(capability: Capability) -> TierStatus {
        TierStatus {
            capability,
            tier: Some("tcx".into()),
            best: true,
            reasons: Vec::new(),
            lost: String::new(),
        }
    }

    #[test]
    fn who_answers_is_asked() {
        let (orders, asked) = channel();
        let hub = thread::spawn(move || {
            let Ok(Order::Health(to)) = asked.recv() else {
                return false;
            };
            let health = Health {
                pods: 7,
                ..Health::default()
            };
            to.send(health).is_ok()
        });
        let health = health(&orders, PATIENCE);
        assert_eq!(health.map(|h| h.pods).ok(), Some(7));
        assert_eq!(hub.join().ok(), Some(true));
    }

    #[test]
    fn who_is_gone_and_who_hangs_are_told_apart() {
        let (orders, asked) = channel();
        let silent = health(&orders, Duration::ZERO).err();
        assert_eq!(silent, Some(Unwell::Silent(Duration::ZERO)));
        drop(asked);
        assert_eq!(health(&orders, PATIENCE).err(), Some(Unwell::Ending));
    }

    #[test]
    fn a_capability_without_a_tier_is_settled_once_it_is_known_why() {
        let mut tiers = Capability::ALL.map(tier).to_vec();
        assert_eq!(settled(&tiers), Ok(()));
        tiers[3].tier = None;
        assert_eq!(settled(&tiers), Err(Unwell::Unsettled(Capability::Drop)));
        tiers[3].reasons = vec!["tp_btf: refused".into()];
        assert_eq!(settled(&tiers), Ok(()));
        tiers.pop();
        assert_eq!(settled(&tiers), Err(Unwell::Unsettled(Capability::Ipvs)));
    }
}
