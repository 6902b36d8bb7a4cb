//! Any node serves: a request goes to the node that leads the shard of its workspace, as bytes. Only as much of it is read as
//! names the workspace.
//!
//! A subscription is not forwarded here but followed from leader to leader (`moving`). A request with one message is kept
//! until it is taken: a node that does not lead (any more) says so before it has done anything, and then the next leader
//! gets it.

mod peek;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tandem_raft::ProposeError;
use tokio::sync::watch;
use tonic::{
    Status,
    body::Body,
    codegen::http::{HeaderValue, Request, Response, request::Parts},
    transport::Channel,
};
use tower::{Layer, Service};

use self::peek::{Peeked, Reading};
use super::{
    ending::{Ending, When},
    hurry::too_slow,
    status,
};
use crate::{
    auth::{
        Caller,
        seal::{CALLER, Seal},
    },
    cluster::{Place, Routing, Seat},
    error::RequestError,
    shard::Shards,
};

/// Marks what one node sends another in the name of a client, with the number of the shard that the other leads: it goes no
/// further.
pub(crate) const FORWARDED: &str = "aintandem-forwarded";
/// The reason of an error, where it is found without decoding.
pub(crate) const REASON: &str = "aintandem-reason";
/// What is kept by shard 0, whatever workspace it is about.
const OF_SHARD_0: [&str; 2] = ["/aintandem.key.", "/aintandem.token."];
/// A hint: who leads. The id in an error; id and address in an answer that came from there.
pub(crate) const LEADER: &str = "aintandem-leader";

/// How often a request is offered to a leader. Each try waits for one.
const MAX_TRIES: u32 = 20;
/// Between two tries.
const TRY_DELAY: Duration = Duration::from_millis(20);
/// How long a node that was just elected may take to be ready before it says that it does not lead. Others know of the
/// election as soon as it does.
const SEAT_TIMEOUT: Duration = Duration::from_secs(1);

/// Routes requests before they reach the services of this node.
#[derive(Clone)]
pub(crate) struct ForwardLayer {
    pub(crate) routing: Routing,
    pub(crate) shards: Shards,
    /// The most that a request with one message may hold, in bytes; more is left to the service, which refuses it.
    pub(crate) max_request_bytes: usize,
    pub(crate) stopping: watch::Receiver<bool>,
    /// How long a request, or the beginning of a stream, may take to come.
    pub(crate) request_timeout: Duration,
    /// Tells the other node who is behind a request.
    pub(crate) seal: Option<Seal>,
}

impl<S> Layer<S> for ForwardLayer {
    type Service = Forward<S>;

    fn layer(&self, inner: S) -> Forward<S> {
        Forward { inner, layer: Arc::new(self.clone()) }
    }
}

/// See [`ForwardLayer`].
#[derive(Clone)]
pub(crate) struct Forward<S> {
    inner: S,
    layer: Arc<ForwardLayer>,
}

/// How a method is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Every node answers by itself.
    Local,
    /// One message, which names the workspace.
    Single,
    /// A stream of messages, the first of which names the workspace.
    Many,
}

/// Whether the request is proposed, which makes sure by itself that this node leads.
fn writes(path: &str) -> bool {
    path.ends_with("/Publish")
}

fn kind(path: &str) -> Kind {
    let Some((service, method)) = path.strip_prefix("/aintandem.").and_then(|path| path.split_once('/')) else {
        return Kind::Local;
    };
    match (service, method) {
        ("server.v1.ServerService" | "cluster.v1.ClusterService", _)
        | (_, "Subscribe" | "ListWorkspaces" | "RenewToken") => Kind::Local,
        (_, "PublishStream") => Kind::Many,
        _ => Kind::Single,
    }
}

impl<S> Service<Request<Body>> for Forward<S>
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let kind = kind(request.uri().path());
        let layer = Arc::clone(&self.layer);
        if let Some(shard) = request.headers().get(FORWARDED) {
            let shard = shard.to_str().ok().and_then(|shard| shard.parse().ok());
            let writes = kind == Kind::Many || writes(request.uri().path());
            return Box::pin(async move {
                match layer.is_led_here(shard, writes).await {
                    Ok(()) => inner.call(request).await,
                    Err(error) => Ok(Status::from(RequestError::from(error)).into_http()),
                }
            });
        }
        if kind == Kind::Local {
            return Box::pin(inner.call(request));
        }
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let limit = layer.max_request_bytes;
            let reading = if kind == Kind::Single { Reading::All } else { Reading::Workspace };
            // Of a stream only its beginning is waited for, and not for ever.
            let peeked = tokio::time::timeout(layer.request_timeout, peek::read(body, reading, limit)).await;
            let peeked = match peeked.unwrap_or_else(|_| Err(too_slow(layer.request_timeout).into())) {
                Ok(peeked) => peeked,
                Err(status) => return Ok(status.into_http()),
            };
            match kind {
                Kind::Single if peeked.is_complete() => layer.route_single(inner, parts, peeked).await,
                _ => layer.route_once(inner, parts, peeked).await,
            }
        })
    }
}

impl ForwardLayer {
    /// A request that can be repeated, until a leader takes it.
    async fn route_single<S>(&self, mut inner: S, parts: Parts, peeked: Peeked) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    {
        let writes = writes(parts.uri.path());
        let (mut answer, shard) = (None, self.shard(parts.uri.path(), &peeked));
        for attempt in 0..MAX_TRIES {
            if attempt > 0 {
                tokio::time::sleep(TRY_DELAY).await;
            }
            let request = Request::from_parts(parts.clone(), peeked.replay());
            let response = match self.place(shard).await {
                Err(status) => return Ok(status.into_http()),
                // A leader that nobody follows any more must not answer from what it knows.
                Ok(Place::Here) => match self.leads(shard, writes).await {
                    Ok(()) => inner.call(request).await?,
                    Err(error) => Status::from(RequestError::from(error)).into_http(),
                },
                Ok(Place::There { leader, channel, .. }) => match self.send(channel, request, shard, &leader).await {
                    Ok(response) => response,
                    Err(error) if never_sent(&error) => {
                        answer = Some(status::leader_unreachable(&error).into_http());
                        continue;
                    }
                    Err(error) => return Ok(status::leader_unreachable(&error).into_http()),
                },
            };
            if !is_refused_by_follower(&response) {
                return Ok(response);
            }
            answer = Some(response);
        }
        Ok(answer.unwrap_or_else(|| status::shutting_down().into_http()))
    }

    /// A stream, which goes to whoever leads when it begins.
    async fn route_once<S>(&self, mut inner: S, parts: Parts, peeked: Peeked) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    {
        let shard = self.shard(parts.uri.path(), &peeked);
        match self.place(shard).await {
            Err(status) => Ok(status.into_http()),
            Ok(Place::Here) => inner.call(Request::from_parts(parts, peeked.into_body())).await,
            Ok(Place::There { leader, streams, .. }) => {
                let request = Request::from_parts(parts, peeked.into_body());
                let sent = self.send(streams, request, shard, &leader).await;
                Ok(sent.unwrap_or_else(|error| status::leader_unreachable(&error).into_http()))
            }
        }
    }

    /// Makes sure that this node leads a shard right now; what is proposed makes sure by itself.
    async fn leads(&self, shard: Option<u32>, writes: bool) -> Result<(), ProposeError> {
        let shard = shard.and_then(|shard| self.shards.iter().nth(shard as usize));
        match shard {
            Some(shard) if !writes => shard.group.leader_barrier().await,
            _ => Ok(()),
        }
    }

    /// Makes sure that this node leads the shard of a request that another node has sent here. One that does not lead yet
    /// would answer from what it knew before: that a sandbox does not exist, for example.
    async fn is_led_here(&self, shard: Option<u32>, writes: bool) -> Result<(), ProposeError> {
        let known = shard.filter(|shard| (*shard as usize) < self.shards.iter().count());
        let not_leader = || ProposeError::NotLeader(None);
        let mut seat = self.routing.seat(known.ok_or_else(not_leader)?);
        let settled = tokio::time::timeout(SEAT_TIMEOUT, seat.wait_for(|seat| *seat != Seat::Vacant)).await;
        match settled.map(|seat| seat.map(|seat| *seat)) {
            Ok(Ok(Seat::Here)) => self.leads(shard, writes).await,
            Ok(Ok(Seat::There(leader))) => Err(ProposeError::NotLeader(Some(leader))),
            _ => Err(not_leader()),
        }
    }

    async fn send(
        &self,
        mut channel: Channel,
        mut request: Request<Body>,
        shard: Option<u32>,
        leader: &str,
    ) -> Result<Response<Body>, tonic::transport::Error> {
        // Only what names a shard is sent anywhere.
        request.headers_mut().insert(FORWARDED, shard.unwrap_or(0).into());
        let caller = request.extensions().get::<Caller>();
        if let Some(sealed) = self.seal.as_ref().zip(caller).and_then(|(seal, caller)| seal.put(caller)) {
            request.headers_mut().insert(CALLER, sealed);
        }
        std::future::poll_fn(|context| channel.poll_ready(context)).await?;
        let mut response = channel.call(request).await?;
        if let Ok(leader) = HeaderValue::from_str(leader) {
            response.headers_mut().insert(LEADER, leader);
        }
        let mut stopping = self.stopping.clone();
        let stopped = Box::pin(async move {
            while !*stopping.borrow_and_update() {
                if stopping.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            status::shutting_down()
        });
        Ok(response.map(|body| Ending::body(body, stopped, When::Idle)))
    }

    fn shard(&self, path: &str, peeked: &Peeked) -> Option<u32> {
        if OF_SHARD_0.iter().any(|service| path.starts_with(service)) {
            return Some(0);
        }
        peeked.workspace().map(|workspace| self.shards.of(workspace).group.shard())
    }

    async fn place(&self, shard: Option<u32>) -> Result<Place, Status> {
        // Without a workspace the request is wrong, and any node can say so.
        let Some(shard) = shard else { return Ok(Place::Here) };
        self.routing.place(shard).await.map_err(|error| RequestError::from(error).into())
    }
}

/// Whether the request certainly did not reach anybody: no connection came about.
fn never_sent(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether the node that answered does not lead and has therefore done nothing.
fn is_refused_by_follower(response: &Response<Body>) -> bool {
    response.headers().get(REASON).is_some_and(|reason| reason == "NOT_LEADER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_contract_is_routed() {
        use prost::Message as _;
        let set = prost_types::FileDescriptorSet::decode(tandem_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut seen = 0;
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let input = method.input_type().rsplit('.').next().unwrap_or_default();
                    let message = file.message_type.iter().find(|message| message.name() == input).unwrap();
                    let first = message.field.iter().find(|field| field.number() == 1);
                    let names_workspace = first.is_some_and(|field| field.name() == "workspace_id");
                    let expected = match (method.client_streaming(), names_workspace) {
                        _ if path.ends_with("/RenewToken") => Kind::Local,
                        _ if OF_SHARD_0.iter().any(|service| path.starts_with(service)) => Kind::Single,
                        (true, true) => Kind::Many,
                        (false, true) => Kind::Single,
                        _ => Kind::Local,
                    };
                    assert_eq!(kind(&path), expected, "{path}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 30, "only {seen} methods were found");
        assert_eq!(kind("/grpc.health.v1.Health/Check"), Kind::Local);
    }
}
