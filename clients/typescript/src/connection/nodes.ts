// Which node gets the next call: the endpoints in turn, or straight the node that leads the workspace.

import { Node } from "./node.js";
import type { Settings } from "./settings.js";

/** Where answers name the leader: `n2=127.0.0.1:8002`. */
export const LEADER_HEADER = "aintandem-leader";
/** A node that failed is passed over for so long, while another is left, in milliseconds. */
const AVOID_MS = 1_000;
/** The same for a node that only an answer has named: it may be out of this client's reach for good. */
const AVOID_LEADER_MS = 10_000;
/** More are forgotten: the endpoints name them again. */
const MAX_WORKSPACES = 1_024;
const MAX_LEADERS = 64;

export class Nodes {
  readonly #settings: Settings;
  readonly #endpoints: readonly Node[];
  /** By address. */
  readonly #leaders = new Map<string, Node>();
  readonly #leaderOf = new Map<string, string>();
  readonly #probing = new Set<string>();
  #next: number;
  #closed = false;

  constructor(settings: Settings, random: () => number = Math.random) {
    this.#settings = settings;
    this.#endpoints = settings.endpoints.map((url) => new Node(url, settings));
    // Clients with one list should not all begin with its first node.
    this.#next = Math.floor(random() * this.#endpoints.length);
  }

  /** The node for the next call that concerns no workspace, or whose leader is not known. Stays at one while it serves. */
  any(nowMs: number = performance.now()): Node {
    const count = this.#endpoints.length;
    for (let step = 0; step < count; step++) {
      const node = this.#endpoints[(this.#next + step) % count];
      if (node !== undefined && node.avoidUntilMs <= nowMs) {
        this.#next = (this.#next + step) % count;
        return node;
      }
    }
    // All have failed just now: the one that was passed over first is as good as any.
    this.#next = (this.#next + 1) % count;
    return this.#endpoints[this.#next] as Node;
  }

  /** The node that leads the workspace, where that is known and within reach; else any. */
  leading(workspaceId: string, nowMs: number = performance.now()): Node {
    const address = this.#leaderOf.get(workspaceId);
    const node = address === undefined ? undefined : this.#leaders.get(address);
    return node !== undefined && node.avoidUntilMs <= nowMs ? node : this.any(nowMs);
  }

  /** It could not be reached, or the connection broke: others first for a while. */
  failed(node: Node): void {
    const named = this.#endpoints.includes(node) ? AVOID_MS : AVOID_LEADER_MS;
    node.avoidUntilMs = performance.now() + named;
  }

  /** Takes note of who gave an answer for the node that was asked. */
  note(workspaceId: string, leader: string | null): void {
    if (!this.#settings.followLeader || leader === null || this.#closed) return;
    const address = leaderAddress(leader);
    if (address === undefined) return;
    if (this.#leaderOf.size >= MAX_WORKSPACES) this.#leaderOf.clear();
    this.#leaderOf.set(workspaceId, address);
    const known = this.#leaders.get(address);
    if (known !== undefined && known.avoidUntilMs <= performance.now()) return;
    if (!this.#probing.has(address)) void this.#reach(address);
  }

  async #reach(address: string): Promise<void> {
    // As encrypted as the endpoints are.
    const scheme = this.#settings.endpoints[0]?.protocol ?? "http:";
    let url: URL;
    try {
      url = new URL(`${scheme}//${address}`);
    } catch {
      return;
    }
    this.#probing.add(address);
    const same = this.#endpoints.find((node) => node.url.host === url.host);
    const node = this.#leaders.get(address) ?? same ?? new Node(url, this.#settings);
    const reached = await node.probe();
    this.#probing.delete(address);
    if (this.#closed) {
      node.close();
      return;
    }
    if (!reached) {
      const text = "the node that leads is out of reach; others pass on what it is to get";
      this.#settings.logger.debug(text, { address });
    }
    node.avoidUntilMs = reached ? 0 : performance.now() + AVOID_LEADER_MS;
    if (this.#leaders.size >= MAX_LEADERS) this.#forgetLeaders();
    this.#leaders.set(address, node);
  }

  #forgetLeaders(): void {
    for (const node of this.#leaders.values()) if (!this.#endpoints.includes(node)) node.close();
    this.#leaders.clear();
    this.#leaderOf.clear();
  }

  close(): void {
    this.#closed = true;
    this.#forgetLeaders();
    for (const node of this.#endpoints) node.close();
  }
}

/** `127.0.0.1:8002` of `n2=127.0.0.1:8002`. */
export function leaderAddress(leader: string): string | undefined {
  const address = leader.slice(leader.indexOf("=") + 1);
  return leader.includes("=") && address !== "" ? address : undefined;
}
