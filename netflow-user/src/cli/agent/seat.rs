//! A look's place at the programs that an agent has loaded.

use super::hub::Order;
use crate::cli::live::{Programs, Surroundings};
use crate::model::Input;
use crate::model::capability::TierStatus;
use crate::model::source::{RecordSource, SourceError};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The place. Whoever drops it leaves.
pub struct Seat {
    id: u64,
    inputs: Receiver<Input>,
    orders: Sender<Order>,
    tiers: Vec<TierStatus>,
}

impl Seat {
    /// Made by the thread that owns the programs.
    pub(super) fn new(
        id: u64,
        inputs: Receiver<Input>,
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
        Ok(self.inputs.try_iter().collect())
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
