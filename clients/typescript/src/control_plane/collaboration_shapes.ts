// Documents of who takes part in a workspace, under the names of the REST API. Times are RFC 3339.

/** How it stands in a workspace, as the broker has it in this moment. */
export interface RestCollaborationStatus {
  /** The workspace. */
  workspace_id: string;
  /** The sequence of the newest message; 0: there is none. */
  last_sequence: number;
  /** The oldest sequence that is kept. */
  first_sequence: number;
  /** Bytes of the history. */
  stored_bytes: number;
  /** Sandboxes that are registered. */
  sandboxes: number;
  /** Of those: have shown a sign of life, or have a subscription open. */
  online: number;
  /** Of those: have not. */
  offline: number;
  /** Agents of all sandboxes. */
  agents: number;
  /** Messages that wait in inboxes. */
  pending_messages: number;
  /** Bytes of these. */
  pending_bytes: number;
  /** Of those: wait until a time, or until they are tried again. */
  deferred_messages: number;
  /** Messages that left an inbox without being acknowledged. */
  dead_letters: number;
  /** The numbers are those of the first 10,000 sandboxes alone. */
  truncated: boolean;
}

/** An agent of a sandbox. */
export interface RestAgentName {
  /** Unique in its sandbox. */
  name: string;
  /** What it is there for. */
  role: string;
  /** What others find it by. */
  capabilities: string[];
}

/** A sandbox, as the broker has it. */
export interface RestConnectedSandbox {
  /** Its name, which messages are addressed to. */
  sandbox_id: string;
  /** It has shown a sign of life, or has a subscription open. */
  online: boolean;
  /** Left out: there was none yet. */
  last_heartbeat_time?: string;
  /** When it was registered. */
  create_time?: string;
  /** The agents in it. */
  agents: RestAgentName[];
  /** For people and programs. */
  labels: Record<string, string>;
  /** Messages that wait in its inbox. */
  pending_messages: number;
  /** Bytes of these. */
  pending_bytes: number;
  /** Of those: wait until a time, or until they are tried again. */
  deferred_messages: number;
  /** Messages that left its inbox without being acknowledged. */
  dead_letters: number;
}

/** Which sandboxes are wanted. */
export interface RestConnectedSandboxFilter {
  /** The workspace that they are in. */
  workspace_id: string;
  /** Those alone that are online, or those alone that are not. Default: both. */
  online?: boolean;
  /** How many at most: 1 to 1,000. Default: 100. */
  limit?: number;
}

/** Who is to be disconnected. */
export interface RestDisconnection {
  /** The workspace that it is in. */
  workspace_id: string;
  /** Its name, as the broker knows it. */
  sandbox_id: string;
  /** For the log, and for rules that wait for `disconnected`: up to 500 characters, no control characters. */
  reason?: string;
  /** Its inbox goes, too, with what waits there. Default: false. */
  unregister?: boolean;
}

/** What was ended. */
export interface RestDisconnectedSandbox {
  /** The workspace that it is in. */
  workspace_id: string;
  /** Its name, as the broker knows it. */
  sandbox_id: string;
  /** Ids of API keys that were revoked. */
  revoked_api_keys: string[];
  /** Ids of tokens that were revoked. */
  revoked_tokens: string[];
  /** Its inbox is gone. */
  unregistered: boolean;
  /** Messages that were given up with its inbox. */
  abandoned_messages: number;
}
