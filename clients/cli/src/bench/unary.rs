//! A sender that publishes with single calls, one at a time.

use std::sync::{Arc, atomic::Ordering};

use tandem_client::Publisher;

use super::{
    live::{Live, SharedHistogram},
    pace::Pace,
    publisher::{Sent, Targets},
};
use crate::{clock, exit::Failure};

pub(super) struct UnarySender {
    pub(super) publisher: Publisher,
    pub(super) targets: Targets,
    pub(super) pace: Pace,
    pub(super) live: Arc<Live>,
    /// From the call to its answer, one entry a message.
    pub(super) latency: SharedHistogram,
}

impl UnarySender {
    pub(super) async fn run(mut self) -> Result<Sent, Failure> {
        let mut sent = Sent::new(self.targets.sender);
        loop {
            let now = clock::nanos();
            if self.pace.is_over(now) || self.live.is_stopped() {
                return Ok(Sent { counts: self.targets.into_counts(), ..sent });
            }
            if self.pace.take(now, 1) == 0 {
                tokio::time::sleep(self.pace.wait(now)).await;
                continue;
            }
            let (template, stamp) = self.targets.next(now);
            let message = template.stamped(stamp)?;
            self.publisher.publish(message).await?;
            sent.last_nanos = clock::nanos();
            self.latency.record(sent.last_nanos - now, 1);
            sent.acked += 1;
            self.live.acked.fetch_add(1, Ordering::Relaxed);
        }
    }
}
