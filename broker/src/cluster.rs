//! This node among others: how it joins them, who leads which shard, and where a request goes.

mod join;
pub(crate) mod progress;
mod reign;
mod routing;
mod tls;

pub(crate) use self::{
    join::Membership,
    reign::{Seat, follow},
    routing::{Place, Routing},
};
