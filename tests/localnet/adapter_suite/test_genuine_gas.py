"""Gas of own transactions, exact, against the figures that Sui's adapter suite states for transactions equal to them.

`make_gas_table.py` holds the rows and writes the table with the bytecode of what has Move sources.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from suite_files import SuiteTest, parse_tasks
from suite_play import Player
from suite_sources import Compiled

TABLE: list[dict[str, Any]] = json.loads(Path(__file__).with_name("genuine_gas.json").read_text())


@pytest.mark.parametrize("row", TABLE, ids=[row["from"] for row in TABLE])
def test_gas_is_what_sui_charges(row: dict[str, Any]) -> None:
    test = SuiteTest(row["from"], parse_tasks(row["script"]), {}, row["script"])
    compiled = {
        (test.name, int(number)): Compiled(
            made["package"], bytes.fromhex(made["place"]), [base64.b64decode(m) for m in made["modules"]]
        )
        for number, made in row["modules"].items()
    }
    player = Player(test, compiled)
    try:
        results = {task.number: player.play(task) for task in test.tasks[1:]}
    finally:
        player.close()
    for number, result in results.items():
        assert result.kind == "done", (number, result)
    assert {n: list(results[int(n)].gas) for n in row["gas"]} == row["gas"]
