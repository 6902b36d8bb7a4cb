//! An inbox that is opened again by itself.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tonic::Code;

use super::{Nack, SubscribeOptions, Subscription, outbox::Outbox, settlement::Verdict};
use crate::{Client, Error, Message, Refusal, clock};

/// A stream that was open for so long was no failure when it breaks.
pub(crate) const STANDS: Duration = Duration::from_secs(10);
/// What the contract allows.
const MAX_REASON_BYTES: usize = 1_024;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// How long the end in order may take.
const CLOSING: Duration = Duration::from_secs(10);

/// An open inbox that survives the broker: after a break it is opened again, at another node if need be,
/// [`resume_attempts`](crate::Settings::resume_attempts) times in a row. It is a [`Stream`] of deliveries, and each delivery is told
/// the outcome of what is said about it. A task of its own reads and writes, so that outcomes come also while nobody takes
/// deliveries; it holds no more of them than the credit allows.
///
/// Deliveries from before a break cannot be acknowledged any more (`LEASE_LOST`); their messages come again. Whoever wants acks by
/// range, or to see each break, uses a [`Subscription`].
///
/// Dropping it ends it in order, in the background; [`close`](Self::close) waits for that.
pub struct Inbox {
    deliveries: mpsc::Receiver<Result<InboxDelivery, Error>>,
    closing: watch::Sender<bool>,
    driver: Option<JoinHandle<Result<(), Error>>>,
    ack_deadline: Duration,
}

/// One attempt to hand over a message: say what became of it before its deadline, or extend it. When it is dropped with nothing said
/// about it, the message is given back as failed.
pub struct InboxDelivery {
    message: Message,
    delivery_id: u64,
    attempt: u32,
    lease: Lease,
    is_settled: AtomicBool,
}

/// What the deliveries of one stream share.
#[derive(Clone)]
struct Lease(Arc<Outbox>);

impl Lease {
    async fn say(&self, delivery_id: u64, verdict: Verdict) -> Result<(), Error> {
        // The other half is gone only with the stream.
        self.0.settle(delivery_id, verdict).await.unwrap_or_else(|_| Err(stale()))
    }
}

fn stale() -> Error {
    let text =
        "the delivery ended with its stream; the message comes again unless an ack had counted whose answer was lost";
    refusal(Code::FailedPrecondition, "LEASE_LOST", text)
}

fn refusal(code: Code, reason: &str, text: &str) -> Error {
    let refusal = Refusal {
        code,
        reason: reason.to_owned(),
        text: text.to_owned(),
        retry_delay: None,
        field_violations: Vec::new(),
    };
    Error::Refused(Box::new(refusal))
}

impl InboxDelivery {
    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// 1 for the first attempt.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// It is done, and the message gone for good; returns once that is durable.
    ///
    /// # Errors
    /// [`Error::Refused`] with `LEASE_LOST` when the delivery is not this client's any more, with `UNKNOWN_DELIVERY` when something
    /// was said about it before.
    pub async fn ack(&self) -> Result<(), Error> {
        self.settle(Verdict::Ack).await
    }

    /// It failed: the message comes again, or becomes a dead letter. Returns once that is durable. Of a reason the first 1,024
    /// bytes are kept.
    ///
    /// # Errors
    /// As [`ack`](Self::ack); with `INVALID_FIELD` for a delay of more than a day.
    pub async fn nack(&self, mut nack: Nack) -> Result<(), Error> {
        // What the broker refuses of a whole stream must not reach it: all other deliveries would end with it.
        if nack.delay.is_some_and(|delay| delay > LONGEST) {
            return Err(refusal(Code::InvalidArgument, "INVALID_FIELD", "the delay of a nack is a day at most"));
        }
        nack.reason.truncate(nack.reason.floor_char_boundary(MAX_REASON_BYTES));
        self.settle(Verdict::Nack(nack)).await
    }

    /// It takes longer: the deadline begins anew, `deadline` from now on, 1 s to 24 h, or None for the one of the subscription.
    ///
    /// # Errors
    /// [`Error::Refused`] with `LEASE_LOST`, with `INVALID_FIELD` for a deadline that is none.
    pub async fn extend(&self, deadline: Option<Duration>) -> Result<(), Error> {
        if deadline.is_some_and(|deadline| !(SHORTEST..=LONGEST).contains(&deadline)) {
            return Err(refusal(Code::InvalidArgument, "INVALID_FIELD", "a deadline is 1 s to 24 h"));
        }
        self.lease.say(self.delivery_id, Verdict::Extend(deadline)).await
    }

    async fn settle(&self, verdict: Verdict) -> Result<(), Error> {
        if self.is_settled.swap(true, Ordering::Relaxed) {
            let text = "something was said about this delivery before";
            return Err(refusal(Code::NotFound, "UNKNOWN_DELIVERY", text));
        }
        self.lease.say(self.delivery_id, verdict).await
    }
}

impl Drop for InboxDelivery {
    fn drop(&mut self) {
        // While the inbox ends it goes back anyway, and no attempt is counted.
        if !self.is_settled.swap(true, Ordering::Relaxed) && !self.lease.0.is_finished() {
            // Nobody waits for what comes of it.
            drop(
                self.lease.0.settle(
                    self.delivery_id,
                    Verdict::Nack(Nack::because("it was dropped, with nothing said about it")),
                ),
            );
        }
    }
}

impl fmt::Debug for InboxDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, attempt, .. } = self;
        f.debug_struct("InboxDelivery")
            .field("message_id", &message.message_id)
            .field("attempt", attempt)
            .finish_non_exhaustive()
    }
}

/// What is opened, and again.
struct Opening {
    client: Client,
    workspace_id: String,
    sandbox_id: String,
    options: SubscribeOptions,
}

impl Opening {
    async fn open(&self) -> Result<Subscription, Error> {
        let (client, options) = (self.client.clone(), self.options.clone());
        Subscription::open(client, self.workspace_id.clone(), self.sandbox_id.clone(), options).await
    }
}

impl Inbox {
    pub(crate) async fn open(
        client: Client,
        workspace_id: String,
        sandbox_id: String,
        options: SubscribeOptions,
    ) -> Result<Self, Error> {
        let attempts = client.settings().attempts;
        let opening = Opening { client, workspace_id, sandbox_id, options };
        let mut attempt = 1;
        let subscription = loop {
            match opening.open().await {
                Ok(subscription) => break subscription,
                Err(error) if error.code() == Code::Unavailable && attempt < attempts => {
                    tokio::time::sleep(clock::pause(error.retry_delay(), attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let ack_deadline = subscription.ack_deadline();
        // What is taken out of the subscription counts against its credit: one is on the way, the others wait there.
        let (hand_out, deliveries) = mpsc::channel(1);
        let (closing, closed) = watch::channel(false);
        let driver = Some(tokio::spawn(drive(opening, subscription, hand_out, closed)));
        Ok(Self { deliveries, closing, driver, ack_deadline })
    }

    /// How long a delivery may take before it counts as failed, as the broker confirmed it.
    pub fn ack_deadline(&self) -> Duration {
        self.ack_deadline
    }

    /// The next delivery; None after an error that no retry has helped. Safe to cancel.
    ///
    /// # Errors
    /// What has ended the inbox for good, once.
    pub async fn next(&mut self) -> Result<Option<InboxDelivery>, Error> {
        std::future::poll_fn(|cx| self.poll(cx)).await.transpose()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<InboxDelivery, Error>>> {
        loop {
            match std::task::ready!(self.deliveries.poll_recv(cx)) {
                // From before a break: its message comes again.
                Some(Ok(delivery)) if delivery.lease.0.has_ended() => {}
                next => return Poll::Ready(next),
            }
        }
    }

    /// Ends the inbox in order: what was said becomes durable, and what nothing was said about is given back without a failed attempt.
    ///
    /// # Errors
    /// That of the stream when it broke on the way, and [`Error::Timeout`] after 10 s.
    pub async fn close(mut self) -> Result<(), Error> {
        self.closing.send_replace(true);
        let Some(driver) = self.driver.take() else { return Ok(()) };
        self.deliveries.close();
        match tokio::time::timeout(CLOSING, driver).await {
            Ok(ended) => ended.unwrap_or(Ok(())),
            Err(_) => Err(Error::Timeout { endpoint: "the broker".into(), after: CLOSING }),
        }
    }
}

impl Stream for Inbox {
    type Item = Result<InboxDelivery, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(cx)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        self.deliveries.close();
        // Nobody has seen it: it goes back with the end of the stream, and no attempt is counted.
        while let Ok(Ok(delivery)) = self.deliveries.try_recv() {
            delivery.is_settled.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("ack_deadline", &self.ack_deadline).finish_non_exhaustive()
    }
}

/// Why a stream is not read any more.
enum End {
    /// Somebody wants it so.
    Closing,
    Broken(Error),
}

/// Runs until the inbox is closed, or cannot be opened again.
async fn drive(
    opening: Opening,
    mut subscription: Subscription,
    hand_out: mpsc::Sender<Result<InboxDelivery, Error>>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        let opened = clock::Moment::now();
        let mut error = match serve(&mut subscription, &hand_out, &mut closing).await {
            End::Closing => {
                let closed = subscription.wind_up().await;
                subscription.outbox.break_off(&Error::Closed { stream: "subscribe" });
                return closed;
            }
            End::Broken(error) => error,
        };
        subscription.outbox.break_off(&stale());
        // One that breaks as soon as it is open is no better than one that does not open.
        attempt = if opened.elapsed() >= STANDS { 1 } else { attempt };
        subscription = loop {
            let Some(wait) = opening.client.next_try(&error, attempt) else {
                tracing::warn!(sandbox = opening.sandbox_id, %error, "an inbox is closed");
                // Nobody may be there any more.
                hand_out.send(Err(error)).await.ok();
                return Ok(());
            };
            tracing::info!(sandbox = opening.sandbox_id, %error, attempt, ?wait, "an inbox is opened again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = closing.wait_for(|closing| *closing) => return Ok(()),
            }
            attempt += 1;
            match opening.open().await {
                Ok(subscription) => break subscription,
                Err(again) => error = again,
            }
        };
    }
}

/// Reads a stream, and hands out what comes when somebody has room for it.
async fn serve(
    subscription: &mut Subscription,
    hand_out: &mpsc::Sender<Result<InboxDelivery, Error>>,
    closing: &mut watch::Receiver<bool>,
) -> End {
    let lease = Lease(Arc::clone(&subscription.outbox));
    loop {
        let is_waiting = !subscription.ready.is_empty();
        let place = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return End::Closing,
            place = hand_out.reserve(), if is_waiting => place,
            read = subscription.read() => match read {
                Ok(true) => {
                    // Who has one already hears it when he says something about it.
                    if let Some(lost) = subscription.take_leases_lost() {
                        subscription.forget(&lost);
                    }
                    continue;
                }
                Ok(false) => return End::Broken(subscription.ended_early()),
                Err(error) => return End::Broken(error),
            },
        };
        let Ok(place) = place else { return End::Closing };
        let Some(raw) = subscription.ready.pop_front() else { continue };
        subscription.taken(1, raw.message.len() as u64);
        let delivery = raw.decode().map(|delivery| InboxDelivery {
            message: delivery.message,
            delivery_id: delivery.delivery_id,
            attempt: delivery.attempt,
            lease: lease.clone(),
            is_settled: AtomicBool::new(false),
        });
        place.send(delivery);
    }
}
