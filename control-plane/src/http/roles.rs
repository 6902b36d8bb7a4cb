//! Which roles may ask for what: one table, and the only place that says so.

/// One operation and who may ask for it.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Of HTTP.
    pub(crate) method: &'static str,
    /// As it is declared.
    pub(crate) path: &'static str,
    /// As the description calls it.
    pub(crate) operation: &'static str,
    /// Whoever has one of these.
    pub(crate) roles: &'static [&'static str],
}

const ADMIN: &[&str] = &["admin"];
/// Looks up who and what there is.
const LOOK_UP: &[&str] = &["admin", "operator", "developer", "approver", "auditor", "sandbox"];

const fn rule(
    method: &'static str,
    path: &'static str,
    operation: &'static str,
    roles: &'static [&'static str],
) -> Rule {
    Rule { method, path, operation, roles }
}

/// All operations that need to know who asks.
pub(crate) const RULES: &[Rule] = &[
    rule("GET", "/api/v1/workspaces", "list_workspaces", LOOK_UP),
    rule("POST", "/api/v1/workspaces", "create_workspace", ADMIN),
    rule("GET", "/api/v1/workspaces/{id}", "get_workspace", LOOK_UP),
    rule("PUT", "/api/v1/workspaces/{id}", "replace_workspace", ADMIN),
    rule("PATCH", "/api/v1/workspaces/{id}", "update_workspace", ADMIN),
    rule("DELETE", "/api/v1/workspaces/{id}", "delete_workspace", ADMIN),
    rule("POST", "/api/v1/workspaces/{id}/restore", "restore_workspace", ADMIN),
];

/// The row of an operation.
pub(crate) fn find(method: &str, path: &str) -> Option<&'static Rule> {
    // HEAD is GET without the body.
    let method = if method == "HEAD" { "GET" } else { method };
    RULES.iter().find(|rule| rule.method == method && rule.path == path)
}
