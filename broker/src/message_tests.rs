use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use tandem_proto::messaging::v1::{
    Broadcast, CapabilityDestination, Destination, Message, MessageType, destination::Kind as To,
};

use super::*;

fn message() -> Message {
    Message {
        from_sandbox_id: "a".into(),
        destination: Some(Destination { kind: Some(To::SandboxId("b".into())) }),
        r#type: MessageType::Notification.into(),
        content: Bytes::from_static(b"hello"),
        ..Message::default()
    }
}

fn refusal(message: &Message) -> Rejection {
    encode_record(&message.encode_to_vec(), &Limits::default(), &Envelope::default(), &mut BytesMut::new()).unwrap_err()
}

fn with(change: impl FnOnce(&mut Message)) -> Message {
    let mut message = message();
    change(&mut message);
    message
}

#[test]
fn a_good_message_becomes_a_record() {
    let message = with(|m| {
        m.priority = Some(9);
        m.message_id = "m1".into();
        m.metadata = HashMap::from([("k".to_owned(), "v".to_owned())]);
        m.traceparent = format!("00-{}-{}-01", "0a".repeat(16), "0b".repeat(8));
    });
    let body = message.encode_to_vec();
    let view = read(&body).unwrap();
    assert_eq!((view.message_id, view.from_sandbox_id, view.to), ("m1", "a", super::Destination::Sandbox("b")));
    let mut out = BytesMut::new();
    encode_record(&body, &Limits::default(), &Envelope::default(), &mut out).unwrap();
    assert_eq!(out[..2], [0, 9]);
    assert!(out.ends_with(&body));
}

#[test]
fn the_digest_does_not_depend_on_the_order_of_fields() {
    let pair = |key: &str| {
        let metadata = HashMap::from([(key.to_owned(), "v".to_owned())]);
        Message { metadata, ..Message::default() }.encode_to_vec()
    };
    let message = message().encode_to_vec();
    let one = [message.clone(), pair("a"), pair("b")].concat();
    let other = [pair("b"), message.clone(), pair("a")].concat();
    assert_eq!(digest(&one).unwrap(), digest(&other).unwrap());
    assert_ne!(digest(&one).unwrap(), digest(&[message, pair("a"), pair("c")].concat()).unwrap());
    assert_eq!(digest(b"\x38\x05").unwrap(), xxh3_64_with_seed(&5_u64.to_be_bytes(), 7), "part of the format");
}

#[test]
fn each_bad_value_is_refused_with_its_field() {
    let cases: Vec<(&str, Message)> = vec![
        ("from_sandbox_id", with(|m| m.from_sandbox_id.clear())),
        ("destination", with(|m| m.destination = None)),
        ("destination", with(|m| m.destination = Some(Destination { kind: None }))),
        (
            "destination.sandbox_id",
            with(|m| m.destination = Some(Destination { kind: Some(To::SandboxId("-".into())) })),
        ),
        ("type", with(|m| m.r#type = 0)),
        ("type", with(|m| m.r#type = 9)),
        ("content", with(|m| m.content = Bytes::new())),
        ("priority", with(|m| m.priority = Some(10))),
        ("requires_response", with(|m| m.requires_response = true)),
        ("message_id", with(|m| m.message_id = "seq-1".into())),
        ("message_id", with(|m| m.message_id = "a b".into())),
        ("from_agent", with(|m| m.from_agent = "x".repeat(129))),
        ("correlation_id", with(|m| m.correlation_id = "x".repeat(129))),
        ("content_type", with(|m| m.content_type = "x".repeat(129))),
        ("traceparent", with(|m| m.traceparent = "nonsense".into())),
        ("ttl", with(|m| m.ttl = Some(prost_types::Duration { seconds: 0, nanos: 999_999_999 - 999_999 }))),
        ("ttl", with(|m| m.ttl = Some(prost_types::Duration { seconds: -5, nanos: 0 }))),
        ("ttl", with(|m| m.ttl = Some(prost_types::Duration { seconds: 367 * 86_400, nanos: 0 }))),
        ("not_before", with(|m| m.not_before = Some(prost_types::Timestamp { seconds: 367 * 86_400, nanos: 0 }))),
        ("ordering_key", with(|m| m.ordering_key = "x".repeat(129))),
        ("destination.topic", with(|m| m.destination = Some(Destination { kind: Some(To::Topic("a..b".into())) }))),
        (
            "dead_letter_on_expiry",
            with(|m| {
                m.destination = Some(Destination { kind: Some(To::Broadcast(Broadcast {})) });
                m.dead_letter_on_expiry = true;
            }),
        ),
        ("metadata", with(|m| m.metadata = HashMap::from([(String::new(), "v".to_owned())]))),
        ("metadata", with(|m| m.metadata = HashMap::from([(ERROR_KEY.to_owned(), "EXPIRED".to_owned())]))),
        ("message", with(|m| m.sequence = 5)),
        ("message", with(|m| m.workspace_id = "w".into())),
    ];
    for (field, message) in cases {
        let refused = refusal(&message);
        assert_eq!((refused.reason, refused.field.as_str()), (Reason::InvalidField, field), "{}", refused.text);
    }
}

#[test]
fn fields_without_behaviour_are_refused_not_ignored() {
    let both = CapabilityDestination { capability: "c".into(), all: true, wait: true };
    let refused = refusal(&with(|m| m.destination = Some(Destination { kind: Some(To::Capability(both)) })));
    assert_eq!((refused.reason, refused.field.as_str()), (Reason::InvalidField, "destination.capability"));
    let mut unknown = message().encode_to_vec();
    unknown.extend([0xc8, 0x01, 1]); // field 25
    assert_eq!(read(&unknown).unwrap_err().reason, Reason::UnsupportedField);
}

#[test]
fn broken_utf8_is_refused_with_its_place() {
    let mut body = message().encode_to_vec();
    body.extend([0x1a, 2, b'a', 0xff]); // from_agent
    let refused = read(&body).unwrap_err();
    assert_eq!(refused.field, "from_agent");
    assert!(refused.text.contains("UTF-8 at byte 1"), "{}", refused.text);
}

#[test]
fn an_oversized_message_is_refused() {
    let refused = refusal(&with(|m| m.content = vec![0; 1 << 20].into()));
    assert_eq!(refused.reason, Reason::MessageTooLarge);
}

#[test]
fn a_message_with_two_destinations_is_refused() {
    let to = |kind| Message { destination: Some(Destination { kind }), ..Message::default() }.encode_to_vec();
    let first = with(|m| m.destination = Some(Destination { kind: Some(To::Broadcast(Broadcast {})) })).encode_to_vec();
    // A generated reader would take the last one, or, of an empty one, the one before.
    for second in [to(Some(To::SandboxId("b".into()))), to(None)] {
        let refused = read(&[first.clone(), second].concat()).unwrap_err();
        assert_eq!((refused.reason, refused.field.as_str()), (Reason::InvalidField, "destination"));
    }
    let mut within = Destination { kind: Some(To::SandboxId("b".into())) }.encode_to_vec();
    within.extend(Destination { kind: Some(To::Topic("t".into())) }.encode_to_vec());
    let body = [&[0x22, within.len() as u8], within.as_slice()].concat();
    assert_eq!(read(&body).unwrap_err().field, "destination");
}

proptest! {
    /// Whatever this reader accepts, a generated one accepts too and sees the same.
    #[test]
    fn accepted_bytes_can_be_read_by_generated_code(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(view) = read(&bytes) {
            let message = Message::decode(bytes.as_slice());
            prop_assert!(message.is_ok(), "{message:?}");
            prop_assert_eq!(view.from_sandbox_id, message.unwrap().from_sandbox_id);
            // And who judges it where it is applied reads the same.
            let said = Said::in_body(&bytes);
            prop_assert_eq!((said.from_agent, said.to_agent), (view.from_agent, view.to_agent));
            let wanted = if let super::Destination::Capability(wanted) = view.to { wanted.name } else { "" };
            prop_assert_eq!(said.capability, wanted);
        }
    }

    #[test]
    fn mutated_messages_never_panic(at in 0usize..64, byte: u8) {
        let mut body = message().encode_to_vec();
        let length = body.len();
        body[at % length] = byte;
        if encode_record(&body, &Limits::default(), &Envelope::default(), &mut BytesMut::new()).is_ok() {
            prop_assert!(Message::decode(body.as_slice()).is_ok());
        }
    }
}
