"""A mailbox, for whoever uses one: requests, of which several may be under way, and what it pushes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

from dtp.carriers.nearness import Nearness
from dtp.errors import CarrierError, DtpError
from dtp.identity import Identity
from dtp.messaging.cards import ContactCard
from dtp.messaging.ends.envelope import SIZES
from dtp.messaging.ends.keys import KeyBundle
from dtp.messaging.mailbox.protocol import (
    MAX_ANSWER,
    MAX_PUSHED,
    MailboxMalformed,
    MailboxOp,
    MailboxRefused,
    Refusal,
    encode,
    parse_answer,
    read,
)
from dtp.messaging.mailbox.stamps import MAX_BITS, make_stamp
from dtp.messaging.mailbox.store import KeptEnvelope, Status, Tray
from dtp.messaging.packing import is_number
from dtp.net.address import Address
from dtp.net.dial import connect
from dtp.net.stream import Stream
from dtp.tasks import start_task


class MailboxGone(CarrierError):
    """The connection to a mailbox is over. Whether what was asked last was done isn't known: ask again."""

    code = "mailbox-gone"


@dataclass(frozen=True, slots=True)
class RoomPrice:
    """What a mailbox asks of recipients: the smallest units of SUI for a MiB and month, where that is paid ("" while
    nobody can), what is kept for nothing, bytes, and for how long behind what was paid, seconds. `teller` is how near
    the mailbox is that says so."""

    mib_month: int
    door: str
    free_bytes: int
    grace: int
    teller: Nearness = Nearness.ANYWHERE


class MailboxClient:
    """A conversation with a mailbox on a stream, whose connection `close` ends. Each method raises `MailboxRefused`
    where the mailbox says no, and `MailboxGone` where it is gone."""

    def __init__(self, stream: Stream) -> None:
        self.connection = stream.connection
        self._stream = stream
        self._answers: dict[int, asyncio.Future[list[Any]]] = {}
        self._number = 0
        #: What the mailbox pushes: the tray and the envelope; None at the end.
        self.pushes: asyncio.Queue[tuple[Tray, KeptEnvelope] | None] = asyncio.Queue(MAX_PUSHED)
        self._watching = False
        self._reading = start_task(self._read_answers(), name="dtp-mailbox-answers")

    @classmethod
    async def connect(
        cls, address: Address | str, *, identity: Identity | None = None, **options: Any
    ) -> Self:
        """Return a conversation with the mailbox at an address: as anybody, without an identity.

        Raise what `dtp.net.dial.connect` raises.
        """
        connection = await connect(address, identity=identity, **options)
        return cls(await connection.open_stream())

    async def close(self) -> None:
        """End the conversation and its connection. Idempotent."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self.connection.close()

    @property
    def nearness(self) -> Nearness:
        """How near the mailbox is, and so at least those who leave something there."""
        return Nearness.of_source(self.connection.source)

    @property
    def closed(self) -> bool:
        """True once nothing can be asked any more."""
        return self._reading.done() or self.connection.closed

    async def _read_answers(self) -> None:
        fault: DtpError = MailboxGone("the mailbox has ended the conversation")
        try:
            while body := await read(self._stream, MAX_ANSWER):
                number, told = parse_answer(body)
                if not number:
                    if self.pushes.full():  # whoever takes them may be waiting for an answer behind them
                        raise MailboxMalformed(f"more than {MAX_PUSHED} pushes that nobody has acknowledged")
                    self.pushes.put_nowait(_pushed(told, watching=self._watching))
                elif (waiting := self._answers.pop(number, None)) is not None and not waiting.done():
                    waiting.set_result(told)
        except DtpError as error:
            fault = error
        finally:
            for each in self._answers.values():
                if not each.done():
                    each.set_exception(MailboxGone(f"the mailbox is gone: {fault}"))
            self._answers.clear()
            if self.pushes.full():  # what isn't acknowledged comes again
                self.pushes.get_nowait()
            self.pushes.put_nowait(None)

    async def send_request(self, op: MailboxOp, *fields: object) -> list[Any]:
        """Return the fields of the answer to a request."""
        if self.closed:
            raise MailboxGone("the connection to the mailbox is over")
        self._number += 1
        number = self._number
        answer: asyncio.Future[list[Any]] = self.connection.loop.create_future()
        self._answers[number] = answer
        try:
            self._stream.write(encode(number, int(op), *fields))
            await self._stream.drain()
            code, *told = await answer
        except DtpError as fault:
            raise MailboxGone(f"the mailbox is gone: {fault}") from fault
        finally:
            self._answers.pop(number, None)
        if code:
            try:
                refusal = Refusal(code)
            except ValueError:
                refusal = Refusal.MALFORMED
            details = [each if is_number(each) else 0 for each in told[:2]]
            raise MailboxRefused(refusal, *details)
        return told

    # ---- for those who deposit ---------------------------------------------------------------------------------

    async def deposit_envelope(
        self, recipient: bytes, envelope: bytes, *, seconds: int, access: bytes = b"", stamp: bytes = b""
    ) -> None:
        """Have an envelope kept for a device. It is on the mailbox's disk when this returns."""
        await self.send_request(MailboxOp.DEPOSIT, recipient, envelope, seconds, access, stamp)

    async def deposit_with_work(
        self, recipient: bytes, envelope: bytes, *, seconds: int, access: bytes = b""
    ) -> None:
        """Deposit with the stamp that the mailbox asks strangers for: up to `MAX_BITS`, made in a thread. One that is
        to be paid is up to the caller: `MailboxRefused` says what it costs."""
        try:
            await self.deposit_envelope(recipient, envelope, seconds=seconds, access=access)
        except MailboxRefused as refused:
            if refused.refusal is not Refusal.STAMP_NEEDED or refused.stamp_mib or refused.detail > MAX_BITS:
                raise
            stamp = await asyncio.to_thread(make_stamp, recipient, envelope, refused.detail)
            await self.deposit_envelope(recipient, envelope, seconds=seconds, access=access, stamp=stamp)

    async def get_keys(self, device: bytes, now_ms: int) -> KeyBundle:
        """Return a device's keys, checked, and a one-time key that nobody else gets. Raise `KeysForged`."""
        match await self.send_request(MailboxOp.KEYS, device):
            case [bytes(keys), bytes(one_time), *_]:
                return KeyBundle.parse(keys, one_time, device=device, now_ms=now_ms)
        raise MailboxMalformed("an answer without keys")

    async def get_card(self, device: bytes) -> ContactCard:
        """Return the card of the person whose device that is, as the mailbox has it: signed by that person, perhaps
        not the newest. Raise `ContactCardError`."""
        match await self.send_request(MailboxOp.CARD, device):
            case [bytes(card), *_]:
                return ContactCard.parse(card)
        raise MailboxMalformed("an answer without a card")

    async def send_signal(self, recipient: bytes, envelope: bytes, access: bytes) -> None:
        """Pass on an envelope that is of the moment, to a device that is connected; nothing is kept."""
        await self.send_request(MailboxOp.SIGNAL, recipient, envelope, access)

    async def put_piece(self, recipient: bytes, piece: bytes, *, seconds: int, access: bytes) -> None:
        """Have a sealed piece of an attachment kept."""
        await self.send_request(MailboxOp.PUT_PIECE, recipient, piece, seconds, access)

    async def has_pieces(self, digests: list[bytes]) -> list[bool]:
        """Return of each piece whether it is kept."""
        match await self.send_request(MailboxOp.HAS_PIECES, digests):
            case [[*found], *_] if len(found) == len(digests):
                return [each is True for each in found]
        raise MailboxMalformed("an answer for other pieces than was asked for")

    async def get_piece(self, digest: bytes) -> bytes:
        """Return the piece with this hash, not checked."""
        match await self.send_request(MailboxOp.GET_PIECE, digest):
            case [bytes(piece), *_]:
                return piece
        raise MailboxMalformed("an answer without a piece")

    # ---- for the device ----------------------------------------------------------------------------------------

    async def publish_keys(self, keys: bytes, one_time: list[bytes]) -> None:
        """Publish this device's keys: from then on things are kept for it here."""
        await self.send_request(MailboxOp.PUBLISH, keys, one_time)

    async def set_access(self, access: bytes, bits: int, stamp_mib: int = 0) -> None:
        """Set the hash of the access of those who are known, and what others' messages take: so many bits of work, or
        with `stamp_mib` a stamp for so many MiB of this device's room, for a month."""
        await self.send_request(MailboxOp.SETTINGS, access, bits, stamp_mib)

    async def put_card(self, card: ContactCard) -> None:
        """Have the card of this device's person given to whoever asks, without what it says to acquaintances."""
        await self.send_request(MailboxOp.PUT_CARD, card.public().encode())

    async def get_status(self) -> Status:
        """Return what waits for this device."""
        return _status(await self.send_request(MailboxOp.STATUS))

    async def get_price(self) -> RoomPrice | None:
        """Return what room costs here, None where it costs nothing."""
        try:
            told = await self.send_request(MailboxOp.PRICE)
        except MailboxRefused as refused:
            if refused.refusal is Refusal.MISSING:
                return None
            raise
        match told:
            case [price, str(door), free, grace, *_] if all(map(is_number, (price, free, grace))) and price:
                return RoomPrice(price, door, free, grace, self.nearness)
        raise MailboxMalformed("an answer without a price")

    async def reserve_room(self, device: bytes, mib: int, months: int, stamp: bytes = b"") -> Status:
        """Pay for so many MiB and months, for any device: on a connection through the mailbox's door, whose payer
        is asked. A `stamp`, 16 bytes that are made up for it, lets strangers' envelopes in then; one that was paid
        already isn't paid again."""
        return _status(await self.send_request(MailboxOp.RESERVE, device, mib, months, stamp))

    async def fetch_envelopes(
        self, tray: Tray = Tray.KNOWN, *, after: int = 0, most: int = 1000
    ) -> list[KeptEnvelope]:
        """Return what waits, oldest first. It stays until it is acknowledged."""
        match await self.send_request(MailboxOp.FETCH, int(tray), after, most):
            case [[*rows], *_]:
                return [_kept(each) for each in rows]
        raise MailboxMalformed("an answer without envelopes")

    async def acknowledge_envelopes(self, ids: list[int]) -> None:
        """Have envelopes forgotten that are stored here."""
        await self.send_request(MailboxOp.ACKNOWLEDGE, ids)

    async def watch_tray(self, tray: Tray = Tray.KNOWN, *, after: int = 0) -> None:
        """Have what waits and what comes pushed: `pushes` has it from now on."""
        self._watching = True
        await self.send_request(MailboxOp.WATCH, int(tray), after)

    async def forget_device(self) -> None:
        """Have the mailbox forget this device and all that it keeps for it."""
        await self.send_request(MailboxOp.LEAVE)


def _status(told: list[Any]) -> Status:
    fields = told[:6]
    if len(fields) == 6 and all(map(is_number, fields)):
        return Status(*fields)
    raise MailboxMalformed("an answer without a status")


def _kept(told: object) -> KeptEnvelope:
    match told:
        case [int(number), int(received), bytes(envelope)]:
            return KeptEnvelope(number, received, envelope)
    raise MailboxMalformed("the mailbox sends a malformed envelope")


def _pushed(told: list[Any], *, watching: bool) -> tuple[Tray, KeptEnvelope]:
    tray, *rest = told
    if not watching or tray not in tuple(Tray):
        raise MailboxMalformed("a push for a tray that there isn't, or that isn't watched")
    kept = _kept(rest)
    if len(kept.envelope) > SIZES[-1]:
        raise MailboxMalformed(f"a push of {len(kept.envelope)} bytes; {SIZES[-1]} are the most")
    return Tray(tray), kept
