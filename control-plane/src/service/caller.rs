//! Who makes a request. The broker says so: what it would refuse is refused here, and what is revoked there ends here.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tandem_client::{Client, KnownCaller, Token};

use crate::{
    clock,
    error::{Failure, Reason},
};

/// How long the broker's word about somebody counts. What is revoked binds within a second.
const WORD_HOLDS: Duration = Duration::from_millis(500);
/// Callers that are remembered at once.
const MAX_KNOWN: usize = 10_000;

/// Somebody whom the broker knows.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    known: Arc<KnownCaller>,
    /// The broker, as this caller.
    pub(crate) broker: Client,
}

impl Caller {
    /// A name for people.
    pub(crate) fn subject(&self) -> &str {
        &self.known.subject
    }

    /// The same, in whose name a request of this id is made.
    pub(crate) fn named(self, request_id: &str) -> Self {
        Self { broker: self.broker.with_request_id(request_id), ..self }
    }

    /// What tells callers apart that may different things, also those who are called the same. Whoever has the same key may the same.
    pub(crate) fn key(&self) -> String {
        let KnownCaller { subject, workspace_id, sandbox_id, roles, .. } = &*self.known;
        let digest = Sha256::digest(serde_json::json!([subject, workspace_id, sandbox_id, roles]).to_string());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A word of the caller's as one that no other has.
    pub(crate) fn digest(&self, word: &str) -> String {
        let digest = Sha256::digest(format!("{}\0{word}", self.key()));
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The workspace that the caller is bound to; None: all.
    pub(crate) fn workspace(&self) -> Option<&str> {
        Some(self.known.workspace_id.as_str()).filter(|workspace| !workspace.is_empty())
    }

    pub(crate) fn has_one_of(&self, roles: &[&str]) -> bool {
        self.known.roles.iter().any(|role| roles.contains(&role.as_str()))
    }

    /// Its roles, for people.
    pub(crate) fn roles(&self) -> String {
        if self.known.roles.is_empty() { "none".to_owned() } else { self.known.roles.join(", ") }
    }

    /// Whether this is none of another workspace.
    pub(crate) fn in_workspace(&self, workspace: &str) -> Result<(), Failure> {
        match self.workspace() {
            Some(own) if own != workspace => {
                let text = format!("{:?} is bound to workspace {own:?}, and this is in {workspace:?}", self.subject());
                Err(Failure::new(Reason::OtherWorkspace, text))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller is bound to no workspace.
    pub(crate) fn in_all(&self) -> Result<(), Failure> {
        match self.workspace() {
            Some(own) => {
                let text = format!("this concerns all workspaces, and {:?} is bound to {own:?}", self.subject());
                Err(Failure::new(Reason::OtherWorkspace, text))
            }
            None => Ok(()),
        }
    }
}

type Word = (Instant, Arc<KnownCaller>);

/// Finds out who somebody is.
pub(crate) struct Callers {
    broker: Client,
    /// By what tells tokens apart: until when the word holds, and the word.
    known: Mutex<HashMap<[u8; 32], Word>>,
}

impl Callers {
    /// `broker`: a connection, whose own token is not used.
    pub(crate) fn new(broker: &Client) -> Self {
        Self { broker: broker.acting_as(None), known: Mutex::default() }
    }

    /// Who shows a token, or nothing.
    pub(crate) async fn identify(&self, token: Option<&str>) -> Result<Caller, Failure> {
        let broker = self.broker.acting_as(token.map(Token::from_text));
        // The token itself is not kept.
        let place: [u8; 32] = Sha256::digest(token.unwrap_or_default()).into();
        let found = self.known.lock().get(&place).cloned();
        if let Some((until, known)) = found
            && clock::now() < until
        {
            return Ok(Caller { known, broker });
        }
        let known = Arc::new(broker.caller().await.map_err(Failure::of_question)?);
        let mut all = self.known.lock();
        if all.len() >= MAX_KNOWN {
            all.clear();
        }
        all.insert(place, (clock::now() + WORD_HOLDS, Arc::clone(&known)));
        drop(all);
        Ok(Caller { known, broker })
    }
}
