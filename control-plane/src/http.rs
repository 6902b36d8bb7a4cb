//! The edge: HTTP to use cases, and back.

mod agents;
mod alert_rules;
mod alerts;
mod api_keys;
mod approvals;
mod audit;
mod body;
mod collaboration;
mod dead_letters;
mod door;
mod events;
mod llm_providers;
mod mcp_servers;
mod message;
mod messages;
mod observed;
mod once;
mod openapi;
mod operators;
mod origin;
mod policies;
mod precondition;
mod problem;
mod roles;
mod sandboxes;
pub(crate) mod serve;
mod some;
mod tagged;
mod time;
mod workspaces;
mod ws;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::Response,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

pub(crate) use self::door::Rates;
use self::problem::Problem;
use crate::{
    config::{Config, Limits},
    error::{Failure, Reason},
    metrics::Metrics,
    secrets::Secrets,
    service::{
        alerts::Alerts, caller::Callers, mcp_servers::McpServers, providers::Providers, sandboxes::Sandboxes,
        workspaces::Workspaces,
    },
    store::Store,
};

/// Where everything but what operators look at is found.
pub(crate) const PREFIX: &str = "/api/v1";
/// Requests and answers are known by this.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What requests are answered with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge(Arc<Parts>);

/// See [`Edge`].
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) callers: Callers,
    pub(crate) workspaces: Workspaces,
    pub(crate) sandboxes: Sandboxes,
    /// Nodes of the broker, for those who speak to it themselves.
    pub(crate) broker_urls: Vec<String>,
    pub(crate) providers: Providers,
    pub(crate) mcp_servers: McpServers,
    pub(crate) alerts: Alerts,
    pub(crate) secrets: Secrets,
    pub(crate) metrics: Arc<Metrics>,
    /// The broker, as this control plane.
    pub(crate) broker: tandem_client::Client,
    pub(crate) limits: Limits,
    pub(crate) rates: Rates,
    /// Places for WebSockets.
    pub(crate) sockets: Arc<Semaphore>,
    pub(crate) stopping: watch::Receiver<bool>,
    /// Connections and WebSockets that are open.
    pub(crate) tasks: TaskTracker,
}

impl std::ops::Deref for Edge {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Edge {
    /// A place for what stays open.
    fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.sockets).try_acquire_owned().map_err(|_| {
            let text = "as many WebSockets and streams are open as there may be (limits.max_websockets); close one";
            Failure::new(Reason::TooManySockets, text).after(Duration::from_secs(1))
        })
    }
}

/// All routes, with their description.
fn described() -> OpenApiRouter<Edge> {
    let api = OpenApiRouter::new()
        .routes(routes!(workspaces::list, workspaces::create))
        .routes(routes!(workspaces::get, workspaces::replace, workspaces::patch, workspaces::delete))
        .routes(routes!(workspaces::restore))
        .routes(routes!(sandboxes::list, sandboxes::create))
        .routes(routes!(sandboxes::get, sandboxes::patch, sandboxes::delete))
        .routes(routes!(sandboxes::status))
        .routes(routes!(sandboxes::output::logs))
        .routes(routes!(sandboxes::output::stats))
        .routes(routes!(sandboxes::start))
        .routes(routes!(sandboxes::stop))
        .routes(routes!(sandboxes::restart))
        .routes(routes!(sandboxes::output::exec))
        .routes(routes!(messages::list, messages::publish))
        .routes(routes!(messages::get))
        .routes(routes!(messages::broadcast))
        .routes(routes!(agents::discover, agents::search))
        .routes(routes!(policies::get, policies::set, policies::remove))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::get))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::deny))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(events::list))
        .routes(routes!(audit::list))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(llm_providers::list, llm_providers::create))
        .routes(routes!(llm_providers::get, llm_providers::patch, llm_providers::delete))
        .routes(routes!(mcp_servers::list, mcp_servers::create))
        .routes(routes!(mcp_servers::get, mcp_servers::patch, mcp_servers::delete))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::acknowledge))
        .routes(routes!(alert_rules::list, alert_rules::create))
        .routes(routes!(alert_rules::get, alert_rules::patch, alert_rules::delete))
        .routes(routes!(collaboration::status))
        .routes(routes!(collaboration::sandboxes))
        .routes(routes!(collaboration::disconnect));
    OpenApiRouter::with_openapi(openapi::base()).nest(PREFIX, api)
}

/// The service.
pub(crate) fn router(parts: Parts, config: &Config) -> Router {
    let edge = Edge(Arc::new(parts));
    let (api, description) = described().split_for_parts();
    let limits = config.limits.clone();
    let api = api
        .layer(middleware::from_fn_with_state(edge.clone(), once::answer))
        .layer(middleware::from_fn_with_state(edge.clone(), door::let_in))
        .merge(operators::routes())
        .merge(ws::routes())
        .merge(SwaggerUi::new("/docs").url(format!("{PREFIX}/openapi.json"), openapi::whole(description)))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_path)
        .layer(DefaultBodyLimit::max(config.limits.max_body_bytes))
        .layer(middleware::from_fn(move |request: Request, next: Next| in_bounds(limits.clone(), request, next)))
        .layer(cors(config))
        .layer(middleware::from_fn_with_state(Arc::new(config.cors.clone()), origin::check))
        .layer(middleware::from_fn_with_state(edge.clone(), observed::observe));
    api.with_state(edge)
}

/// Scripts of which pages may call, in a browser.
fn cors(config: &Config) -> CorsLayer {
    let origins = config.cors.allowed_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let origins = match config.cors.allowed_origins.as_slice() {
        [all] if all == "*" => AllowOrigin::any(),
        _ => AllowOrigin::list(origins.collect::<Vec<_>>()),
    };
    let named = |names: &[&'static str]| names.iter().copied().map(HeaderName::from_static).collect::<Vec<_>>();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(named(&[
            "authorization",
            "content-type",
            "if-match",
            "if-none-match",
            "last-event-id",
            "idempotency-key",
            "x-request-id",
        ]))
        .expose_headers(named(&[
            "etag",
            "location",
            "retry-after",
            "x-request-id",
            "server-timing",
            "ratelimit",
            "ratelimit-policy",
            "idempotent-replayed",
        ]))
        .max_age(Duration::from_secs(600))
}

async fn in_bounds(limits: Limits, request: Request, next: Next) -> Result<Response, Problem> {
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = length.filter(|length| *length > limits.max_body_bytes as u64) {
        let text = format!("the body has {length} bytes; at most {} are read", limits.max_body_bytes);
        return Err(Failure::new(Reason::BodyTooLarge, text).into());
    }
    let limit = Duration::from_millis(limits.request_timeout_ms);
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(answer) => Ok(answer),
        Err(_) => {
            let text = format!(
                "there was no answer within {} s; look what has become of it before you try again",
                limit.as_secs()
            );
            Err(Failure::new(Reason::RequestTooSlow, text).into())
        }
    }
}

async fn unknown_path(request: Request) -> Problem {
    let text = format!("nothing is served under {:?}; {PREFIX}/openapi.json says what is", request.uri().path());
    Failure::new(Reason::UnknownPath, text).into()
}

async fn method_not_allowed(request: Request) -> Problem {
    let text = format!("{:?} does not take {}; Allow says what it does", request.uri().path(), request.method());
    Failure::new(Reason::MethodNotAllowed, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_row_and_every_row_an_operation() {
        let description = openapi::whole(described().into_openapi());
        let schemas = &description.components.as_ref().unwrap().schemas;
        assert!(
            !serde_json::to_string(schemas).unwrap().contains("\"allOf\""),
            "parts that refuse each other's fields"
        );
        let mut described = Vec::new();
        for (path, item) in &description.paths.paths {
            for (method, operation) in openapi::operations(item) {
                let rule = roles::find(method, path);
                assert!(
                    rule.is_some_and(|rule| Some(rule.operation) == operation.operation_id.as_deref()),
                    "{method} {path}"
                );
                assert!(operation.responses.responses.contains_key("default"), "{method} {path} can fail");
                described.push(roles::find(method, path).map(|rule| rule.operation));
            }
        }
        assert_eq!(described.len(), roles::RULES.len());
    }
}
