"""Clients of a chain whose node answers as a test says, and whose programs it may stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dtp.chain import ChainClient, Executed, Program
from dtp.sui.transaction import MoveCall
from dtp.testing.nodes import ScriptedNode


class ScriptedClient(ChainClient):
    """A client of `node`, which answers as a test says.

    `faults` are by function: what programs that call it raise, one after another, before anything is asked.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.node = ScriptedNode()
        self.faults: dict[str, Iterator[Exception]] = {}
        super().__init__(*args, rpc=self.node, **options)

    async def execute(self, program: Program, **options: Any) -> Executed:
        for called in functions(program):
            fault = next(self.faults.get(called, iter(())), None)
            if fault is not None:
                raise fault
        return await super().execute(program, **options)

    @contextmanager
    def failing(self, function: str, faults: Iterator[Exception]) -> Iterator[None]:
        """Have programs that call this function raise these within `with`."""
        self.faults[function] = faults
        try:
            yield
        finally:
            del self.faults[function]


def functions(program: Program) -> list[str]:
    """The names of what a program calls, in order."""
    commands = program.commands(lambda _: "0x0")
    return [each.function for each in commands if isinstance(each, MoveCall)]
