//! Follows who leads a shard. Where this node begins to lead, deliveries begin once the state holds all that was
//! acknowledged before; where it no longer leads, leases end.

use std::{sync::Arc, time::Duration};

use tandem_raft::{Apply, Group, Lease};
use tokio::sync::watch;

use crate::delivery::Delivery;

/// Who leads a shard, as far as requests are concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Nobody that is known of.
    #[default]
    Vacant,
    /// This node, and its state holds all that was acknowledged.
    Here,
    /// Another node.
    There(u64),
}

/// Between two tries to make sure of a new leadership.
const RETRY: Duration = Duration::from_millis(5);

/// How often a leader makes sure that it still is one.
const LOOK: Duration = Duration::from_millis(100);
/// For how many looks in a row it may not be sure before it acts as if it were none.
const UNSURE_LOOKS: u32 = 8;

/// Resolves when this leader has not heard from a majority for a while: there may be another one, which this one would be the
/// last to know. Once its lease has ended it lends nothing and answers nothing from what it knows; after this its streams end,
/// too, so that clients look for another one.
async fn lose_majority(lease: &Lease, (shard, term): (u32, u64)) {
    let mut unsure = 0;
    while unsure < UNSURE_LOOKS {
        tokio::time::sleep(LOOK).await;
        unsure = if lease.holds_in(term) { 0 } else { unsure + 1 };
    }
    tracing::warn!(shard, "no majority of the nodes answers; this node stops serving the shard");
}

/// Lets streams go on that found the lease ended, once it holds again.
async fn resume(lease: &Lease, term: u64, delivery: &Delivery) {
    loop {
        delivery.held_back().await;
        lease.renewed(term).await;
        delivery.go_on();
    }
}

/// Runs until its task is aborted or the shard stops.
pub(crate) async fn follow<A: Apply>(group: Arc<Group<A>>, delivery: Arc<Delivery>, seat: watch::Sender<Seat>) {
    let mut leadership = group.leadership();
    let lease = group.lease().clone();
    delivery.lend_only_while(Box::new(move |term| lease.holds_in(term)));
    loop {
        let now = *leadership.borrow_and_update();
        if now.is_leader {
            let changed = async {
                // A change within a term is not one: the leader of a term does not change.
                leadership.wait_for(|seen| !seen.is_leader || seen.term != now.term).await.is_ok()
            };
            let reign = async {
                while group.read_barrier().await.is_err() {
                    tokio::time::sleep(RETRY).await;
                }
                delivery.begin(now.term);
                tracing::info!(shard = group.shard(), term = now.term, "leading");
                seat.send_replace(Seat::Here);
                tokio::select! {
                    () = lose_majority(group.lease(), (group.shard(), now.term)) => {}
                    () = resume(group.lease(), now.term, &delivery) => {}
                }
            };
            let alive = tokio::select! { biased; alive = changed => alive, () = reign => true };
            seat.send_replace(Seat::Vacant);
            delivery.step_down();
            if !alive {
                return;
            }
            // Where the majority was lost, the next round waits for it.
            continue;
        }
        seat.send_replace(now.leader.map_or(Seat::Vacant, Seat::There));
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
