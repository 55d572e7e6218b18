"""Find a line's card by the line's name alone: the line answers with it, and the DHT keeps where the line is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.errors import DtpError
from dtp.identity import Identity, PeerId
from dtp.messaging.cards import ContactCard, ContactCardError
from dtp.messaging.cards.contact_card import MAX_BYTES
from dtp.messaging.packing import pack_frame, read_frame, unpack
from dtp.messaging.person.card_sources import DhtCards, FoundCard
from dtp.messaging.tips.errors import LineUnreached
from dtp.messaging.tips.line import TipLine
from dtp.net.address import Address
from dtp.net.connection import Connection
from dtp.net.dial import connect
from dtp.net.stream import Stream
from dtp.peers.book import PeerBook
from dtp.peers.dht import Dht
from dtp.peers.lan.multicast import Lan

log = logging.getLogger("dtp.messaging")

#: The service at which a line answers with its card.
TIP_SERVICE: Final = "dtp.tip"
#: Bytes of an answer: a card and its length.
_MAX_ANSWER: Final = MAX_BYTES + 16
#: Seconds within which one address has to answer with the card.
_PATIENCE: Final = 15.0


def serve_card(line: asyncio.Future[TipLine]) -> Callable[[Connection], Awaitable[None]]:
    """Return the handler of `TIP_SERVICE`, which sends the line's current public card on each stream."""

    async def serve(connection: Connection) -> None:
        opened = await asyncio.shield(line)
        async for stream in connection:
            await say_card(opened, stream)

    return serve


async def say_card(line: TipLine, stream: Stream) -> None:
    """Send the line's public card on a stream."""
    stream.write(pack_frame(line.card.public().encode()))
    await stream.drain()
    stream.write_eof()


async def ask_card(address: Address | str) -> ContactCard:
    """Return the card that a line sends at an address. Raise `ContactCardError`, and what `connect` raises."""
    connection = await connect(address)
    try:
        stream = await connection.open_stream()
        stream.write_eof()
        match unpack(await read_frame(stream, _MAX_ANSWER, ContactCardError), ContactCardError, "an answer"):
            case [bytes(data)]:
                card = ContactCard.parse(data)
            case _:
                raise ContactCardError("an answer without a card")
    finally:
        await connection.close()
    if card.key != connection.peer.key:
        raise ContactCardError("a line says the card of somebody else")
    return card


async def find_line(line: PeerId, *, bootstrap: Sequence[str] = ()) -> FoundCard:
    """Look for a line by its name, on the LAN and then in the DHT by way of the nodes in `bootstrap`. Return
    its card, and how near the source of the answer is.

    On the LAN only somebody who knows the name can tell which line is looked for; nodes of the DHT can tell
    as well. Raise `LineUnreached`.
    """
    book = PeerBook()
    async with Lan(book) as lan:
        record = await lan.find_record(line)
    known = book.get_known(line)
    teller = Nearness.ANYWHERE if known is None else known.teller
    for url in record.addresses if record else ():
        try:
            async with asyncio.timeout(_PATIENCE):
                with dialled_as_told(teller):
                    return FoundCard(await ask_card(Address.direct(line, url, TIP_SERVICE)), teller)
        except (DtpError, TimeoutError) as fault:
            log.info("the line at %s: %s", url, fault)
    if bootstrap:
        async with Dht(Identity.generate(), client=True, bind=("0.0.0.0", 0), bootstrap=bootstrap) as dht:
            source = DhtCards(dht)
            card = await source.find_card(line.key)
            if card is not None:
                return FoundCard(card, source.teller)
    where = "on this network, nor in the DHT" if bootstrap else "on this network"
    raise LineUnreached(f"nobody says where {line} is {where}: ask for the line's card")
