use bytes::BytesMut;
use prost::Message as _;
use tandem_proto::messaging::v1 as wire;

use super::*;
use crate::{
    batch::{Batch, Kind, Record, encode_header},
    command::{Lane, Source},
};

fn message(id: &str, time_ms: u64) -> MessageRef {
    let body =
        wire::Message { from_sandbox_id: "a".into(), message_id: id.into(), ..Default::default() }.encode_to_vec();
    let mut out = BytesMut::new();
    encode_header(time_ms, 1, &mut out);
    Record { kind: Kind::Direct, priority: 5, hops: 7, from: "a", to: "b", id, body: &body, ..Record::default() }
        .encode(&mut out);
    MessageRef { batch: Arc::new(Batch::decode(300, out.freeze()).unwrap()), index: 0 }
}

fn item(attempt: u32, message: MessageRef) -> Item {
    Item { message, lane: Lane { source: Source::Direct, priority: 5 }, after: 0, attempt, expires_ms: 0 }
}

#[test]
fn a_delivery_is_a_message_with_the_fields_of_the_broker() {
    for (id, time_ms, nanos) in [("", 1_700_000_000_123, 123_000_000), ("m1", 1_700_000_000_000, 0)] {
        let mut out = BytesMut::new();
        let message_bytes =
            encode_delivery(200, &item(300, message(id, time_ms)), (&Sealer::none(), "team"), &mut out).unwrap();
        let batch = wire::DeliveryBatch::decode(out.freeze()).unwrap();
        let delivery = &batch.deliveries[0];
        assert_eq!((batch.deliveries.len(), delivery.delivery_id, delivery.attempt), (1, 200, 300));
        let message = delivery.message.clone().unwrap();
        assert_eq!(message_bytes, message.encoded_len(), "what is taken from the credit");
        assert_eq!(message.message_id, if id.is_empty() { "seq-300" } else { id });
        assert_eq!((message.workspace_id.as_str(), message.sequence), ("team", 300));
        assert_eq!(message.server_time, Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos }));
        assert_eq!((message.from_sandbox_id.as_str(), message.hop_count), ("a", 7));
    }
}

#[test]
fn varints_have_the_length_they_are_said_to_have() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
        let mut out = BytesMut::new();
        put_varint(&mut out, value);
        assert_eq!(out.len(), varint_length(value));
    }
}
