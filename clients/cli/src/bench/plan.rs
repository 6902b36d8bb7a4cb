//! What a benchmark will do: the arguments with the defaults of its kind filled in.

use std::time::Duration;

use crate::{
    args::{BenchKind, LoadArgs},
    exit::Failure,
};

/// Single calls under way at the same time: each is a task.
const MAX_CALLS: usize = 10_000;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) kind: BenchKind,
    pub(super) publishers: usize,
    pub(super) window: usize,
    /// Bytes of content.
    pub(super) size: usize,
    /// Messages of all publishers together.
    pub(super) messages: Option<u64>,
    /// How long publishers send.
    pub(super) sending: Option<Duration>,
    /// Sandboxes that receive what is measured.
    pub(super) inboxes: usize,
    /// Sandboxes beside them that receive nothing.
    pub(super) idle_inboxes: usize,
    /// Open subscriptions on the idle ones.
    pub(super) idle_subscribers: usize,
    /// Whether each of `inboxes` has a subscriber that acknowledges.
    pub(super) subscribed: bool,
    /// Messages a second; None is as fast as it goes.
    pub(super) rate: Option<f64>,
    pub(super) unary: bool,
}

impl Plan {
    pub(super) fn new(kind: BenchKind, load: &LoadArgs) -> Result<Self, Failure> {
        let publishers = load.publishers.map_or_else(|| default_publishers(kind), |number| number as usize);
        let inboxes = load.inboxes.map(|number| number as usize);
        let subscribers = load.subscribers.map(|number| number as usize);
        let rate = load.rate.unwrap_or(if kind == BenchKind::Idle { 1000.0 } else { 0.0 });
        let default_sending = load.messages.is_none().then_some(Duration::from_secs(10));
        let mut plan = Self {
            kind,
            publishers,
            window: load.window as usize,
            size: load.size as usize,
            messages: load.messages,
            sending: load.seconds.or(default_sending),
            inboxes: 1,
            idle_inboxes: 0,
            idle_subscribers: 0,
            subscribed: kind != BenchKind::Publish,
            rate: (rate > 0.0).then_some(rate),
            unary: load.unary,
        };
        match kind {
            BenchKind::Publish if subscribers.unwrap_or(0) > 0 => {
                return Err(Failure::usage("bench publish has no subscribers; bench inbox has"));
            }
            BenchKind::Publish => plan.inboxes = inboxes.unwrap_or(16),
            BenchKind::Inbox => {
                plan.inboxes = inboxes.or(subscribers).unwrap_or(100);
                if subscribers.is_some_and(|subscribers| subscribers != plan.inboxes) {
                    return Err(Failure::usage("bench inbox has one subscriber for each inbox; give --inboxes only"));
                }
            }
            BenchKind::Broadcast => {
                plan.inboxes = subscribers.or(inboxes).unwrap_or(10);
                if inboxes.is_some_and(|inboxes| inboxes != plan.inboxes) {
                    return Err(Failure::usage("bench broadcast goes to all subscribers; give --subscribers only"));
                }
            }
            BenchKind::Idle => {
                plan.idle_inboxes = inboxes.unwrap_or(1000);
                plan.idle_subscribers = subscribers.unwrap_or(0);
                if plan.idle_subscribers > plan.idle_inboxes {
                    return Err(Failure::usage("bench idle cannot have more --subscribers than idle --inboxes"));
                }
            }
        }
        if plan.senders() > MAX_CALLS && plan.unary {
            return Err(Failure::usage(format!(
                "--unary would have {} calls under way, {MAX_CALLS} at most; lower --window or --publishers",
                plan.senders()
            )));
        }
        if plan.inboxes == 0 {
            return Err(Failure::usage("without a subscriber there is nothing to measure"));
        }
        Ok(plan)
    }

    /// The word of the command line.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            BenchKind::Publish => "publish",
            BenchKind::Inbox => "inbox",
            BenchKind::Broadcast => "broadcast",
            BenchKind::Idle => "idle",
        }
    }

    /// Whether every message goes to all inboxes.
    pub(super) fn is_broadcast(&self) -> bool {
        self.kind == BenchKind::Broadcast
    }

    /// Deliveries that one message leads to.
    pub(super) fn deliveries_per_message(&self) -> u64 {
        match (self.subscribed, self.is_broadcast()) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => self.inboxes as u64,
        }
    }

    /// Senders that count on their own: publishers, or with single calls the calls that each has under way.
    pub(super) fn senders(&self) -> usize {
        if self.unary { self.publishers * self.window } else { self.publishers }
    }

    /// Messages of sender number `sender`; None is without limit.
    pub(super) fn messages_of(&self, sender: usize) -> Option<u64> {
        let senders = self.senders() as u64;
        self.messages.map(|messages| messages / senders + u64::from((sender as u64) < messages % senders))
    }

    /// Time without progress after which the run is given up: 10 s, or longer when messages are further apart.
    pub(super) fn stall_limit(&self) -> Duration {
        let apart = self.rate.map_or(0.0, |rate| 3.0 / rate).min(86_400.0);
        Duration::from_secs_f64(apart).max(Duration::from_secs(10))
    }
}

fn default_publishers(kind: BenchKind) -> usize {
    match kind {
        BenchKind::Publish | BenchKind::Inbox => 4,
        BenchKind::Broadcast | BenchKind::Idle => 1,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn plan(line: &str) -> Result<Plan, Failure> {
        let cli = Cli::try_parse_from(["tandem", "bench"].into_iter().chain(line.split(' '))).expect("it parses");
        let Command::Bench(args) = cli.command else { panic!("a bench was asked for") };
        Plan::new(args.kind, &args.load)
    }

    #[test]
    fn defaults_depend_on_the_kind() {
        let publish = plan("publish").expect("a plan");
        assert_eq!((publish.publishers, publish.inboxes, publish.subscribed), (4, 16, false));
        assert_eq!(publish.sending, Some(Duration::from_secs(10)));
        let inbox = plan("inbox --messages 10").expect("a plan");
        assert_eq!((inbox.inboxes, inbox.sending, inbox.subscribed), (100, None, true));
        let idle = plan("idle --subscribers 5").expect("a plan");
        assert_eq!((idle.inboxes, idle.idle_inboxes, idle.idle_subscribers, idle.rate), (1, 1000, 5, Some(1000.0)));
        assert_eq!(plan("broadcast --subscribers 7").map(|plan| plan.deliveries_per_message()).ok(), Some(7));
    }

    #[test]
    fn contradictions_are_refused() {
        for line in ["publish --subscribers 1", "inbox --inboxes 2 --subscribers 3", "idle --inboxes 1 --subscribers 2"]
        {
            assert!(matches!(plan(line), Err(Failure::Usage(_))), "{line}");
        }
    }

    #[test]
    fn messages_are_shared_out_without_rest() {
        let plan = plan("publish --messages 10 --publishers 4").expect("a plan");
        let shares: Vec<_> = (0..4).map(|sender| plan.messages_of(sender)).collect();
        assert_eq!(shares, [Some(3), Some(3), Some(2), Some(2)]);
    }
}
