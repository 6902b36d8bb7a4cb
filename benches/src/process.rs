//! What this process has used.

use std::{fs, time::Instant};

use crate::clock;

/// Clock ticks a second in `/proc`, on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// A point in time, with the processor time used until then.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    at: Instant,
    cpu_seconds: f64,
}

/// What passed between two points.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Wall time, in seconds.
    pub seconds: f64,
    /// Processor time of all threads, in seconds; a hundredth is the finest step.
    pub cpu_seconds: f64,
}

impl Process {
    /// Now.
    pub fn now() -> Self {
        Self { at: clock::now(), cpu_seconds: cpu_seconds().unwrap_or(0.0) }
    }

    /// What has passed since.
    pub fn elapsed(&self) -> Sample {
        let now = Self::now();
        Sample { seconds: (now.at - self.at).as_secs_f64(), cpu_seconds: now.cpu_seconds - self.cpu_seconds }
    }
}

/// User and system time, the 14th and 15th field of `/proc/self/stat`; the second field may hold spaces, and ends with `)`.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}
