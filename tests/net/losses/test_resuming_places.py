"""What is asked where a peer is while a connection has no carrier: an answer may be missing for a while."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from echo_service import echo, on_fake_clock

import dtp
from dtp.chain.errors import NodeUnavailable
from dtp.errors import DtpError
from dtp.net.address import Address
from dtp.net.resolver import ResolveFailed
from dtp.session.limits import DEFAULT
from dtp.testing.pairs import BOB
from dtp.testing.resolvers import FakeResolver

NAME = Address.parse("dtp://bob")


@pytest.mark.parametrize("error", [None, NodeUnavailable("away"), ResolveFailed("away")], ids=repr)
@on_fake_clock
async def test_a_peer_that_nobody_knows_for_a_while_is_found_again(error: DtpError | None) -> None:
    """As one on the LAN when the network goes and comes: what dials had ended, and the connection was lost."""
    limits = replace(DEFAULT, record=2048)  # a record has to fit between two cuts
    data = bytes(25_000)
    async with await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener:
        resolver = FakeResolver({NAME: [listener.address()]})
        asked_for = replace(NAME, query=(("carrier.cut_at", "20000"),))
        async with dtp.connect(asked_for, limits=limits, resolvers=[resolver]) as connection:
            stream = await connection.open_stream()
            asked = len(resolver.asked)
            resolver.known, resolver.error = {}, error
            stream.write(data)
            stream.write_eof()
            await asyncio.sleep(DEFAULT.resume / 2)
            assert len(resolver.asked) >= asked + 3
            resolver.known, resolver.error = {NAME: [listener.address()]}, None
            assert await stream.read() == data
            assert connection.stats.resumes >= 1
