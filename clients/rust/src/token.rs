//! What a client shows to prove who it is.

use std::{fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::clock::Moment;

/// A token from a file is read again after so long.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// A token, which goes out with every call. It is not printed.
#[derive(Clone)]
pub struct Token(Arc<Source>);

enum Source {
    Text(Option<MetadataValue<Ascii>>),
    File { path: PathBuf, read: Mutex<Option<(Moment, MetadataValue<Ascii>)>> },
}

impl Token {
    /// This one, for as long as the client lives.
    pub fn from_text(token: &str) -> Self {
        Self(Arc::new(Source::Text(header(token))))
    }

    /// The one in a file, which is read again every second: whoever renews it writes another one there. Where it cannot be read,
    /// the last one goes out, or none, and the broker says that.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Source::File { path: path.into(), read: Mutex::default() }))
    }

    fn header(&self) -> Option<MetadataValue<Ascii>> {
        match &*self.0 {
            Source::Text(value) => value.clone(),
            Source::File { path, read } => {
                let mut read = read.lock();
                if read.as_ref().is_none_or(|(when, _)| when.elapsed() >= READ_AGAIN) {
                    match fs::read_to_string(path) {
                        Ok(text) => *read = header(&text).map(|value| (Moment::now(), value)),
                        Err(error) => tracing::warn!(path = %path.display(), %error, "the token cannot be read"),
                    }
                }
                read.as_ref().map(|(_, value)| value.clone())
            }
        }
    }

    /// Whether there may be another one later.
    pub(crate) fn is_renewable(&self) -> bool {
        matches!(*self.0, Source::File { .. })
    }

    pub(crate) fn put(&self, metadata: &mut MetadataMap) {
        if let Some(value) = self.header() {
            metadata.insert("authorization", value);
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn header(token: &str) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim()).parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_and_not_printed() {
        let token = Token::from_text(" abc.def\n");
        let mut metadata = MetadataMap::new();
        token.put(&mut metadata);
        assert_eq!(metadata.get("authorization").unwrap().to_str().unwrap(), "Bearer abc.def");
        assert!(!format!("{token:?} {metadata:?}").contains("abc"));
        let mut metadata = MetadataMap::new();
        Token::from_text("two\nlines").put(&mut metadata);
        assert!(metadata.is_empty(), "that is no header");
    }

    #[test]
    fn a_file_that_is_gone_leaves_the_last_token() {
        let path = std::env::temp_dir().join(format!("tandem-token-{}", std::process::id()));
        fs::write(&path, "first").unwrap();
        let token = Token::from_file(&path);
        let shown = || token.header().unwrap().to_str().unwrap().to_owned();
        assert_eq!(shown(), "Bearer first");
        fs::write(&path, "second").unwrap();
        assert_eq!(shown(), "Bearer first", "for a second");
        std::thread::sleep(READ_AGAIN);
        assert_eq!(shown(), "Bearer second");
        fs::remove_file(&path).unwrap();
        std::thread::sleep(READ_AGAIN);
        assert_eq!(shown(), "Bearer second");
    }
}
