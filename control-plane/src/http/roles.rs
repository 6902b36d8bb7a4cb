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
/// Takes part in the conversation.
const SPEAK: &[&str] = &["admin", "developer", "sandbox"];
/// Arranges a workspace.
const ARRANGE: &[&str] = &["admin", "developer"];
/// Reads what others have said.
const READ: &[&str] = &["admin", "developer", "auditor"];
/// Sees what runs, and how.
const WATCH: &[&str] = &["admin", "operator", "developer", "auditor"];
/// Looks up who and what there is.
const LOOK_UP: &[&str] = &["admin", "operator", "developer", "approver", "auditor", "sandbox"];
/// Looks after what runs.
const LOOK_AFTER: &[&str] = &["admin", "operator", "developer"];

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
    rule("GET", "/api/v1/sandboxes", "list_sandboxes", WATCH),
    rule("POST", "/api/v1/sandboxes", "create_sandbox", ARRANGE),
    rule("GET", "/api/v1/sandboxes/{id}", "get_sandbox", WATCH),
    rule("PATCH", "/api/v1/sandboxes/{id}", "update_sandbox", ARRANGE),
    rule("DELETE", "/api/v1/sandboxes/{id}", "delete_sandbox", ARRANGE),
    rule("GET", "/api/v1/sandboxes/{id}/status", "get_sandbox_status", WATCH),
    rule("GET", "/api/v1/sandboxes/{id}/logs", "get_sandbox_logs", READ),
    rule("GET", "/api/v1/sandboxes/{id}/stats", "get_sandbox_stats", WATCH),
    rule("POST", "/api/v1/sandboxes/{id}/start", "start_sandbox", LOOK_AFTER),
    rule("POST", "/api/v1/sandboxes/{id}/stop", "stop_sandbox", LOOK_AFTER),
    rule("POST", "/api/v1/sandboxes/{id}/restart", "restart_sandbox", LOOK_AFTER),
    rule("POST", "/api/v1/sandboxes/{id}/exec", "exec_in_sandbox", ARRANGE),
    rule("GET", "/api/v1/messages", "list_messages", READ),
    rule("POST", "/api/v1/messages", "publish_message", SPEAK),
    rule("GET", "/api/v1/messages/{id}", "get_message", READ),
    rule("POST", "/api/v1/broadcast", "broadcast_message", SPEAK),
    rule("GET", "/api/v1/agents/discover", "discover_agents", LOOK_UP),
    rule("POST", "/api/v1/agents/discover", "search_agents", LOOK_UP),
    rule("GET", "/api/v1/policies", "get_policy", &["admin", "developer", "auditor", "approver"]),
    rule("PUT", "/api/v1/policies", "set_policy", ADMIN),
    rule("DELETE", "/api/v1/policies", "remove_policy", ADMIN),
    rule("GET", "/api/v1/approvals", "list_approvals", &["admin", "developer", "auditor", "approver"]),
    rule("GET", "/api/v1/approvals/{id}", "get_approval", &["admin", "developer", "auditor", "approver", "sandbox"]),
    rule("POST", "/api/v1/approvals/{id}/approve", "approve_message", &["admin", "approver"]),
    rule("POST", "/api/v1/approvals/{id}/deny", "deny_message", &["admin", "approver"]),
    rule("GET", "/api/v1/dead-letters", "list_dead_letters", READ),
    rule("POST", "/api/v1/dead-letters/redrive", "redrive_dead_letters", ARRANGE),
    rule("GET", "/api/v1/events", "list_events", &["admin", "operator", "developer", "approver", "auditor"]),
    rule("GET", "/api/v1/audit", "list_audit_records", &["admin", "auditor"]),
    rule("GET", "/api/v1/api-keys", "list_api_keys", &["admin", "auditor"]),
    rule("POST", "/api/v1/api-keys", "create_api_key", ADMIN),
    rule("DELETE", "/api/v1/api-keys/{id}", "revoke_api_key", ADMIN),
    rule("GET", "/api/v1/llm-providers", "list_llm_providers", WATCH),
    rule("POST", "/api/v1/llm-providers", "create_llm_provider", ARRANGE),
    rule("GET", "/api/v1/llm-providers/{id}", "get_llm_provider", WATCH),
    rule("PATCH", "/api/v1/llm-providers/{id}", "update_llm_provider", ARRANGE),
    rule("DELETE", "/api/v1/llm-providers/{id}", "delete_llm_provider", ARRANGE),
    rule("GET", "/api/v1/mcp-servers", "list_mcp_servers", WATCH),
    rule("POST", "/api/v1/mcp-servers", "create_mcp_server", ARRANGE),
    rule("GET", "/api/v1/mcp-servers/{id}", "get_mcp_server", WATCH),
    rule("PATCH", "/api/v1/mcp-servers/{id}", "update_mcp_server", ARRANGE),
    rule("DELETE", "/api/v1/mcp-servers/{id}", "delete_mcp_server", ARRANGE),
    rule("GET", "/api/v1/alerts", "list_alerts", WATCH),
    rule("POST", "/api/v1/alerts/{id}/acknowledge", "acknowledge_alert", LOOK_AFTER),
    rule("GET", "/api/v1/alerts/rules", "list_alert_rules", WATCH),
    rule("POST", "/api/v1/alerts/rules", "create_alert_rule", LOOK_AFTER),
    rule("GET", "/api/v1/alerts/rules/{id}", "get_alert_rule", WATCH),
    rule("PATCH", "/api/v1/alerts/rules/{id}", "update_alert_rule", LOOK_AFTER),
    rule("DELETE", "/api/v1/alerts/rules/{id}", "delete_alert_rule", LOOK_AFTER),
    rule("GET", "/api/v1/collaboration/status", "get_collaboration_status", WATCH),
    rule("GET", "/api/v1/collaboration/sandboxes", "list_connected_sandboxes", WATCH),
    rule("POST", "/api/v1/collaboration/disconnect", "disconnect_sandbox", ADMIN),
];

/// The row of an operation.
pub(crate) fn find(method: &str, path: &str) -> Option<&'static Rule> {
    // HEAD is GET without the body.
    let method = if method == "HEAD" { "GET" } else { method };
    RULES.iter().find(|rule| rule.method == method && rule.path == path)
}
