"""For tests of resolvers and of what uses them: a fake that answers from memory, a check of the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dtp.errors import DtpError
from dtp.net.address import Address
from dtp.net.resolver import Candidate, Resolver


class FakeResolver(Resolver):
    """Answers from a dictionary, or with an error; remembers what it was asked, in order, in `asked`.

    Keys are addresses without service and options: `Address.parse("dtp://alice")`.
    """

    name = "fake"

    def __init__(self, known: Mapping[Address, Sequence[Address]] | None = None) -> None:
        self.known = dict(known or {})
        self._later: dict[Address, Sequence[Address]] = {}
        #: Raised by `resolve` while it is set.
        self.error: DtpError | None = None
        self.asked: list[Address] = []

    async def resolve(self, address: Address) -> list[Candidate]:
        """Return the candidates that it was given, or raise its error; note that it was asked."""
        self.asked.append(address)
        await asyncio.sleep(0)  # as a real one does: whoever calls must bear a switch of tasks here
        if self.error is not None:
            raise self.error
        return self._known_candidates(address, self.known)

    def keep_back(self, address: Address, count: int) -> None:
        """Say the last `count` places of an address only when asked again."""
        places = self.known[address]
        self.known[address], self._later[address] = places[:-count], places[-count:]

    async def resolve_again(self, address: Address) -> list[Candidate]:
        """Return the candidates that it has kept back."""
        return self._known_candidates(address, self._later)

    def _known_candidates(
        self, address: Address, known: Mapping[Address, Sequence[Address]]
    ) -> list[Candidate]:
        places = known.get(replace(address, service="", query=()), ())
        return [
            Candidate(
                replace(place, service=address.service, query=address.query), priority, source=self.name
            )
            for priority, place in enumerate(places)
        ]


async def check_resolver(resolver: Resolver, known: Address, unknown: Address) -> None:
    """Assert that `resolver` keeps the contract of `Resolver`. It has to know `known` and not `unknown`."""
    assert resolver.name, "a resolver has a name"
    candidates = await resolver.resolve(known)
    assert candidates, f"{resolver.name} does not know {known}"
    for candidate in candidates:
        assert candidate.address.is_direct
        assert candidate.address.carrier_url
        assert candidate.source == resolver.name
        if known.peer is not None:
            assert candidate.address.peer == known.peer, "a resolver does not choose who answers"
    for candidate in await resolver.resolve(known.with_service("check/it")):
        assert candidate.address.service == "check/it", "the service that was asked for is kept"
    for candidate in await resolver.resolve(replace(known, query=(("check", "1"),))):
        assert candidate.address.options.get("check") == "1", "the options that were asked for are kept"
    assert await resolver.resolve(unknown) == [], f"{resolver.name} has to answer [] for {unknown}"
    assert isinstance(resolver.advice(unknown), str)
    together = await asyncio.gather(*(resolver.resolve(known) for _ in range(8)))
    assert all(set(answer) == set(candidates) for answer in together), "calls at the same time agree"
