//! A leader whose process has ended is not waited for: its connection closes at once, and the others need not sit out their
//! random timeouts. They wait for its lease, in which nobody votes, and then call an election one after the other. An election
//! that the others do not agree to changes nothing (pre-vote), so a connection that broke for another reason does no harm.

use std::{sync::Arc, time::Duration};

use crate::{apply::Apply, group::Group, peers::Links};

/// Between the elections of two followers, so that they do not split the votes.
const STAGGER: Duration = Duration::from_millis(60);
/// Behind the lease: clocks of different nodes begin it at different times.
const MARGIN: Duration = Duration::from_millis(15);

/// Runs until its task is aborted. `lease` is how long followers give no vote after they heard from a leader.
pub(crate) async fn run<A: Apply>(group: Arc<Group<A>>, links: Arc<Links>, lease: Duration) {
    let mut changes = links.changes();
    while changes.changed().await.is_ok() {
        let seen = *group.leadership().borrow();
        let gone = |leader: &u64| *leader != links.gate.own.node_id && links.connection(*leader).is_none();
        let Some(leader) = seen.leader.filter(gone) else { continue };
        let standing = group.standing();
        if !standing.is_voter(links.gate.own.node_id) {
            continue;
        }
        let roll = links.gate.roster.roll();
        let members = standing.voters.last().into_iter().flatten().copied();
        // Counted from the shard, so that a node that led several is followed by different ones. Who should not lead comes
        // only where nobody else does.
        let (mut followers, last): (Vec<u64>, Vec<u64>) =
            members.filter(|node| *node != leader).partition(|node| roll.may_lead(*node));
        let count = followers.len().max(1);
        followers.rotate_left((count - group.shard() as usize % count) % count);
        followers.extend(last);
        let rank = followers.iter().position(|node| *node == links.gate.own.node_id).unwrap_or(0);
        tokio::time::sleep(lease + MARGIN + STAGGER * rank as u32).await;
        let now = *group.leadership().borrow();
        if now == seen && links.connection(leader).is_none() {
            group.elect().await.ok();
        }
    }
}
