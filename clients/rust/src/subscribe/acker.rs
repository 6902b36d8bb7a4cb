//! Says what became of deliveries, from anywhere.

use std::{sync::Arc, time::Duration};

use super::{Nack, outbox::Outbox};

/// Acknowledges, gives back and extends deliveries of one subscription. Cheap to clone. Without effect once the
/// subscription is gone.
///
/// What is said goes out in this order, as soon as the connection is free, together with all that waits. The first word on a
/// delivery counts; the broker refuses a second ack or nack of it.
#[derive(Debug, Clone)]
pub struct Acker {
    outbox: Arc<Outbox>,
}

impl Acker {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox }
    }

    /// Acknowledges one delivery.
    pub fn ack(&self, delivery_id: u64) {
        self.outbox.ack(delivery_id, delivery_id);
    }

    /// Acknowledges the deliveries from `first` to `last`, both included. Nothing when `first` is above `last`.
    pub fn ack_range(&self, first: u64, last: u64) {
        if first <= last {
            self.outbox.ack(first, last);
        }
    }

    /// Gives one delivery back as failed.
    pub fn nack(&self, delivery_id: u64, nack: Nack) {
        self.outbox.nack(delivery_id, delivery_id, nack);
    }

    /// Gives back the deliveries from `first` to `last`, both included. Nothing when `first` is above `last`.
    pub fn nack_range(&self, first: u64, last: u64, nack: Nack) {
        if first <= last {
            self.outbox.nack(first, last, nack);
        }
    }

    /// Lets the ack deadline of one delivery begin anew: `deadline` from now on, 1 s to 24 h, or None for the one of the
    /// subscription. A delivery that is done is passed over.
    pub fn extend(&self, delivery_id: u64, deadline: Option<Duration>) {
        self.outbox.extend(delivery_id, delivery_id, deadline);
    }

    /// The same for the deliveries from `first` to `last`, both included. Nothing when `first` is above `last`.
    pub fn extend_range(&self, first: u64, last: u64, deadline: Option<Duration>) {
        if first <= last {
            self.outbox.extend(first, last, deadline);
        }
    }

    /// The same for everything that has come and is not done, in one range: a heartbeat, to be sent two or three times
    /// within an ack deadline. Nothing before the first delivery.
    pub fn extend_all(&self, deadline: Option<Duration>) {
        self.extend_range(1, self.outbox.delivered(), deadline);
    }
}
