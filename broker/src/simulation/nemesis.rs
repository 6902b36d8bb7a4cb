//! Causes faults, and takes them back after a while.

use super::{draw::Draw, net::NodeId};

/// What happens to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process ends; its disk keeps what was written.
    Kill(NodeId),
    /// The machine loses power, and with it what was not synced.
    LosePower(NodeId),
    /// All machines lose power at once.
    LosePowerEverywhere,
    /// The process ends in order.
    Stop(NodeId),
    /// The process stands still for so many milliseconds.
    Pause(NodeId, u64),
    /// Nobody reaches it, and it reaches nobody.
    Isolate(NodeId),
    /// Nothing from the first reaches the second.
    CutOneWay(NodeId, NodeId),
    /// These two do not reach each other.
    CutBetween(NodeId, NodeId),
    /// The connections between these two break.
    BreakBetween(NodeId, NodeId),
    /// Bytes take up to so many milliseconds.
    SlowDown(u64),
    /// The wall clock is set by so many milliseconds.
    SetClock(NodeId, i64),
    /// A snapshot is taken of every shard.
    Snapshot(NodeId),
    /// Somebody else shall lead.
    Transfer(u32, NodeId),
    /// A node joins.
    Join(NodeId),
    /// A member goes for good.
    Leave(NodeId),
    /// All ways are open again, and quick.
    Heal,
    /// Processes that ended start again.
    Restart,
}

/// Draws what happens when.
pub(super) struct Nemesis {
    draw: Draw,
    nodes: u64,
    shards: u32,
    membership: bool,
    /// What comes next, by time in milliseconds.
    planned: Vec<(u64, Fault)>,
    next_ms: u64,
    joined: NodeId,
}

impl Nemesis {
    pub(super) fn new(draw: Draw, nodes: u64, shards: u32, membership: bool) -> Self {
        Self { draw, nodes, shards, membership, planned: Vec::new(), next_ms: 0, joined: nodes }
    }

    /// What happens now.
    pub(super) fn step(&mut self, now_ms: u64) -> Vec<Fault> {
        if now_ms >= self.next_ms {
            self.next_ms = now_ms + self.draw.between(50, 900);
            let (fault, back) = self.fault();
            self.planned.push((now_ms, fault));
            if let Some(back) = back {
                self.planned.push((now_ms + self.draw.between(100, 2_500), back));
            }
        }
        let due = self.planned.extract_if(.., |(at, _)| *at <= now_ms);
        due.map(|(_, fault)| fault).collect()
    }

    fn fault(&mut self) -> (Fault, Option<Fault>) {
        let (one, other) = self.two();
        match self.draw.below(if self.membership { 16 } else { 14 }) {
            0 => (Fault::Kill(one), Some(Fault::Restart)),
            1 | 2 => (Fault::LosePower(one), Some(Fault::Restart)),
            3 => (Fault::LosePowerEverywhere, Some(Fault::Restart)),
            4 => (Fault::Stop(one), Some(Fault::Restart)),
            5 => (Fault::Pause(one, self.draw.between(20, 2_000)), None),
            6 => (Fault::Isolate(one), Some(Fault::Heal)),
            7 => (Fault::CutOneWay(one, other), Some(Fault::Heal)),
            8 => (Fault::CutBetween(one, other), Some(Fault::Heal)),
            9 => (Fault::BreakBetween(one, other), None),
            10 => (Fault::SlowDown(self.draw.between(2, 150)), Some(Fault::Heal)),
            11 => {
                let off = self.draw.between(0, 20_000) as i64 - 10_000;
                (Fault::SetClock(one, off), None)
            }
            12 => (Fault::Snapshot(one), None),
            13 => (Fault::Transfer(self.draw.below(u64::from(self.shards)) as u32, one), None),
            14 => {
                self.joined += 1;
                (Fault::Join(self.joined), None)
            }
            _ => (Fault::Leave(one), None),
        }
    }

    fn two(&mut self) -> (NodeId, NodeId) {
        let last = self.joined.max(self.nodes);
        let one = self.draw.between(1, last);
        let other = self.draw.between(1, last - 1);
        (one, if other >= one { other + 1 } else { other })
    }
}
