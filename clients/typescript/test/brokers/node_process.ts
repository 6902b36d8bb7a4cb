// One broker process that a test owns: started, killed and started again by its own handle.

import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";

/** How long a process may take until it says where it listens, in milliseconds. */
const START_MS = 60_000;

export class NodeProcess {
  readonly #program: string;
  readonly #args: string[];
  readonly #readyWord: string;
  #child: ChildProcess | undefined;
  #said = "";

  /** It is ready once it has said this, on either output. `{`: the greeting of `--json`. */
  constructor(program: string, args: string[], readyWord = "{") {
    this.#readyWord = readyWord;
    this.#program = program;
    this.#args = args;
  }

  get isRunning(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts it; resolves when it is ready. */
  async start(): Promise<void> {
    const child = spawn(this.#program, this.#args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, RUST_BACKTRACE: "0" },
    });
    this.#child = child;
    // A test that ends badly leaves no broker behind.
    const kill = () => child.kill("SIGKILL");
    process.once("exit", kill);
    child.once("exit", () => process.removeListener("exit", kill));
    this.#said = "";
    return new Promise((resolve, reject) => {
      const fail = (why: string) => reject(new Error(`${this.#program} ${why}; its last words: ${this.#said}`));
      const timer = setTimeout(() => fail("did not start in time"), START_MS);
      child.once("exit", (code) => fail(`ended with ${code}`));
      const hear = (chunk: Buffer) => {
        this.#said = (this.#said + chunk.toString()).slice(-4_000);
        if (!this.#said.includes(this.#readyWord)) return;
        clearTimeout(timer);
        resolve();
      };
      child.stdout.on("data", hear);
      child.stderr.on("data", hear);
    });
  }

  /** SIGKILL, or another signal; resolves when it has ended. */
  async end(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.isRunning) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }

  /** Stops it where it stands, or lets it go on. */
  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }
}

/** Ports of the loopback address that nobody listens on just now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      return server;
    }),
  );
  return Promise.all(
    servers.map(async (server) => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      await new Promise((resolve) => server.close(resolve));
      return port;
    }),
  );
}
