// The REST API of the control plane.

import { RestAlerts } from "./alerts.js";
import { RestCollaboration } from "./collaboration.js";
import { RestEvents } from "./events.js";
import { RestLlmProviders } from "./llm_providers.js";
import { RestMcpServers } from "./mcp_servers.js";
import {
  RestAgents,
  RestApiKeys,
  RestApprovals,
  RestAudit,
  RestDeadLetters,
  RestMessages,
  RestPolicies,
} from "./resources.js";
import { type ControlPlaneOptions, Rest } from "./rest.js";
import { RestSandboxes } from "./sandboxes.js";
import { RestWorkspaces } from "./workspaces.js";

/**
 * A client of the control plane, over `fetch`. Bodies and answers are the documents of the API, under the names that they have there.
 *
 * What the service is unavailable for is tried again; a POST carries an `Idempotency-Key`, so that a repeat does nothing twice.
 * Problems are `ProblemError`s with `code`, `status`, `fields` and `requestId`.
 */
export class ControlPlane {
  readonly workspaces: RestWorkspaces;
  readonly sandboxes: RestSandboxes;
  readonly agents: RestAgents;
  readonly messages: RestMessages;
  readonly policies: RestPolicies;
  readonly approvals: RestApprovals;
  readonly deadLetters: RestDeadLetters;
  readonly apiKeys: RestApiKeys;
  readonly audit: RestAudit;
  readonly events: RestEvents;
  readonly alerts: RestAlerts;
  readonly llmProviders: RestLlmProviders;
  readonly mcpServers: RestMcpServers;
  readonly collaboration: RestCollaboration;

  /** Throws `INVALID_ENDPOINT` or `INVALID_SETTING`. */
  constructor(options: ControlPlaneOptions = {}) {
    const rest = new Rest(options);
    this.workspaces = new RestWorkspaces(rest);
    this.sandboxes = new RestSandboxes(rest);
    this.agents = new RestAgents(rest);
    this.messages = new RestMessages(rest);
    this.policies = new RestPolicies(rest);
    this.approvals = new RestApprovals(rest);
    this.deadLetters = new RestDeadLetters(rest);
    this.apiKeys = new RestApiKeys(rest);
    this.audit = new RestAudit(rest);
    this.events = new RestEvents(rest);
    this.alerts = new RestAlerts(rest);
    this.llmProviders = new RestLlmProviders(rest);
    this.mcpServers = new RestMcpServers(rest);
    this.collaboration = new RestCollaboration(rest);
  }
}
