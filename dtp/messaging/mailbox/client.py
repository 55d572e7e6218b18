"""The client of a mailbox: requests, several of which may be under way, and what the mailbox pushes."""

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
    """The connection to a mailbox is closed. Whether the last request was carried out isn't known: repeat it."""

    code = "mailbox-gone"


@dataclass(frozen=True, slots=True)
class RoomPrice:
    """What a mailbox charges recipients: the price of one MiB for a month, in the smallest unit of SUI, and the
    address where it is paid (`door`, "" while nobody can pay). `free_bytes` are free, and what was paid for is
    still kept for `grace` seconds afterwards. `teller` is how near the mailbox is that names the price.
    """

    mib_month: int
    door: str
    free_bytes: int
    grace: int
    teller: Nearness = Nearness.ANYWHERE


class MailboxClient:
    """A client of one mailbox, on a stream of a connection that `close` ends. Every request raises `MailboxRefused`
    if the mailbox refuses it, and `MailboxGone` if the connection is closed.
    """

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
        """Return a client of the mailbox at an address. Without an identity it is anonymous.

        Raise what `dtp.net.dial.connect` raises.
        """
        connection = await connect(address, identity=identity, **options)
        return cls(await connection.open_stream())

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self.connection.close()

    @property
    def nearness(self) -> Nearness:
        """How near the mailbox is. Those who leave something there count as no nearer."""
        return Nearness.of_source(self.connection.source)

    @property
    def closed(self) -> bool:
        """True once no more requests can be made."""
        return self._reading.done() or self.connection.closed

    async def _read_answers(self) -> None:
        fault: DtpError = MailboxGone("the mailbox has ended the conversation")
        try:
            while body := await read(self._stream, MAX_ANSWER):
                number, told = parse_answer(body)
                if not number:
                    if self.pushes.full():  # the reader of them may be waiting for an answer behind them
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
            if self.pushes.full():  # what isn't acknowledged will be pushed again
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

    # ---- for senders -------------------------------------------------------------------------------------------

    async def deposit_envelope(
        self, recipient: bytes, envelope: bytes, *, seconds: int, access: bytes = b"", stamp: bytes = b""
    ) -> None:
        """Leave an envelope for a device. It is on the mailbox's disk when this returns."""
        await self.send_request(MailboxOp.DEPOSIT, recipient, envelope, seconds, access, stamp)

    async def deposit_with_work(
        self, recipient: bytes, envelope: bytes, *, seconds: int, access: bytes = b""
    ) -> None:
        """Leave an envelope, and make the stamp that the mailbox asks of strangers, of at most `MAX_BITS`, in a
        thread. Paying for a stamp is up to the caller: `MailboxRefused` says what it costs.
        """
        try:
            await self.deposit_envelope(recipient, envelope, seconds=seconds, access=access)
        except MailboxRefused as refused:
            if refused.refusal is not Refusal.STAMP_NEEDED or refused.stamp_mib or refused.detail > MAX_BITS:
                raise
            stamp = await asyncio.to_thread(make_stamp, recipient, envelope, refused.detail)
            await self.deposit_envelope(recipient, envelope, seconds=seconds, access=access, stamp=stamp)

    async def get_keys(self, device: bytes, now_ms: int) -> KeyBundle:
        """Return a device's keys, checked, with a one-time key that nobody else gets. Raise `KeysForged`."""
        match await self.send_request(MailboxOp.KEYS, device):
            case [bytes(keys), bytes(one_time), *_]:
                return KeyBundle.parse(keys, one_time, device=device, now_ms=now_ms)
        raise MailboxMalformed("an answer without keys")

    async def get_card(self, device: bytes) -> ContactCard:
        """Return the card of the person whose device this is, as the mailbox has it. The person has signed it, but
        it may not be the newest. Raise `ContactCardError`.
        """
        match await self.send_request(MailboxOp.CARD, device):
            case [bytes(card), *_]:
                return ContactCard.parse(card)
        raise MailboxMalformed("an answer without a card")

    async def send_signal(self, recipient: bytes, envelope: bytes, access: bytes) -> None:
        """Pass an ephemeral envelope on to a device that is connected; nothing is kept."""
        await self.send_request(MailboxOp.SIGNAL, recipient, envelope, access)

    async def put_piece(self, recipient: bytes, piece: bytes, *, seconds: int, access: bytes) -> None:
        """Leave a sealed piece of an attachment for a device."""
        await self.send_request(MailboxOp.PUT_PIECE, recipient, piece, seconds, access)

    async def has_pieces(self, digests: list[bytes]) -> list[bool]:
        """Return for each piece whether it is kept."""
        match await self.send_request(MailboxOp.HAS_PIECES, digests):
            case [[*found], *_] if len(found) == len(digests):
                return [each is True for each in found]
        raise MailboxMalformed("an answer for other pieces than those asked for")

    async def get_piece(self, digest: bytes) -> bytes:
        """Return the piece with this hash. It isn't checked."""
        match await self.send_request(MailboxOp.GET_PIECE, digest):
            case [bytes(piece), *_]:
                return piece
        raise MailboxMalformed("an answer without a piece")

    # ---- for the device ----------------------------------------------------------------------------------------

    async def publish_keys(self, keys: bytes, one_time: list[bytes]) -> None:
        """Publish this device's keys. From then on the mailbox keeps envelopes for it."""
        await self.send_request(MailboxOp.PUBLISH, keys, one_time)

    async def set_access(self, access: bytes, bits: int, stamp_mib: int = 0) -> None:
        """Set the hash of the access that acquaintances present, and what strangers' messages need: a stamp of
        `bits` of work, or, if `stamp_mib` is given, a paid stamp that costs as much as so many MiB of this device's
        room for a month.
        """
        await self.send_request(MailboxOp.SETTINGS, access, bits, stamp_mib)

    async def put_card(self, card: ContactCard) -> None:
        """Leave the card of this device's person, which the mailbox gives to whoever asks, without its `access`."""
        await self.send_request(MailboxOp.PUT_CARD, card.public().encode())

    async def get_status(self) -> Status:
        """Return what waits for this device."""
        return _status(await self.send_request(MailboxOp.STATUS))

    async def get_price(self) -> RoomPrice | None:
        """Return the price of room here, or None if it is free."""
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
        """Pay for `mib` MiB for so many months, for any device. The connection has to be one to the mailbox's
        `door`, and its payer is charged. A `stamp`, 16 random bytes, then lets strangers' envelopes in; if it was
        already paid for, it isn't charged again.
        """
        return _status(await self.send_request(MailboxOp.RESERVE, device, mib, months, stamp))

    async def fetch_envelopes(
        self, tray: Tray = Tray.KNOWN, *, after: int = 0, most: int = 1000
    ) -> list[KeptEnvelope]:
        """Return the waiting envelopes, oldest first. They stay until they are acknowledged."""
        match await self.send_request(MailboxOp.FETCH, int(tray), after, most):
            case [[*rows], *_]:
                return [_kept(each) for each in rows]
        raise MailboxMalformed("an answer without envelopes")

    async def acknowledge_envelopes(self, ids: list[int]) -> None:
        """Have the mailbox delete envelopes that are stored here."""
        await self.send_request(MailboxOp.ACKNOWLEDGE, ids)

    async def watch_tray(self, tray: Tray = Tray.KNOWN, *, after: int = 0) -> None:
        """Have the mailbox push envelopes, those that wait and those that come, into `pushes`."""
        self._watching = True
        await self.send_request(MailboxOp.WATCH, int(tray), after)

    async def forget_device(self) -> None:
        """Have the mailbox delete this device and everything that it keeps for it."""
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
        raise MailboxMalformed("a push for an unknown tray, or one that isn't watched")
    kept = _kept(rest)
    if len(kept.envelope) > SIZES[-1]:
        raise MailboxMalformed(f"a push of {len(kept.envelope)} bytes; {SIZES[-1]} are the most")
    return Tray(tray), kept
