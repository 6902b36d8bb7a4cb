//! A sender that publishes over a stream.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use futures_util::FutureExt as _;
use tandem_client::{Batch, BatchReceipt, BatchStream, ExceptionKind, Publisher};

use super::{
    live::{Live, SharedHistogram},
    pace::Pace,
    payload::{Stamp, Template},
};
use crate::{clock, exit::Failure};

/// The broker's limit on messages in a request.
const BATCH_MESSAGES: u64 = 1000;
/// Half of the broker's limit on bytes in a request, for large messages.
const BATCH_BYTES: u64 = 512 << 10;

/// What a sender did.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) sender: u32,
    pub(super) acked: u64,
    /// Messages by recipient.
    pub(super) counts: Vec<u64>,
    /// When the last acknowledgement came.
    pub(super) last_nanos: u64,
}

impl Sent {
    pub(super) fn new(sender: u32) -> Self {
        Self { sender, acked: 0, counts: Vec::new(), last_nanos: clock::nanos() }
    }
}

/// Where messages go, one after the other, and how many went there.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) sender: u32,
    /// One for each inbox; one in all for broadcast.
    templates: Vec<Template>,
    /// Messages by recipient: keys are recipients of their own, shared out over the inboxes.
    counts: Vec<u64>,
    next: usize,
    /// Where the next recipient comes from when there are more of them than inboxes.
    random: u64,
}

impl Targets {
    /// Sender number n begins with recipient n, so that they do not go in step.
    pub(super) fn new(sender: u32, templates: Vec<Template>, recipients: usize) -> Self {
        let (counts, next) = (vec![0; recipients], sender as usize % recipients);
        Self { sender, templates, counts, next, random: u64::from(sender) + 1 }
    }

    /// The next template with its stamp.
    pub(super) fn next(&mut self, sent_nanos: u64) -> (&mut Template, Stamp) {
        let recipient = self.next;
        self.next = if self.counts.len() > self.templates.len() {
            // Keys as they come in life: senders in step would all hit the same one at the same time. The same keys in
            // every run (splitmix64).
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed % self.counts.len() as u64) as usize
        } else if recipient + 1 == self.counts.len() {
            0
        } else {
            recipient + 1
        };
        self.counts[recipient] += 1;
        let stamp =
            Stamp { sent_nanos, count: self.counts[recipient], sender: self.sender, recipient: recipient as u32 };
        let inbox = recipient % self.templates.len();
        (&mut self.templates[inbox], stamp)
    }

    /// Messages by recipient.
    pub(super) fn into_counts(self) -> Vec<u64> {
        self.counts
    }

    fn message_bytes(&self) -> usize {
        self.templates.iter().map(Template::encoded_bytes).max().unwrap_or(0)
    }
}

/// Keeps `window` messages unacknowledged: whatever number is acknowledged is sent anew, as one request.
pub(super) struct StreamSender {
    pub(super) publisher: Publisher,
    pub(super) targets: Targets,
    pub(super) window: u64,
    pub(super) pace: Pace,
    pub(super) live: Arc<Live>,
    /// From sending to acknowledgement, one entry a message.
    pub(super) latency: SharedHistogram,
}

impl StreamSender {
    pub(super) async fn run(mut self) -> Result<Sent, Failure> {
        let mut stream = self.publisher.batch_stream();
        let mut flight = Flight { unacked: VecDeque::new(), messages: 0, sent: Sent::new(self.targets.sender) };
        loop {
            let now = clock::nanos();
            if !self.live.is_stopped() {
                self.fill(&mut stream, &mut flight, now)?;
            }
            if flight.messages == 0 {
                if self.is_over(now) {
                    break;
                }
                tokio::time::sleep(self.pace.wait(now)).await;
                continue;
            }
            let wait = self.pace.wait(now);
            let answer = if wait.is_zero() || flight.messages >= self.window || self.is_over(now) {
                stream.next().await
            } else {
                match tokio::time::timeout(wait, stream.next()).await {
                    Ok(answer) => answer,
                    Err(_) => continue,
                }
            };
            self.take(&mut flight, answer?)?;
            // What else has come in the meantime makes the next request larger.
            while flight.messages > 0
                && let Some(answer) = stream.next().now_or_never()
            {
                self.take(&mut flight, answer?)?;
            }
        }
        stream.finish();
        Ok(Sent { counts: self.targets.into_counts(), ..flight.sent })
    }

    fn is_over(&self, now: u64) -> bool {
        self.pace.is_over(now) || self.live.is_stopped()
    }

    /// Sends what is due and fits into the window.
    fn fill(&mut self, stream: &mut BatchStream, flight: &mut Flight, now: u64) -> Result<(), Failure> {
        let message_bytes = self.targets.message_bytes();
        let limit = (BATCH_BYTES / message_bytes as u64).clamp(1, BATCH_MESSAGES);
        while stream.unanswered() < BatchStream::MAX_UNANSWERED {
            let room = (self.window - flight.messages).min(limit);
            let messages = self.pace.take(now, room);
            if messages == 0 {
                break;
            }
            let mut batch = Batch::with_capacity((message_bytes + 6) * messages as usize);
            for _ in 0..messages {
                let (template, stamp) = self.targets.next(now);
                template.push_to(&mut batch, stamp);
            }
            stream.send(batch)?;
            flight.messages += messages;
            flight.unacked.push_back((messages, now));
        }
        Ok(())
    }

    fn take(&self, flight: &mut Flight, answer: Option<BatchReceipt>) -> Result<(), Failure> {
        let ended = || Failure::failed("STREAM_ENDED", "the broker ended a publish stream; it may be stopping");
        let receipt = answer.ok_or_else(ended)?;
        let (messages, sent_nanos) = flight.unacked.pop_front().ok_or_else(ended)?;
        if let Some(exception) = receipt.exceptions.into_iter().next() {
            return Err(match exception.kind {
                ExceptionKind::Refused(error) => error.into(),
                ExceptionKind::DuplicateOf(sequence) => {
                    Failure::failed("DUPLICATE", format!("a new message was taken for a repetition of #{sequence}"))
                }
                ExceptionKind::Held { approval_id } => {
                    Failure::failed("HELD", format!("a policy holds a message for approval {approval_id}"))
                }
            });
        }
        let now = clock::nanos();
        // One answer for all of them, so one latency.
        self.latency.record(now - sent_nanos, messages);
        flight.sent.acked += messages;
        flight.sent.last_nanos = now;
        flight.messages -= messages;
        self.live.acked.fetch_add(messages, Ordering::Relaxed);
        Ok(())
    }
}

/// What is under way and what has come back.
struct Flight {
    /// Messages of each request and when it was sent, oldest first.
    unacked: VecDeque<(u64, u64)>,
    messages: u64,
    sent: Sent,
}
