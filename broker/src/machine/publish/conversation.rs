//! Counts how often a conversation goes to and fro.
//!
//! A message has one hop more than the highest that its sender has received under the same correlation id. So a hundred
//! progress reports on one request all have one hop, and two agents that answer each other's answers are found out.

use crate::encoding::encoded;

/// Participants that a conversation tells apart; all others count as one.
const MAX_PARTICIPANTS: usize = 256;

encoded! {
    /// What is known of the messages under one correlation id.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub(crate) struct Conversation {
        /// The highest hops that each sandbox has received, by sandbox.
        received: Vec<(u32, u8)>,
        /// The highest hops of what everybody may have received, and who sent it: the two highest, of different senders,
        /// so that one of them counts for each sandbox.
        shared: Vec<(u32, u8)>,
        /// The first sequence with each number of hops.
        chain: Vec<u64>,
    }
}

impl Conversation {
    /// The hops of the next message of a sender.
    pub(super) fn next_hops(&self, sender: u32) -> u8 {
        let own = self.received.binary_search_by_key(&sender, |(sandbox, _)| *sandbox);
        let own = own.ok().map(|at| self.received[at].1);
        let shared = self.shared.iter().filter(|(from, _)| *from != sender).map(|(_, hops)| *hops).max();
        own.max(shared).map_or(0, |hops| hops.saturating_add(1))
    }

    /// The first message with this number of hops or more is in the chain.
    pub(super) fn extend_chain(&mut self, hops: u8, sequence: u64) {
        if self.chain.len() <= usize::from(hops) {
            self.chain.push(sequence);
        }
    }

    pub(super) fn chain(&self) -> &[u64] {
        &self.chain
    }

    /// A sandbox receives a message.
    pub(super) fn receive(&mut self, sandbox: u32, hops: u8) {
        match self.received.binary_search_by_key(&sandbox, |(known, _)| *known) {
            Ok(at) => self.received[at].1 = self.received[at].1.max(hops),
            Err(_) if self.received.len() >= MAX_PARTICIPANTS => self.receive_all(0, hops),
            Err(at) => self.received.insert(at, (sandbox, hops)),
        }
    }

    /// Everybody but the sender may receive a message.
    pub(super) fn receive_all(&mut self, sender: u32, hops: u8) {
        match self.shared.iter_mut().find(|(from, _)| *from == sender) {
            Some((_, most)) => *most = hops.max(*most),
            None => self.shared.push((sender, hops)),
        }
        self.shared.sort_by_key(|(from, hops)| (u8::MAX - hops, *from));
        self.shared.truncate(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_do_not_count_and_answers_to_answers_do() {
        let mut conversation = Conversation::default();
        let mut say = |from: u32, to: u32| {
            let hops = conversation.next_hops(from);
            conversation.receive(to, hops);
            hops
        };
        assert_eq!([say(1, 2), say(2, 1), say(2, 1), say(2, 1)], [0, 1, 1, 1]);
        assert_eq!([say(1, 2), say(2, 1), say(1, 2)], [2, 3, 4]);
        assert_eq!(say(3, 1), 0, "who has received nothing begins");
    }

    #[test]
    fn what_everybody_receives_counts_for_all_but_its_sender() {
        let mut conversation = Conversation::default();
        conversation.receive_all(1, 0);
        assert_eq!((conversation.next_hops(1), conversation.next_hops(2)), (0, 1));
        conversation.receive_all(2, 1);
        let hops = [1, 2, 3].map(|sandbox| conversation.next_hops(sandbox));
        assert_eq!(hops, [2, 1, 2], "the second has received what the first has said");
    }

    #[test]
    fn many_participants_are_bounded() {
        let mut conversation = Conversation::default();
        (1..2_000).for_each(|sandbox| conversation.receive(sandbox, 3));
        assert_eq!(conversation.received.len(), MAX_PARTICIPANTS);
        assert_eq!(conversation.next_hops(1_999), 4);
    }
}
