// Follows docs/guides/typescript.md as it is written, with the package of this folder in the place of its archive.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { oneNode } from "./brokers/deployment.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const guide = readFileSync(join(root, "../../docs/guides/typescript.md"), "utf8");

function blocks(language: string): string[] {
  return [...guide.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, "g"))].map((match) => match[1] ?? "");
}

test("the tutorial does what it says", { timeout: 120_000 }, async () => {
  const deployment = await oneNode({ controlPlane: true });
  const folder = mkdtempSync(join(tmpdir(), "aintandem-tutorial-"));
  try {
    mkdirSync(join(folder, "node_modules/@aintandem"), { recursive: true });
    symlinkSync(root, join(folder, "node_modules/@aintandem/sdk"));
    symlinkSync(join(root, "node_modules/@types"), join(folder, "node_modules/@types"));
    writeFileSync(join(folder, "package.json"), '{"type": "module"}');
    writeFileSync(join(folder, "tsconfig.json"), blocks("json")[0] ?? "");
    const here = (code: string | undefined) =>
      (code ?? "")
        .replaceAll("http://127.0.0.1:8001", deployment.endpoints[0] ?? "")
        .replaceAll("http://127.0.0.1:8000", deployment.rest ?? "");
    const [reviewer, author, inSandbox, beyond] = blocks("typescript");
    writeFileSync(join(folder, "reviewer.ts"), here(reviewer));
    writeFileSync(join(folder, "author.ts"), here(author));
    writeFileSync(join(folder, "beyond.ts"), here(beyond));
    writeFileSync(join(folder, "sandbox.ts"), `import { ContainerAgent } from "@aintandem/sdk";\n${inSandbox}`);
    await promisify(execFile)(join(root, "node_modules/.bin/tsc"), ["-p", folder]);

    const waiting = spawn(process.execPath, [join(folder, "reviewer.js")], { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    waiting.stdout.on("data", (chunk: Buffer) => {
      said += chunk.toString();
    });
    await new Promise<void>((resolve) => waiting.stdout.once("data", () => resolve()));
    const { stdout } = await promisify(execFile)(process.execPath, [join(folder, "author.js")]);
    const ended = new Promise((resolve) => waiting.once("exit", resolve));
    waiting.kill("SIGINT");
    assert.equal(await ended, 0);
    assert.match(said, /author says \{ thanks: true \}/);
    const shown = /\$ node author\.js\n([\s\S]*?)```/.exec(guide)?.[1] ?? "";
    const lines = (text: string) => text.trim().replace(/published as \d+/, "published as N");
    assert.equal(lines(stdout), lines(shown));
    // What stands below goes on where that has ended.
    const more = await promisify(execFile)(process.execPath, [join(folder, "beyond.js")]);
    assert.equal(more.stderr, "");
    assert.match(more.stdout, /^\{ green: true \}\ndefault\n\{\n {2}workspace_id: 'default'/);
  } finally {
    rmSync(folder, { recursive: true });
    await deployment.stop();
  }
});
