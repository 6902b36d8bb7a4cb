//! What must hold whatever happens, one to a file.

mod acknowledged_is_there_once;
mod acks_win_once;
mod every_message_has_one_end;
mod keys_keep_order;
mod nobody_has_to_stop;
mod order_follows_time;
mod reads_are_prefixes;
mod replicas_agree;

use super::history::{Final, History};

/// An invariant: nothing, or what breaks it.
type Invariant = fn(&History, &Final) -> Vec<String>;

const ALL: [(&str, Invariant); 8] = [
    ("acknowledged is there once", acknowledged_is_there_once::check),
    ("acks win once", acks_win_once::check),
    ("every message has one end", every_message_has_one_end::check),
    ("keys keep order", keys_keep_order::check),
    ("nobody has to stop", nobody_has_to_stop::check),
    ("order follows time", order_follows_time::check),
    ("reads are prefixes", reads_are_prefixes::check),
    ("replicas agree", replicas_agree::check),
];

/// All that is broken, with the name of the invariant.
pub(super) fn broken(history: &History, end: &Final) -> Vec<String> {
    let named = |name: &'static str, found: Vec<String>| found.into_iter().map(move |what| format!("{name}: {what}"));
    ALL.iter().flat_map(|(name, check)| named(name, check(history, end))).collect()
}
