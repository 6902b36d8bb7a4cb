// Documents of the REST API, under the names that they have there: /api/v1/openapi.json.

export type MessageType = "request" | "response" | "notification" | "command";

export interface RestRate {
  messages_per_second?: number | null;
  bytes_per_second?: number | null;
}

export interface RestWorkspaceSettings {
  max_sandboxes?: number | null;
  default_llm_provider?: string | null;
  default_ttl_seconds?: number | null;
  max_hops?: number | null;
  retention?: { age_seconds?: number | null; bytes?: number | null };
  quotas?: {
    workspace?: RestRate;
    sandbox?: RestRate;
    caller?: RestRate;
    max_stored_bytes?: number | null;
    max_message_bytes?: number | null;
    max_streams?: number | null;
    max_connections?: number | null;
  };
}

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
  delete_time?: string | null;
  usage?: {
    sandbox_count: number;
    first_sequence: number;
    last_sequence: number;
    stored_bytes: number;
    shard_id: number;
  } | null;
}

export type RestDestination =
  | { sandbox_id: string }
  | { topic: string }
  | { capability: { name: string; all?: boolean; wait?: boolean } }
  | { broadcast: true };

export interface NewRestMessage {
  workspace_id: string;
  from_sandbox_id: string;
  to?: RestDestination;
  type: MessageType;
  /** Any JSON; with another `content_type` a text, and with `content_encoding` a text that holds bytes. */
  content: unknown;
  content_type?: string;
  content_encoding?: "base64";
  message_id?: string;
  from_agent?: string;
  to_agent?: string;
  priority?: number;
  requires_response?: boolean;
  correlation_id?: string;
  ttl_seconds?: number;
  dead_letter_on_expiry?: boolean;
  delay_seconds?: number;
  ordering_key?: string;
  metadata?: Record<string, string>;
  traceparent?: string;
}

export interface AcceptedMessage {
  message_id: string;
  sequence: number;
  server_time: string;
  duplicate: boolean;
  /** Set when it waits for a human. */
  approval_id?: number | null;
}

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

export interface RestAgent {
  sandbox_id: string;
  name: string;
  role: string;
  capabilities: string[];
  online: boolean;
}

export interface RestPolicy {
  revision: number;
  policy: unknown;
  updated_by?: string;
  update_time?: string | null;
}

export interface RestApproval {
  id: number;
  state?: "waiting" | "approved" | "denied" | "expired" | "refused" | null;
  from_sandbox_id: string;
  to: string;
  type?: MessageType | null;
  size_bytes: number;
  policy_revision: number;
  policy_rule: number;
  approvals_required: number;
  votes: { by: string; approved: boolean; comment: string; time?: string | null }[];
  text?: string;
  sequence?: number | null;
  create_time?: string | null;
  expire_time?: string | null;
  end_time?: string | null;
  message?: RestMessage | null;
}

export interface RestDeadLetter {
  sandbox_id: string;
  message?: RestMessage | null;
  reason?: "attempts_exhausted" | "rejected" | "expired" | "loop" | null;
  reason_text: string;
  dead_time?: string | null;
  attempts: { attempt: number; error: string; text?: string; time?: string | null }[];
  chain?: number[];
}

export interface RestEvent {
  id: number;
  type: string;
  time?: string | null;
  sandbox_id?: string;
  sequence?: number | null;
  count: number;
  text?: string;
  approval_id?: number | null;
}

export interface RestApiKey {
  id: string;
  subject: string;
  roles: string[];
  workspace_id?: string;
  sandbox_id?: string;
  created_by: string;
  create_time?: string | null;
  expire_time?: string | null;
  revoke_time?: string | null;
  last_use_time?: string | null;
}

export interface RestAuditRecord {
  number: number;
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
  digest: string;
  hash: string;
}
