// One HTTP/2 connection, opened when it is needed, watched by pings, and opened again after it has broken.

import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionRequestOptions,
  connect as connectHttp2,
  type OutgoingHttpHeaders,
} from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { textOf } from "../errors.js";
import type { Settings } from "./settings.js";

/** Bytes that the broker may send on one stream before it waits for this client. */
const STREAM_WINDOW_BYTES = 2 * 1024 * 1024;
/** The same for all streams together. */
const CONNECTION_WINDOW_BYTES = 8 * 1024 * 1024;
/**
 * In MB: the most that Node takes, so no limit. It counts what waits to be sent, also what was left unsent when a stream ended early,
 * and over its default of 10 MB it drops the headers of all answers, so that even small calls hang or fail.
 */
const MAX_SESSION_MEMORY_MB = 2 ** 32 - 1;

/** No connection could be made, so that nothing was sent: refused, timed out, or a certificate that is not accepted. */
export class ConnectFailure extends Error {
  readonly code = "CONNECT_FAILURE";

  constructor(cause: unknown) {
    super(textOf(cause), { cause });
  }
}

/** What the transport of Connect asks for streams. Its own manager throws from a timer when a session dies between two pings. */
export class Connection {
  readonly authority: string;
  readonly #url: URL;
  readonly #settings: Settings;
  readonly #streams = new WeakMap<ClientHttp2Session, number>();
  #session: ClientHttp2Session | undefined;
  #connecting: Promise<ClientHttp2Session> | undefined;
  #lastReadMs = 0;
  #closed = false;

  constructor(url: URL, settings: Settings) {
    this.#url = url;
    this.#settings = settings;
    this.authority = url.origin;
  }

  /** Opens a stream. Fails with the system's error when no connection can be made. */
  async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Omit<ClientSessionRequestOptions, "signal">,
  ): Promise<ClientHttp2Stream> {
    const session = await this.#ready();
    const stream = session.request({ ...headers, ":method": method, ":path": path }, options);
    // An idle connection keeps no process alive, an open stream does.
    session.ref();
    stream.once("close", () => {
      if (!session.destroyed && this.#openStreams(session, -1) === 0) session.unref();
    });
    this.#openStreams(session, 1);
    return stream;
  }

  notifyResponseByteRead(_stream: ClientHttp2Stream): void {
    this.#lastReadMs = performance.now();
  }

  /** Whether a connection can be made. */
  async probe(): Promise<boolean> {
    try {
      await this.#ready();
      return true;
    } catch {
      return false;
    }
  }

  /** Ends the connection and what is open on it. */
  close(): void {
    this.#closed = true;
    this.#session?.destroy();
    this.#session = undefined;
  }

  #openStreams(session: ClientHttp2Session, change: number): number {
    const count = (this.#streams.get(session) ?? 0) + change;
    this.#streams.set(session, count);
    return count;
  }

  #ready(): Promise<ClientHttp2Session> {
    const session = this.#session;
    if (session !== undefined && !session.closed && !session.destroyed) return Promise.resolve(session);
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  #connect(): Promise<ClientHttp2Session> {
    return new Promise((resolve, reject) => {
      const session = connectHttp2(this.#url, {
        settings: { initialWindowSize: STREAM_WINDOW_BYTES },
        maxSessionMemory: MAX_SESSION_MEMORY_MB,
        createConnection: () => dial(this.#url, this.#settings),
      });
      // Also after it is open: what breaks is told to its streams, and an error that nobody hears would end the process.
      session.on("error", (error) => reject(new ConnectFailure(error)));
      session.once("close", () => {
        if (this.#session === session) this.#session = undefined;
        reject(new ConnectFailure("the connection was closed while it was made"));
      });
      session.once("connect", () => {
        if (this.#closed) session.destroy();
        session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
        session.unref();
        // A node that stops in order says so; streams that are open end by themselves, new ones go elsewhere.
        session.once("goaway", () => {
          if (this.#session === session) this.#session = undefined;
        });
        this.#session = session;
        this.#lastReadMs = performance.now();
        this.#watch(session);
        resolve(session);
      });
    });
  }

  /** Pings while nothing else is read, and ends a connection whose pings are not answered. */
  #watch(session: ClientHttp2Session): void {
    const { keepaliveIntervalMs, keepaliveTimeoutMs } = this.#settings;
    const timer = setInterval(() => {
      if (session.closed || session.destroyed) return;
      if (performance.now() - this.#lastReadMs < keepaliveIntervalMs / 2) return;
      let answered = false;
      const late = setTimeout(() => {
        // A loop that was blocked runs its timers before it reads: the answer may be here already.
        setImmediate(() =>
          setImmediate(() => {
            if (answered || session.destroyed) return;
            session.destroy(new Error(`a ping was not answered within ${keepaliveTimeoutMs} ms`));
          }),
        );
      }, keepaliveTimeoutMs).unref();
      session.ping(() => {
        answered = true;
        clearTimeout(late);
      });
    }, keepaliveIntervalMs).unref();
    session.once("close", () => clearInterval(timer));
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
