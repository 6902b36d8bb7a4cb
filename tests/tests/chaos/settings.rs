//! What a run may be told, through the environment.

use std::{path::PathBuf, time::Duration};

use tandem_tests::Random;

use crate::nemesis::Kind;

/// See the guide.
pub(crate) struct Settings {
    /// How long faults go on.
    pub(crate) duration: Duration,
    /// From `TANDEM_TEST_SEED`; the source of every choice.
    pub(crate) random: Random,
    /// Faults that may come.
    pub(crate) faults: Vec<Kind>,
    /// Where the history goes, if it is to stay also when everything holds.
    pub(crate) keep: Option<PathBuf>,
    /// Processes on the loopback interface, as on a machine without the rights for more.
    pub(crate) loopback: bool,
}

impl Settings {
    /// Reads `TANDEM_CHAOS_SECONDS`, `TANDEM_CHAOS_FAULTS`, `TANDEM_CHAOS_LOOPBACK`, `TANDEM_CHAOS_KEEP` and `TANDEM_TEST_SEED`.
    pub(crate) fn from_environment(duration: Duration) -> Self {
        let read = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let duration = read("TANDEM_CHAOS_SECONDS").map_or(duration, |text| {
            Duration::from_secs(text.parse().expect("TANDEM_CHAOS_SECONDS must be a number of seconds"))
        });
        let faults = read("TANDEM_CHAOS_FAULTS").map_or_else(
            || Kind::ALL.to_vec(),
            |text| text.split(',').filter(|name| *name != "none").map(Kind::named).collect(),
        );
        let loopback = read("TANDEM_CHAOS_LOOPBACK").is_some();
        let keep = read("TANDEM_CHAOS_KEEP").map(PathBuf::from);
        Self { duration, keep, random: Random::from_environment(), faults, loopback }
    }
}
