"""A code of words for somebody whose address one doesn't know: `7-cactus-violin`. Source: docs/words.md.

The number says where the two meet: an identity that everybody can make of it. Who is there may be anybody, so the two
prove to each other by SPAKE2 that they have the same words, which lets whoever is between guess once. Under the key
of that the sender says where its file really is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgpack
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from dtp.errors import DtpError, LocalError, PeerError
from dtp.identity import Identity
from dtp.net.address import Address, AddressError, is_dialled_as_told
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.packing import pack

if TYPE_CHECKING:
    from spake2 import SPAKE2_A, SPAKE2_B

#: The service at which the two meet.
WORDS_SERVICE: Final = "dtp.words"
#: Numbers that codes begin with: few enough to be said, many enough for those who send at once on one network.
_NUMBERS: Final = 999
_CODE: Final = re.compile(r"(\d{1,4})-([a-z]+)-([a-z]+)", re.ASCII)
_MESSAGE: Final = 33
_PROOF: Final = 32
#: Bytes of the sealed addresses, at most.
_MAX_SEALED: Final = 16_384
#: Addresses of one file that are tried.
_MAX_ADDRESSES: Final = 16
#: Attempts that come to nothing before a guess, after which a code is burnt as well: each costs two multiplications.
_ATTEMPTS: Final = 100
#: Seconds that each step may take.
_PATIENCE: Final = 20.0
_BURNT: Final = bytes(_MESSAGE)


class CodeUnusable(LocalError):
    """That is not a code of words, or the libraries for them aren't installed."""

    code: ClassVar[str] = "words"


class CodeWrong(PeerError):
    """Whoever was met has other words: they were mistyped, or it isn't who made the code. The code is burnt."""

    code: ClassVar[str] = "words-wrong"


class CodeBurnt(PeerError):
    """Somebody has tried this code before: ask for another one."""

    code: ClassVar[str] = "words-burnt"


@cache
def _words() -> list[str]:
    """Return the 2,048 English words of BIP 39, which differ in their first four letters."""
    try:
        from mnemonic import Mnemonic
    except ImportError:
        raise CodeUnusable("codes of words need two libraries: pip install 'dtp-sockets[words]'") from None
    return list(Mnemonic("english").wordlist)


def _library() -> Any:
    try:
        import spake2
    except ImportError:
        raise CodeUnusable("codes of words need two libraries: pip install 'dtp-sockets[words]'") from None
    return spake2


@dataclass(frozen=True, slots=True)
class WordCode:
    """A code: a number, which others may learn, and two words, which are the secret."""

    number: int
    words: tuple[str, str]

    @classmethod
    def make(cls, choose: Callable[[int], int] = secrets.randbelow) -> WordCode:
        """Return a new code, one of four million for its number. Raise `CodeUnusable`."""
        words = _words()
        return cls(1 + choose(_NUMBERS), (words[choose(len(words))], words[choose(len(words))]))

    @classmethod
    def parse(cls, text: str) -> WordCode:
        """Return the code that a text is, in capital letters or not. Raise `CodeUnusable`, for unknown words too."""
        match = _CODE.fullmatch(text.strip().lower())
        if match is None:
            raise CodeUnusable(f"{text!r} is not a code: it looks like 7-cactus-violin")
        for word in match.groups()[1:]:
            if word not in _words():
                raise CodeUnusable(f"no code has the word {word!r}: is it mistyped?")
        return cls(int(match[1]), (match[2], match[3]))

    def __str__(self) -> str:
        return f"{self.number}-{'-'.join(self.words)}"

    @property
    def meeting(self) -> Identity:
        """The identity at which the two meet. Everybody can make it: it proves nothing."""
        seed = f"dtp.words.v1 {self.number}".encode()
        key, static = (
            hashlib.blake2b(seed, digest_size=32, person=each).digest() for each in (b"key", b"static")
        )
        return Identity(key, static)

    @property
    def secret(self) -> bytes:
        """What the two prove to have."""
        return str(self).encode()


def looks_like_code(text: str) -> bool:
    """Return whether a text may be meant as a code: addresses never are."""
    return _CODE.fullmatch(text.strip().lower()) is not None


class WordSender:
    """The sender's end of a code, for the connections that come to the meeting. One guess, then it is burnt.

    `addresses` are told to whoever has the words.
    """

    def __init__(self, code: WordCode, addresses: Sequence[Address]) -> None:
        self._code = code
        self._addresses = [str(each) for each in addresses][:_MAX_ADDRESSES]
        self._spake2 = _library()
        self._attempts = 0
        #: Done once somebody has had the words, or not: True or False. Then nobody else is heard.
        self.used: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def serve_connection(self, connection: Connection) -> None:
        """Serve the service `WORDS_SERVICE`."""
        with contextlib.suppress(DtpError, TimeoutError, asyncio.IncompleteReadError):  # it may come again
            async with asyncio.timeout(_PATIENCE):
                await self.answer_attempt(await connection.accept_stream())
                await connection.wait_closed()  # it goes once it has read the answer

    async def answer_attempt(self, stream: Stream) -> None:
        """Answer one attempt on a stream."""
        message = await stream.readexactly(_MESSAGE)
        self._attempts += 1
        if self._attempts > _ATTEMPTS and not self.used.done():
            self.used.set_result(False)
        if self.used.done():
            await _finish(stream, _BURNT)
            return
        side = self._spake2.SPAKE2_A(self._code.secret, idA=b"sender", idB=b"receiver")
        own = side.start()
        key = _agree(side, message)
        stream.write(own)
        await stream.drain()
        proof = await stream.readexactly(_PROOF)
        if self.used.done():  # somebody else was faster
            await _finish(stream, b"")
            return
        right = key is not None and hmac.compare_digest(proof, _prove(key, b"receiver"))
        self.used.set_result(right)
        if key is None or not right:
            await _finish(stream, b"")
            return
        sealed = SecretBox(_prove(key, b"address")).encrypt(pack(self._addresses))
        await _finish(stream, _prove(key, b"sender") + len(sealed).to_bytes(4, "big") + bytes(sealed))


async def _finish(stream: Stream, data: bytes) -> None:
    if data:
        stream.write(data)
    stream.write_eof()
    await stream.flush()


async def ask_by_words(connection: Connection, code: WordCode) -> list[Address]:
    """Return where the file of a code is, as who has made the code says, over a connection to the meeting.

    Raise `CodeWrong` where that one has other words, `CodeBurnt`, and what ends a connection. Never again with the
    same code after `CodeWrong`: each time lets whoever is there guess once.
    """
    side = _library().SPAKE2_B(code.secret, idA=b"sender", idB=b"receiver")
    try:
        async with asyncio.timeout(_PATIENCE):
            stream = await connection.open_stream()
            stream.write(side.start())
            await stream.drain()
            message = await stream.readexactly(_MESSAGE)
            if message == _BURNT:
                raise CodeBurnt("somebody has tried this code before: ask for another one")
            key = _agree(side, message)
            if key is None:
                raise CodeWrong("the other side doesn't follow the protocol; ask for another code")
            stream.write(_prove(key, b"receiver"))
            stream.write_eof()
            await stream.drain()
            proof = await stream.readexactly(_PROOF)
            if not hmac.compare_digest(proof, _prove(key, b"sender")):
                raise CodeWrong("the other side has other words; ask for another code")
            size = int.from_bytes(await stream.readexactly(4), "big")
            if size > _MAX_SEALED:
                raise CodeWrong("the other side sends too much; ask for another code")
            return _addresses(key, await stream.readexactly(size))
    except (asyncio.IncompleteReadError, TimeoutError) as fault:
        if isinstance(fault, DtpError):
            raise
        raise CodeWrong(
            "these aren't the words of whoever waits there, or they have gone: ask for another code"
        ) from None


def _agree(side: SPAKE2_A | SPAKE2_B, message: bytes) -> bytes | None:
    """Return the key of SPAKE2, None for bytes that are no such message."""
    from spake2 import SPAKEError
    from spake2.ed25519_basic import NotOnCurve

    try:
        key: bytes = side.finish(message)
    except (SPAKEError, NotOnCurve, ValueError):
        return None
    return key


def _prove(key: bytes, what: bytes) -> bytes:
    """Return what only who has the key can: for each purpose another one."""
    return hashlib.blake2b(what, key=key, digest_size=_PROOF, person=b"dtp.words.v1").digest()


def _addresses(key: bytes, sealed: bytes) -> list[Address]:
    try:
        told = msgpack.unpackb(SecretBox(_prove(key, b"address")).decrypt(sealed))
        places = [Address.parse(each) for each in told][:_MAX_ADDRESSES]
    except (CryptoError, ValueError, TypeError, AttributeError, AddressError, msgpack.UnpackException):
        raise CodeWrong("the other side sends nothing that makes sense; ask for another code") from None
    kept = [each for each in places if is_dialled_as_told(each)]
    if not kept:
        raise CodeWrong("the other side names no place that may be dialled; ask for another code")
    return kept
