//! Who makes a request. The broker says so: what it would refuse is refused here, and what is revoked there ends here.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tandem_client::{Client, KnownCaller, Token};
use tokio::sync::Semaphore;

use crate::{
    clock,
    error::{Failure, Reason},
    hex,
};

/// How long the broker's word about somebody counts. What is revoked binds within a second.
const WORD_HOLDS: Duration = Duration::from_millis(500);
/// Callers that are remembered at once.
const MAX_KNOWN: usize = 10_000;
/// Questions to the broker at once who somebody is.
const MAX_QUESTIONS: usize = 64;

/// Somebody whom the broker knows.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    known: Arc<Known>,
    /// The broker, as this caller.
    pub(crate) broker: Client,
}

/// What the broker says of somebody.
#[derive(Debug)]
struct Known {
    caller: KnownCaller,
    /// What tells him from others.
    key: String,
}

impl Caller {
    /// A name for people.
    pub(crate) fn subject(&self) -> &str {
        &self.known.caller.subject
    }

    /// The same, in whose name a request of this id is made.
    pub(crate) fn named(self, request_id: &str) -> Self {
        Self { broker: self.broker.with_request_id(request_id), ..self }
    }

    /// What tells callers apart that may different things, also those who are called the same. Whoever has the same key may the same.
    pub(crate) fn key(&self) -> &str {
        &self.known.key
    }

    /// A word of the caller's as one that no other has.
    pub(crate) fn digest(&self, word: &str) -> String {
        hex::of(&Sha256::digest(format!("{}\0{word}", self.key()))[..16])
    }

    /// The workspace that the caller is bound to; None: all.
    pub(crate) fn workspace(&self) -> Option<&str> {
        Some(self.known.caller.workspace_id.as_str()).filter(|workspace| !workspace.is_empty())
    }

    pub(crate) fn has_one_of(&self, roles: &[&str]) -> bool {
        self.known.caller.roles.iter().any(|role| roles.contains(&role.as_str()))
    }

    /// Its roles, for people.
    pub(crate) fn roles(&self) -> String {
        let roles = &self.known.caller.roles;
        if roles.is_empty() { "none".to_owned() } else { roles.join(", ") }
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

impl Known {
    fn new(caller: KnownCaller) -> Self {
        let KnownCaller { subject, workspace_id, sandbox_id, roles, .. } = &caller;
        let digest = Sha256::digest(serde_json::json!([subject, workspace_id, sandbox_id, roles]).to_string());
        Self { key: hex::of(&digest), caller }
    }
}

#[cfg(test)]
impl Caller {
    /// Somebody who is bound to nothing, before a broker that does not answer. Must be called within a Tokio runtime.
    pub(crate) fn for_tests() -> Self {
        let broker = Client::connect("http://127.0.0.1:1").expect("an endpoint");
        Self {
            known: Arc::new(Known::new(KnownCaller { subject: "zoe".to_owned(), ..KnownCaller::default() })),
            broker,
        }
    }
}

type Word = (Instant, Arc<Known>);

/// Finds out who somebody is.
pub(crate) struct Callers {
    broker: Client,
    /// By what tells tokens apart: until when the word holds, and the word.
    known: Mutex<HashMap<[u8; 32], Word>>,
    /// Who makes up tokens asks the broker no more than this.
    questions: Semaphore,
}

impl Callers {
    /// `broker`: a connection, whose own token is not used.
    pub(crate) fn new(broker: &Client) -> Self {
        Self { broker: broker.acting_as(None), known: Mutex::default(), questions: Semaphore::new(MAX_QUESTIONS) }
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
        let asking = self.questions.acquire().await;
        let known = Arc::new(Known::new(broker.caller().await.map_err(Failure::of_question)?));
        drop(asking);
        let mut all = self.known.lock();
        if all.len() >= MAX_KNOWN {
            all.clear();
        }
        all.insert(place, (clock::now() + WORD_HOLDS, Arc::clone(&known)));
        drop(all);
        Ok(Caller { known, broker })
    }
}
