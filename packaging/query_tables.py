"""Write the tables of the parser of queries, `dtp/graph/query/tables.json`: after each change of the grammar.

The same grammar gives the same file, in whichever order lark finds the states.
"""

from __future__ import annotations

import io
import json
import pickle
from typing import Any

from lark import Lark

from dtp.graph.query.parsing import make_parser
from dtp.graph.query.tables import FILE, grammar_digest

#: A width that stands for none. CPython 3.11.7 and later have a larger number for that; lark only sorts by it.
NO_WIDTH = (1 << 32) - 1
#: What is kept of lark's options; all others are as lark has them by itself, with names that differ by version.
KEPT = ("parser", "lexer", "start", "priority", "maybe_placeholders", "propagate_positions")


def tables_of(parser: Lark) -> str:
    """Return what the file has for a parser."""
    saved = io.BytesIO()
    parser.save(saved)
    found = pickle.loads(saved.getvalue())
    data, memo = found["data"], found["memo"]
    table = data["parser"]["parser"]
    data["options"] = {name: data["options"][name] for name in KEPT}
    tokens = sorted(table["tokens"].values())
    order = ordered_states(table)
    places = {state: place for place, state in enumerate(order)}
    states = [
        sorted(
            (tokens.index(table["tokens"][token]), -1 - to["@"] if is_rule else places[to])
            for token, (is_rule, to) in table["states"][state].items()
        )
        for state in order
    ]
    for pattern in (one["pattern"] for one in memo.values() if "pattern" in one):
        if "_width" in pattern:
            pattern["_width"] = [min(width, NO_WIDTH) for width in pattern["_width"]]
    data["parser"]["parser"] = {
        which: {start: places[state] for start, state in table[which].items()}
        for which in ("start_states", "end_states")
    }
    return to_lines(
        {
            "digest": grammar_digest(),
            "tokens": tokens,
            "data": data,
            "memo": [memo[number] for number in range(len(memo))],
            "states": [list(zip(*steps, strict=True)) for steps in states],
        }
    )


def ordered_states(table: dict[str, Any]) -> list[int]:
    """Return the states in the order in which they are reached from the first, by the names of tokens."""
    order: list[int] = list(table["start_states"].values())
    known = set(order)
    for state in order:  # it grows meanwhile
        steps = [
            (table["tokens"][token], to)
            for token, (is_rule, to) in table["states"][state].items()
            if not is_rule
        ]
        for _, to in sorted(steps):
            if to not in known:
                known.add(to)
                order.append(to)
    return order


def to_lines(parts: dict[str, Any]) -> str:
    """Return them as JSON, with a line for each part, and for each item of those that are lists."""
    lines = []
    for name, part in parts.items():
        items = part if isinstance(part, list) else [part]
        told = ",\n".join(json.dumps(item, separators=(",", ":"), sort_keys=True) for item in items)
        lines.append(f"{json.dumps(name)}:" + (f"[\n{told}\n]" if isinstance(part, list) else told))
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    with open(str(FILE), "w", encoding="utf-8") as file:
        file.write(tables_of(make_parser()))
