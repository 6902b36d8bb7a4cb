// Documents of the REST API, under the names that they have there: /api/v1/openapi.json. Times are RFC 3339.

/** What a message is for. */
export type MessageType = "request" | "response" | "notification" | "command";

/** How much may be sent in a second. Left out: any number. */
export interface RestRate {
  /** Messages: 1 or more. */
  messages_per_second?: number | null;
  /** Bytes: 1 or more. */
  bytes_per_second?: number | null;
}

/** How long the history of a workspace is kept. What waits in an inbox is kept longer. */
export interface RestRetention {
  /** In seconds: 60 or more. Default: 30 days. */
  age_seconds?: number | null;
  /** In bytes: 1 MiB or more. Default: any number. */
  bytes?: number | null;
}

/** What a workspace may take. Left out: as much as the settings of the broker let everybody. */
export interface RestQuotas {
  /** Of the whole workspace. */
  workspace?: RestRate;
  /** Of each sandbox that sends. */
  sandbox?: RestRate;
  /** Of each subject of a token or an API key. */
  caller?: RestRate;
  /** Bytes of history: 1 or more. Publishes beyond are refused, where `retention` trims. */
  max_stored_bytes?: number | null;
  /** Bytes of one message: 1 or more. */
  max_message_bytes?: number | null;
  /** Streams that are open at once on each node: 1 or more. */
  max_streams?: number | null;
  /** Connections at once on each node: 1 or more. */
  max_connections?: number | null;
}

/** Whom the sandboxes of a workspace reach beside the broker, and how fast. */
export interface RestNetworkSettings {
  /** Up to 64 hosts with their ports, such as `api.openai.com:443`, looked up when a sandbox starts. Default: none. */
  allowed_hosts?: string[] | null;
  /** What one sandbox may send in a second, in KiB: 1 to 10,000,000. Default: any number. */
  send_kib_per_second?: number | null;
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
  /** How long the history is kept. */
  retention?: RestRetention;
  /** What the workspace may take. */
  quotas?: RestQuotas;
  /** Whom its sandboxes reach beside the broker. */
  network?: RestNetworkSettings;
}

/** What a workspace holds at the broker. */
export interface RestWorkspaceUsage {
  /** Sandboxes that are registered. */
  sandbox_count: number;
  /** The oldest sequence that is kept. */
  first_sequence: number;
  /** The sequence of the newest message; 0: there is none. */
  last_sequence: number;
  /** Bytes of the history. */
  stored_bytes: number;
  /** The Raft group that holds it. */
  shard_id: number;
}

/** A tenant. */
export interface RestWorkspace {
  /** Stays the same. */
  id: string;
  /** For people; no two workspaces have the same. */
  name: string;
  /** For people. */
  description: string;
  /** What it does, and may take. */
  settings: RestWorkspaceSettings;
  /** `creating`, `active`, `updating`, `deleting` or `failed`. */
  state: string;
  /** Why it is not as it should be. */
  error?: string | null;
  /** One more with each change; the tag says the same. */
  revision: number;
  /** When it was made. */
  create_time: string;
  /** When it was changed last. */
  update_time: string;
  /** When it is deleted for good, unless it is restored before. */
  delete_time?: string | null;
  /** What it holds at the broker; left out in lists, and where the broker does not say. */
  usage?: RestWorkspaceUsage | null;
}

/** Whoever has a capability. */
export interface RestCapability {
  /** As agents name it when they are registered. */
  name: string;
  /** All who have it, and not one of those who are online. Default: false. */
  all?: boolean;
  /** It waits for somebody when nobody is there. Default: false. */
  wait?: boolean;
}

/** Where a message goes: one of these. */
export type RestDestination =
  | {
      /** The inbox of this sandbox. */
      sandbox_id: string;
    }
  | {
      /** Every sandbox that follows this topic, but the sender. */
      topic: string;
    }
  | {
      /** Whoever has a capability. */
      capability: RestCapability;
    }
  | {
      /** Every other sandbox of the workspace. */
      broadcast: true;
    };

/** A message that is sent. Texts that name something have up to 128 bytes. */
export interface NewRestMessage {
  /** The workspace in which it is sent. */
  workspace_id: string;
  /** The sandbox that sends it, which is registered there. */
  from_sandbox_id: string;
  /** Where it goes. */
  to?: RestDestination;
  /** What it is for. */
  type: MessageType;
  /** Any JSON; with another `content_type` a text, and with `content_encoding` a text that holds bytes. */
  content: unknown;
  /** Media type of the content. Default: `application/json`. */
  content_type?: string;
  /** The content is a text that holds bytes. Default: it is what it looks like. */
  content_encoding?: "base64";
  /** A message that is sent again with the same id is the same one. Default: the broker names it. */
  message_id?: string;
  /** The agent that sends. */
  from_agent?: string;
  /** The agent that is meant. Default: whichever takes it. */
  to_agent?: string;
  /** 0 to 9; 9 is delivered first. Default: 5. */
  priority?: number;
  /** The sender waits for a response with the same correlation id. */
  requires_response?: boolean;
  /** Ties the messages of a conversation together. */
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
  /** As given, or the broker's `seq-<sequence>`. */
  message_id: string;
  /** Its position in the log of the workspace; 0: it is not in the log yet. */
  sequence: number;
  /** When it was committed. */
  server_time: string;
  /** It had been sent before; nothing was done. */
  duplicate: boolean;
  /** Set when it waits for a human. */
  approval_id?: number | null;
}

/** A message as it is in the log. */
export interface RestMessage {
  /** The workspace whose log holds it. */
  workspace_id: string;
  /** Its id; `seq-<sequence>` where its sender gave none. */
  message_id: string;
  /** Its position in the log of the workspace; 0 while it waits for approval. */
  sequence: number;
  /** When it was committed; left out while it waits for approval. */
  server_time?: string | null;
  /** The sandbox that sent it. */
  from_sandbox_id: string;
  /** The agent that sent it. */
  from_agent?: string;
  /** Where it went. */
  to?: RestDestination | null;
  /** The agent that is meant. */
  to_agent?: string;
  /** What it is for. */
  type?: MessageType | null;
  /** JSON where it is that; else a text, which holds bytes where `content_encoding` says so. */
  content: unknown;
  /** Media type of the content. */
  content_type: string;
  /** Set when the content is a text that holds bytes. */
  content_encoding?: "base64" | null;
  /** 0 to 9; 9 is delivered first. */
  priority: number;
  /** The sender waits for a response with the same correlation id. */
  requires_response: boolean;
  /** Ties the messages of a conversation together. */
  correlation_id?: string;
  /** Messages with the same key reach a recipient one at a time and in order. */
  ordering_key?: string;
  /** Headers of the application. */
  metadata?: Record<string, string>;
  /** How often its conversation went to and fro before it. */
  hop_count: number;
  /** How long it may wait, in seconds. Left out: as the workspace says. */
  ttl_seconds?: number | null;
  /** Not delivered before. */
  not_before?: string | null;
  /** W3C trace context of the publish. */
  traceparent?: string;
}

/** An agent of a sandbox. */
export interface RestAgent {
  /** The sandbox that it lives in. */
  sandbox_id: string;
  /** Unique in its sandbox. */
  name: string;
  /** What it is there for. */
  role: string;
  /** What others find it by. */
  capabilities: string[];
  /** Whether its sandbox shows that it is there. */
  online: boolean;
}

/** The policy of a workspace. */
export interface RestPolicy {
  /** Rises with every change; 0: there was never one. */
  revision: number;
  /** Null: everybody may talk to everybody. */
  policy: unknown;
  /** Who has changed it last: the subject of a token or an API key. */
  updated_by?: string;
  /** When it was changed last. */
  update_time?: string | null;
}

/** What somebody has said to a message that is held. */
export interface RestVote {
  /** The subject of a token or an API key. */
  by: string;
  /** False: denied. */
  approved: boolean;
  /** For the sender, and for whoever asks later. */
  comment: string;
  /** When. */
  time?: string | null;
}

/** A message that a policy holds, or held. */
export interface RestApproval {
  /** Counts what was held in the workspace, from 1. */
  id: number;
  /** `refused`: approved, and then not let through by the policy or the recipient. */
  state?: "waiting" | "approved" | "denied" | "expired" | "refused" | null;
  /** The sandbox that sent it. */
  from_sandbox_id: string;
  /** As a policy writes it. */
  to: string;
  /** What the message is for. */
  type?: MessageType | null;
  /** Bytes of the message. */
  size_bytes: number;
  /** Revision of the policy that holds it. */
  policy_revision: number;
  /** From 1. */
  policy_rule: number;
  /** How many must approve. */
  approvals_required: number;
  /** What has been said so far. */
  votes: RestVote[];
  /** Why it ended. */
  text?: string;
  /** In the log, once it is approved. */
  sequence?: number | null;
  /** Since when it waits. */
  create_time?: string | null;
  /** Until when it waits. */
  expire_time?: string | null;
  /** When it ended. */
  end_time?: string | null;
  /** What waits; left out in lists, and once it is in the log. */
  message?: RestMessage | null;
}

/** A delivery that did not end with an ack. */
export interface RestFailedAttempt {
  /** 1 for the first one. */
  attempt: number;
  /** How it failed: `nacked`, `lapsed` (the ack deadline passed) or `stream_broken`. */
  error: string;
  /** Of a nack, its reason. */
  text?: string;
  /** When it failed. */
  time?: string | null;
}

/** What came of putting dead letters back. */
export interface RestRedriven {
  /** Messages that were put back. */
  redriven: number;
  /** Messages that were left alone, because the inbox is full or gone. */
  skipped: number;
}

/** A message with the reason why it left its inbox, and its history. */
export interface RestDeadLetter {
  /** Whose inbox it left. */
  sandbox_id: string;
  /** As it was sent. */
  message?: RestMessage | null;
  /** Why it left. */
  reason?: "attempts_exhausted" | "rejected" | "expired" | "loop" | null;
  /** The same in plain words; of a nack, its reason. */
  reason_text: string;
  /** When it left. */
  dead_time?: string | null;
  /** Failed attempts, the oldest first; the newest 32. */
  attempts: RestFailedAttempt[];
  /** Of a conversation that went in circles: its sequences. */
  chain?: number[];
}

/** Something that happened. */
export interface RestEvent {
  /** Counts the events of the workspace, from 1. */
  id: number;
  /** Such as `sandbox_offline`. */
  type: string;
  /** When. */
  time?: string | null;
  /** The sandbox that it is about. */
  sandbox_id?: string;
  /** Of the message that it is about, or of the first of them. */
  sequence?: number | null;
  /** How many messages it is about. */
  count: number;
  /** Why, in plain words. */
  text?: string;
  /** The approval that it is about. */
  approval_id?: number | null;
}

/** Events, and where the next ones are. */
export interface RestEventPage {
  /** In the order in which they happened. */
  events: RestEvent[];
  /** `from_event` of the next page. */
  next_event: number;
}

/** A key that is wanted. */
export interface NewRestApiKey {
  /** Whose it is: up to 128 bytes. */
  subject: string;
  /** What it may do: `admin`, `operator`, `developer`, `approver`, `auditor`, `sandbox`. */
  roles: string[];
  /** The only workspace that exists for it. Default: all do. */
  workspace_id?: string;
  /** The only sandbox that it acts as; needs a workspace. Default: it acts as any. */
  sandbox_id?: string;
  /** How long it holds, in seconds: 1 to 316,224,000. Default: until it is revoked. */
  expires_in_seconds?: number;
}

/** A key that was made. */
export interface MadeRestApiKey {
  /** What is known of it. */
  key: RestApiKey;
  /** What is shown to the broker, as a token is. It is told this once. */
  secret: string;
}

/** A key, without its secret. */
export interface RestApiKey {
  /** Its id, which is also how its secret begins, behind `tandem_`. */
  id: string;
  /** Whose it is. */
  subject: string;
  /** What it may do. */
  roles: string[];
  /** The only workspace that exists for it. Left out: all do. */
  workspace_id?: string;
  /** The only sandbox that it acts as. Left out: any. */
  sandbox_id?: string;
  /** Who has made it: the subject of a token or an API key. */
  created_by: string;
  /** When it was made. */
  create_time?: string | null;
  /** Left out: it does not expire. */
  expire_time?: string | null;
  /** When it was revoked. Left out: it was not. */
  revoke_time?: string | null;
  /** To about a minute. */
  last_use_time?: string | null;
}

/** A record of the audit. */
export interface RestAuditRecord {
  /** Counts the records of the chain, from 1. */
  number: number;
  /** Such as `policy_set`; docs/guides/audit.md lists them. */
  kind: string;
  /** When. */
  time?: string | null;
  /** Who: the subject of a token or an API key; of messages, the sandbox that sent them; empty: the broker itself. */
  by: string;
  /** From where, as the broker saw it: of what came through here, the control plane. */
  address: string;
  /** `X-Request-Id` of the request. */
  request_id: string;
  /** What it is about: a sandbox, a topic, a key, a call. */
  about: string;
  /** The first sequence, or the number of an approval, or the revision of a policy; else 0. */
  first: number;
  /** The last sequence; else as `first`. */
  last: number;
  /** How many. */
  count: number;
  /** What else there is to say, in plain words. */
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
