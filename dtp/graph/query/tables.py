"""The tables of the parser of queries, which take lark half a second to make: `tables.json`, that they are read from.

`packaging/query_tables.py` makes the file, after each change of the grammar.
"""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

import lark
from lark.lark import PostLex

from dtp.graph.query.grammar import GRAMMAR

log = logging.getLogger("dtp.graph")

#: How lark reads the grammar.
OPTIONS: Final = {"parser": "lalr", "maybe_placeholders": False, "propagate_positions": True}
#: Versions of lark that make these tables, and read them. With others, the parser is made from the grammar.
VERSIONS: Final = ("1.2.2", "1.3.0", "1.3.1")
FILE: Final = files("dtp.graph.query") / "tables.json"


def grammar_digest() -> str:
    """Return what differs for tables of another grammar, or of other options."""
    return sha256(repr((GRAMMAR, sorted(OPTIONS.items()))).encode()).hexdigest()


def read_tables(text: str, version: str = lark.__version__) -> dict[str, Any] | None:
    """Return tables as `lark.Lark.load` takes them. None, with the reason in the log, where they are of another
    grammar or not for this version of lark."""
    if version not in VERSIONS:
        known = ", ".join(VERSIONS)
        log.info("the parser of queries is made anew: its tables are for lark %s, this is %s", known, version)
        return None
    found = json.loads(text)
    if found["digest"] != grammar_digest():
        log.info("the parser of queries is made anew: its tables are of another grammar")
        return None
    # the file has numbers of states as they are, and those of rules as -1, -2, ...; lark writes both with a kind
    states = {
        number: {token: (0, to) if to >= 0 else (1, {"@": -1 - to}) for token, to in zip(*steps, strict=True)}
        for number, steps in enumerate(found["states"])
    }
    data: dict[str, Any] = found["data"]
    data["parser"]["parser"] |= {"tokens": dict(enumerate(found["tokens"])), "states": states}
    return {"data": data, "memo": dict(enumerate(found["memo"]))}


def load_parser(postlex: PostLex) -> lark.Lark | None:
    """Return the parser of queries as the tables have it; None where they can't be used."""
    tables = read_tables(FILE.read_text(encoding="utf-8"))
    if tables is None:
        return None
    tables["data"]["options"]["postlex"] = postlex
    return lark.Lark.load(tables)  # it takes what it pickles as well: that is never read from a file
