//! The door: before a request reaches the services, whoever makes it is known, and has a role that may make it.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tonic::{
    Status,
    body::Body,
    codegen::http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION},
};
use tonic_types::StatusExt as _;
use tower::{Layer, Service, ServiceExt as _};

use super::{
    Caller, Seen,
    api_keys::{self, KeyRing},
    certificates::Certificates,
    issue::Signer,
    refusals::Refusals,
    roles::{self, Rule},
    seal::{CALLER, Seal},
    token::Verifier,
};
use crate::{
    clock,
    connections::Arrived,
    field,
    grpc::{
        ending::{Ending, When},
        forward,
        hurry::Hurried,
        moving,
    },
    random,
    rejection::{Reason, Rejection},
};

/// Whether a server is there may be asked by everybody: what balances load has no token. To watch it needs one.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// What serves every gRPC server: whoever is known may ask.
const STANDARD: [&str; 3] = [
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Methods whose clients go on sending.
const STREAMED: [&str; 3] = ["/PublishStream", "/Subscribe", "/ServerReflectionInfo"];
/// Nothing is unpacked: what somebody else has packed may be a million times as large.
const ENCODING: &str = "grpc-encoding";
const SCHEME: &str = "bearer ";
/// Codes of answers that may be refusals: INVALID_ARGUMENT, DEADLINE_EXCEEDED, PERMISSION_DENIED, FAILED_PRECONDITION.
const REFUSALS: [&str; 4] = ["3", "4", "7", "9"];
/// How a request is called: by its client, or by the first node, which says so in its answer.
const REQUEST_ID: &str = "x-request-id";
const MAX_REQUEST_ID_BYTES: usize = 64;

/// Headers of a request: a token and what tracing adds. Counted as HTTP/2 counts them (RFC 9113, section 6.5.2).
pub(crate) const MAX_HEADER_BYTES: usize = 32 << 10;
/// What each field counts beside its bytes.
const FIELD_BYTES: usize = 32;

/// What only nodes say to each other.
const NODES_ONLY: [&str; 3] = [forward::FORWARDED, moving::SUBSCRIPTION_ID, moving::FIRST_DELIVERY];

/// Who makes a request, and how that is known.
struct Known {
    caller: Caller,
    from: Source,
}

/// Who has sent a request here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Nobody knows, and it does not matter: the broker is open.
    Anyone,
    Client,
    Node,
}

/// Resolves when what a caller has proven does not hold any more, with the reason; None: it holds for ever.
fn end_of(caller: &Caller) -> Option<BoxFuture<'static, Status>> {
    let left_ms = caller.identity().ends_s.map(|s| s.saturating_mul(1_000).saturating_sub(clock::unix_ms()));
    // Beyond what clocks can say is never.
    let end = left_ms.and_then(|left_ms| clock::now().checked_add(Duration::from_millis(left_ms)));
    if let Some(ended) = caller.ended(end) {
        return Some(Box::pin(async move { ended.await.into() }));
    }
    let end = end?;
    Some(Box::pin(async move {
        tokio::time::sleep_until(end.into()).await;
        let text = "the token of this stream has expired; open it again with a new one";
        Rejection::new(Reason::TokenExpired, text).into()
    }))
}

/// Lets requests in, or not. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door(Arc<Inner>);

/// What the settings say of who may come in.
pub(crate) struct Proofs {
    pub(crate) tokens: Verifier,
    pub(crate) certificates: Certificates,
    /// None: the broker signs no tokens.
    pub(crate) signer: Option<Signer>,
}

struct Inner {
    /// None: the broker is open to everyone.
    proofs: Option<Proofs>,
    /// For what other nodes pass on; None on a node that is alone.
    seal: Option<Seal>,
    keys: Arc<KeyRing>,
    refusals: Arc<Refusals>,
    /// How long a request of one message may take to come.
    request_timeout: Duration,
}

impl Door {
    /// With what the settings say, and the API keys that there are.
    pub(crate) fn new(proofs: Option<Proofs>, seal: Option<Seal>, keys: KeyRing, request_timeout: Duration) -> Self {
        Self(Arc::new(Inner { proofs, seal, keys: Arc::new(keys), refusals: Arc::default(), request_timeout }))
    }

    /// Signs tokens; None: the settings name no key for that.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        self.0.proofs.as_ref()?.signer.as_ref()
    }

    /// Who was turned away.
    pub(crate) fn refusals(&self) -> &Arc<Refusals> {
        &self.0.refusals
    }

    /// The API keys.
    pub(crate) fn keys(&self) -> &Arc<KeyRing> {
        &self.0.keys
    }

    /// Whether everyone may do everything.
    pub(crate) fn is_open(&self) -> bool {
        self.0.proofs.is_none()
    }

    /// What other nodes are told with; None on a node that is alone, or open.
    pub(crate) fn seal(&self) -> Option<&Seal> {
        self.0.seal.as_ref()
    }

    /// Who makes a request; None: nobody is asked.
    fn known(&self, request: &Request<Body>) -> Result<Option<Known>, Rejection> {
        fits(request.headers())?;
        if request.uri().path() == HEALTH {
            return Ok(None);
        }
        match &self.0.proofs {
            None => Ok(Some(Known { caller: Caller::anyone(), from: Source::Anyone })),
            Some(proofs) => self.identify(proofs, request).map(Some),
        }
    }

    /// Where a token is signed with a key that its issuer may have by now and this broker not yet: resolves when that is clear.
    fn look_again(&self, request: &Request<Body>) -> Option<impl Future<Output = ()> + Send + use<>> {
        let proofs = self.0.proofs.as_ref()?;
        let headers = request.headers();
        let token = headers.get(AUTHORIZATION)?.to_str().ok().and_then(bearer)?;
        proofs.tokens.look_again(token).filter(|_| self.0.seal.is_none() || !headers.contains_key(CALLER))
    }

    /// Whether somebody may call this.
    fn admit(
        &self,
        known: &Known,
        headers: &HeaderMap,
        (path, rule): (&str, Option<&'static Rule>),
        seen: &Seen,
    ) -> Result<(), Rejection> {
        if let Some(encoding) = headers.get(ENCODING).filter(|encoding| *encoding != "identity") {
            let encoding = field::shown(&String::from_utf8_lossy(encoding.as_bytes()));
            let text = format!(
                "the request is compressed (grpc-encoding {encoding:?}), and nothing is unpacked here; send it as it is"
            );
            let why = Rejection::new(Reason::RequestCompressed, text);
            self.turned_away(&known.caller, seen, path, &why);
            return Err(why);
        }
        match rule {
            Some(rule) if known.from == Source::Client && rule.is_for_nodes() => {
                Err(Rejection::new(Reason::RoleMissing, "only nodes of the cluster say this to each other"))
            }
            Some(rule) => {
                permit(&known.caller, rule).inspect_err(|why| self.turned_away(&known.caller, seen, path, why))
            }
            None if STANDARD.contains(&path) => Ok(()),
            None => {
                let why = Rejection::new(Reason::UnknownMethod, "there is no such method");
                self.turned_away(&known.caller, seen, path, &why);
                Err(why)
            }
        }
    }

    /// Somebody who is known asked for what he may not have.
    fn turned_away(&self, caller: &Caller, seen: &Seen, path: &str, why: &Rejection) {
        let identity = caller.identity();
        let workspace = identity.workspace.as_deref().unwrap_or_default();
        self.0.refusals.add((&identity.subject, workspace), seen, path, why);
    }

    fn identify(&self, proofs: &Proofs, request: &Request<Body>) -> Result<Known, Rejection> {
        let headers = request.headers();
        if let (Some(seal), Some(value)) = (&self.0.seal, headers.get(CALLER)) {
            return seal.open(value, &self.0.keys).map(|caller| Known { caller, from: Source::Node });
        }
        let client = |caller| Known { caller, from: Source::Client };
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let missing = || {
            let text = "send a token: authorization: Bearer …";
            let text = match proofs.certificates.names(request.extensions()) {
                Some(names) => format!("the certificate ({names}) is none of auth.certificates; {text}"),
                None => text.to_owned(),
            };
            Rejection::new(Reason::TokenMissing, text)
        };
        let Some(value) = shown.next() else {
            let caller = proofs.certificates.identify(request.extensions())?;
            return caller.map(client).ok_or_else(missing);
        };
        if shown.next().is_some() {
            return Err(Rejection::new(Reason::TokenInvalid, "authorization is there twice; send it once"));
        }
        let token = value.to_str().ok().and_then(bearer).ok_or_else(missing)?;
        if token.starts_with(api_keys::PREFIX) {
            return self.0.keys.verify(token).map(client);
        }
        proofs.tokens.verify(token, &self.0.keys).map(client)
    }

    /// What becomes of a request whose caller is known.
    fn prepare(&self, request: &mut Request<Body>, known: Option<Known>, seen: Arc<Seen>) {
        let headers = request.headers_mut();
        // No further than here: what is passed on says who, and not how that was proven.
        headers.remove(AUTHORIZATION);
        headers.remove(CALLER);
        let Some(Known { caller, from, .. }) = known else { return };
        if from == Source::Client {
            NODES_ONLY.iter().for_each(|name| drop(headers.remove(*name)));
        }
        // Another node has said how it was seen there.
        let caller = if from == Source::Node { caller } else { caller.seen_as(seen) };
        request.extensions_mut().insert(caller);
    }
}

/// Whether the headers of a request are none that are too large.
fn fits(headers: &HeaderMap) -> Result<(), Rejection> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum();
    if bytes <= MAX_HEADER_BYTES {
        return Ok(());
    }
    let text = format!("the headers of the request have {bytes} bytes; at most {MAX_HEADER_BYTES} are let in");
    Err(Rejection::new(Reason::HeadersTooLarge, text))
}

/// How a request shows itself. Its id is drawn where the client gives none that can be kept.
fn seen(request: &Request<Body>) -> Seen {
    let extensions = request.extensions();
    let address = extensions.get::<Arrived>().map(Arrived::peer);
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let given = given.filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES);
    // What is sent for each message has none unless it is given: nobody asks after it.
    let needs_one = !request.uri().path().ends_with("/Publish");
    let drawn = || if needs_one { format!("{:016x}", random::id()) } else { String::new() };
    Seen {
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        request_id: given.map_or_else(drawn, str::to_owned),
    }
}

/// What the services refuse to somebody who is known, if it is something that the audit wants to know of: what he may not have, ids
/// that are none, and what comes too slowly.
fn refused(response: &Response<Body>) -> Option<Rejection> {
    let code = response.headers().get("grpc-status")?;
    let told = REFUSALS.iter().any(|known| code == known);
    let status = told.then(|| Status::from_header_map(response.headers())).flatten()?;
    let details = status.get_error_details();
    let info = details.error_info()?;
    let reason = *Reason::ALL.iter().find(|reason| reason.code() == info.reason)?;
    let field = details.bad_request().and_then(|wrong| wrong.field_violations.first()).map(|wrong| wrong.field.clone());
    Some(Rejection { field: field.unwrap_or_default(), ..Rejection::new(reason, status.message()) })
}

/// The answer says how the request is called.
fn named(mut response: Response<Body>, seen: &Seen) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(&seen.request_id)
        && !id.is_empty()
    {
        response.headers_mut().entry(REQUEST_ID).or_insert(id);
    }
    response
}

/// The token behind the scheme, whose case does not matter.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim())
}

fn permit(caller: &Caller, rule: &Rule) -> Result<(), Rejection> {
    let identity = caller.identity();
    if rule.concerns_all() && identity.workspace.is_some() {
        let text = format!("this concerns all workspaces, and {:?} is bound to one", identity.subject);
        return Err(Rejection::new(Reason::OtherWorkspace, text));
    }
    if identity.roles.meets(rule.roles) {
        return Ok(());
    }
    let names = |roles: roles::Roles| roles.iter().map(roles::Role::name).collect::<Vec<_>>().join(", ");
    let method = rule.path.rsplit('/').next().unwrap_or_default();
    let has = if identity.roles.is_empty() { "none".to_owned() } else { names(identity.roles) };
    let text = format!("{method} takes one of the roles {}; {:?} has {has}", names(rule.roles), identity.subject);
    Err(Rejection::new(Reason::RoleMissing, text))
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, door: self.clone() }
    }
}

/// See [`Door`].
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    inner: S,
    door: Door,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Once for all that asks: this runs for each message that is published alone.
        let rule = roles::find(request.uri().path());
        let seen = Arc::new(seen(&request));
        let path = request.uri().path();
        let known = self.door.known(&request);
        if known.is_err()
            && let Some(clear) = self.door.look_again(&request)
        {
            let again = self.clone();
            return Box::pin(async move {
                clear.await;
                again.oneshot(request).await
            });
        }
        let known = known.and_then(|known| {
            let client = known.as_ref().filter(|known| known.from == Source::Client);
            let workspace = client.and_then(|known| known.caller.identity().workspace.as_deref());
            match workspace.zip(request.extensions().get::<Arrived>()) {
                Some((workspace, arrived)) => arrived.place.belongs_to(workspace).map(|()| known),
                None => Ok(known),
            }
        });
        let known = known.inspect_err(|why| self.door.refusals().add(("", ""), &seen, path, why));
        let admitted = known.and_then(|known| {
            known
                .as_ref()
                .map_or(Ok(()), |known| self.door.admit(known, request.headers(), (path, rule), &seen))
                .map(|()| known)
        });
        let known = match admitted {
            Ok(known) => known,
            Err(rejection) => {
                return Box::pin(async move { Ok(named(Status::from(rejection).into_http(), &seen)) });
            }
        };
        let asked = known.as_ref().filter(|known| known.from != Source::Node).map(|known| known.caller.clone());
        let (door, path) = (self.door.clone(), rule.map_or("", |rule| rule.path));
        // What is answered at once is let through to its end: its caller could not know what came of it.
        let waits = rule.is_some_and(|rule| rule.streams || rule.path.ends_with("/Request"));
        let end = known.as_ref().filter(|_| waits).and_then(|known| end_of(&known.caller));
        self.door.prepare(&mut request, known, Arc::clone(&seen));
        // A client that streams may be silent for as long as it likes.
        if !STREAMED.iter().any(|method| request.uri().path().ends_with(method)) {
            let limit = self.door.0.request_timeout;
            request = request.map(|body| Hurried::body(body, limit));
        }
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let calling = inner.call(request);
        let calling = async move {
            let answered = calling.await?;
            if let Some((caller, why)) = asked.zip(refused(&answered)) {
                door.turned_away(&caller, &seen, path, &why);
            }
            Ok(named(answered, &seen))
        };
        let Some(mut end) = end else { return Box::pin(calling) };
        Box::pin(async move {
            // It counts from here, also while nothing has come of the stream yet.
            let answered = tokio::select! {
                biased;
                status = &mut end => return Ok(status.into_http()),
                answered = calling => answered?,
            };
            Ok(answered.map(|body| Ending::body(body, end, When::AtOnce)))
        })
    }
}
