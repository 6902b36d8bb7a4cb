//! What a message that was accepted says of itself, for those who decide on it.

use super::{
    CONTENT, SEALED,
    wire::{Fields, Value},
};
use crate::sealing::content_bytes;

/// Fields that a policy may look at. Read where a message is applied, so this is the same for every version: what is not known
/// here is passed over, and a field that comes twice is what it was last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    pub(crate) from_agent: &'a str,
    pub(crate) to_agent: &'a str,
    /// Empty unless it is sent to one.
    pub(crate) capability: &'a str,
    pub(crate) content_bytes: u64,
    pub(crate) metadata: Vec<(&'a str, &'a str)>,
}

impl<'a> Said<'a> {
    pub(crate) fn in_body(body: &'a [u8]) -> Self {
        let mut said = Self::default();
        for (number, value) in Fields::new("message", body).map_while(Result::ok) {
            match (number, value) {
                (3, value) => said.from_agent = text(value),
                (4, Value::Bytes(destination)) => said.capability = capability(destination),
                (5, value) => said.to_agent = text(value),
                (CONTENT, Value::Bytes(content)) => said.content_bytes = content.len() as u64,
                (SEALED, Value::Bytes(envelope)) => said.content_bytes = content_bytes(envelope) as u64,
                (13, Value::Bytes(entry)) => said.note(entry),
                _ => {}
            }
        }
        said
    }

    fn note(&mut self, entry: &'a [u8]) {
        let (mut key, mut value) = ("", "");
        for (number, part) in Fields::new("metadata", entry).map_while(Result::ok) {
            match number {
                1 => key = text(part),
                2 => value = text(part),
                _ => {}
            }
        }
        match self.metadata.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => self.metadata.push((key, value)),
        }
    }
}

fn text(value: Value<'_>) -> &str {
    match value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        _ => "",
    }
}

/// The capability of a destination.
fn capability(destination: &[u8]) -> &str {
    let mut name = "";
    for (number, value) in Fields::new("destination", destination).map_while(Result::ok) {
        // The last one of a choice counts.
        name = match (number, value) {
            (4, Value::Bytes(capability)) => Fields::new("capability", capability)
                .map_while(Result::ok)
                .filter(|(number, _)| *number == 1)
                .last()
                .map_or("", |(_, value)| text(value)),
            _ => "",
        };
    }
    name
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tandem_proto::messaging::v1::{CapabilityDestination, Destination, Message, destination::Kind};

    use super::*;

    #[test]
    fn what_generated_writers_wrote_is_read() {
        let message = Message {
            from_agent: "a".into(),
            to_agent: "b".into(),
            content: b"four"[..].into(),
            destination: Some(Destination {
                kind: Some(Kind::Capability(CapabilityDestination {
                    capability: "deploy".into(),
                    all: true,
                    wait: false,
                })),
            }),
            metadata: [("risk".to_owned(), "high".to_owned())].into(),
            ..Message::default()
        };
        let mut body = message.encode_to_vec();
        let said = Said::in_body(&body);
        assert_eq!((said.from_agent, said.to_agent, said.capability, said.content_bytes), ("a", "b", "deploy", 4));
        assert_eq!(said.metadata, [("risk", "high")]);
        // A pair that comes again, a field that nobody knows, and an end in the middle.
        body.extend(
            Message { metadata: [("risk".to_owned(), "low".to_owned())].into(), ..Message::default() }.encode_to_vec(),
        );
        body.extend([0x98, 0x06, 1, 0x1a]);
        let said = Said::in_body(&body);
        assert_eq!((said.from_agent, &said.metadata[..]), ("a", &[("risk", "low")][..]));
    }

    #[test]
    fn a_sandbox_is_no_capability() {
        let destination = Destination { kind: Some(Kind::SandboxId("deploy".into())) };
        let body = Message { destination: Some(destination), ..Message::default() }.encode_to_vec();
        assert_eq!(Said::in_body(&body), Said::default());
        assert_eq!(Said::in_body(b"\xff\xff"), Said::default());
    }
}
