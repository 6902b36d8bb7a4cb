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
  /** Tenants. */
  readonly workspaces: RestWorkspaces;
  /** Containers in which agents run. */
  readonly sandboxes: RestSandboxes;
  /** Who is there. */
  readonly agents: RestAgents;
  /** Messages: sent, found and listed. */
  readonly messages: RestMessages;
  /** Who may say what to whom. */
  readonly policies: RestPolicies;
  /** Messages that a policy holds until somebody decides. */
  readonly approvals: RestApprovals;
  /** Messages that left an inbox without being acknowledged. */
  readonly deadLetters: RestDeadLetters;
  /** Keys of the broker. */
  readonly apiKeys: RestApiKeys;
  /** What was done, and by whom. */
  readonly audit: RestAudit;
  /** What happens. */
  readonly events: RestEvents;
  /** Rules that wait for events, and what they found. */
  readonly alerts: RestAlerts;
  /** Where agents reach language models. */
  readonly llmProviders: RestLlmProviders;
  /** Tools for agents. */
  readonly mcpServers: RestMcpServers;
  /** Who takes part, and ending that somebody does. */
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
