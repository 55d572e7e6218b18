"""Compiling, checking and formatting the Move sources: what `dtp move` does, without the printing.

The compiler is Sui's own, as WebAssembly, run by Node (`move/build.mjs`). Only this file runs it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dtp.chain.packages import MovePackage, available
from dtp.chain.packages.deployments import Deployment
from dtp.chain.packages.generate import names_files
from dtp.chain.packages.surface import surfaces
from dtp.errors import LocalError
from dtp.sui.bytecode import deserialize

NODE_MIN = 20
PACKAGES = Path("dtp/chain/packages")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: Compiling takes seconds; what takes minutes hangs.
TIMEOUT_S = 300


class SourcesMissing(LocalError):
    """There are no Move sources where they were looked for."""

    code = "move-sources"


class NodeMissing(LocalError):
    """Node, or what it runs, isn't installed."""

    code = "move-node"


class CompileError(LocalError):
    """The Move compiler refused a source; the message is the compiler's, with file, line and column."""

    code = "move-compile"


class BuildError(LocalError):
    """Building failed for a reason that isn't in the sources."""

    code = "move-build"


@dataclass(frozen=True, slots=True)
class PackageFinding:
    """Something that `dtp move check` found: in which file (relative to the checkout), what, and what to do."""

    file: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """A source tree of dtp: `root/move` holds the Move packages, `root/dtp` the Python package they ship in."""

    root: Path

    @property
    def move(self) -> Path:
        """The folder of the Move packages."""
        return self.root / "move"

    def package_names(self) -> tuple[str, ...]:
        """Return the packages that are built, sorted: folders of `move/` with a manifest."""
        return tuple(sorted(path.parent.name for path in self.move.glob("*/Move.toml")))

    def compiled_path(self, name: str) -> Path:
        """Return where the package's compiled form is kept."""
        return self.root / PACKAGES / f"{name}.json"

    def bindings_path(self, name: str) -> Path:
        """Return the folder where the package's names for Python are kept."""
        return self.root / PACKAGES / f"{name}_names"


source_option = click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="A source tree of dtp. [default: the one that holds the current folder]",
)
install_option = click.option(
    "--install", is_flag=True, help="Run `npm ci` first, to install the pinned compiler and formatter."
)


def checkout_of(source: Path | None, install: bool) -> Checkout:
    """Return the source tree that is named, or that the current folder is in; install its tools if that is wanted."""
    checkout = find_checkout((source or Path.cwd()).resolve())
    if install:
        install_tools(checkout)
    return checkout


def needs_of(folder: Path) -> tuple[str, list[str]]:
    """Return the name of the package in a folder, and which of those that ship it depends on. Raises `BuildError`."""
    try:
        manifest = tomllib.loads((folder / "Move.toml").read_text(encoding="utf-8"))
        name, needed = str(manifest["package"]["name"]), manifest.get("dependencies", {})
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise BuildError(f"{folder / 'Move.toml'} can't be read as a package's manifest: {fault}") from fault
    return name, [each for each in available() if each in needed]


def find_checkout(start: Path) -> Checkout:
    """Return the source tree that `start` is in. Raises `SourcesMissing`."""
    for folder in (start, *start.parents):
        if (folder / "move" / "build.mjs").is_file():
            return Checkout(folder)
    raise SourcesMissing(
        f"no Move sources at or above {start}: run this in a source tree of dtp, or give --source. "
        "Using and publishing the packages needs no sources"
    )


# ---- running Node


def _node() -> str:
    node = shutil.which("node")
    hint = f"install Node {NODE_MIN} or newer (https://nodejs.org, or your system's package nodejs)"
    if node is None:
        raise NodeMissing(f"Node isn't installed, and the Move compiler runs on it: {hint}")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=30)
    found = re.match(r"v(\d+)\.", version.stdout)
    if found is None or int(found[1]) < NODE_MIN:
        raise NodeMissing(f"Node {version.stdout.strip() or '?'} is too old for the Move compiler: {hint}")
    return node


def install_tools(checkout: Checkout) -> None:
    """Install the pinned compiler and formatter into `move/node_modules`. Raises `NodeMissing` and `BuildError`."""
    _node()
    npm = shutil.which("npm")
    if npm is None:
        raise NodeMissing("npm isn't installed; it comes with Node (https://nodejs.org)")
    done = subprocess.run(
        [npm, "ci"], cwd=checkout.move, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    if done.returncode:
        raise BuildError(f"`npm ci` failed in {checkout.move}: {done.stderr.strip()}")


def run_builder(checkout: Checkout, **request: Any) -> dict[str, Any]:
    """Send one request to `move/build.mjs` and return the answer. Raises `NodeMissing`, `CompileError`,
    `BuildError`."""
    node = _node()
    if not (checkout.move / "node_modules").is_dir():
        raise NodeMissing(
            f"the Move compiler isn't installed: run `npm ci` in {checkout.move}, or give --install"
        )
    try:
        done = subprocess.run(
            [node, "build.mjs"],
            cwd=checkout.move,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired as fault:
        raise BuildError(f"the Move compiler took longer than {TIMEOUT_S} s and was stopped") from fault
    except json.JSONDecodeError as fault:
        raise BuildError(
            f"the Move compiler gave no answer: {done.stderr.strip() or done.stdout!r}"
        ) from fault
    if not answer["ok"]:
        kind = CompileError if answer["category"] == "compile" else BuildError
        raise kind(
            f"package {request.get('package') or request.get('folder', '')}: {answer['error'].strip()}"
        )
    return answer


# ---- building


def compile_package(checkout: Checkout, name: str) -> tuple[MovePackage, str]:
    """Compile one package from its sources; also what the compiler warns of. Raises what `run_builder` raises."""
    answer = run_builder(checkout, op="build", package=name)
    code = [base64.b64decode(text) for text in answer["modules"]]
    package = MovePackage(
        name=name,
        modules={deserialize(module).name: module for module in code},
        dependencies=tuple(bytes.fromhex(text.removeprefix("0x")) for text in answer["dependencies"]),
        digest=bytes.fromhex(answer["digest"]),
        compiler=answer["compiler"],
        sources=source_hashes(checkout, name),
    )
    return package, answer["warnings"].strip()


def compile_folder(
    checkout: Checkout, folder: Path, published: Mapping[str, Deployment]
) -> tuple[list[bytes], list[str], str]:
    """Compile a package that isn't in the source tree; `published` is where those are that it depends on.

    Return its modules, the ids of what they are linked to, and what the compiler warns of. Raises what `run_builder`
    raises.
    """
    places = {name: {"id": each.id, "original": each.original_id} for name, each in published.items()}
    answer = run_builder(checkout, op="build", folder=str(folder.resolve()), published=places)
    return list(map(base64.b64decode, answer["modules"])), answer["dependencies"], answer["warnings"].strip()


def source_hashes(checkout: Checkout, name: str) -> dict[str, str]:
    """SHA-256 of every file that the package's bytecode comes from, by path within the package."""
    folder = checkout.move / name
    files = [folder / "Move.toml", *sorted(folder.glob("sources/**/*.move"))]
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def render(package: MovePackage) -> str:
    """Return the text of the package's JSON file."""
    return json.dumps(package.to_json(), indent=1) + "\n"


def write_package(checkout: Checkout, package: MovePackage) -> list[Path]:
    """Write JSON and names; returns the files that changed."""
    folder, changed = checkout.bindings_path(package.name), []
    folder.mkdir(exist_ok=True)
    names = {folder / name: text for name, text in names_files(package).items()}
    for path, text in {checkout.compiled_path(package.name): render(package), **names}.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    for path in set(folder.glob("*.py")) - names.keys():  # of a module that is gone
        path.unlink()
        changed.append(path)
    return changed


def compile_tests(checkout: Checkout, name: str) -> dict[str, Any]:
    """Return sources and tests as ordinary modules, for a Move VM to run: the answer of `build.mjs`."""
    answer = run_builder(checkout, op="tests", package=name)
    return {key: answer[key] for key in ("compiler", "modules", "dependencies", "tests")}


# ---- checking


def run_tests(checkout: Checkout, name: str) -> tuple[bool, str]:
    """Return whether all Move tests of a package pass, and what Sui's runner says. Raises what `run_builder`
    raises."""
    answer = run_builder(checkout, op="test", package=name)
    return answer["passed"], _COLOURS.sub("", answer["output"])


def check_package(checkout: Checkout, name: str) -> list[PackageFinding]:
    """Return everything that is wrong with one package. Raises what `run_builder` raises."""
    package, warnings = compile_package(checkout, name)
    warned = (
        [PackageFinding(f"move/{name}", f"the compiler warns: {warnings}", "mend it")] if warnings else []
    )
    return [
        *warned,
        *_stale(checkout, package),
        *_undocumented(checkout, name),
        *_unlisted(checkout, package),
        *_untested(checkout, package),
    ]


def check_examples(checkout: Checkout) -> None:
    """Compile the packages in `move/examples`, which nobody publishes. Raises what `run_builder` raises."""
    for manifest in sorted(checkout.move.glob("examples/*/Move.toml")):
        run_builder(checkout, op="build", package=f"examples/{manifest.parent.name}")


def check_format(checkout: Checkout) -> list[PackageFinding]:
    """Return files that the formatter would change."""
    answer = run_builder(checkout, op="format", write=False)
    return [
        PackageFinding(f"move/{file}", "isn't formatted", "run `dtp move format`")
        for file in answer["changed"]
    ]


def format_sources(checkout: Checkout) -> list[str]:
    """Format all Move files in place; returns those that changed, relative to the checkout."""
    return [f"move/{file}" for file in run_builder(checkout, op="format", write=True)["changed"]]


def _relative(checkout: Checkout, path: Path) -> str:
    return path.relative_to(checkout.root).as_posix()


def _stale(checkout: Checkout, package: MovePackage) -> Iterator[PackageFinding]:
    remedy = "run `dtp move build`"
    path = checkout.compiled_path(package.name)
    if not path.exists():
        yield PackageFinding(_relative(checkout, path), "is missing", remedy)
    elif path.read_text(encoding="utf-8") != render(package):
        yield PackageFinding(_relative(checkout, path), f"is stale: {_difference(path, package)}", remedy)
    folder = checkout.bindings_path(package.name)
    if {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.py")} != names_files(package):
        yield PackageFinding(_relative(checkout, folder), "isn't what the bytecode gives", remedy)


def _difference(path: Path, package: MovePackage) -> str:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        shipped = record["modules"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return "it can't be read"
    fresh = package.to_json()
    modules = [
        name for name in {**shipped, **fresh["modules"]} if shipped.get(name) != fresh["modules"].get(name)
    ]
    if modules:
        return f"the sources give other bytecode for {', '.join(modules)}"
    fields = [key for key in fresh if record.get(key) != fresh[key]]
    return f"it differs in {', '.join(fields) or 'layout'}"


_PUBLIC = re.compile(r"^\s*public (?:entry )?(?:fun|struct|enum|macro fun) (\w+)|^entry fun (\w+)")


def _undocumented(checkout: Checkout, name: str) -> Iterator[PackageFinding]:
    """Return public items without a doc comment right above (attributes may stand between)."""
    for path in sorted((checkout.move / name).glob("sources/**/*.move")):
        above = ""
        test_only = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found = _PUBLIC.match(line)
            if found and not test_only and not above.startswith("///"):
                item = found[1] or found[2]
                yield PackageFinding(
                    f"{_relative(checkout, path)}:{number}",
                    f"{item} has no doc comment",
                    "say what it does with ///",
                )
            if line.startswith("#["):
                test_only = "test" in line
            else:
                above = line.strip()
                test_only = False


def aborts_cell(module: str, aborts: tuple[str, ...]) -> str:
    """Return how the table in `move/README.md` says what a function of `module` may abort with."""
    return ", ".join(f"`{name.removeprefix(module + '::')}`" for name in aborts) or "never"


def _unlisted(checkout: Checkout, package: MovePackage) -> Iterator[PackageFinding]:
    """Return public functions that the table in `move/README.md` doesn't have, or has with other aborts."""
    readme = checkout.move / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| `")}
    for shown in surfaces(package.compiled, package.modules):
        for function in shown.functions:
            title = f"`{shown.module}::{function.name}`"
            cell = aborts_cell(shown.module, function.aborts)
            if title not in rows:
                problem = f"has no row for {package.name}'s {title}"
            elif not rows[title].endswith(f"| {cell} |"):
                problem = f"says something else than the bytecode about how {title} aborts"
            else:
                continue
            yield PackageFinding(_relative(checkout, readme), problem, f"end the row with: {cell}")


def _untested(checkout: Checkout, package: MovePackage) -> Iterator[PackageFinding]:
    """Yield errors without a failing test that is named after them."""
    tests = "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted((checkout.move / package.name).glob("tests/*.move"))
    )
    for shown in surfaces(package.compiled, package.modules):
        for error in shown.errors:
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", error.name[1:]).lower()
            wanted = rf"abort_code = {shown.module}::{error.name}\)\]\s*fun {name}\("
            if not re.search(wanted, tests):
                yield PackageFinding(
                    f"move/{package.name}/tests",
                    f"no failing test `{name}` for {shown.module}::{error.name}",
                    "write the test that is refused so",
                )
