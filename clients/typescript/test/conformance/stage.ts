// What a scenario has while it runs: clients, subscriptions, deliveries, and what runs in the background.

import { randomBytes } from "node:crypto";
import { Client, type Delivery, type Subscription, silentLogger } from "@aintandem/sdk";
import type { Deployment } from "../brokers/deployment.js";
import { freePorts } from "../brokers/node_process.js";
import { CuttableProxy } from "../brokers/proxy.js";
import type { Arguments } from "./scenario.js";

/** A subscription, with what was asked for and not given out yet. */
export interface OpenInbox {
  subscription: Subscription;
  /** Asked for by a step that did not get it; the next step does. */
  asked: Promise<IteratorResult<Delivery, undefined>> | undefined;
}

export class Stage {
  readonly deployment: Deployment;
  readonly workspaceId: string;
  readonly clients = new Map<string, Client>();
  readonly inboxes = new Map<string, OpenInbox>();
  readonly deliveries = new Map<string, Delivery>();
  readonly background = new Map<string, Promise<Arguments>>();
  readonly tokens = new Map<string, string>();
  #proxies: CuttableProxy[] = [];
  #own: Client | undefined;

  constructor(deployment: Deployment, name: string) {
    this.deployment = deployment;
    this.workspaceId = `conf-${name}-${randomBytes(6).toString("hex")}`;
  }

  /** The runner's own client. */
  get own(): Client {
    if (this.#own === undefined) throw new Error("the stage is not set up");
    return this.#own;
  }

  /** The client of a step. */
  client(name: string | undefined): Client {
    const client = name === undefined ? this.own : this.clients.get(name);
    if (client === undefined) throw new Error(`no client ${name}`);
    return client;
  }

  async setUp(withProxies: boolean): Promise<void> {
    if (withProxies) {
      this.#proxies = await Promise.all(
        this.deployment.endpoints.map((endpoint) => new CuttableProxy(endpoint).start()),
      );
    }
    this.#own = this.#connect({ ...this.#admin() });
    await using direct = new Client({ endpoints: this.deployment.endpoints, ...this.#admin() });
    await direct.workspaces.create(this.workspaceId);
  }

  async tearDown(): Promise<void> {
    for (const client of [...this.clients.values(), this.#own]) await client?.close();
    for (const proxy of this.#proxies) await proxy.stop();
    await this.deployment.restart();
    await using direct = new Client({ endpoints: this.deployment.endpoints, ...this.#admin() });
    await direct.workspaces.delete(this.workspaceId);
  }

  cut(): void {
    for (const proxy of this.#proxies) proxy.cut();
  }

  async makeClient(args: Arguments): Promise<void> {
    const { as, token, attempts, wrong_url: wrongUrl } = args;
    const [port] = await freePorts(1);
    const client = this.#connect({
      ...(token === undefined || token === "none" ? {} : { token: this.tokens.get(String(token)) ?? "" }),
      ...(attempts === undefined ? {} : { attempts: Number(attempts) }),
      ...(wrongUrl ? { endpoints: `http://127.0.0.1:${port}`, attempts: 1 } : {}),
    });
    this.clients.set(String(as), client);
  }

  makeToken(args: Arguments): void {
    const { as, role, sandbox, expires_in_ms: expiresInMs } = args;
    const sign = this.deployment.sign;
    if (sign === undefined) throw new Error("this broker is open");
    const claims = {
      sub: String(as),
      roles: [role],
      workspace: this.workspaceId,
      ...(sandbox === undefined ? {} : { sandbox }),
      exp: Math.ceil((Date.now() + Number(expiresInMs)) / 1000),
    };
    this.tokens.set(String(as), sign(claims));
  }

  #admin(): { token?: string } {
    const exp = Math.ceil(Date.now() / 1000) + 3600;
    const sign = this.deployment.sign;
    return sign === undefined ? {} : { token: sign({ sub: "runner", roles: ["admin"], exp }) };
  }

  #connect(options: { token?: string; attempts?: number; endpoints?: string }): Client {
    const proxied = this.#proxies.map((proxy) => proxy.endpoint);
    return new Client({
      endpoints: proxied.length > 0 ? proxied : this.deployment.endpoints,
      workspaceId: this.workspaceId,
      // Leader hints lead past the proxies.
      followLeader: proxied.length === 0,
      logger: process.env["AINTANDEM_TEST_LOG"] ? console : silentLogger,
      ...options,
    });
  }
}
