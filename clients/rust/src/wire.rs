//! Times and durations as the contract has them.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// A duration of the contract, for fields of its messages such as `RetryPolicy::initial_backoff`. What is too long for one
/// (292 billion years) becomes the longest there is.
pub fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// A point in time of the contract, for fields of its messages such as `Message::not_before`.
pub fn wire_time(time: SystemTime) -> Timestamp {
    time.into()
}

/// A duration of the contract; None when the server sent none or one below zero.
pub(crate) fn from_duration(duration: Option<prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| Duration::try_from(duration).ok())
}

/// A time of the contract; the epoch when the server sent none or one that this machine cannot hold.
pub(crate) fn from_timestamp(timestamp: Option<Timestamp>) -> SystemTime {
    timestamp.and_then(|timestamp| SystemTime::try_from(timestamp).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_go_there_and_back() {
        let half = Duration::from_millis(1500);
        assert_eq!(wire_duration(half), prost_types::Duration { seconds: 1, nanos: 500_000_000 });
        assert_eq!(from_duration(Some(wire_duration(half))), Some(half));
        assert_eq!(wire_duration(Duration::MAX).seconds, i64::MAX);
        assert_eq!(from_duration(Some(prost_types::Duration { seconds: -1, nanos: 0 })), None);
    }
}
