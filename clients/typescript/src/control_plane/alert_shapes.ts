// Documents of alerts and their rules, under the names of the REST API. Times are RFC 3339.

/** What a rule can wait for: events of the broker, and from `out_of_memory` on what the control plane sees of sandboxes. */
export type RestAlertEvent =
  | "sandbox_registered"
  | "sandbox_offline"
  | "sandbox_online"
  | "sandbox_gone"
  | "message_dead_lettered"
  | "message_expired"
  | "message_looped"
  | "inbox_full"
  | "inbox_trimmed"
  | "approval_requested"
  | "approval_granted"
  | "approval_denied"
  | "approval_expired"
  | "out_of_memory"
  | "disk_limit"
  | "process_limit"
  | "restarting"
  | "failed"
  | "timed_out"
  | "idle_stopped"
  | "disconnected";

/** How bad an alert is. */
export type RestAlertSeverity = "info" | "warning" | "critical";

/** When a rule fires: at least `count` of an event within a window. */
export interface RestAlertCondition {
  /** What it waits for. */
  event: RestAlertEvent;
  /** About this sandbox. Left out: about any. */
  sandbox_id?: string;
  /** How many; an event that is about several messages counts as many. */
  count: number;
  /** Within so many seconds, to about a sixtieth of it. */
  window_seconds: number;
}

/** A condition that is wanted. */
export interface NewRestAlertCondition {
  /** What it waits for. */
  event: RestAlertEvent;
  /** About this sandbox. Default: about any. */
  sandbox_id?: string;
  /** How many: 1 to 10,000. An event that is about several messages counts as many. Default: 1. */
  count?: number;
  /** Within so many seconds: 1 to 86,400. Default: 60. */
  window_seconds?: number;
}

/** What is to change of a condition. What is left out stays. */
export interface RestAlertConditionChange extends Partial<Omit<NewRestAlertCondition, "sandbox_id">> {
  /** About this sandbox. Null: about any. */
  sandbox_id?: string | null;
}

/** Whom a rule tells. */
export interface RestAlertWebhook {
  /** Where it is. */
  url: string;
  /** Always true; the secret itself is never shown. */
  has_secret: boolean;
}

/** Whom a rule is to tell. */
export interface NewRestAlertWebhook {
  /** `https`, up to 2,048 bytes, without a name or a password; `http` on the machine of the control plane alone, where that is allowed. */
  url: string;
  /** `whsec_` and base64 of 24 to 64 bytes: signs what is sent. Kept sealed, and never shown. */
  secret: string;
}

/** What makes an alert fire, and whom it tells. */
export interface RestAlertRule {
  /** Made by the control plane; stays the same. */
  id: string;
  /** The workspace that it belongs to. */
  workspace_id: string;
  /** No two rules of a workspace have the same. */
  name: string;
  /** False: it waits for nothing. */
  enabled: boolean;
  /** When it fires. */
  condition: RestAlertCondition;
  /** How bad its alerts are. */
  severity: RestAlertSeverity;
  /** For so many seconds after it has fired, what fits is counted in the same alert. */
  quiet_seconds: number;
  /** Left out: it tells nobody. */
  webhook?: RestAlertWebhook;
  /** One more with each change; the tag says the same. */
  revision: number;
  /** When it was made. */
  create_time: string;
  /** When it was changed last. */
  update_time: string;
}

/** A rule that is wanted. */
export interface NewRestAlertRule {
  /** The workspace that it belongs to. */
  workspace_id: string;
  /** 1 to 100 characters; no two rules of a workspace have the same. */
  name: string;
  /** Default: true. */
  enabled?: boolean;
  /** When it fires. */
  condition: NewRestAlertCondition;
  /** Default: `warning`. */
  severity?: RestAlertSeverity;
  /** For so many seconds after it has fired, what fits is counted in the same alert: 0 to 86,400. Default: 300. */
  quiet_seconds?: number;
  /** Default: it tells nobody. */
  webhook?: NewRestAlertWebhook;
}

/** What is to change of a rule; limits are those of {@link NewRestAlertRule}. What is left out stays. */
export interface RestAlertRuleChange {
  /** No two rules of a workspace have the same. */
  name?: string;
  /** A rule that is enabled again begins with what happens from then on. */
  enabled?: boolean;
  /** Part by part. A rule with another condition begins with what happens from then on. */
  condition?: RestAlertConditionChange;
  /** How bad its alerts are. */
  severity?: RestAlertSeverity;
  /** For so many seconds after it has fired, what fits is counted in the same alert. */
  quiet_seconds?: number;
  /** Part by part: without `secret` the one that is there stays. Null takes the webhook away. */
  webhook?: Partial<NewRestAlertWebhook> | null;
}

/** Whether the webhook of a rule has heard of an alert. */
export interface RestAlertDelivery {
  /** `none`: the rule has no webhook. `failed`: it is not tried any more. */
  state: "none" | "waiting" | "delivered" | "failed";
  /** Attempts that were made. */
  attempts: number;
  /** Why the last one failed. */
  error?: string;
}

/** Something that a rule has found. */
export interface RestAlert {
  /** Made by the control plane; stays the same. */
  id: string;
  /** The workspace that it belongs to. */
  workspace_id: string;
  /** The rule may be gone by now. */
  rule_id: string;
  /** As the rule was called when it fired. */
  rule_name: string;
  /** How bad it is. */
  severity: RestAlertSeverity;
  /** `events_missed`: events were gone before the rule could look at them. */
  event: RestAlertEvent | "events_missed";
  /** For which it fired; those that were counted later may be others. */
  sandbox_id?: string;
  /** What has happened, in plain words. */
  text: string;
  /** How many, those of the quiet time behind it included. */
  count: number;
  /** Whether somebody has seen it. */
  state: "open" | "acknowledged";
  /** Who has acknowledged it. */
  acknowledged_by?: string;
  /** When somebody said so. */
  acknowledge_time?: string;
  /** Whether the webhook of the rule has heard of it. */
  delivery: RestAlertDelivery;
  /** When it fired. */
  create_time: string;
  /** When it happened last. */
  last_time: string;
  /** One more with each change. The tag of revision 7 is `"7"`, with the quotation marks. */
  revision: number;
}

/** Which alerts are wanted. */
export interface RestAlertFilter {
  /** Default: all that the caller may see. */
  workspace_id?: string;
  /** Of this rule. */
  rule_id?: string;
  /** Those alone that somebody has seen, or those alone that nobody has. Default: both. */
  state?: "open" | "acknowledged";
  /** Alerts of a page: 1 to 500. Default: 50. */
  limit?: number;
  /** With `-` the other way. Default: `-create_time`, the newest first. */
  sort?: "create_time" | "-create_time" | "update_time" | "-update_time";
}
