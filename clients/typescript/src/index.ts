/**
 * The client of AInTandem.
 *
 * Read first: {@link ContainerAgent}, for agents; {@link Client}, for everything the broker does; {@link ControlPlane}, for the REST
 * API. Errors are {@link AInTandemError}s with a stable `code`.
 *
 * @packageDocumentation
 */

export type { AgentTopics } from "./agent/agent_topics.js";
export { ContainerAgent } from "./agent/container_agent.js";
export {
  type HandlingContext,
  type MessageHandler,
  Reject,
  type RequestHandler,
  RetryLater,
} from "./agent/handling.js";
export type { ContainerAgentOptions } from "./agent/settings.js";
export { Client } from "./client.js";
export type { CallOptions } from "./connection/call_options.js";
export type { ClientOptions, TlsOptions } from "./connection/settings.js";
export type { TokenSource } from "./connection/token.js";
export type * from "./control_plane/alert_shapes.js";
export type { RestAlertRules, RestAlerts } from "./control_plane/alerts.js";
export type { RestCollaboration } from "./control_plane/collaboration.js";
export type * from "./control_plane/collaboration_shapes.js";
export { ControlPlane } from "./control_plane/control_plane.js";
export type { RestEvents } from "./control_plane/events.js";
export type * from "./control_plane/filter_shapes.js";
export type { RestLlmProviders } from "./control_plane/llm_providers.js";
export type { RestMcpServers } from "./control_plane/mcp_servers.js";
export { ProblemError } from "./control_plane/problem.js";
export type * from "./control_plane/provider_shapes.js";
export type {
  Listed,
  RestAgents,
  RestApiKeys,
  RestApprovals,
  RestAudit,
  RestDeadLetters,
  RestMessages,
  RestPolicies,
} from "./control_plane/resources.js";
export type { ChangeOptions, ControlPlaneOptions, CreateOptions, RestOptions, Tagged } from "./control_plane/rest.js";
export type * from "./control_plane/sandbox_shapes.js";
export type { LogFilter, RestSandboxes } from "./control_plane/sandboxes.js";
export type * from "./control_plane/shapes.js";
export type { NewRestWorkspace, RestWorkspaces } from "./control_plane/workspaces.js";
export {
  AbortedError,
  AInTandemError,
  ClosedError,
  ConnectionLostError,
  ContractError,
  type ErrorDetails,
  type FieldViolation,
  InvalidValueError,
  LeaseLostError,
  RefusedError,
  TimeoutError,
  UndeliverableError,
  UnreachableError,
} from "./errors.js";
export { type Logger, silentLogger } from "./logger.js";
export { type Destination, Message, type MessageKind, type MessageOptions, type OutgoingMessage } from "./message.js";
export type { Publisher, PublisherOptions, PublishOptions } from "./publish/publisher.js";
export type { Receipt } from "./publish/receipt.js";
export type { RetryBudgetOptions } from "./retry_budget.js";
export type { Approval, ApprovalState, Approvals, ApprovalWithMessage, Vote } from "./services/approvals.js";
export type {
  DeadLetter,
  DeadLetterCause,
  DeadLetterFilter,
  DeadLetters,
  FailedAttempt,
  Redriven,
  RedriveOptions,
} from "./services/dead_letters.js";
export type { BrokerEvent, EventKind, EventOptions } from "./services/events.js";
export type { History, HistoryFilter } from "./services/history.js";
export { collect } from "./services/pages.js";
export type { Policies, Policy, PolicyDocument, PolicyHours, PolicyRate, PolicyRule } from "./services/policies.js";
export type {
  Agent,
  AgentFilter,
  DiscoveredAgent,
  InboxLimits,
  Registered,
  Registration,
  Registry,
  RetryPolicy,
  Sandbox,
} from "./services/registry.js";
export type { RequestOptions, Response } from "./services/requests.js";
export type { Member, ServerInfo, ServerLimits, Shard } from "./services/server.js";
export type { Follow, FollowFrom, Topic, Topics } from "./services/topics.js";
export type { Workspace, WorkspaceSettings, Workspaces } from "./services/workspaces.js";
export type { Delivery, NackOptions } from "./subscribe/delivery.js";
export type { SubscribeOptions, Subscription } from "./subscribe/subscription.js";
export type { Backoff } from "./waiting.js";
