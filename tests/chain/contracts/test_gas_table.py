"""`dtp move gas`: the table in `move/README.md` is what the functions cost, and all of them have a row."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from dtp.chain.model import GasUsed
from dtp.cli import main, move_gas
from dtp.cli.move_build import BuildError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def rows():
    return move_gas.measure()


def gas(*arguments, code=0):
    result = CliRunner().invoke(main, ["move", "gas", "--json", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_the_table_is_right_and_whole():
    record = gas("--check", "--source", ROOT)
    assert record["findings"] == []
    assert len(record["rows"]) > 60
    assert all(row["gas"]["computation"] >= 1_000_000 for row in record["rows"])


@pytest.mark.slow
def test_the_numbers_are_the_same_each_time(rows):
    assert move_gas.measure() == rows


def test_what_is_stale_is_found_and_renewed(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(move_gas, "measure", lambda: rows)
    shutil.copytree(ROOT / "move", tmp_path / "move", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "dtp/chain/packages").mkdir(parents=True)
    readme = tmp_path / "move/README.md"
    text = readme.read_text()
    readme.write_text(text.replace("| `host::heartbeat` |", "| `host::heartbeat` | x |", 1))
    readme.write_text(readme.read_text() + "\n| `host::fresh` | owner | never |\n")
    findings = gas("--check", "--source", tmp_path, code=1)["findings"]
    assert [each["problem"] for each in findings] == [
        "`host::fresh` has no gas",
        "the gas table isn't what the functions cost",
    ]
    assert gas("--source", tmp_path)["changed"]
    assert move_gas.table(rows) in readme.read_text()
    assert not gas("--source", tmp_path)["changed"]
    readme.write_text("nothing")
    result = CliRunner().invoke(main, ["move", "gas", "--source", str(tmp_path)])
    assert result.exit_code == 3
    assert "between" in result.stderr
    with pytest.raises(BuildError):
        move_gas.renewed("nothing", rows)


def test_rows_as_markdown():
    played = [
        move_gas.GasRow((), "publishing `x`", GasUsed(1_000_000, 2_000_000, 500_000)),
        move_gas.GasRow(("m::f", "m::g"), "", GasUsed(1_000_000, 0, 3_000_000)),
        move_gas.GasRow(("m::f", "m::g"), "again", GasUsed(9, 9, 9)),
        move_gas.GasRow(("m::f", "m::g"), "", GasUsed(9, 9, 9)),
    ]
    assert move_gas.table(played).splitlines()[2:] == [
        "| publishing `x` |  | 1,000 | 2,000 | 500 | 0.0025 |",
        "| `m::f`, `m::g` |  | 1,000 | 0 | 3,000 | -0.002 |",
    ]


@pytest.mark.slow
def test_the_page_on_paying_has_what_the_node_charges(monkeypatch):
    """Two bytes more in a channel made seven of its figures wrong, and nobody saw it."""
    monkeypatch.syspath_prepend(ROOT)  # the benchmark isn't installed
    from bench import pay

    page = (ROOT / "docs/paying.md").read_text()
    costs = pay.gas()
    told = dict(
        re.findall(r"^\| ([a-z][^|]+?) \| (?:client|server|anyone) \| (-?[\d,]+) \|$", page, re.MULTILINE)
    )
    assert {what: int(figure.replace(",", "")) for what, figure in told.items()} == {
        what: costs[what] for what in told
    }
    assert len(told) >= len(pay.TRANSACTIONS) - 1
    told = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert [(int(size), *sums) for size, *sums in told] == [
        (size, *(f"{each:.6f}" for each in sums)) for size, sums in pay.volumes(costs).items()
    ]
