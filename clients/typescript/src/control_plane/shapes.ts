// Documents of the REST API, under the names that they have there: /api/v1/openapi.json.

/** What a message is for. */
export type MessageType = "request" | "response" | "notification" | "command";

/** How much may be sent in a second. Left out: any number. */
export interface RestRate {
  messages_per_second?: number | null;
  bytes_per_second?: number | null;
}

/** What a workspace does, and may take. What is left out is as the broker has it for everybody; null in a change goes back to that. */
export interface RestWorkspaceSettings {
  /** Sandboxes that there may be at once. */
  max_sandboxes?: number | null;
  /** The name of a provider of the workspace that agents use when they name none. */
  default_llm_provider?: string | null;
  /** How long messages wait that say nothing about it: 1 to 31,622,400 seconds. Default: they do not expire. */
  default_ttl_seconds?: number | null;
  /** Hops that a conversation may have: 1 to 255. Default: 16. */
  max_hops?: number | null;
  /** How long the history is kept: 60 seconds or more (30 days), and 1 MiB or more (any number). */
  retention?: { age_seconds?: number | null; bytes?: number | null };
  /** What the workspace may take: in all, each sandbox that sends, each token or API key; streams and connections on each node. */
  quotas?: {
    workspace?: RestRate;
    sandbox?: RestRate;
    caller?: RestRate;
    max_stored_bytes?: number | null;
    max_message_bytes?: number | null;
    max_streams?: number | null;
    max_connections?: number | null;
  };
  /** Whom its sandboxes reach beside the broker. */
  network?: {
    /** Up to 64 hosts with their ports, such as `api.openai.com:443`, looked up when a sandbox starts. Default: none. */
    allowed_hosts?: string[] | null;
    /** What one sandbox may send in a second, in KiB: 1 to 10,000,000. Default: any number. */
    send_kib_per_second?: number | null;
  };
}

/** A tenant. */
export interface RestWorkspace {
  id: string;
  name: string;
  description: string;
  settings: RestWorkspaceSettings;
  /** `creating`, `active`, `updating`, `deleting` or `failed`. */
  state: string;
  error?: string | null;
  revision: number;
  create_time: string;
  update_time: string;
  /** When it is deleted for good, unless it is restored before. */
  delete_time?: string | null;
  /** What it holds at the broker; left out in lists, and where the broker does not say. */
  usage?: {
    sandbox_count: number;
    first_sequence: number;
    last_sequence: number;
    stored_bytes: number;
    shard_id: number;
  } | null;
}

/** Where a message goes. `broadcast`: to every other sandbox of the workspace. */
export type RestDestination =
  | { sandbox_id: string }
  | { topic: string }
  | { capability: { name: string; all?: boolean; wait?: boolean } }
  | { broadcast: true };

/** A message that is sent. Texts that name something have up to 128 bytes. */
export interface NewRestMessage {
  workspace_id: string;
  from_sandbox_id: string;
  to?: RestDestination;
  type: MessageType;
  /** Any JSON; with another `content_type` a text, and with `content_encoding` a text that holds bytes. */
  content: unknown;
  content_type?: string;
  content_encoding?: "base64";
  /** A message that is sent again with the same id is the same one. Default: the broker names it. */
  message_id?: string;
  from_agent?: string;
  to_agent?: string;
  /** 0 to 9; 9 is delivered first. Default: 5. */
  priority?: number;
  /** The sender waits for a response with the same correlation id. */
  requires_response?: boolean;
  correlation_id?: string;
  /** How long it may wait: 1 to 31,622,400 seconds. Default: as the workspace says. */
  ttl_seconds?: number;
  /** It becomes a dead letter when its time is over. */
  dead_letter_on_expiry?: boolean;
  /** How long it waits before it is delivered: 1 to 31,622,400 seconds. */
  delay_seconds?: number;
  /** Messages with the same key reach a recipient one at a time and in order. */
  ordering_key?: string;
  /** Of the application: up to 64 pairs. */
  metadata?: Record<string, string>;
  /** W3C trace context. Default: that of the call. */
  traceparent?: string;
}

/** A message that is accepted. */
export interface AcceptedMessage {
  message_id: string;
  /** Its position in the log of the workspace; 0: it is not in the log yet. */
  sequence: number;
  server_time: string;
  /** It had been sent before; nothing was done. */
  duplicate: boolean;
  /** Set when it waits for a human. */
  approval_id?: number | null;
}

/** A message as it is in the log. */
export interface RestMessage {
  workspace_id: string;
  message_id: string;
  sequence: number;
  server_time: string;
  from_sandbox_id: string;
  from_agent?: string;
  to?: RestDestination | null;
  to_agent?: string;
  type?: MessageType | null;
  content: unknown;
  content_type: string;
  content_encoding?: "base64" | null;
  priority: number;
  requires_response: boolean;
  correlation_id?: string;
  ordering_key?: string;
  metadata?: Record<string, string>;
  hop_count: number;
}

/** An agent of a sandbox. */
export interface RestAgent {
  sandbox_id: string;
  name: string;
  role: string;
  capabilities: string[];
  online: boolean;
}

/** The policy of a workspace. */
export interface RestPolicy {
  /** Rises with every change; 0: there was never one. */
  revision: number;
  /** Null: everybody may talk to everybody. */
  policy: unknown;
  updated_by?: string;
  update_time?: string | null;
}

/** A message that a policy holds, or held. */
export interface RestApproval {
  id: number;
  state?: "waiting" | "approved" | "denied" | "expired" | "refused" | null;
  from_sandbox_id: string;
  /** As a policy writes it. */
  to: string;
  type?: MessageType | null;
  size_bytes: number;
  policy_revision: number;
  /** From 1. */
  policy_rule: number;
  /** How many must approve. */
  approvals_required: number;
  votes: { by: string; approved: boolean; comment: string; time?: string | null }[];
  /** Why it ended. */
  text?: string;
  /** In the log, once it is approved. */
  sequence?: number | null;
  create_time?: string | null;
  expire_time?: string | null;
  end_time?: string | null;
  /** What waits; left out in lists, and once it is in the log. */
  message?: RestMessage | null;
}

/** A message with the reason why it left its inbox, and its history. */
export interface RestDeadLetter {
  /** Whose inbox it left. */
  sandbox_id: string;
  message?: RestMessage | null;
  reason?: "attempts_exhausted" | "rejected" | "expired" | "loop" | null;
  reason_text: string;
  dead_time?: string | null;
  attempts: { attempt: number; error: string; text?: string; time?: string | null }[];
  /** Of a conversation that went in circles: its sequences. */
  chain?: number[];
}

/** Something that happened. */
export interface RestEvent {
  /** Counts the events of the workspace, from 1. */
  id: number;
  /** Such as `sandbox_offline`. */
  type: string;
  time?: string | null;
  sandbox_id?: string;
  sequence?: number | null;
  /** How many messages it is about. */
  count: number;
  text?: string;
  approval_id?: number | null;
}

/** A key, without its secret. */
export interface RestApiKey {
  id: string;
  subject: string;
  roles: string[];
  workspace_id?: string;
  sandbox_id?: string;
  created_by: string;
  create_time?: string | null;
  /** Left out: it does not expire. */
  expire_time?: string | null;
  revoke_time?: string | null;
  /** To about a minute. */
  last_use_time?: string | null;
}

/** A record of the audit. */
export interface RestAuditRecord {
  /** Counts the records of the chain, from 1. */
  number: number;
  /** Such as `policy_changed`. */
  kind: string;
  time?: string | null;
  by: string;
  address: string;
  request_id: string;
  about: string;
  first: number;
  last: number;
  count: number;
  text: string;
  /** In hexadecimal digits; empty where the kind has none. */
  digest: string;
  /** Of the record and the one before, in hexadecimal digits. */
  hash: string;
}

/** Which of what workspaces have set up is wanted. */
export interface RestFilterWithin {
  /** Default: of all workspaces that the caller may see. */
  workspace_id?: string;
  /** Those alone whose name begins so. */
  name_prefix?: string;
  /** Items of a page: 1 to 500. Default: 50. */
  limit?: number;
  /** With `-` the other way. Default: `create_time`. */
  sort?: "name" | "-name" | "create_time" | "-create_time" | "update_time" | "-update_time";
}
