// Compiles and formats the Move packages of this folder. `dtp move` calls it; one request as JSON on standard
// input, one answer as JSON on standard output.
//
//   {"op": "build", "package": "transport"}   -> {"ok": true, "modules": [base64], "dependencies": [hex],
//                                                 "digest": hex, "warnings": text, "compiler": text}
//   {"op": "build", "folder": "/home/me/stamps", "published": {"transport": {"id": hex, "original": hex}}}
//                                             -> the same of a package that is elsewhere: it is linked to what it depends
//                                                on where that is published
//   {"op": "tests", "package": "transport"}   -> the same, of sources and tests together, with "tests": [...]
//   {"op": "test", "package": "transport"}    -> {"ok": true, "passed": bool, "output": text}
//   {"op": "format", "write": false}          -> {"ok": true, "changed": [paths]}
//
// A failure is {"ok": false, "category": text, "error": text}; the exit code is 0 whenever an answer was written.

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = path.dirname(fileURLToPath(import.meta.url));
const INTERFACE = path.join(ROOT, "interface");
// The interface has no bodies, and nothing for tests: those are run with the embedded node's framework.
const FRAMEWORK = path.join(ROOT, "..", "dtp", "localnet", "framework");
// Written by tests/move/signed_fixtures.py, hence not formatted.
const GENERATED = "signed.move";
const FORMAT = { parser: "move", printWidth: 100, tabWidth: 4 };

/** All files under `folder` whose name ends in one of `endings`, as paths relative to it, sorted. */
function list(folder, endings) {
  return fs
    .readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .filter((name) => !name.split(path.sep).includes("node_modules"))
    .sort();
}

/** A package as the compiler wants it: path -> text. */
function snapshot(folder, keep = () => true) {
  const files = {};
  for (const name of list(folder, [".move", "Move.toml"])) {
    if (keep(name)) files[name.split(path.sep).join("/")] = fs.readFileSync(path.join(folder, name), "utf8");
  }
  return files;
}

/** What is compiled of a package: its sources and its manifest. */
function sources(folder) {
  return snapshot(folder, (name) => name.startsWith("sources") || name === "Move.toml");
}

/** The files of a dependency, whose manifest says where it is published, if that is known. */
function located(files, published) {
  const name = /^name\s*=\s*"(\w+)"/m.exec(files["Move.toml"])?.[1];
  const place = published[name];
  if (place === undefined) return files;
  const manifest = files["Move.toml"]
    .replace(/^\[package\]$/m, `[package]\npublished-at = "${place.id}"`)
    .replace(new RegExp(`^${name}\\s*=\\s*"0x0"$`, "m"), `${name} = "${place.original}"`);
  return { ...files, "Move.toml": manifest };
}

/** What the compiler asks for when it looks for the standard library, Sui and local packages. */
function fetcher(packageFolder, transform, known = INTERFACE, published = {}) {
  const framework = (wanted) => {
    const name = ["move-stdlib", "sui-framework"].find((ending) => wanted.endsWith(ending));
    return name === undefined ? undefined : transform(snapshot(path.join(known, name)));
  };
  return {
    async fetch(_url, _revision, folder = "") {
      const files = framework(folder);
      if (files === undefined) throw new Error(`no package ${folder}: only Sui and the standard library are known`);
      return files;
    },
    async fetchFile() {
      return null;
    },
    getResolvedSha() {
      return undefined;
    },
    async fetchLocal(localPath) {
      return framework(localPath) ?? located(sources(path.resolve(packageFolder, localPath)), published);
    },
  };
}

const TEST_ATTRIBUTE = /#\[test(?:,\s*expected_failure\(abort_code\s*=\s*([\w:]+)\))?\]\s*(?:#\[[^\]]*\]\s*)*fun\s+(\w+)/g;

/**
 * Test code as ordinary code: what is `#[test_only]` is kept, a test becomes a public function. So the bytecode of the
 * tests can be made with the interface alone, and be run by any Move VM that has the test functions.
 */
function plain(files) {
  const result = {};
  for (const [name, text] of Object.entries(files)) {
    result[name] = text
      .replace(TEST_ATTRIBUTE, (_all, _failure, test) => `public fun ${test}`)
      .replace(/#\[test_only\]\s*\n/g, "\n");
  }
  return result;
}

/** The tests of a package: module, function, and the error that is expected, or null. */
function tests(files) {
  const found = [];
  for (const text of Object.values(files)) {
    const module = /^module\s+\w+::(\w+);/m.exec(text)?.[1];
    for (const [, failure, name] of text.matchAll(TEST_ATTRIBUTE)) {
      found.push({ module, name, expected_failure: failure ?? null });
    }
  }
  return found;
}

async function compile(folder, files, transform, published = {}) {
  const builder = await import("@zktx.io/sui-move-builder");
  await builder.initMovePackageBuilder();
  const answer = await builder.dumpMovePackage({
    files: transform(files),
    fetcher: fetcher(folder, transform, INTERFACE, published),
    network: "mainnet",
    withUnpublishedDependencies: true,
    lintFlag: "all",
  });
  if ("error" in answer) return { ok: false, category: answer.category ?? "unknown", error: answer.error };
  const manifest = path.join(ROOT, "node_modules", "@zktx.io", "sui-move-builder", "package.json");
  return {
    ok: true,
    modules: answer.modules,
    dependencies: answer.dependencies,
    digest: Buffer.from(answer.digest).toString("hex"),
    warnings: answer.warnings ?? "",
    compiler: `sui ${await builder.getPinnedSuiVersion()}, @zktx.io/sui-move-builder ${
      JSON.parse(fs.readFileSync(manifest, "utf8")).version
    }`,
  };
}

function folderOf(request) {
  const folder = request.folder ?? path.join(ROOT, request.package);
  if (!fs.existsSync(path.join(folder, "Move.toml"))) throw new Error(`no Move.toml in ${folder}`);
  return folder;
}

const OPERATIONS = {
  async build(request) {
    const folder = folderOf(request);
    return compile(folder, sources(folder), (same) => same, request.published);
  },

  async tests(request) {
    const folder = folderOf(request);
    const files = snapshot(folder);
    const answer = await compile(folder, files, plain);
    return answer.ok ? { ...answer, tests: tests(files) } : answer;
  },

  async test(request) {
    const folder = folderOf(request);
    const builder = await import("@zktx.io/sui-move-builder/full");
    await builder.initMovePackageBuilder();
    const answer = await builder.testMovePackage({
      files: snapshot(folder),
      fetcher: fetcher(folder, (same) => same, FRAMEWORK),
      network: "mainnet",
    });
    if ("error" in answer) return { ok: false, category: answer.category ?? "unknown", error: answer.error };
    return { ok: true, passed: answer.passed, output: answer.output };
  },

  async format(request) {
    const prettier = await import("prettier");
    const plugin = await import("@mysten/prettier-plugin-move");
    const changed = [];
    for (const name of list(ROOT, [".move"])) {
      if (path.basename(name) === GENERATED) continue;
      const file = path.join(ROOT, name);
      const text = fs.readFileSync(file, "utf8");
      const formatted = await prettier.format(text, { ...FORMAT, plugins: [plugin.default ?? plugin] });
      if (formatted === text) continue;
      changed.push(name.split(path.sep).join("/"));
      if (request.write) fs.writeFileSync(file, formatted);
    }
    return { ok: true, changed };
  },
};

async function main() {
  const request = JSON.parse(fs.readFileSync(0, "utf8"));
  const operation = OPERATIONS[request.op];
  if (operation === undefined) return { ok: false, category: "request", error: `unknown operation ${request.op}` };
  try {
    return await operation(request);
  } catch (error) {
    return { ok: false, category: "internal", error: error?.stack ?? String(error) };
  }
}

process.stdout.write(JSON.stringify(await main()) + "\n");
