// Compiles Move packages against the genuine framework, several in one run: {"framework": folder, "builder": folder,
// "addresses": {name: hex}, "files": {path: text}} as JSON on standard input. The answer is {"modules": [base64]} or
// {"error": text}. One run reads the framework once, however many packages there are.

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const request = JSON.parse(fs.readFileSync(0, "utf8"));
const entry = createRequire(path.join(request.builder, "package.json")).resolve("@zktx.io/sui-move-builder");
const builder = await import(pathToFileURL(entry).href);
const compiler = await import(pathToFileURL(path.join(path.dirname(entry), "sui_move_wasm.js")).href);

function sources(name) {
  const folder = path.join(request.framework, name.endsWith("move-stdlib") ? "move-stdlib" : "sui-framework");
  const files = { "Move.toml": fs.readFileSync(path.join(folder, "Move.toml"), "utf8") };
  for (const found of fs.readdirSync(path.join(folder, "sources"), { recursive: true }).map(String)) {
    if (found.endsWith(".move")) {
      files[`sources/${found}`] = fs.readFileSync(path.join(folder, "sources", found), "utf8");
    }
  }
  return files;
}

const fetcher = {
  fetch: async (_url, _revision, folder) => sources(folder),
  fetchFile: async () => null,
  getResolvedSha: () => undefined,
  fetchLocal: async (name) => sources(name),
};
const names = Object.entries(request.addresses).map(([name, value]) => `${name} = "${value}"`);
const manifest = `[package]\nname = "Suite"\nedition = "2024.alpha"\n[dependencies]\nSui = { local = "sui-framework" }\n[addresses]\n${names.join("\n")}\n`;

await builder.initMovePackageBuilder();
const wasm = fs.readFileSync(path.join(path.dirname(entry), "sui_move_wasm_bg.wasm"));
await compiler.default({ module_or_path: wasm });
const files = { "Move.toml": manifest, ...request.files };
const resolved = await builder.resolveMovePackageDependencies({ files, fetcher, network: "mainnet" });
const options = JSON.stringify({ compileIntent: "publish", silenceWarnings: true });
const made = compiler.compile(resolved.files, resolved.dependencies, options);
const answer = made.success ? { modules: JSON.parse(made.output).modules } : { error: made.output };
process.stdout.write(JSON.stringify(answer));
