//! What of the description does not stand at the operations.

use utoipa::{
    OpenApi,
    openapi::{
        self, Object, RefOr, Schema,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "AInTandem control plane",
        description = "Workspaces and the sandboxes in which teams of agents run.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "workspaces", description = "The tenants: isolation, quotas and retention end at their edge."),
        (name = "sandboxes", description = "Containers in which agents run."),
        (name = "messages", description = "What is said, and the log of it."),
        (name = "agents", description = "Who is there, and can do what."),
        (name = "policies", description = "Who may say what to whom."),
        (name = "approvals", description = "What waits for a human."),
        (name = "dead-letters", description = "What left its inbox without being acknowledged."),
        (name = "events", description = "What happens."),
        (name = "audit", description = "What was done, and by whom, in a chain of hashes."),
        (name = "api-keys", description = "What programs show that stay the same for long."),
        (name = "llm-providers", description = "Where agents reach language models."),
        (name = "mcp-servers", description = "Tools for agents (Model Context Protocol)."),
        (name = "alerts", description = "What should not go unseen, and whom it is told."),
        (name = "collaboration", description = "Who takes part, and ending that somebody does."),
    ),
    modifiers(&Secured),
    security(("token" = [])),
)]
struct Base;

/// How callers say who they are.
struct Secured;

impl utoipa::Modify for Secured {
    fn modify(&self, openapi: &mut openapi::OpenApi) {
        let bearer = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token or an API key of the broker; none where the broker is open to everybody."))
            .build();
        let components = openapi.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// The description before the operations.
pub(crate) fn base() -> openapi::OpenApi {
    Base::openapi()
}

/// Makes one object of each that is described as several at once, of which each refuses the fields of the others. Whether it
/// has more fields than are described is as its last part says, which is its own.
pub(crate) fn whole(mut description: openapi::OpenApi) -> openapi::OpenApi {
    let Some(components) = description.components.as_mut() else { return description };
    let known = components.schemas.clone();
    for schema in components.schemas.values_mut() {
        let RefOr::T(Schema::AllOf(all)) = schema else { continue };
        let parts = all.items.iter().filter_map(|part| match part {
            RefOr::T(part) => Some(part),
            RefOr::Ref(place) => match known.get(place.ref_location.rsplit('/').next()?) {
                Some(RefOr::T(part)) => Some(part),
                _ => None,
            },
        });
        let mut whole = Object::new();
        whole.description.clone_from(&all.description);
        for part in parts {
            let Schema::Object(part) = part else { continue };
            let part = part.clone();
            whole.properties.extend(part.properties);
            whole.required.extend(part.required);
            whole.additional_properties = part.additional_properties;
        }
        *schema = RefOr::T(Schema::Object(whole));
    }
    description
}

/// The operations of a path.
#[cfg(test)]
pub(crate) fn operations(item: &openapi::PathItem) -> Vec<(&'static str, &openapi::path::Operation)> {
    [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("PATCH", &item.patch), ("DELETE", &item.delete)]
        .into_iter()
        .filter_map(|(method, operation)| operation.as_ref().map(|operation| (method, operation)))
        .collect()
}
