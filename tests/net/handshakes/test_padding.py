"""What who listens sees of a padded connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from echo_service import echo, on_fake_clock, roundtrip
from middleman import middleman

import dtp
from dtp.session.limits import DEFAULT
from dtp.testing.pairs import ALICE, BOB


def records(said: bytes, messages: int) -> Iterator[int]:
    """The lengths of the records behind the hello and so many handshake messages of one side."""
    at = 7
    for _ in range(messages):
        at += 2 + int.from_bytes(said[at : at + 2])
    while at < len(said):
        size = 2 + int.from_bytes(said[at : at + 2])
        yield size
        at += size


@on_fake_clock
async def test_lengths_on_the_wire_are_from_a_small_set() -> None:
    limits = replace(DEFAULT, padding=512)
    async with (
        await dtp.listen("memory://x", echo, identity=BOB, limits=limits) as listener,
        dtp.connect(listener.address(), identity=ALICE),  # so that the next one is by IK
        middleman(listener) as (address, man),
    ):
        async with dtp.connect(address, identity=ALICE, limits=limits) as connection:
            for size in (0, 1, 50, 500, 1000, 10_000, 1_000_000):
                assert await roundtrip(connection, bytes(size)) == bytes(size)
            connection.send_datagram(bytes(300))
            await connection.ping()
        [said] = man.said
        seen = set(records(said, 1))
        assert 512 in seen
        assert seen <= {512 << n for n in range(8)} | {65_537}
