"""Checks whether a listener serves others: a stranger connects to it, as anybody would, and sees if it gets the
show."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.feeding import Measure
from dtp.broadcast.fetching import Dial
from dtp.broadcast.format import Announcement
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.places import Place, ShowPlace
from dtp.broadcast.tree.rooms import COMPARED
from dtp.errors import DtpError
from dtp.identity import Identity, PeerId
from dtp.net.address import Address

log = logging.getLogger("dtp.broadcast")

#: Seconds for a neighbour to send the show to a stranger: to answer, and to get it itself first.
_PATIENCE: Final = 5.0
#: The most steps that a stranger is sent down.
_STEPS: Final = 3


def measure_from(place: ShowPlace | None, announcement: Announcement) -> Measure:
    """Return what checks whether listeners serve others, for a node that stands at `place`."""
    private = place.private if isinstance(place, Place) else None

    async def measure(peer: PeerId, addresses: Sequence[str]) -> bool:
        identity = Identity.generate()
        try:
            async with Place(listen=(), private=private).node(identity, {}) as node:
                return await is_served_by(node.connect, identity.id, peer, addresses, announcement)
        except (DtpError, OSError) as fault:
            log.info("nobody can come to %s from here: %s", peer.short, fault)
            return False

    return measure


async def is_served_by(
    dial: Dial, me: PeerId, who: PeerId, addresses: Sequence[str], announcement: Announcement
) -> bool:
    """Return True if a stranger `me` that connects to these addresses of `who` is sent a piece of the show, there
    or where it is sent on to, as long as that is below `who`."""
    wanted, asked = list(addresses), set[str]()
    for _ in range(_STEPS):
        near = [each for each in dict.fromkeys(wanted) if each not in asked][:COMPARED]
        asked.update(near)
        found = await asyncio.gather(*(_come_to(dial, me, each, who, announcement) for each in near))
        if any(others is None for others in found):
            return True
        wanted = [each for others in found for each in others or ()]
    return False


async def _come_to(
    dial: Dial, me: PeerId, address: str, who: PeerId, announcement: Announcement
) -> Sequence[str] | None:
    """Return None if a piece of the show comes through `who`; else the addresses to which a listener is sent on."""
    held = HeldSegments(announcement)
    below = False
    # The address that it gives leads nowhere: it is gone before anybody looks.
    hello = m.Hello(addresses=(str(Address("dtp", peer=me)),))
    with contextlib.suppress(DtpError, OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE), dial(address) as connection:
            stream = await connection.open_stream()
            frames.write(stream, hello)
            while (message := await frames.read(stream)) is not None:
                match message:
                    case m.Announced(data) if data != announcement.encoded:
                        return ()
                    case m.SenderState(path, _, _):
                        below = who in path
                    case m.Full(others):
                        return others
                    case m.Manifest(data):
                        held.add_manifest(data)
                    case m.Piece(number, index, data):
                        held.add_piece(number, index, data)
                        if below:
                            return None
    return ()
