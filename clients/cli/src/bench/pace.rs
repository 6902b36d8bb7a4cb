//! When to send.

use std::time::Duration;

use super::plan::Plan;

/// Spreads the messages of one sender over time, and ends them. Times are those of [`clock::nanos`](crate::clock::nanos).
#[derive(Debug)]
pub(super) struct Pace {
    start_nanos: u64,
    end_nanos: u64,
    /// Time between messages; None is none.
    every_nanos: Option<f64>,
    /// Messages that are left.
    left: u64,
    taken: u64,
}

impl Pace {
    /// For sender number `sender` of the plan. Senders begin evenly spread over one interval.
    pub(super) fn new(plan: &Plan, sender: usize, start_nanos: u64) -> Self {
        let senders = plan.senders() as f64;
        let every_nanos = plan.rate.map(|rate| 1e9 * senders / rate);
        let offset = every_nanos.map_or(0.0, |every| every * sender as f64 / senders);
        Self {
            start_nanos: start_nanos + offset as u64,
            end_nanos: plan.sending.map_or(u64::MAX, |sending| start_nanos.saturating_add(sending.as_nanos() as u64)),
            every_nanos,
            left: plan.messages_of(sender).unwrap_or(u64::MAX),
            taken: 0,
        }
    }

    /// Whether nothing is left to send at all.
    pub(super) fn is_over(&self, now_nanos: u64) -> bool {
        self.left == 0 || now_nanos >= self.end_nanos
    }

    /// How many messages are due, up to `room`; they count as sent.
    pub(super) fn take(&mut self, now_nanos: u64, room: u64) -> u64 {
        if self.is_over(now_nanos) {
            return 0;
        }
        let due = match self.every_nanos {
            None => u64::MAX,
            Some(_) if now_nanos < self.start_nanos => 0,
            Some(every) => (((now_nanos - self.start_nanos) as f64 / every) as u64 + 1).saturating_sub(self.taken),
        };
        let taken = due.min(room).min(self.left);
        self.taken += taken;
        if self.left != u64::MAX {
            self.left -= taken;
        }
        taken
    }

    /// How long until the next message is due; zero when one is, or when there is no pace.
    pub(super) fn wait(&self, now_nanos: u64) -> Duration {
        let Some(every) = self.every_nanos else { return Duration::ZERO };
        let due = self.start_nanos.saturating_add((every * self.taken as f64) as u64).min(self.end_nanos);
        Duration::from_nanos(due.saturating_sub(now_nanos))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn plan(rate: Option<f64>, messages: Option<u64>) -> Plan {
        let line = ["tandem", "bench", "inbox", "--publishers", "2", "--seconds", "2"];
        let Command::Bench(args) = Cli::try_parse_from(line).expect("it parses").command else {
            panic!("a bench was asked for")
        };
        Plan { rate, messages, ..Plan::new(args.kind, &args.load).expect("a plan") }
    }

    #[test]
    fn a_paced_sender_keeps_its_share_of_the_rate() {
        // 1000 a second over two senders: one every 2 ms, the second one half an interval later.
        let mut pace = Pace::new(&plan(Some(1000.0), None), 1, 0);
        assert_eq!((pace.take(0, 99), pace.wait(0)), (0, Duration::from_millis(1)));
        assert_eq!((pace.take(1_000_000, 99), pace.wait(1_000_000)), (1, Duration::from_millis(2)));
        // Late by three intervals: what is due goes out, as far as there is room.
        assert_eq!((pace.take(7_000_000, 2), pace.wait(7_000_000)), (2, Duration::ZERO));
        assert_eq!(pace.take(7_000_000, 2), 1);
        assert!(!pace.is_over(1_999_999_999) && pace.is_over(2_000_000_000));
        assert_eq!(pace.take(2_000_000_000, 2), 0);
    }

    #[test]
    fn an_unpaced_sender_takes_all_the_room_until_its_messages_are_sent() {
        let mut pace = Pace::new(&plan(None, Some(25)), 0, 0);
        assert_eq!([pace.take(0, 10), pace.take(0, 10), pace.take(0, 10)], [10, 3, 0]);
        assert!(pace.is_over(1));
    }
}
