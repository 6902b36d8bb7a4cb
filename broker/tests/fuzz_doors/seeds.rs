//! Inputs that the doors accept, and some that they refuse for one reason only: where a fuzzer should begin.
//!
//! Commands and records are written here by hand, after the layouts that `command`, `batch` and `machine` document: a
//! second opinion on bytes that are frozen. Numbers are big-endian.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use tandem_proto::messaging::v1::{Broadcast, Destination, Message, MessageType, destination::Kind as To};

/// Inputs by name.
pub(crate) type Seeds = BTreeMap<&'static str, Vec<u8>>;

/// The doors, as they are named in `fuzz/seeds`, with their inputs.
pub(crate) fn all() -> [(&'static str, Seeds); 3] {
    [("message", messages()), ("command", commands()), ("records", records())]
}

fn to(kind: To) -> Option<Destination> {
    Some(Destination { kind: Some(kind) })
}

fn direct() -> Message {
    Message {
        from_sandbox_id: "a".into(),
        destination: to(To::SandboxId("b".into())),
        r#type: MessageType::Notification.into(),
        content: "hello".into(),
        ..Message::default()
    }
}

fn full() -> Message {
    Message {
        message_id: "m1".into(),
        from_agent: "planner".into(),
        to_agent: "any".into(),
        r#type: MessageType::Request.into(),
        content_type: "text/plain".into(),
        priority: Some(9),
        requires_response: true,
        correlation_id: "c1".into(),
        metadata: HashMap::from([("k".to_owned(), "v".to_owned())]),
        traceparent: format!("00-{}-{}-01", "0a".repeat(16), "0b".repeat(8)),
        ..direct()
    }
}

/// Messages; those whose name begins with `refused` must be.
pub(crate) fn messages() -> Seeds {
    let broadcast = Message { destination: to(To::Broadcast(Broadcast {})), ..direct() };
    let more = Message { metadata: HashMap::from([("k2".to_owned(), "ü".to_owned())]), ..Message::default() };
    let behind = |first: &Message, second: &Message| [first.encode_to_vec(), second.encode_to_vec()].concat();
    let ttl = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let not_before = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    BTreeMap::from([
        ("direct", direct().encode_to_vec()),
        ("broadcast", broadcast.encode_to_vec()),
        ("full", full().encode_to_vec()),
        ("two_pairs", behind(&full(), &more)),
        ("refused_two_destinations", behind(&broadcast, &direct())),
        ("topic", Message { destination: to(To::Topic("t.u".into())), ..direct() }.encode_to_vec()),
        ("ttl", Message { ttl, dead_letter_on_expiry: true, ..direct() }.encode_to_vec()),
        ("not_before", Message { not_before, ..direct() }.encode_to_vec()),
        ("ordering_key", Message { ordering_key: "k".into(), ..direct() }.encode_to_vec()),
        ("refused_delayed_broadcast", Message { not_before, ..broadcast.clone() }.encode_to_vec()),
        ("refused_sequence", Message { sequence: 5, ..direct() }.encode_to_vec()),
        ("refused_priority", Message { priority: Some(10), ..direct() }.encode_to_vec()),
    ])
}

/// Bytes in the making.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A length byte, and the text.
    fn text(mut self, text: &str) -> Self {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self
    }

    /// Four bytes of length, and the bytes.
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.u32(bytes.len() as u32);
        self.0.extend(bytes);
        self
    }

    /// A verb, or what it came to.
    fn item(self, verb: u8, payload: Self) -> Self {
        self.u8(verb).bytes(&payload.0)
    }

    fn then(mut self, rest: &[u8]) -> Self {
        self.0.extend(rest);
        self
    }
}

fn start() -> Bytes {
    Bytes::default()
}

/// A direct message, a broadcast and a place that is kept.
fn batch() -> Vec<u8> {
    let body = direct().encode_to_vec();
    let head = start().u8(2).u64(1000).u32(3);
    let direct = head.then(&[0, 5, 1, 0, 255]).text("a").text("b").text("m1").u64(7);
    let extras =
        direct.u64(1).u64(2).u64(3).u64(0).u64(4).u64(0).u64(5).u64(6).u64(7).then(&[0, 1]).u32(8).bytes(&body);
    let broadcast = extras.then(&[1, 9, 1, 0, 0]).text("a").text("").text("").u64(0).bytes(&body);
    broadcast.then(&[255, 0, 0, 0, 0]).text("").text("").text("").u64(0).bytes(b"").0
}

fn commands() -> Seeds {
    let head = || start().u8(2).u64(1000).u64(100_000).u64(1 << 30).u64(1_000).u64(7);
    let ranges = start().u32(1).u32(2).u32(1).u32(u32::MAX).u8(9).u64(3).u64(7).u32(2).u64(99);
    let settings = start().text("w").text("s").bytes(b"d").u32(5).u32(0).u64(0).u64(0).u64(0).u64(0);
    let failed = start().u32(1).u32(2).u32(1).u32(0).u8(5).u64(9).u64(7).u64(1);
    let verbs = [
        ("publish", 1, start().text("w").then(&batch())),
        ("ack", 2, ranges.u32(1).u8(4).u64(1).u64(7).u32(1).u8(5).u64(9)),
        ("register_sandbox", 3, settings.u32(1).text("c").u64(30_000)),
        ("unregister_sandbox", 4, start().text("w").text("s")),
        ("heartbeat", 5, start().text("w").text("s")),
        ("create_workspace", 6, start().text("w").u32(9).u64(0).u64(0).u64(0).u8(16)),
        ("delete_workspace", 7, start().text("w")),
        ("nack", 8, failed.u32(0).u8(2).bytes(b"slow").u8(1).u64(7).u8(0)),
        ("tick", 9, start().u32(1_024).u32(1).u32(1).u32(2).u32(0).u8(5).u64(9).u64(30_000)),
        ("redrive", 10, start().text("w").u32(1).u32(2).u64(9).text("s")),
        ("follow_topics", 14, start().text("w").text("s").text("t.>").u8(1).u64(7).u32(256)),
    ];
    let mut seeds = BTreeMap::from([("no_verb", head().0)]);
    let mut every = head();
    for (name, verb, payload) in verbs {
        every = every.u8(verb).bytes(&payload.0);
        seeds.insert(name, head().item(verb, payload).0);
    }
    seeds.insert("every_verb", every.0);
    seeds
}

fn records() -> Seeds {
    let done = || start().u8(0);
    let refused = |bytes: Bytes| bytes.u8(10).bytes(b"the inbox is full").bytes(b"destination");
    let exceptions = done().u64(9).u64(1000).u32(2).u32(1).u8(0).u64(3).u64(900).u32(4).u8(1);
    let outcomes = start()
        .item(1, refused(exceptions))
        .item(1, refused(start().u8(1)))
        .item(2, done().u64(4))
        .item(3, done().u8(1))
        .item(4, done().u64(2))
        .item(5, done())
        .item(6, done())
        .item(7, done());
    let workspace = start().u8(3).u32(3).u64(1000).u64(1).u64(77).u64(9_000).u64(0).u32(2).u32(1).u32(1).u32(0);
    let workspace = workspace.u64(5).u64(604_800_000).u32(0).u64(0).u64(0).u64(0).u8(0).u64(4);
    let inbox = start().u8(2).u64(7).u64(3).u8(1).u8(9).u64(4).u64(50);
    BTreeMap::from([
        ("batch", batch()),
        ("outcomes", outcomes.0),
        ("workspace", (0..10).fold(workspace, Bytes::u64).u32(2).u64(70).u64(60).0),
        ("inbox", inbox.u8(1).u8(2).u64(9).u32(2).u64(20).u64(30).u64(40).u64(41).u8(0).u8(0).0),
    ])
}
