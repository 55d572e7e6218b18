// Compiles the framework's Move sources to framework.json. Test-only items stay in the sources: the builder's test
// runner compiles them from there when it runs a package's Move tests.
//
//   node dtp/localnet/framework/build.mjs [folder that has node_modules, default: move]
//
// Needs @zktx.io/sui-move-builder (pinned in move/package.json). Exits 1 with the compiler's message.

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const here = import.meta.dirname;
const modules = path.resolve(process.argv[2] ?? path.join(here, "..", "..", "..", "move"));
const require = createRequire(path.join(modules, "package.json"));
const entry = require.resolve("@zktx.io/sui-move-builder");
const builder = await import(pathToFileURL(entry).href);
// The builder's own calls compile a root package at 0x0; only its inner compiler keeps the address of the manifest.
const compiler = await import(pathToFileURL(path.join(path.dirname(entry), "sui_move_wasm.js")).href);

function read(folder, base = folder, files = {}) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const name = path.join(folder, entry.name);
    if (entry.isDirectory()) read(name, base, files);
    else files[path.relative(base, name)] = fs.readFileSync(name, "utf8");
  }
  return files;
}

const local = (name) => read(path.join(here, name.endsWith("move-stdlib") ? "move-stdlib" : "sui-framework"));
const fetcher = {
  fetch: async (_url, _revision, folder) => local(folder),
  fetchFile: async () => null,
  getResolvedSha: () => undefined,
  fetchLocal: async (name) => local(name),
};

async function compile(name, files) {
  const resolved = await builder.resolveMovePackageDependencies({ files, fetcher, network: "mainnet" });
  const options = { compileIntent: "publish" };
  const result = compiler.compile(resolved.files, resolved.dependencies, JSON.stringify(options));
  if (!result.success) {
    console.error(`${name}: ${result.output}`);
    process.exit(1);
  }
  const output = JSON.parse(result.output);
  if (output.warnings) console.error(`${name}: ${output.warnings}`);
  return output.modules;
}

await builder.initMovePackageBuilder();
await compiler.default({ module_or_path: fs.readFileSync(path.join(path.dirname(entry), "sui_move_wasm_bg.wasm")) });
const packages = {
  "0x1": await compile("MoveStdlib", local("move-stdlib")),
  "0x2": await compile("Sui", local("sui-framework")),
};
fs.writeFileSync(path.join(here, "framework.json"), `${JSON.stringify(packages, null, 1)}\n`);
console.log(Object.entries(packages).map(([id, list]) => `${id}: ${list.length} modules`).join(", "));
