import type {
  NewRestAlertRule,
  RestAlert,
  RestAlertFilter,
  RestAlertRule,
  RestAlertRuleChange,
} from "./alert_shapes.js";
import { type ChangeOptions, type CreateOptions, part, type Rest, type RestOptions, type Tagged } from "./rest.js";
import type { RestFilterWithin } from "./shapes.js";

/** Alerts that have fired, and the rules that make them fire. A workspace keeps its newest 1,000 alerts. */
export class RestAlerts {
  readonly #rest: Rest;
  /** What makes alerts fire. */
  readonly rules: RestAlertRules;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
    this.rules = new RestAlertRules(rest);
  }

  /** Alerts, the newest first; page by page, when it is read. */
  list(filter: RestAlertFilter = {}, options?: RestOptions): AsyncGenerator<RestAlert, void, undefined> {
    type Page = { alerts: RestAlert[]; next_cursor?: string | null };
    return this.#rest.pages<Page, RestAlert>("/alerts", { ...filter }, (page) => page.alerts, options);
  }

  /**
   * Says that somebody has seen an alert; who says so second changes nothing. With `ifMatch`, its revision in quotation marks, only
   * what was seen: `REVISION_CHANGED` when it has grown since. `UNKNOWN_ALERT` when it is not kept any more.
   */
  acknowledge(id: string, options: ChangeOptions = {}): Promise<RestAlert> {
    return this.#rest.json("POST", `/alerts/${part(id)}/acknowledge`, options);
  }
}

/** Rules of alerts; up to 50 in a workspace. Fails with `UNKNOWN_ALERT_RULE` where there is none of an id. */
export class RestAlertRules {
  readonly #rest: Rest;
  /** @internal */
  constructor(rest: Rest) {
    this.#rest = rest;
  }

  /**
   * Sets a rule up; what happens from now on counts. Fails with `INVALID_FIELD`, `UNKNOWN_WORKSPACE`, `NAME_TAKEN`,
   * `TOO_MANY_RESOURCES`, and with a webhook with `SECRETS_NOT_CONFIGURED`.
   */
  create(rule: NewRestAlertRule, options: CreateOptions = {}): Promise<RestAlertRule> {
    return this.#rest.json("POST", "/alerts/rules", { ...options, body: rule });
  }

  /** With its tag, for a change that shall overwrite nobody else's. */
  async get(id: string, options?: RestOptions): Promise<Tagged<RestAlertRule>> {
    const { value, etag } = await this.#rest.tagged<RestAlertRule>("GET", path(id), options);
    return { ...value, etag };
  }

  /** Page by page, when it is read. */
  list(filter: RestFilterWithin = {}, options?: RestOptions): AsyncGenerator<RestAlertRule, void, undefined> {
    type Page = { rules: RestAlertRule[]; next_cursor?: string | null };
    return this.#rest.pages<Page, RestAlertRule>("/alerts/rules", { ...filter }, (page) => page.rules, options);
  }

  /** Changes what is named; with `ifMatch`, the `etag` of what was read, only that. Fails as `create` does, and with `REVISION_CHANGED`. */
  update(id: string, change: RestAlertRuleChange, options: ChangeOptions = {}): Promise<RestAlertRule> {
    return this.#rest.json("PATCH", path(id), { ...options, body: change });
  }

  /** What it has fired stays; what its webhook did not hear of yet is not told any more. */
  delete(id: string, options: ChangeOptions = {}): Promise<void> {
    return this.#rest.json("DELETE", path(id), options);
  }
}

function path(id: string): string {
  return `/alerts/rules/${part(id)}`;
}
