"""Nodes for the tests: in memory, with a clock that only tests move."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_world import World
from playground import Play
from transport_life import Transport

from dtp.localnet.node import LocalNode

sys.path.append(str(Path(__file__).parents[1] / "vm"))  # modules made by hand: module_maker, move_writer


@pytest.fixture
def world() -> Iterator[World]:
    """A fresh node."""
    with LocalNode.open(now=None) as node:
        yield World(node)


@pytest.fixture
def transport(world: World) -> Transport:
    """A node with `transport` published and a live host."""
    return Transport.begin(world)


@pytest.fixture
def play(world: World) -> Play:
    """A node with `playground` published by an account that has coins."""
    return Play.begin(world)
