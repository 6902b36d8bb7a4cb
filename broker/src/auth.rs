//! Credentials become an [`Identity`]; what it may do is decided by its roles (`roles`), by the workspace and by the sandbox
//! that it is bound to.
//!
//! Owns who somebody is. It deliberately knows nothing of policies, which say who may talk to whom.
//!
//! Invariant: a handler gets at a workspace only through [`Caller::workspace`], and names somebody who acts only through
//! [`Caller::acts_as`]. A request without a caller is refused.

pub(crate) mod api_keys;
pub(crate) mod certificates;
pub(crate) mod issue;
pub(crate) mod jwks;
pub(crate) mod layer;
pub(crate) mod refusals;
pub mod roles;
pub(crate) mod seal;
pub(crate) mod token;

use std::{fmt, sync::Arc, time::Instant};

use tonic::Request;

use self::api_keys::{KeyRing, Shown};
pub use self::roles::{Role, Roles};
use crate::{
    clock,
    command::{Attributed, Origin, Verb},
    field,
    rejection::{Reason, Rejection},
};

/// Who somebody is, as far as he has proven it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// A name, for people and for the audit.
    pub(crate) subject: String,
    pub(crate) roles: Roles,
    /// The only workspace that exists for him; None for all.
    pub(crate) workspace: Option<String>,
    /// The only sandbox that he may act as; None for all. Only with a workspace.
    pub(crate) sandbox: Option<String>,
    /// When none of this holds any more, in seconds since 1970, with what clocks may be apart; None for ever.
    pub(crate) ends_s: Option<u64>,
}

/// Who is behind a request. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Caller {
    identity: Arc<Identity>,
    /// The key or token that was shown, where it may be taken back.
    shown: Option<(Arc<KeyRing>, Shown)>,
    seen: Arc<Seen>,
}

/// From where a request came, and how it is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Of the client, as the node saw it that it came to; may be empty.
    pub(crate) address: String,
    pub(crate) request_id: String,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shown.as_ref().map(|(_, shown)| shown);
        f.debug_struct("Caller").field("identity", &self.identity).field("shown", &shown).finish()
    }
}

impl Caller {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity: Arc::new(identity), shown: None, seen: Arc::default() }
    }

    /// Somebody who has shown what may be taken back.
    pub(crate) fn revocable(identity: Identity, ring: Arc<KeyRing>, shown: Shown) -> Self {
        Self { identity: Arc::new(identity), shown: Some((ring, shown)), seen: Arc::default() }
    }

    /// The same one, as this request shows him.
    pub(crate) fn seen_as(self, seen: Arc<Seen>) -> Self {
        Self { seen, ..self }
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// For the audit.
    pub(crate) fn origin(&self) -> Origin {
        let Seen { address, request_id } = (*self.seen).clone();
        Origin { by: self.identity.subject.clone(), address, request_id }
    }

    /// A verb that he asks for.
    pub(crate) fn asks(&self, verb: Verb) -> Verb {
        Verb::Attributed(Attributed { origin: self.origin(), verb: Box::new(verb) })
    }

    /// What was shown, where it may be taken back.
    pub(crate) fn shown(&self) -> Option<Shown> {
        self.shown.as_ref().map(|(_, shown)| *shown)
    }

    /// The hash of the id of the token that was shown; None: he has shown something else, or it has no id.
    pub(crate) fn token(&self) -> Option<u128> {
        match self.shown {
            Some((_, Shown::Token(hash))) => Some(hash),
            _ => None,
        }
    }

    /// Resolves when what was shown does not hold any more, with the reason; None: it cannot be taken back.
    pub(crate) fn ended(&self, expires: Option<Instant>) -> Option<impl Future<Output = Rejection> + Send + use<>> {
        let (ring, shown) = self.shown.clone()?;
        Some(async move { ring.ended(shown, expires).await })
    }

    /// Whoever comes, where the settings open the broker to everyone.
    pub(crate) fn anyone() -> Self {
        let subject = "anyone".to_owned();
        Self::new(Identity { subject, roles: Roles::ALL, workspace: None, sandbox: None, ends_s: None })
    }

    /// Who is behind this request, as the layer before the services has found out.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Rejection> {
        let found = request.extensions().get::<Self>().cloned();
        let missing = || Rejection::new(Reason::TokenMissing, "nobody has said who makes this request");
        let caller = found.ok_or_else(missing)?;
        // Again: the request may have come slowly, behind headers that were in time.
        caller.in_time()?;
        Ok(caller)
    }

    /// Whether what the caller has proven still holds.
    pub(crate) fn in_time(&self) -> Result<(), Rejection> {
        if let Some((ring, shown)) = &self.shown {
            ring.still_holds(*shown)?;
        }
        let now_s = clock::unix_ms() / 1_000;
        match self.identity.ends_s {
            Some(ends_s) if ends_s <= now_s => {
                let text = format!("the token ended {} seconds ago; get a new one", now_s - ends_s);
                Err(Rejection::new(Reason::TokenExpired, text))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A workspace that a request names, if it exists for the caller.
    pub(crate) fn workspace<'a>(&self, name: &'a str) -> Result<&'a str, Rejection> {
        let name = field::id("workspace_id", name)?;
        match &self.identity.workspace {
            Some(own) if own != name => {
                let text = format!("{:?} is bound to another workspace than {name:?}", self.identity.subject);
                Err(Rejection { reason: Reason::OtherWorkspace, text, field: "workspace_id".into(), retry_ms: 0 })
            }
            _ => Ok(name),
        }
    }

    /// A sandbox in whose name something is to be done.
    pub(crate) fn acts_as(&self, field: &'static str, sandbox: &str) -> Result<(), Rejection> {
        match &self.identity.sandbox {
            Some(own) if own != sandbox => {
                let sandbox = field::shown(sandbox);
                let text = format!("{:?} is sandbox {own:?}, and cannot act as {sandbox:?}", self.identity.subject);
                Err(Rejection { reason: Reason::OtherSandbox, text, field: field.into(), retry_ms: 0 })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(workspace: Option<&str>, sandbox: Option<&str>) -> Caller {
        Caller::new(Identity {
            subject: "s".into(),
            roles: Roles::of(Role::Sandbox),
            workspace: workspace.map(str::to_owned),
            sandbox: sandbox.map(str::to_owned),
            ends_s: None,
        })
    }

    #[test]
    fn who_is_bound_stays_where_he_is() {
        let bound = caller(Some("w"), Some("a"));
        assert_eq!(bound.workspace("w"), Ok("w"));
        assert_eq!(bound.workspace("other").unwrap_err().reason, Reason::OtherWorkspace);
        assert_eq!(bound.workspace("").unwrap_err().reason, Reason::InvalidField);
        assert!(bound.acts_as("f", "a").is_ok());
        assert_eq!(bound.acts_as("f", "b").unwrap_err().reason, Reason::OtherSandbox);
        let free = caller(None, None);
        assert!(free.workspace("other").is_ok() && free.acts_as("f", "b").is_ok());
    }

    #[test]
    fn a_request_without_a_caller_is_refused() {
        let mut request = Request::new(());
        assert_eq!(Caller::of(&request).unwrap_err().reason, Reason::TokenMissing);
        request.extensions_mut().insert(Caller::anyone());
        assert!(Caller::of(&request).is_ok());
        let late = Identity { ends_s: Some(clock::unix_ms() / 1_000), ..Caller::anyone().identity().clone() };
        request.extensions_mut().insert(Caller::new(late));
        assert_eq!(Caller::of(&request).unwrap_err().reason, Reason::TokenExpired);
    }
}
