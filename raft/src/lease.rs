//! For how long a leader may take itself for one.
//!
//! Followers promise with each answer to vote for nobody else for the length of a lease. Who counts that time from when the
//! question was sent is on the safe side, as long as he knows which question an answer belongs to. openraft dates an answer by
//! the newest question under way that it covers: when answers lie unread because the process was stopped, and an append
//! without entries follows, they renew its lease although nobody follows any more. Here each answer has its own question's time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use openraft::{RaftMetrics, alias::WatchReceiverOf, async_runtime::watch::WatchReceiver};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{clock, type_config::TypeConfig};

/// How often it is looked at when nothing comes.
const LOOK: Duration = Duration::from_millis(50);

/// When the newest question was sent that each node has answered as a follower.
#[derive(Default)]
pub(crate) struct Contacts {
    seen: Mutex<Seen>,
    renewed: Notify,
}

#[derive(Default)]
struct Seen {
    /// In which this node asked.
    term: u64,
    /// It has asked another one to lead instead: followers vote for that one whatever they promised.
    handed_over: bool,
    asked: BTreeMap<u64, Instant>,
}

impl Contacts {
    /// A node has answered as a follower what this node sent at that time, as the leader of a term.
    pub(crate) fn answered(&self, node: u64, term: u64, sent: Instant) {
        let mut seen = self.seen.lock();
        if term < seen.term {
            return;
        }
        if term > seen.term {
            *seen = Seen { term, ..Seen::default() };
        }
        let newest = seen.asked.entry(node).or_insert(sent);
        *newest = sent.max(*newest);
        drop(seen);
        self.renewed.notify_waiters();
    }

    /// This node is about to ask another one to lead in its place: answers promise nothing any more in this term.
    pub(crate) fn hand_over(&self, term: u64) {
        let mut seen = self.seen.lock();
        if term >= seen.term {
            *seen = Seen { term, handed_over: true, asked: BTreeMap::new() };
        }
    }

    /// Whether a majority of each of these groups of voters has followed `own` in a term with an answer to what was sent after
    /// a time. It follows itself.
    fn is_followed(&self, own: u64, term: u64, voters: &[BTreeSet<u64>], after: Instant) -> bool {
        let seen = self.seen.lock();
        let follows = |node: &&u64| {
            **node == own || seen.term == term && seen.asked.get(*node).is_some_and(|asked| *asked > after)
        };
        if seen.handed_over && seen.term == term {
            return false;
        }
        voters.iter().all(|voters| voters.iter().filter(follows).count() > voters.len() / 2)
    }
}

/// The lease of a leader of one shard.
#[derive(Clone)]
pub struct Lease {
    contacts: Arc<Contacts>,
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    /// For how long an answer counts. None on a node that is alone: nobody can take its place.
    length: Option<Duration>,
}

impl Lease {
    /// `promised` is for how long followers vote for nobody else; clocks that run at different speeds take a tenth of it.
    pub(crate) fn new(
        contacts: Arc<Contacts>,
        metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
        promised: Option<Duration>,
    ) -> Self {
        Self { contacts, metrics, length: promised.map(|promised| promised * 9 / 10) }
    }

    /// It ends here and now, for the term in which this node leads.
    pub(crate) fn hand_over(&self) {
        let (leads, term) = {
            let metrics = self.metrics.borrow_watched();
            (metrics.state.is_leader(), metrics.current_term)
        };
        if leads {
            self.contacts.hand_over(term);
        }
    }

    /// Whether this node leads in a term, and nobody else can at this moment.
    #[must_use]
    pub fn holds_in(&self, term: u64) -> bool {
        let Some(length) = self.length else { return true };
        let metrics = self.metrics.borrow_watched();
        if !metrics.state.is_leader() || metrics.current_term != term {
            return false;
        }
        let voters = metrics.membership_config.membership().get_joint_config();
        let Some(after) = clock::timer_now().checked_sub(length) else { return false };
        self.contacts.is_followed(metrics.id, term, voters, after)
    }

    /// Resolves when the lease of a term holds, within its own length. False when it does not, or this node does not lead in
    /// that term any more.
    pub(crate) async fn holds_soon(&self, term: u64, ask: impl Future<Output = ()>) -> bool {
        if self.holds_in(term) {
            return true;
        }
        let Some(length) = self.length else { return true };
        let wait = async {
            ask.await;
            self.renewed(term).await;
        };
        tokio::time::timeout(length, wait).await.is_ok()
    }

    /// Resolves when it holds in a term.
    pub async fn renewed(&self, term: u64) {
        loop {
            let renewed = self.contacts.renewed.notified();
            if self.holds_in(term) {
                return;
            }
            // Other voters change it as well, and no answer tells of them.
            tokio::time::timeout(LOOK, renewed).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters<const N: usize>(nodes: [u64; N]) -> BTreeSet<u64> {
        BTreeSet::from(nodes)
    }

    /// Milliseconds after some time.
    fn times() -> impl Fn(u64) -> Instant {
        let now = clock::timer_now();
        move |millis| now + Duration::from_millis(millis)
    }

    #[test]
    fn an_answer_counts_from_when_it_was_asked_for() {
        let (contacts, at) = (Contacts::default(), times());
        let after = |millis| contacts.is_followed(1, 7, &[voters([1, 2, 3])], at(millis));
        assert!(!after(0), "nobody has answered");
        contacts.answered(2, 7, at(20));
        assert!(after(19) && !after(20), "itself and one of two");
        contacts.answered(3, 7, at(30));
        contacts.answered(3, 7, at(10));
        assert!(after(29) && !after(30), "an older answer takes nothing back");
    }

    #[test]
    fn a_majority_of_each_group_of_voters_is_needed() {
        let (contacts, at) = (Contacts::default(), times());
        for (node, millis) in [(2, 20), (3, 30), (5, 50)] {
            contacts.answered(node, 7, at(millis));
        }
        let after = |millis, voters: &[BTreeSet<u64>]| contacts.is_followed(1, 7, voters, at(millis));
        assert!(after(100, &[voters([1])]), "alone");
        let five = [voters([1, 2, 3, 4, 5])];
        assert!(after(29, &five) && !after(30, &five), "two of four others");
        assert!(!after(0, &[voters([1, 2, 3]), voters([1, 4, 6])]), "a majority of the new ones is missing");
        let leaving = [voters([1, 2, 3]), voters([2, 4, 5])];
        assert!(after(19, &leaving) && !after(20, &leaving), "it is no voter of the second");
        assert!(!after(0, &[voters([1, 4])]), "half is no majority");
    }

    #[test]
    fn answers_of_another_term_do_not_count() {
        let (contacts, at) = (Contacts::default(), times());
        contacts.answered(2, 7, at(1));
        contacts.answered(3, 6, at(1));
        let followed = |term| contacts.is_followed(1, term, &[voters([1, 2, 3])], at(0));
        assert_eq!((followed(6), followed(7), followed(8)), (false, true, false));
        contacts.answered(3, 8, at(1));
        assert_eq!((followed(7), followed(8)), (false, true));
    }

    #[test]
    fn who_has_handed_over_has_no_followers_in_that_term() {
        let (contacts, at) = (Contacts::default(), times());
        let followed = |term| contacts.is_followed(1, term, &[voters([1, 2, 3])], at(0));
        contacts.answered(2, 7, at(1));
        contacts.hand_over(6);
        assert!(followed(7), "that was in an earlier one");
        contacts.hand_over(7);
        contacts.answered(3, 7, at(2));
        assert!(!followed(7), "what was promised is void");
        contacts.answered(2, 8, at(3));
        assert!(followed(8));
    }
}
