//! A look's place at the programs that an agent has loaded.

use super::hub::{Order, weight};
use crate::cli::live::{Programs, Surroundings};
use crate::model::Input;
use crate::model::capability::TierStatus;
use crate::model::source::{RecordSource, SourceError};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What the kernel told and was not taken yet.
pub struct Inputs {
    told: Receiver<Input>,
    /// Records and flows among it.
    waiting: Arc<AtomicUsize>,
}

impl Inputs {
    /// What comes by way of `told`.
    pub(super) fn new(told: Receiver<Input>, waiting: Arc<AtomicUsize>) -> Inputs {
        Inputs { told, waiting }
    }

    /// All of it.
    pub(super) fn take(&self) -> Vec<Input> {
        let taken: Vec<Input> = self.told.try_iter().collect();
        let weight = taken.iter().map(weight).sum();
        self.waiting.fetch_sub(weight, Ordering::Relaxed);
        taken
    }
}

/// The place. Whoever drops it leaves.
pub struct Seat {
    id: u64,
    inputs: Inputs,
    orders: Sender<Order>,
    tiers: Vec<TierStatus>,
}

impl Seat {
    /// Made by the thread that owns the programs.
    pub(super) fn new(
        id: u64,
        inputs: Inputs,
        orders: Sender<Order>,
        tiers: Vec<TierStatus>,
    ) -> Seat {
        Seat {
            id,
            inputs,
            orders,
            tiers,
        }
    }

    /// Takes a place.
    pub fn take(orders: &Sender<Order>) -> Result<Seat, SourceError> {
        ask(orders, Order::Join)
    }

    /// On which tier each capability runs.
    pub fn tiers(&self) -> Vec<TierStatus> {
        self.tiers.clone()
    }
}

/// Asks the thread that owns the programs.
pub fn ask<T>(
    orders: &Sender<Order>,
    order: impl FnOnce(Sender<T>) -> Order,
) -> Result<T, SourceError> {
    let (to, answer) = channel();
    let ended = |()| SourceError {
        what: "the agent".into(),
        why: "it is ending".into(),
        hint: "ask again once it has started anew".into(),
    };
    orders.send(order(to)).map_err(|_| ended(()))?;
    answer.recv().map_err(|_| ended(()))
}

impl RecordSource for Seat {
    fn drain(&mut self) -> Result<Vec<Input>, SourceError> {
        Ok(self.inputs.take())
    }

    fn finish(&mut self) -> Result<Vec<Input>, SourceError> {
        ask(&self.orders, Order::Finish)?;
        self.drain()
    }
}

impl Programs for Seat {
    /// The agent keeps those of all Pods of its node.
    fn watch_pods(&mut self, _pods: &[IpAddr]) {}

    fn watch_addresses(&mut self, addresses: &[IpAddr]) {
        // Nobody to tell: the look ends with the agent.
        let _ = self.orders.send(Order::Watch(self.id, addresses.to_vec()));
    }

    fn surroundings(&mut self) -> Result<Surroundings, SourceError> {
        ask(&self.orders, Order::Surroundings)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Leave(self.id));
    }
}
