// Which of what there is: parameters of listings, under the names of the REST API. All that is set must hold.

import type { MessageType, RestApproval, RestDeadLetter } from "./shapes.js";

/** Which workspaces are wanted. */
export interface RestWorkspaceFilter {
  /** Workspaces of a page: 1 to 500. Default: 50. */
  limit?: number;
  /** `name`, `create_time` or `update_time`, with `-` the other way. Default: `create_time`. */
  sort?: string;
  /** Those alone that are in this state. */
  state?: string;
  /** Those alone whose name begins so. */
  name_prefix?: string;
}

/** Which sandboxes are wanted. */
export interface RestSandboxFilter extends RestWorkspaceFilter {
  /** Those of this workspace. Default: of all that the caller may see. */
  workspace_id?: string;
}

/** Which messages of the log are wanted. */
export interface RestMessageFilter {
  /** The workspace whose log it is. */
  workspace_id: string;
  /** Messages of a page: 1 to 500. Default: 50. */
  limit?: number;
  /** The newest first. Default: false. */
  descending?: boolean;
  /** Sent by this sandbox, or addressed to it by name. */
  sandbox_id?: string;
  /** Sent by this agent, or meant for it. */
  agent?: string;
  /** Of this conversation. */
  correlation_id?: string;
  /** What they are for. */
  type?: MessageType;
  /** Committed at this time or later. */
  start_time?: Date;
  /** Committed before this time. */
  end_time?: Date;
}

/** Which agents are wanted. */
export interface RestAgentFilter {
  /** The workspace that they are in. */
  workspace_id: string;
  /** With this role. */
  role?: string;
  /** With this capability. */
  capability?: string;
  /** With this name. */
  name?: string;
  /** Those alone whose sandbox is online, or those alone whose is not. Default: both. */
  online?: boolean;
  /** How many at most: 1 to 1,000. Default: 100. */
  limit?: number;
}

/** Which held messages are wanted. */
export interface RestApprovalFilter {
  /** The workspace in which they were sent. */
  workspace_id: string;
  /** In this state. Default: in any. */
  state?: NonNullable<RestApproval["state"]>;
  /** How many at most: 1 to 1,000. Default: 100. */
  limit?: number;
}

/** Which dead letters are meant. */
export interface RestDeadLetterSelection {
  /** The workspace that they are in. */
  workspace_id: string;
  /** Those of this sandbox. Default: of all. */
  sandbox_id?: string;
  /** Those that left their inbox for this reason. */
  reason?: NonNullable<RestDeadLetter["reason"]>;
  /** Sent by this sandbox. */
  from_sandbox_id?: string;
  /** Of this conversation. */
  correlation_id?: string;
  /** What they are for. */
  type?: MessageType;
  /** With this sequence. */
  sequence?: number;
}

/** Which dead letters are wanted. */
export interface RestDeadLetterFilter extends RestDeadLetterSelection {
  /** How many at most: 1 to 500. Default: 50. */
  limit?: number;
}

/** Which dead letters are put back, where, and how fast. */
export interface RestRedrive extends RestDeadLetterSelection {
  /** The sandbox whose inbox gets them. Default: the inbox that each left. */
  to_sandbox_id?: string;
  /** Messages a second at the most. Default: as fast as it goes. */
  max_per_second?: number;
}

/** Which API keys are wanted. */
export interface RestApiKeyFilter {
  /** Bound to this workspace. Default: all that the caller may see. */
  workspace_id?: string;
  /** How many at most: 1 to 1,000. Default: 100. */
  limit?: number;
}

/** Which records of the audit are wanted. */
export interface RestAuditFilter {
  /** Of the chain of this workspace. */
  workspace_id?: string;
  /** Without a workspace: of the chain of this shard, for what belongs to none. */
  shard?: number;
  /** From this record on. Default: from the oldest that is kept. */
  from_record?: number;
  /** Of this kind, such as `policy_set`. */
  kind?: string;
  /** What this one has done: the subject of a token or an API key. */
  by?: string;
  /** What is about this. */
  about?: string;
  /** At this time or later. */
  start_time?: Date;
  /** Before this time. */
  end_time?: Date;
  /** Records of a page: 1 to 1,000. Default: 100. */
  limit?: number;
}

/** Which events are followed. */
export interface RestEventCursor {
  /** The workspace in which they happen. */
  workspace_id: string;
  /** The first one that is wanted; `EVENT_GAP` when it is not kept any more. Default: of a list 1, of what is followed the next one. */
  from_event?: number;
  /** About this sandbox. Default: about any. */
  sandbox_id?: string;
}

/** Which events are wanted. */
export interface RestEventFilter extends RestEventCursor {
  /** How many at most: 1 to 1,000. Default: 100. */
  limit?: number;
}
