"""Clients of a chain whose node answers as a test says, and whose programs it may stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from dtp.chain import ChainClient, Executed, Program
from dtp.chain.channel import Claimed, Settled
from dtp.chain.model import SUI_COIN
from dtp.chain.node.client import Simulated
from dtp.chain.values import MoveSchema
from dtp.pay.client.channel_purchase import ChannelPurchase
from dtp.pay.dial import PaidDialer
from dtp.pay.metered import Metered
from dtp.pay.store import Store
from dtp.session.codes import CloseCode, ConnectionRefused
from dtp.sui.transaction import MoveCall
from dtp.testing.nodes import ScriptedNode


async def pay_and_break_off(connection: Any) -> None:
    """Pay all that was used, and end the connection without the orderly end that goes with it."""
    await connection.meter.pay_rest()
    connection.meter._finished = None
    connection.abort(CloseCode.INTERNAL)
    await connection.wait_gone()


class ScriptedClient(ChainClient):
    """A client of `node`, which answers as a test says.

    `faults` are by function: what programs that call it raise, one after another, before anything is asked;
    `late_faults` once they were executed.
    `on_simulated` are called with the client that has simulated a program, which may be a copy of this one.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.node = ScriptedNode()
        self.faults: dict[str, Iterator[Exception]] = {}
        self.late_faults: dict[str, Iterator[Exception]] = {}
        self.on_simulated: list[Callable[[ChainClient], Awaitable[None]]] = []
        super().__init__(*args, rpc=self.node, **options)

    async def simulate(self, program: Program, **options: Any) -> Simulated:
        found = await super().simulate(program, **options)
        for each in self.on_simulated:
            await each(self)
        return found

    async def execute(self, program: Program, **options: Any) -> Executed:
        called = functions(program)
        self._raise_fault(self.faults, called)
        done = await super().execute(program, **options)
        self._raise_fault(self.late_faults, called)
        return done

    def _raise_fault(self, faults: dict[str, Iterator[Exception]], called: list[str]) -> None:
        for each in called:
            fault = next(faults.get(each, iter(())), None)
            if fault is not None:
                raise fault

    @contextmanager
    def failing(self, function: str, faults: Iterator[Exception], *, late: bool = False) -> Iterator[None]:
        """Have programs that call this function raise these within `with`; `late`: once they were executed."""
        kept = self.late_faults if late else self.faults
        kept[function] = faults
        try:
            yield
        finally:
            del kept[function]


def dialer_with(**parts: Callable[..., Any]) -> type[PaidDialer]:
    """A dialer that makes these parts so: `make_meter=MyMeter`."""
    made = {name: staticmethod(make) for name, make in parts.items()}
    return type("ScriptedDialer", (PaidDialer,), made)


class RefusedDialer(PaidDialer):
    """A dialer whose server refuses every ticket."""

    async def dial(self, purchase: ChannelPurchase, *, closes: bool = False) -> Metered:
        raise ConnectionRefused(CloseCode.TICKET, "go away")

    async def close_by_agreement(self, chain: ChainClient, store: Store, id: str) -> bool:
        return False


class MovingOne:
    """The part of a chain in a test that says what its transactions moved: 1 of each channel in them."""

    #: The state in which they leave channels, None where they leave it as it was.
    state: int | None = None

    def executed(self, program: Program, digest: str = "d") -> Any:
        """What the transaction of this program did."""
        return SimpleNamespace(digest=digest, gas=SimpleNamespace(net=1), program=program)

    def events_in(self, executed: Any, schema: MoveSchema, kind: type[Any]) -> list[Any]:
        """The events of a transaction."""
        ids = [each.id for each in executed.program.objects]
        if kind is Claimed:
            return [Claimed(id, 0, 1, 1, 1, b"", SUI_COIN) for id in ids]
        return [] if self.state is None else [Settled(id, 0, 0, self.state, SUI_COIN) for id in ids]


def functions(program: Program) -> list[str]:
    """The names of what a program calls, in order."""
    commands = program.commands(lambda _: "0x0")
    return [each.function for each in commands if isinstance(each, MoveCall)]
