import assert from "node:assert/strict";
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { agentSettingsOf, optionsFromEnvironment } from "../../src/agent/settings.js";
import { leaderAddress } from "../../src/connection/nodes.js";
import { settingsOf } from "../../src/connection/settings.js";
import { Token } from "../../src/connection/token.js";

test("wrong endpoints are named", () => {
  for (const endpoints of ["", "127.0.0.1:8001", "ftp://x", "http://a b", "http://x/path", []]) {
    assert.throws(() => settingsOf({ endpoints }), { code: "INVALID_ENDPOINT" }, String(endpoints));
  }
  assert.throws(() => settingsOf({ endpoints: "127.0.0.1:8001" }), /scheme is missing; write it like http/);
});

test("endpoints are one, a list, or several with commas", () => {
  const hosts = (endpoints: string | string[]) => settingsOf({ endpoints }).endpoints.map((url) => url.host);
  assert.deepEqual(hosts("http://a:1"), ["a:1"]);
  assert.deepEqual(hosts("http://a:1, http://[::1]:2,"), ["a:1", "[::1]:2"]);
  assert.deepEqual(hosts(["http://a:1", "https://b:2"]), ["a:1", "b:2"]);
});

test("settings that cannot be are refused", () => {
  assert.throws(() => settingsOf({ requestTimeoutMs: 0 }), { code: "INVALID_SETTING" });
  assert.throws(() => settingsOf({ attempts: Number.NaN }), { code: "INVALID_SETTING" });
  assert.throws(() => settingsOf({ tls: { caFile: "/nowhere" } }), { code: "INVALID_SETTING", message: /nowhere/ });
  assert.throws(() => agentSettingsOf({ sandboxId: "" }), { code: "INVALID_SETTING", message: /sandboxId/ });
});

test("an agent takes its settings from the environment, and what is given goes before them", () => {
  const environment = {
    TANDEM_BROKER: "http://a:1,http://b:2",
    TANDEM_TOKEN_FILE: "/run/token",
    TANDEM_WORKSPACE: "shop",
    TANDEM_SANDBOX: "cart",
  };
  const options = optionsFromEnvironment({ concurrency: 2 }, environment);
  const { connection, sandboxId, concurrency, agent } = agentSettingsOf(options);
  assert.equal(sandboxId, "cart");
  assert.equal(agent.name, "cart");
  assert.equal(concurrency, 2);
  assert.equal(connection.workspaceId, "shop");
  assert.deepEqual(connection.token, { file: "/run/token" });
  assert.deepEqual(
    connection.endpoints.map((url) => url.host),
    ["a:1", "b:2"],
  );
  assert.equal(optionsFromEnvironment({ sandboxId: "other" }, environment).sandboxId, "other");
  assert.throws(() => optionsFromEnvironment({}, {}), { code: "INVALID_SETTING", message: /TANDEM_SANDBOX/ });
});

test("leader hints are read and nothing else is", () => {
  assert.equal(leaderAddress("n2=10.0.0.2:8001"), "10.0.0.2:8001");
  assert.equal(leaderAddress("n12=[::1]:8001"), "[::1]:8001");
  for (const wrong of ["", "n2", "2", "n2="]) assert.equal(leaderAddress(wrong), undefined, wrong);
});

test("a token is read again when its file changes, and kept while the file is away", () => {
  const folder = mkdtempSync(join(tmpdir(), "aintandem-token-"));
  try {
    const file = join(folder, "token");
    const token = new Token({ file });
    assert.throws(() => token.current(0), { code: "TOKEN_UNREADABLE" });
    writeFileSync(file, "first\n");
    assert.equal(token.current(2_000), "first");
    writeFileSync(file, "second");
    utimesSync(file, 1, 1);
    assert.equal(token.current(2_500), "first", "the file is looked at once a second");
    assert.equal(token.hasChangedSince("first"), true);
    assert.equal(token.current(3_000), "second");
    rmSync(file);
    assert.equal(token.current(9_000), "second");
    writeFileSync(file, "");
    assert.equal(token.current(20_000), "second", "somebody writes it this instant");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a token by value never changes", () => {
  const token = new Token(" secret ");
  assert.equal(token.current(), "secret");
  assert.equal(token.hasChangedSince("secret"), false);
  assert.equal(new Token(undefined).current(), undefined);
});
