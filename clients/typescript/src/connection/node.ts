// One connection to one node.

import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { Settings } from "./settings.js";

/** Bytes that the broker may send on one stream before it waits for this client. */
const STREAM_WINDOW_BYTES = 2 * 1024 * 1024;

/** Connects when it is first used, and again when the connection has broken. */
export class Node {
  readonly url: URL;
  readonly transport: Transport;
  readonly #session: Http2SessionManager;
  /** Not to be chosen before this time of `performance.now()`, unless no other is left. */
  avoidUntilMs = 0;

  constructor(url: URL, settings: Settings) {
    this.url = url;
    this.#session = new Http2SessionManager(
      url,
      {
        pingIntervalMs: settings.keepaliveIntervalMs,
        pingTimeoutMs: settings.keepaliveTimeoutMs,
        pingIdleConnection: true,
        idleConnectionTimeoutMs: 24 * 3600 * 1000,
      },
      {
        settings: { initialWindowSize: STREAM_WINDOW_BYTES },
        createConnection: () => dial(url, settings),
      },
    );
    this.transport = createGrpcTransport({
      baseUrl: url.origin,
      sessionManager: this.#session,
      readMaxBytes: 64 * 1024 * 1024,
      writeMaxBytes: 64 * 1024 * 1024,
    });
  }

  /** Ends the connection and what is open on it. */
  close(): void {
    this.#session.abort();
  }
}

/** A socket that gives up connecting in time: the system itself would try for two minutes. */
function dial(url: URL, settings: Settings): Socket {
  const secure = url.protocol === "https:";
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  const port = Number(url.port || (secure ? 443 : 80));
  const servername = /^[\d.]+$|:/.test(host) ? undefined : host;
  const socket = secure
    ? connectTls({ ...settings.tls, host, port, ALPNProtocols: ["h2"], ...(servername && { servername }) })
    : connectTcp({ host, port });
  socket.setNoDelay(true);
  const timer = setTimeout(() => {
    const error = new Error(`no connection within ${settings.connectTimeoutMs} ms`);
    socket.destroy(Object.assign(error, { code: "ECONNECT_TIMEOUT" }));
  }, settings.connectTimeoutMs);
  const stop = () => clearTimeout(timer);
  socket.once(secure ? "secureConnect" : "connect", stop).once("close", stop);
  return socket;
}

/** Whether a connection can be made at all. Used before a node that only an answer has named is trusted with calls. */
export function probe(url: URL, settings: Settings): Promise<boolean> {
  return new Promise((resolve) => {
    const session: ClientHttp2Session = connectHttp2(url, { createConnection: () => dial(url, settings) });
    const end = (reached: boolean) => {
      resolve(reached);
      session.destroy();
    };
    session.once("remoteSettings", () => end(true));
    session.once("error", () => end(false));
    session.once("close", () => end(false));
  });
}
