//! What stands on disk, and what applying a command answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem_broker::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::records(bytes));
