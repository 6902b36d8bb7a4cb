//! What the log replicates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem_broker::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::command(bytes));
