//! What a publish carries. Its reader is written by hand, so generated code is the judge of what it accepts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use tandem_broker::fuzzing;
use tandem_proto::messaging::v1::Message;

fuzz_target!(|bytes: &[u8]| {
    if fuzzing::message(bytes) {
        let message = Message::decode(bytes).expect("what the broker accepts, generated code can read");
        // The broker hands out the bytes as they came. Whoever reads them must see a message that keeps the contract:
        // one that could be published again.
        assert!(fuzzing::message(&message.encode_to_vec()), "refused when encoded again: {message:?}");
    }
});
