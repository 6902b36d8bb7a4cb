//! What a benchmark will do: the arguments with the defaults of its kind filled in.

use std::time::Duration;

use super::payload::Shape;
use crate::{
    args::{BenchKind, LoadArgs},
    clock,
    exit::Failure,
};

/// Inboxes that the backlog lies in, and that dead letters leave.
const BACKLOG_INBOXES: usize = 100;

/// Single calls under way at the same time: each is a task.
const MAX_CALLS: usize = 10_000;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) kind: BenchKind,
    pub(super) publishers: usize,
    pub(super) window: usize,
    pub(super) shape: Shape,
    /// Delays every message; at the last inbox twice as much when `spread`.
    pub(super) delay: Option<Duration>,
    pub(super) spread: bool,
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
    /// Ordering keys of all inboxes together; 0 is none.
    pub(super) keys: usize,
    /// The names of `inboxes` begin with this.
    pub(super) inbox_prefix: &'static str,
    /// What waits before the measurement begins and when it has ended.
    pub(super) backlog: Option<Box<Plan>>,
    /// What becomes dead letters, and is put back.
    pub(super) dead_letters: Option<Box<Plan>>,
}

impl Plan {
    pub(super) fn new(kind: BenchKind, load: &LoadArgs) -> Result<Self, Failure> {
        let publishers = load.publishers.map_or_else(|| default_publishers(kind), |number| number as usize);
        let inboxes = load.inboxes.map(|number| number as usize);
        let subscribers = load.subscribers.map(|number| number as usize);
        let paced = matches!(kind, BenchKind::Idle | BenchKind::Redrive);
        let rate = load.rate.unwrap_or(if paced { 1000.0 } else { 0.0 });
        let default_seconds = if kind == BenchKind::Redrive { 5 } else { 10 };
        let default_sending = load.messages.is_none().then_some(Duration::from_secs(default_seconds));
        let mut plan = Self {
            kind,
            publishers,
            window: load.window as usize,
            shape: Shape {
                size: load.size as usize,
                keyed: load.shape.keys > 0,
                ids: load.shape.ids,
                ttl: load.shape.ttl,
                not_before: None,
            },
            delay: load.shape.delay,
            spread: false,
            messages: load.messages,
            sending: load.seconds.or(default_sending),
            inboxes: 1,
            idle_inboxes: 0,
            idle_subscribers: 0,
            subscribed: kind != BenchKind::Publish,
            rate: (rate > 0.0).then_some(rate),
            unary: load.unary,
            keys: load.shape.keys as usize,
            inbox_prefix: "inbox",
            backlog: None,
            dead_letters: None,
        };
        plan.set_sandboxes(inboxes, subscribers)?;
        plan.check()?;
        if load.beside.backlog > 0 {
            let backlog = plan.silent("backlog", load.beside.backlog, load.beside.backlog_ttl);
            plan.backlog = Some(Box::new(Plan { delay: load.beside.backlog_delay, spread: true, ..backlog }));
        }
        match (kind, load.beside.dead_letters) {
            (BenchKind::Redrive, number) => {
                plan.dead_letters = Some(Box::new(plan.silent("letters", number.unwrap_or(100_000), None)));
            }
            (_, Some(_)) => return Err(Failure::usage("--dead-letters is for bench redrive")),
            _ => {}
        }
        Ok(plan)
    }

    /// As many messages as fast as it goes to inboxes of their own that nobody reads.
    fn silent(&self, inbox_prefix: &'static str, messages: u64, ttl: Option<Duration>) -> Self {
        Self {
            kind: BenchKind::Publish,
            shape: Shape { size: self.shape.size, ttl, ..Shape::default() },
            delay: None,
            messages: Some(messages),
            sending: None,
            inboxes: BACKLOG_INBOXES,
            idle_inboxes: 0,
            idle_subscribers: 0,
            subscribed: false,
            window: 1024,
            rate: None,
            unary: false,
            keys: 0,
            inbox_prefix,
            backlog: None,
            dead_letters: None,
            ..self.clone()
        }
    }

    fn set_sandboxes(&mut self, inboxes: Option<usize>, subscribers: Option<usize>) -> Result<(), Failure> {
        let plan = self;
        match plan.kind {
            BenchKind::Publish if subscribers.unwrap_or(0) > 0 => {
                return Err(Failure::usage("bench publish has no subscribers; bench inbox has"));
            }
            BenchKind::Publish => plan.inboxes = inboxes.unwrap_or(16),
            BenchKind::Inbox | BenchKind::Redrive => {
                plan.inboxes = inboxes.or(subscribers).unwrap_or(100);
                if subscribers.is_some_and(|subscribers| subscribers != plan.inboxes) {
                    let text = format!("bench {} has one subscriber for each inbox; give --inboxes only", plan.name());
                    return Err(Failure::usage(text));
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
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        let plan = self;
        if plan.keys > 0 && !matches!(plan.kind, BenchKind::Publish | BenchKind::Inbox) {
            return Err(Failure::usage("--keys is for bench publish and bench inbox"));
        }
        if (1..plan.inboxes).contains(&plan.keys) {
            let text = format!("--keys is {}; give at least one for each of the {} inboxes", plan.keys, plan.inboxes);
            return Err(Failure::usage(text));
        }
        if plan.delay.is_some() && plan.kind != BenchKind::Publish {
            return Err(Failure::usage("--delay is for bench publish, where nobody waits for the messages"));
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
        Ok(())
    }

    /// The sandbox with this place among `inboxes`.
    pub(super) fn inbox_id(&self, index: usize) -> String {
        format!("{}-{index}", self.inbox_prefix)
    }

    /// What the messages to this inbox carry; their delay begins now.
    pub(super) fn shape_of(&self, inbox: usize) -> Shape {
        let share = if self.spread { 1.0 + inbox as f64 / self.inboxes as f64 } else { 1.0 };
        let not_before = self.delay.map(|delay| clock::now() + delay.mul_f64(share));
        Shape { not_before, ..self.shape.clone() }
    }

    /// What messages are counted and ordered by: ordering keys, or inboxes, or everybody.
    pub(super) fn recipients(&self) -> usize {
        if self.is_broadcast() { 1 } else { self.keys.max(self.inboxes) }
    }

    /// The word of the command line.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            BenchKind::Publish => "publish",
            BenchKind::Inbox => "inbox",
            BenchKind::Broadcast => "broadcast",
            BenchKind::Idle => "idle",
            BenchKind::Redrive => "redrive",
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
        BenchKind::Broadcast | BenchKind::Idle | BenchKind::Redrive => 1,
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
        assert_eq!(plan("broadcast --followers 7").map(|plan| plan.deliveries_per_message()).ok(), Some(7));
        let redrive = plan("redrive --dead-letters 9").expect("a plan");
        assert_eq!((redrive.inboxes, redrive.rate, redrive.sending), (100, Some(1000.0), Some(Duration::from_secs(5))));
        let letters = redrive.dead_letters.expect("letters");
        assert_eq!((letters.messages, letters.rate, letters.inbox_id(3)), (Some(9), None, "letters-3".to_owned()));
    }

    #[test]
    fn a_backlog_waits_beside_the_load() {
        let plan = plan("publish --ttl 5 --backlog 20 --backlog-delay 100").expect("a plan");
        let backlog = plan.backlog.as_deref().expect("a backlog");
        assert_eq!(
            (backlog.messages, backlog.shape.ttl, plan.shape.ttl),
            (Some(20), None, Some(Duration::from_secs(5)))
        );
        let begins = |inbox| backlog.shape_of(inbox).not_before.expect("a time");
        let apart = begins(50).duration_since(begins(0)).expect("later");
        assert!((45..=55).contains(&apart.as_secs()), "{apart:?}");
        assert!(plan.shape_of(0).not_before.is_none());
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "publish --subscribers 1",
            "inbox --inboxes 2 --subscribers 3",
            "idle --inboxes 1 --subscribers 2",
            "inbox --inboxes 5 --keys 4",
            "broadcast --keys 4",
            "inbox --delay 1",
            "publish --dead-letters 5",
        ] {
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
