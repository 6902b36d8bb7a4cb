use std::path::{Path, PathBuf};

use prost::Message as _;
use tandem_proto::messaging::v1 as wire;

use super::*;

struct File {
    dir: tempfile::TempDir,
}

impl File {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    /// Keys with these names, each made from its own.
    fn write(&self, names: &[&str]) {
        let line = |name: &&str| format!("{name} {}\n", STANDARD.encode([name.as_bytes()[0]; 32]));
        std::fs::write(self.path(), names.iter().map(line).collect::<String>()).unwrap();
    }

    fn sealer(&self, workspaces: &[&str]) -> Sealer {
        sealer(&self.path(), workspaces).unwrap()
    }
}

fn sealer(path: &Path, workspaces: &[&str]) -> Result<Sealer, ConfigError> {
    let workspaces = workspaces.iter().map(|workspace| (*workspace).to_owned()).collect();
    Sealer::new(&EncryptionConfig { key_file: path.to_owned(), workspaces })
}

fn body(content: &[u8]) -> Vec<u8> {
    let message = wire::Message {
        message_id: "m1".into(),
        from_sandbox_id: "a".into(),
        content: content.to_vec().into(),
        content_type: "text/plain".into(),
        metadata: [("kind".to_owned(), "plain".to_owned())].into(),
        ..Default::default()
    };
    message.encode_to_vec()
}

fn read(body: &[u8]) -> wire::Message {
    wire::Message::decode(body).unwrap()
}

fn reason(result: Result<Cow<'_, [u8]>, Rejection>) -> Reason {
    result.unwrap_err().reason
}

#[test]
fn what_is_sealed_opens_as_it_was_and_says_nothing_before() {
    let file = File::new();
    file.write(&["k1"]);
    let sealer = file.sealer(&["w"]);
    for content in [&b"the secret"[..], b"", &[7; 100_000]] {
        let plain = body(content);
        let sealed = sealer.seal("w", &plain).unwrap();
        assert!(message::is_sealed(&sealed) && !message::is_sealed(&plain));
        assert_eq!(read(&sealer.open("w", &sealed).unwrap()), read(&plain));
        // All but the content can be read, and how long that is.
        let view = message::read(&sealed).unwrap();
        assert_eq!((view.message_id, view.from_sandbox_id), ("m1", "a"));
        let said = message::Said::in_body(&sealed);
        assert_eq!((said.content_bytes, said.metadata.len()), (content.len() as u64, 1));
        assert!(content.is_empty() || !sealed.windows(content.len()).any(|window| window == content));
    }
    assert!(!sealer.seals("v") && sealer.seals("w") && file.sealer(&["*"]).seals("v"));
    assert_eq!(sealer.open("w", &body(b"plain")).unwrap(), body(b"plain"), "what was stored before");
}

#[test]
fn no_two_are_sealed_alike() {
    let file = File::new();
    file.write(&["k1"]);
    let (one, other) = (file.sealer(&["*"]), file.sealer(&["*"]));
    let mut seen = HashSet::new();
    for sealer in [&one, &other] {
        for workspace in ["w", "v"] {
            for _ in 0..100 {
                assert!(seen.insert(sealer.seal(workspace, &body(b"the same")).unwrap().into_owned()));
            }
        }
    }
}

#[test]
fn what_was_touched_or_taken_elsewhere_does_not_open() {
    let file = File::new();
    file.write(&["k1"]);
    let sealer = file.sealer(&["*"]);
    let sealed = sealer.seal("w", &body(b"the secret")).unwrap().into_owned();
    assert_eq!(reason(sealer.open("v", &sealed)), Reason::ContentUnreadable, "another workspace");
    for at in 0..sealed.len() {
        let mut touched = sealed.clone();
        touched[at] ^= 1;
        // Some bytes make it something that is not sealed, or no message at all; none make it what it was.
        if let Ok(opened) = sealer.open("w", &touched) {
            let same = wire::Message::decode(opened.as_ref()).is_ok_and(|message| message.content == b"the secret"[..]);
            assert!(!same, "byte {at}");
        }
        assert!(sealer.open("w", &sealed[..at]).is_err() || !message::is_sealed(&sealed[..at]), "cut at {at}");
    }
    // The content of one in the place of that of another.
    let other = wire::Message { message_id: "m2".into(), ..read(&body(b"x")) }.encode_to_vec();
    let (envelope, _) = message::without(&sealed, SEALED).unwrap();
    let (_, rest) = message::without(&other, CONTENT).unwrap();
    let mut moved = BytesMut::new();
    message::put_field(&mut moved, SEALED, envelope);
    moved.put_slice(&rest);
    assert_eq!(reason(sealer.open("w", &moved)), Reason::ContentUnreadable);
}

#[test]
fn keys_change_while_it_runs_and_old_ones_open_what_they_sealed() {
    let file = File::new();
    file.write(&["k1"]);
    let sealer = file.sealer(&["*"]);
    let key_of = |sealed: &[u8]| {
        let (envelope, _) = message::without(sealed, SEALED).unwrap();
        Envelope::read(envelope).unwrap().name.to_owned()
    };
    let first = sealer.seal("w", &body(b"one")).unwrap().into_owned();
    assert_eq!(key_of(&first), "k1");
    std::thread::sleep(LOOK_AGAIN);
    file.write(&["k1", "k2"]);
    assert_eq!(key_of(&sealer.seal("w", &body(b"one")).unwrap()), "k1", "the first one seals");
    std::thread::sleep(LOOK_AGAIN);
    file.write(&["k2", "k1"]);
    let second = sealer.seal("w", &body(b"two")).unwrap().into_owned();
    assert_eq!(key_of(&second), "k2");
    assert_eq!(read(&sealer.open("w", &first).unwrap()).content, b"one"[..]);
    std::thread::sleep(LOOK_AGAIN);
    std::fs::write(file.path(), "half wri").unwrap();
    assert_eq!(
        read(&sealer.open("w", &first).unwrap()).content,
        b"one"[..],
        "a file that cannot be read changes nothing"
    );
    std::thread::sleep(LOOK_AGAIN);
    file.write(&["k2"]);
    assert_eq!(read(&sealer.open("w", &second).unwrap()).content, b"two"[..]);
    let gone = sealer.open("w", &first).unwrap_err();
    assert!(gone.reason == Reason::ContentUnreadable && gone.text.contains("k1"), "{gone}");
    // A key that comes is there at once, not after a second.
    file.write(&["k2", "k1"]);
    assert_eq!(read(&sealer.open("w", &first).unwrap()).content, b"one"[..]);
    assert_eq!(reason(Sealer::none().open("w", &first)), Reason::ContentUnreadable);
}

#[test]
fn files_that_are_no_keys_are_refused_and_not_shown() {
    let file = File::new();
    let key = STANDARD.encode([1; 32]);
    for (text, expected) in [
        (String::new(), "no key"),
        ("# only a remark\n".to_owned(), "no key"),
        (format!("k1 {key}\nk1 {key}\n"), "line 2"),
        (format!("k1 {key}\n{key}\n"), "line 2"),
        ("k1 c2hvcnQ=\n".to_owned(), "line 1"),
        (format!("{} {key}\n", "x".repeat(65)), "line 1"),
    ] {
        std::fs::write(file.path(), &text).unwrap();
        let error = sealer(&file.path(), &["*"]).err().expect(&text).to_string();
        assert!(error.contains(expected) && error.contains("encryption.key_file"), "{error}");
        assert!(!error.contains(&key) && !error.contains("c2hvcnQ="), "{error}");
    }
    assert!(sealer(Path::new("/nowhere"), &["*"]).is_err());
    assert!(!Sealer::none().seals("w"));
}

#[test]
fn a_client_cannot_send_what_looks_sealed() {
    let file = File::new();
    file.write(&["k1"]);
    let sealed = file.sealer(&["*"]).seal("w", &body(b"one")).unwrap().into_owned();
    let limits = crate::config::Limits::default();
    assert_eq!(message::check(&sealed, &limits, 0).unwrap_err().reason, Reason::UnsupportedField);
    // Nor behind other fields.
    let mut behind = body(b"one");
    behind.extend_from_slice(&sealed);
    assert_eq!(message::check(&behind, &limits, 0).unwrap_err().reason, Reason::UnsupportedField);
}
