// One node of the broker, and the way to it.

import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Connection } from "./connection.js";
import type { Settings } from "./settings.js";

/** Larger answers and requests are refused by this side. The broker's own limit on a message is 8 MiB at the utmost. */
const MAX_BYTES = 64 * 1024 * 1024;

export class Node {
  readonly url: URL;
  readonly transport: Transport;
  readonly #connection: Connection;
  /** Not to be chosen before this time of `performance.now()`, unless no other is left. */
  avoidUntilMs = 0;

  constructor(url: URL, settings: Settings) {
    this.url = url;
    this.#connection = new Connection(url, settings);
    this.transport = createGrpcTransport({
      baseUrl: url.origin,
      sessionManager: this.#connection,
      readMaxBytes: MAX_BYTES,
      writeMaxBytes: MAX_BYTES,
    });
  }

  /** Whether it can be reached, before it is trusted with calls. */
  probe(): Promise<boolean> {
    return this.#connection.probe();
  }

  close(): void {
    this.#connection.close();
  }
}
