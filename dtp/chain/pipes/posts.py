"""Connectionless messages through the chain: first contact with a service, tips, and answers to them.

    sent = await send_post(chain, host_id, "echo", b"may I have a pass?")
    async for answer in answers(chain, sent): ...

    async for got in read_posts(chain, host_id, identity, follow=True):
        await send_answer(chain, got, b"here is the plan")

A message is an event, public and for ever on record, so it is sealed: to the static keys of the host's endpoints,
which those publish in their hints under a proof of the identity key that the chain has for them (`hint_with_key`).
What is sealed is bound to host, service, sender and reply key: nobody can pass a copy off as their own. An answer is
a message of the server to the same service, sealed to the reply key of the question.
"""

from __future__ import annotations

import base64
import binascii
import logging
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from dtp.chain import pipe as pipe_module
from dtp.chain.errors import MalformedObject, NotFound
from dtp.chain.events import OLDEST, Cursor, EventFollower, event_types
from dtp.chain.host import Endpoint, Service
from dtp.chain.host_state import HostUnusable, ServiceMissing, read_host
from dtp.chain.model import SUI_COIN, ChainEvent, Id, canonical_id, canonical_type, id_bytes
from dtp.chain.node.client import ChainClient
from dtp.chain.node.coins import coins_for
from dtp.chain.node.commands import Program
from dtp.chain.pipe import Posted
from dtp.chain.wallet import money
from dtp.errors import LimitError, LocalError
from dtp.identity import Identity, PeerId, PeerIdError, sealing, verify_static
from dtp.identity.sealing import SealBroken, SealError, open_sealed
from dtp.sui.names import parse_digest

__all__ = [
    "MAX_POST_BYTES",
    "MOST_FEE",
    "FeeTooHigh",
    "PostKeyMissing",
    "PostReader",
    "PostTooLong",
    "ReceivedPost",
    "ReplyKey",
    "SealBroken",
    "SealError",
    "SentPost",
    "answers",
    "hint_with_key",
    "open_sealed",
    "post_key",
    "read_post",
    "read_posts",
    "seal",
    "send_answer",
    "send_post",
]

log = logging.getLogger("dtp.chain")

#: Bytes of a message: what fits into a transaction beside the seals of 16 endpoints.
MAX_POST_BYTES: Final = 120_000
MAX_RECIPIENTS: Final = 16
#: MIST that a message costs at most where its sender says no fee: each host asks for what it likes.
MOST_FEE: Final = 10_000_000
_KEY_BYTES: Final = 32
_DOMAIN: Final = b"dtp.post.v1"
_MARK: Final = "#static="


class PostTooLong(LimitError):
    """A message is longer than a transaction can carry; nothing was sent."""

    code: ClassVar[str] = "post-too-long"


class FeeTooHigh(LimitError):
    """A service wants more for a message than is paid unasked; nothing was sent."""

    code: ClassVar[str] = "fee-too-high"


class PostKeyMissing(HostUnusable):
    """No endpoint of the host has published a key to seal to, under a proof that holds."""

    code: ClassVar[str] = "post-key-missing"


class ReplyKeyError(LocalError):
    """The bytes of a reply key are none."""

    code: ClassVar[str] = "reply-key"


# ---------------------------------------------------------------------------------------------------------- sealing


@dataclass(frozen=True)
class ReplyKey:
    """An X25519 key that answers are sealed to. `private` is secret: keep it until the answer is there."""

    private: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.private) != _KEY_BYTES:
            raise ReplyKeyError(f"a reply key has {_KEY_BYTES} bytes, not {len(self.private)}")

    @classmethod
    def generate(cls) -> ReplyKey:
        """Return a new one, from the system's randomness."""
        from nacl.public import PrivateKey

        return cls(bytes(PrivateKey.generate()))

    @property
    def public(self) -> bytes:
        """What goes into the message, 32 bytes."""
        from nacl.public import PrivateKey

        return bytes(PrivateKey(self.private).public_key)


def seal_context(host: Id, service: int, sender: Id, reply_key: bytes) -> bytes:
    """Return what a seal is bound to."""
    return _DOMAIN + id_bytes(host) + struct.pack(">H", service) + id_bytes(sender) + reply_key


def seal(data: bytes, recipients: Sequence[bytes], context: bytes) -> bytes:
    """Seal to as many keys as a host has endpoints, 1 to 16, as `dtp.identity.sealing.seal` does.

    Raises `ReplyKeyError`, and `SealError` for bytes that are not a key.
    """
    if not 0 < len(recipients) <= MAX_RECIPIENTS:
        raise ReplyKeyError(f"a message is sealed to 1 to {MAX_RECIPIENTS} keys, not {len(recipients)}")
    return sealing.seal(data, recipients, context)


def hint_with_key(url: str, identity: Identity) -> bytes:
    """Return an endpoint's hint: the URL at which it is dialled, "" if it isn't, and the static key to which messages
    are sealed."""
    proof = base64.urlsafe_b64encode(identity.static_public + identity.static_proof).decode().rstrip("=")
    return f"{url}{_MARK}{proof}".encode()


def hint_of(url: str, identity: Identity) -> bytes:
    """Return what an endpoint that serves at `url` says in its hint: its static key, too, if it has the same one next
    time.

    A `url` that has a key already stays as it is.
    """
    known = _MARK in url or not identity.static_stored
    return url.encode() if known else hint_with_key(url, identity)


def post_key(endpoint: Endpoint) -> bytes | None:
    """Return the static key that an endpoint has published in its hint, None without one whose proof holds."""
    try:
        _, mark, text = endpoint.hint.decode("ascii").partition(_MARK)
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        peer = PeerId(endpoint.key)
    except (UnicodeDecodeError, binascii.Error, PeerIdError):
        return None
    static, proof = packed[:_KEY_BYTES], packed[_KEY_BYTES:]
    return static if mark and verify_static(peer, static, proof) else None


# ---------------------------------------------------------------------------------------------------------- sending


@dataclass(frozen=True)
class SentPost:
    """A message that is on the chain. `cursor` is from before it: answers come after."""

    host: str
    service: int
    transaction: str
    reply_key: ReplyKey
    cursor: Cursor


def least_fee(service: Service) -> int:
    fee, coin = service.post_fee, service.terms.coin
    if fee > (MOST_FEE if canonical_type(coin) == SUI_COIN else 0):
        raise FeeTooHigh(
            f"the service wants {money(fee, coin)} for a message, more than is paid unasked: say how much you agree "
            "to (--fee, fee=); nothing was paid"
        )
    return fee


async def _post(
    chain: ChainClient, host: str, number: int, coin: str, fee: int, reply_key: bytes, sealed: bytes
) -> str:
    if len(sealed) > pipe_module.MAX_FRAME_BYTES:
        raise PostTooLong(f"a message of {len(sealed):,} bytes; at most {MAX_POST_BYTES:,} fit")
    program = Program()
    money = await coins_for(chain, program, coin, fee)
    pipe_module.post(program, host, number, reply_key, sealed, money, coin=coin)
    return (await chain.execute(program)).digest


async def send_post(
    chain: ChainClient,
    host: Id,
    service: str,
    data: bytes,
    *,
    fee: int | None = None,
    recipients: Iterable[bytes] = (),
    reply_key: ReplyKey | None = None,
) -> SentPost:
    """Send a message to a service of a host, sealed to the keys of its endpoints, or to `recipients` (X25519).

    `fee` goes to the host's owner, in the smallest unit of the service's coin, and is at least the service's, which
    it is by default, up to `MOST_FEE` of SUI; else `FeeTooHigh`. Raises `PostTooLong`, `PostKeyMissing`, `SealError`
    for recipients that are not keys, `ServiceMissing`, `ServiceClosed`, and what executing raises: `MoveAborted` for
    who is denied or not on the allow-list.
    """
    if len(data) > MAX_POST_BYTES:
        raise PostTooLong(f"a message of {len(data):,} bytes; at most {MAX_POST_BYTES:,} fit")
    state = await read_host(chain, host)
    number, found = state.open_service(service)
    if fee is None:
        fee = least_fee(found)
    keys = list(recipients) or [key for each in state.beacon.endpoints if (key := post_key(each)) is not None]
    if not keys:
        raise PostKeyMissing(
            f"no endpoint of host {state.host.id} has published a key to seal to (in its hint, by hint_with_key); "
            "give the key of a recipient"
        )
    reply = reply_key or ReplyKey.generate()
    sealed = seal(data, keys, seal_context(state.host.id, number, chain.address, reply.public))
    before = Cursor((await chain.service_info()).checkpoint)
    digest = await _post(chain, state.host.id, number, found.terms.coin, fee, reply.public, sealed)
    return SentPost(state.host.id, number, digest, reply, before)


# --------------------------------------------------------------------------------------------------------- receiving


@dataclass(frozen=True)
class ReceivedPost:
    """A message that was opened. `sender` is an account, by the chain; `cursor` where to go on after it."""

    host: str
    service: int
    sender: str
    reply_key: bytes
    fee: int
    data: bytes
    transaction: str
    cursor: Cursor


def _open(
    event: ChainEvent, cursor: Cursor, host: str, private: bytes, reply_key: bytes = b""
) -> ReceivedPost | None:
    """Return the message of an event, None if it isn't for us, or can't be opened and answered."""
    try:
        posted: Posted = pipe_module.SCHEMA.decode(Posted, event.contents)
    except MalformedObject as fault:
        log.warning("a message of another release: %s", fault)
        return None
    if posted.host != host or (reply_key and posted.reply_key != reply_key):
        return None
    context = seal_context(posted.host, posted.service, posted.sender, posted.reply_key)
    try:
        data = open_sealed(posted.data, private, context)
        seal(b"", [posted.reply_key], b"")  # anybody puts any bytes there: who answers would fail at them
    except (SealBroken, SealError) as fault:
        log.info("message %s to host %s: %s", event.transaction, host, fault)
        return None
    said = (posted.service, posted.sender, posted.reply_key, posted.fee)
    return ReceivedPost(posted.host, *said, data, event.transaction, cursor)


async def _opened(
    chain: ChainClient,
    host: Id,
    private: bytes,
    cursor: Cursor | None,
    follow: bool,
    reply_key: bytes = b"",
) -> AsyncIterator[ReceivedPost]:
    if not chain.chain_id:
        await chain.connect()
    wanted = canonical_id(host)
    types = event_types(chain, pipe_module.SCHEMA, Posted)
    source = EventFollower(chain, types, cursor=cursor, start=None if follow else OLDEST)
    async for found in source if follow else source.past_events():
        posted = _open(found.event, found.cursor, wanted, private, reply_key)
        if posted is not None:
            yield posted


class PostReader:
    """Messages to a host that are sealed to the static key of `identity`, those there are, behind a cursor.

    `cursor` says how far all was read, others' messages as well: keep it when what was read is kept, and go on there.
    """

    def __init__(
        self, chain: ChainClient, host: Id, identity: Identity, *, cursor: Cursor | None = None
    ) -> None:
        self._chain, self._host, self._identity = chain, host, identity
        self.cursor = cursor

    async def read(self) -> AsyncGenerator[ReceivedPost]:
        """Yield each message once, in the chain's order, as `read_posts` does. Raise as `EventFollower`.

        While one is looked at, `cursor` is behind the one before.
        """
        if not self._chain.chain_id:
            await self._chain.connect()
        wanted, private = canonical_id(self._host), self._identity.static_private
        types = event_types(self._chain, pipe_module.SCHEMA, Posted)
        source = EventFollower(self._chain, types, cursor=self.cursor, start=OLDEST)
        async for found in source.past_events():
            posted = _open(found.event, found.cursor, wanted, private)
            if posted is not None:
                yield posted
            self.cursor = found.cursor
        self.cursor = source.cursor


def read_posts(
    chain: ChainClient, host: Id, identity: Identity, *, cursor: Cursor | None = None, follow: bool = False
) -> AsyncIterator[ReceivedPost]:
    """Return messages to a host that are sealed to the static key of `identity`, each once, in the chain's order.

    Those there are after `cursor` (or in all of the history that the node has); with `follow` for ever, without a
    cursor from now on. Those that don't open, or have no reply key that can be answered to, are skipped. Raises as
    `EventFollower`.
    """
    return _opened(chain, host, identity.static_private, cursor, follow)


async def read_post(
    chain: ChainClient, host: Id, identity: Identity, transaction: str
) -> ReceivedPost | None:
    """Return the message of a transaction, None if none of it is for `host` and sealed to `identity`.

    Its `cursor` is from before its checkpoint. Raises `SuiNameError`, `NotFound` and `TransactionFailed`.
    """
    parse_digest(transaction)
    if not chain.chain_id:
        await chain.connect()
    executed = await chain.transaction(transaction)
    if executed is None or executed.checkpoint is None:
        raise NotFound(
            f"the node has no transaction {transaction}, or none any more: an archive node has all that there were"
        )
    before, kind = Cursor(executed.checkpoint - 1), chain.type_of(pipe_module.SCHEMA, Posted)
    wanted, private = canonical_id(host), identity.static_private
    opened = (_open(event, before, wanted, private) for event in executed.events_of(kind))
    return next((each for each in opened if each is not None), None)


async def send_answer(chain: ChainClient, question: ReceivedPost, data: bytes) -> str:
    """Answer a message, as the host's owner: the fee comes back to itself. The transaction's digest.

    Raises `ServiceMissing` when the service is gone by now, `SealError` for bytes that are not a reply key, and what
    executing raises.
    """
    state = await read_host(chain, question.host)
    found = state.host.services.get(question.service)
    if found is None:
        raise ServiceMissing(f"host {state.host.id} has no service {question.service} any more")
    context = seal_context(question.host, question.service, chain.address, question.reply_key)
    sealed = seal(data, [question.reply_key], context)
    return await _post(
        chain, question.host, question.service, found.terms.coin, found.post_fee, question.reply_key, sealed
    )


async def answers(chain: ChainClient, sent: SentPost, *, follow: bool = True) -> AsyncIterator[ReceivedPost]:
    """Yield answers of the host's owner to a message: for ever, or those there are. Others' are skipped."""
    owner = (await read_host(chain, sent.host)).host.owner
    key = sent.reply_key
    async for found in _opened(chain, sent.host, key.private, sent.cursor, follow, key.public):
        if found.sender == owner:
            yield found
