"""`dtp move` as a user sees it: results, refusals, exit codes. What compiles is skipped where Node's tools aren't."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import dtp.cli
from dtp.cli import move_build
from dtp.cli.move_build import Checkout

ROOT = Path(__file__).resolve().parents[2]
HAS_COMPILER = shutil.which("node") is not None and (ROOT / "move/node_modules").is_dir()
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="needs Node, and `npm ci` in move/")


@pytest.fixture(autouse=True)
def _attached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))  # `info` also says where a package is used
    row = dtp.cli.CommandRow("dtp.cli.move:move", "Move packages.")
    monkeypatch.setitem(dtp.cli.COMMANDS, "move", row)


def run(*arguments: str) -> Result:
    """Run `dtp move ...`."""
    return CliRunner().invoke(dtp.cli.main, ["move", *arguments])


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A copy of the sources and of what ships, with the tools of this one."""
    skip = shutil.ignore_patterns("node_modules")
    shutil.copytree(ROOT / "move", tmp_path / "move", ignore=skip)
    shutil.copytree(ROOT / "dtp/chain/packages", tmp_path / "dtp/chain/packages")
    if HAS_COMPILER:
        (tmp_path / "move/node_modules").symlink_to(ROOT / "move/node_modules")
    return Checkout(tmp_path)


# ---- info


def test_info_lists_packages() -> None:
    result = run("info", "--json")
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)["packages"]
    assert [record["package"] for record in records] == ["broadcast", "directory", "escrow", "transport"]
    assert all(len(record["digest"]) == 64 for record in records)
    assert "transport" in run("info").stdout


def test_info_shows_a_package() -> None:
    record = json.loads(run("info", "transport", "--json").stdout)
    assert [module["module"] for module in record["modules"]] == ["host", "pass", "channel", "pipe"]
    channel = record["modules"][2]
    claim = next(function for function in channel["functions"] if function["name"] == "claim")
    assert "channel::EStaleVoucher" in claim["aborts"]
    assert {"number": 15, "name": "EStaleVoucher"}.items() <= channel["errors"][15].items()
    text = run("info", "transport").stdout
    for word in ("channel", "dtp move info transport MODULE", record["digest"]):
        assert word in text
    assert len(text.splitlines()) < 30  # 20 where the terminal is wide; it was 750


def test_info_shows_a_module() -> None:
    (channel,) = json.loads(run("info", "transport", "channel", "--json").stdout)["modules"]
    assert channel["module"] == "channel"
    text = run("info", "transport", "channel").stdout
    for word in ("rotate_lane", "EStaleVoucher", "ChannelOpened"):
        assert word in text
    assert "there is host, pass, channel, pipe" in run("info", "transport", "nope").stderr


def test_info_of_an_unknown_package() -> None:
    result = run("info", "nope", "--json")
    assert result.exit_code == 3
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "move-package"
    assert "there is broadcast, directory, escrow, transport" in error["message"]


# ---- without tools


def test_no_sources(tmp_path: Path) -> None:
    result = run("check", "--source", str(tmp_path))
    assert result.exit_code == 3
    assert "no Move sources at or above" in result.stderr


def test_sources_are_found_from_below() -> None:
    assert move_build.find_checkout(ROOT / "move" / "transport").root == ROOT


def test_missing_node(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout.root))
    result = run("build", "--source", str(checkout.root), "--json")
    assert result.exit_code == 3
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "move-node"
    assert "install Node 20 or newer" in error["message"]


@needs_compiler
def test_the_error_names_the_code_that_the_command_ends_with(checkout: Checkout) -> None:
    source = checkout.move / "escrow/sources/lock.move"
    source.write_text("module escrow::broken {", encoding="utf-8")
    result = run("check", "escrow", "--source", str(checkout.root), "--json")
    error = json.loads(result.stderr)["error"]
    assert (result.exit_code, error["exit_code"]) == (1, 1)


@pytest.mark.parametrize("version", ["v18.1.0", "nonsense"])
def test_old_node(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    node = checkout.root / "node"
    node.write_text(f"#!/bin/sh\necho {version}\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", str(checkout.root))
    result = run("check", "--source", str(checkout.root))
    assert result.exit_code == 3
    assert version in result.stderr
    assert "too old" in result.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_missing_compiler(checkout: Checkout) -> None:
    if HAS_COMPILER:
        (checkout.move / "node_modules").unlink()
    result = run("build", "--source", str(checkout.root))
    assert result.exit_code == 3
    assert f"run `npm ci` in {checkout.move}" in result.stderr


def test_unknown_package(checkout: Checkout) -> None:
    result = run("check", "nope", "--source", str(checkout.root))
    assert result.exit_code == 2
    assert "there is broadcast, directory, escrow, transport" in result.stderr


# ---- with the compiler


@pytest.mark.slow
@needs_compiler
def test_shipped_is_what_the_sources_give() -> None:
    result = run("check", "--source", str(ROOT))
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == "all as it should be"


@needs_compiler
def test_build_changes_nothing_when_current(checkout: Checkout) -> None:
    result = run("build", "escrow", "--source", str(checkout.root), "--json")
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)["packages"]
    assert record["changed"] == []


@pytest.mark.slow
@needs_compiler
def test_compiled_tests_are_current(tmp_path: Path) -> None:
    result = run("build", "escrow", "transport", "--source", str(ROOT), "--tests", str(tmp_path))
    assert result.exit_code == 0, result.output
    for name in ("escrow", "transport"):
        kept = Path(__file__).parent / f"compiled/{name}_tests.json"
        assert json.loads((tmp_path / kept.name).read_text()) == json.loads(kept.read_text())


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", ["broadcast", "directory", "escrow", "transport"])
def test_the_move_tests_pass(name: str) -> None:
    """All that the sources have, by Sui's own runner."""
    result = run("test", name, "--source", str(ROOT), "--json")
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)["packages"]
    kept = json.loads((Path(__file__).parent / f"compiled/{name}_tests.json").read_text())
    count = len(kept["tests"])
    assert f"Total tests: {count}; passed: {count}; failed: 0" in record["output"]


@needs_compiler
def test_a_move_test_that_fails_is_told(checkout: Checkout) -> None:
    framework = "dtp/localnet/framework"
    shutil.copytree(ROOT / framework, checkout.root / framework)
    tests = checkout.move / "escrow/tests/lock_tests.move"
    text = tests.read_text()
    at = text.index("#[test]")
    tests.write_text(f"{text[:at]}#[test]\nfun wrong() {{\n    abort 7\n}}\n\n{text[at:]}")
    result = run("test", "escrow", "--source", str(checkout.root))
    assert result.exit_code == 1
    assert "lock_tests::wrong" in result.stdout
    assert "failed: 1" in result.stdout


@pytest.mark.slow
@needs_compiler
def test_a_changed_source_makes_the_bytecode_stale(checkout: Checkout) -> None:
    source = checkout.move / "escrow/sources/lock.move"
    source.write_text(source.read_text().replace("const VERSION: u16 = 1;", "const VERSION: u16 = 2;"))
    result = run("check", "escrow", "--source", str(checkout.root))
    assert result.exit_code == 1
    assert (
        "dtp/chain/packages/escrow.json: is stale: the sources give other bytecode for lock" in result.stdout
    )
    assert "run `dtp move build`" in result.stdout
    built = run("build", "escrow", "--source", str(checkout.root), "--json")
    changed = json.loads(built.stdout)["packages"][0]["changed"]
    assert {Path(path).name for path in changed} == {"escrow.json", "__init__.py"}
    assert run("check", "escrow", "--source", str(checkout.root)).exit_code == 0


@pytest.mark.slow
@needs_compiler
def test_what_check_finds(checkout: Checkout) -> None:
    source = checkout.move / "escrow/sources/lock.move"
    text = source.read_text().replace("/// Share a new lock.\n", "")
    addition = (
        '#[error(code = 12)]\nconst ENew: vector<u8> = b"new";\n'
        "/// New.\npublic fun extra(x: u64) {   assert!(x > 1, ENew); let y = x; }\n"
    )
    source.write_text(text + addition)
    checkout.compiled_path("escrow").write_text("{}")
    (checkout.bindings_path("escrow") / "lock.py").unlink()
    result = run("check", "escrow", "--source", str(checkout.root), "--json")
    assert result.exit_code == 1
    problems = {finding["problem"] for finding in json.loads(result.stdout)["findings"]}
    (warning,) = (problem for problem in problems if problem.startswith("the compiler warns"))
    assert "unused variable" in warning
    problems.remove(warning)
    assert problems == {
        "is stale: it can't be read",
        "isn't what the bytecode gives",
        "share has no doc comment",
        "has no row for escrow's `lock::extra`",
        "no failing test `new` for lock::ENew",
        "isn't formatted",
    }


@pytest.mark.slow
@needs_compiler
def test_format(checkout: Checkout) -> None:
    source = checkout.move / "escrow/sources/lock.move"
    before = source.read_text()
    source.write_text(before.replace("    lock.assert_version();\n", "  lock  .assert_version( );\n", 1))
    result = run("format", "--source", str(checkout.root), "--json")
    assert json.loads(result.stdout)["changed"] == ["move/escrow/sources/lock.move"]
    assert source.read_text() == before
    assert run("format", "--source", str(checkout.root)).stdout.strip() == "nothing to change"


@needs_compiler
@pytest.mark.parametrize("command", ["build", "check"])
def test_a_source_that_does_not_compile(checkout: Checkout, command: str) -> None:
    source = checkout.move / "escrow/sources/lock.move"
    lines = source.read_text().splitlines()
    place = lines.index("const VERSION: u16 = 1;")
    lines[place] = "const VERSION: u16 = true;"
    source.write_text("\n".join(lines))
    result = run(command, "escrow", "--source", str(checkout.root), "--json")
    assert result.exit_code == 1
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "move-compile"
    assert f"sources/lock.move:{place + 1}:16" in error["message"]


@needs_compiler
def test_the_probe_is_what_the_compiler_makes(checkout: Checkout) -> None:
    shutil.copytree(Path(__file__).parent / "probe", checkout.move / "probe")
    package, _ = move_build.compile_package(checkout, "probe")
    assert package.modules["shapes"] == (Path(__file__).parent / "probe/shapes.mv").read_bytes()
