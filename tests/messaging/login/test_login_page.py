"""docs/login.md: its program runs, and its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from example_runs import run_python

from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.protocol import MAX_MESSAGE, LoginOp, Refusal
from dtp.messaging.login.vault import MAX_VAULT

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "login.md").read_text()


def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert run_python("-c", program, timeout=120, cwd=tmp_path) == [
        line.partition("# -> ")[2] for line in program.splitlines() if "# -> " in line
    ]


def test_the_tables_are_those_of_the_code() -> None:
    found = {int(number): name for number, name in re.findall(r"^\| (\d+) ([A-Z_]+) \|", PAGE, re.MULTILINE)}
    assert found == {each.value: each.name for each in LoginOp}
    codes = re.search(r"^Codes: (.*?)\.$", PAGE, re.MULTILINE | re.DOTALL)
    assert codes is not None
    assert [int(each) for each in re.findall(r"(\d+) [a-z]", codes[1])] == [each.value for each in Refusal]
    limits = LoginLimits()
    assert (limits.account_tries, limits.account_pause, limits.source_tries, limits.source_pause) == (
        10,
        600,
        60,
        5,
    )
    assert (limits.registrations, limits.registration_pause, limits.keys, limits.accounts) == (
        10,
        60,
        64,
        100_000,
    )
    assert MAX_MESSAGE == MAX_VAULT + 4096 == 262_144 + 4096
