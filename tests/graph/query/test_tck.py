"""openCypher's TCK: no scenario is answered wrongly; what isn't supported is refused by name.

Takes the folder `tck/features` of the openCypher project, which $DTP_TCK names; without it, it is skipped.
docs/query.md has the counts.
"""

from __future__ import annotations

import os
import zoneinfo
from collections import Counter
from pathlib import Path

import pytest
import tck

FOLDER = os.environ.get("DTP_TCK", "")


@pytest.mark.skipif(not FOLDER, reason="$DTP_TCK names no folder of the openCypher TCK's features")
def test_no_scenario_of_the_tck_is_answered_wrongly() -> None:
    zoneinfo.reset_tzpath(
        to=()
    )  # systems' databases differ on 1818: the scenarios are of the package tzdata's
    areas: dict[str, Counter[str]] = {}
    wrong = []
    for scenario in tck.scenarios(Path(FOLDER)):
        outcome, why = tck.run(scenario)
        areas.setdefault(scenario.area, Counter())[outcome] += 1
        if outcome == "wrong":
            wrong.append(f"{scenario.feature} {scenario.name}: {why}")
    zoneinfo.reset_tzpath()
    print(report(areas))
    assert not wrong, "\n".join(wrong)
    assert sum(areas.values(), Counter[str]())["passed"] >= 3503


def report(areas: dict[str, Counter[str]]) -> str:
    """The counts, as docs/query.md has them."""
    lines = ["| | passed | refused | outside |", "|---|---|---|---|"]
    rows = [*sorted(areas.items()), ("all", sum(areas.values(), Counter[str]()))]
    return "\n".join(
        [*lines, *(f"| {area} | {n['passed']} | {n['refused']} | {n['outside']} |" for area, n in rows)]
    )


FEATURE = """
Feature: How features are read

  Background:
    Given an empty graph

  Scenario Outline: [1] Found by a value
    And having executed:
      \"\"\"
      CREATE (a:A {x: 1, name: 'ab'})-[:T]->(b:B {x: <there>})
      \"\"\"
    When executing query:
      \"\"\"
      MATCH p = (a {x: 1})-[r]->(b) RETURN p, r, b, a.name AS n, [b.x] AS l
      \"\"\"
    Then the result should be, in order:
      | p | r | b | n | l |
      | <(:A {x: 1, name: 'ab'})-[:T]->(:B {x: <wanted>})> | [:T] | (:B {x: <wanted>}) | 'ab' | [<wanted>] |

    Examples:
      | there | wanted |
      | 2     | 2      |
      | 2     | 3      |
      | 2.5   | 2.5    |

  Scenario: [2] Refused
    When executing query:
      \"\"\"
      CREATE (n)
      \"\"\"
    Then the result should be empty

  Scenario: [3] An error that isn't one
    When executing query:
      \"\"\"
      RETURN 1
      \"\"\"
    Then a SyntaxError should be raised at compile time: Anything

  Scenario: [4] Outside
    And having executed:
      \"\"\"
      CREATE (:A:B)
      \"\"\"
    When executing query:
      \"\"\"
      MATCH (n) RETURN n
      \"\"\"
    Then the result should be empty
"""


def test_the_runner_tells_right_from_wrong(tmp_path: Path) -> None:
    (tmp_path / "area").mkdir()
    (tmp_path / "area" / "Reading1.feature").write_text(FEATURE, encoding="utf-8")
    found = [(one.area, one.name, tck.run(one)[0]) for one in tck.scenarios(tmp_path)]
    assert found == [
        ("area", "[1] Found by a value #1", "passed"),
        ("area", "[1] Found by a value #2", "wrong"),
        ("area", "[1] Found by a value #3", "passed"),
        ("area", "[2] Refused", "refused"),
        ("area", "[3] An error that isn't one", "wrong"),
        ("area", "[4] Outside", "outside"),
    ]
