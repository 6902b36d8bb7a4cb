//! What a subscription hands out.

use bytes::Bytes;
use prost::Message as _;
use tandem_proto::raw::messaging::v1 as raw;

use super::LeasesLost;
use crate::{Error, Message};

/// What a subscription has to tell.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly always a delivery; a box for each would cost more than the room")]
pub enum Incoming {
    /// A message was handed over.
    Delivery(Delivery),
    /// Deliveries from before are no longer held.
    LeasesLost(LeasesLost),
}

/// One attempt to hand over a message, under a lease that ends at the ack deadline of the subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Counts the deliveries of the subscription from 1.
    pub delivery_id: u64,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The message, with the fields of the broker set.
    pub message: Message,
}

/// A delivery whose message is still encoded, as `aintandem.messaging.v1.Message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawDelivery {
    /// Counts the deliveries of the subscription from 1.
    pub delivery_id: u64,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The encoded message.
    pub message: Bytes,
}

impl RawDelivery {
    /// Takes the message apart.
    ///
    /// # Errors
    /// [`Error::Contract`] when it is none.
    pub fn decode(&self) -> Result<Delivery, Error> {
        let message = Message::decode(self.message.clone()).map_err(|error| {
            Error::Contract(format!("the message of delivery {} does not decode: {error}", self.delivery_id))
        })?;
        Ok(Delivery { delivery_id: self.delivery_id, attempt: self.attempt, message })
    }
}

impl From<raw::Delivery> for RawDelivery {
    fn from(delivery: raw::Delivery) -> Self {
        Self { delivery_id: delivery.delivery_id, attempt: delivery.attempt, message: delivery.message }
    }
}
