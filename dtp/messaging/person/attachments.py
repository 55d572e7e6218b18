"""Attachments: files that the sender's mailbox keeps in sealed pieces until the recipients of the message fetch them.

Source: docs/messaging.md, "Events". Each file has a key, for XChaCha20-Poly1305 with the piece's number as nonce. The
hashes of the pieces are in index pieces, and the hashes of the index pieces in the message.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, ClassVar, Final

from dtp.carriers.nearness import Nearness
from dtp.errors import LimitError, PeerError
from dtp.files.names import PART_SUFFIX
from dtp.messaging.errors import MessageError
from dtp.messaging.mailbox.client import MailboxClient
from dtp.messaging.mailbox.pool import MailboxPool
from dtp.messaging.mailbox.store import piece_hash
from dtp.replacing import rename_without_replacing

#: Bytes of a file in one piece; the last one is padded to a step of this size.
PIECE: Final = 256 * 1024
_STEP: Final = 4096
_HASH: Final = 32
#: Hashes in one index piece, and index pieces of a file: 32 GiB.
_INDEXED: Final = PIECE // _HASH
_ROOTS: Final = 16
MAX_BYTES: Final = _INDEXED * _ROOTS * PIECE
#: The size limit of `save`, in bytes, unless another one is given.
DEFAULT_LIMIT: Final = 1 << 30
#: Pieces that are read and requested at a time.
_ASKED: Final = 16
_NONCE: Final = 24
#: Bytes of a name that are kept. File systems allow 255, which leaves room for a number, the attachment's mark and
#: `PART_SUFFIX`.
_MAX_STEM, _MAX_SUFFIX = 200, 30
_INDEX, _CONTENT = 1, 0
#: Bytes of the mark by which the unfinished file of an attachment is recognized.
_MARK: Final = 4


class AttachmentBroken(PeerError):
    """An attachment's pieces aren't those that its sender sealed."""

    code: ClassVar[str] = "attachment-broken"


class AttachmentGone(PeerError):
    """No mailbox has a piece of an attachment, or none has it any more. The pieces that came are kept: try again, or
    ask the sender."""

    code: ClassVar[str] = "attachment-gone"


class AttachmentTooLarge(LimitError):
    """An attachment is larger than the limit; nothing was fetched."""

    code: ClassVar[str] = "attachment-too-large"


def _seal(key: bytes, what: int, number: int, data: bytes) -> bytes:
    from nacl.secret import Aead

    sealed: bytes = Aead(key).encrypt(data, b"", _nonce(what, number)).ciphertext
    return sealed


def _open(key: bytes, what: int, number: int, piece: bytes) -> bytes:
    from nacl.exceptions import CryptoError
    from nacl.secret import Aead

    try:
        return bytes(Aead(key).decrypt(piece, b"", _nonce(what, number)))
    except CryptoError:
        raise AttachmentBroken("a piece of an attachment isn't what its sender has sealed") from None


def _unused_path(folder: Path, name: str) -> Path:
    """Return an unused path in `folder` for a file that somebody else has named."""
    plain = PurePath(name.lstrip(".") or "file")
    stem = plain.stem.encode()[:_MAX_STEM].decode(errors="ignore")
    suffix = plain.suffix if len(plain.suffix.encode()) <= _MAX_SUFFIX else ""
    for number in itertools.count(1):
        found = folder / (f"{stem} ({number}){suffix}" if number > 1 else f"{stem}{suffix}")
        if not os.path.lexists(found):
            return found
    raise AssertionError("numbers don't end")


def _name_unused(part: Path, folder: Path, name: str) -> Path:
    """Rename the file at `part` to an unused name in `folder`, and return its path. Raise `OSError`."""
    while True:
        target = _unused_path(folder, name)
        try:
            rename_without_replacing(part, target)
        except FileExistsError:
            continue  # it came meanwhile
        return target


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _nonce(what: int, number: int) -> bytes:
    return (bytes((what,)) + number.to_bytes(8, "big")).ljust(_NONCE, b"\0")


async def upload(
    path: Path,
    client: MailboxClient,
    device: bytes,
    access: bytes,
    *,
    secret: bytes,
    now_ms: int,
    seconds: int,
) -> tuple[Any, ...]:
    """Upload a file to the mailbox of `client`. Return what a message says of it: name, size, key, hashes of the
    index.

    The key is derived from `secret`, the file's contents and the day. So the same file is sealed into the same
    pieces, an upload that broke off can go on, and no key seals two different contents. Raise `MessageError` if the
    file can't be read or changes meanwhile, and the errors of the mailbox's client.
    """
    try:
        size = await asyncio.to_thread(os.path.getsize, path)
        if size > MAX_BYTES:
            raise MessageError(f"{path} has {size} bytes; {MAX_BYTES} are the most")
        read = await asyncio.to_thread(_hash_pieces, path)
        key = _file_key(secret, size, read, now_ms)
        hashes = b""
        with path.open("rb") as file:
            for first in range(0, len(read), _ASKED):
                contents = await asyncio.to_thread(_read_again, file, read[first : first + _ASKED], path)
                pieces = [_seal(key, _CONTENT, first + at, each) for at, each in enumerate(contents)]
                hashes += await put_pieces(client, device, access, seconds, pieces)
    except OSError as fault:
        raise MessageError(f"{path} can't be read: {fault.strerror}") from fault
    parts = [hashes[at : at + PIECE] for at in range(0, len(hashes), PIECE)]
    roots = await put_pieces(
        client, device, access, seconds, [_seal(key, _INDEX, *each) for each in enumerate(parts)]
    )
    return _told_name(path.name), size, key, [roots[at : at + _HASH] for at in range(0, len(roots), _HASH)]


def _told_name(name: str) -> str:
    """Return the name of a file for others, without unprintable characters, with which they would refuse it. macOS
    puts narrow spaces into the names of screenshots, and other systems allow any bytes."""
    shown = (each if each.isprintable() else " " if each.isspace() else "_" for each in name)
    told = "".join(shown).strip()
    return "file" if told in ("", ".", "..") else told


def seal_bytes(name: str, data: bytes, key: bytes) -> tuple[list[Any], list[bytes]]:
    """Return what an event says of a file with these contents, without mailboxes, and the file's pieces."""
    parts = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    pieces = [_seal(key, _CONTENT, number, _padded(each)) for number, each in enumerate(parts)]
    hashes = b"".join(map(piece_hash, pieces))
    index = [hashes[at : at + PIECE] for at in range(0, len(hashes), PIECE)]
    roots = [_seal(key, _INDEX, number, each) for number, each in enumerate(index)]
    return [name, len(data), key, list(map(piece_hash, roots)), []], [*pieces, *roots]


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // _STEP) * _STEP, b"\0")


def _hash_pieces(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return [
            hashlib.blake2b(each, digest_size=_HASH).digest() for each in iter(lambda: file.read(PIECE), b"")
        ]


def _read_again(file: BinaryIO, hashes: list[bytes], path: Path) -> list[bytes]:
    """Return the next pieces, padded. Raise `MessageError` if one differs from the contents that the key was derived
    from."""
    found = [file.read(PIECE) for _ in hashes]
    if [hashlib.blake2b(each, digest_size=_HASH).digest() for each in found] != hashes:
        raise MessageError(f"{path} has changed while it was read: send it again")
    return [_padded(each) for each in found]


def _file_key(secret: bytes, size: int, hashes: list[bytes], now_ms: int) -> bytes:
    day = now_ms // 86_400_000  # pieces that were kept on another day would be deleted too soon
    made = hashlib.blake2b(key=secret, digest_size=_HASH, person=b"dtp.upload")
    made.update(size.to_bytes(8, "big") + day.to_bytes(8, "big") + b"".join(hashes))
    return made.digest()


async def put_pieces(
    client: MailboxClient, device: bytes, access: bytes, seconds: int, pieces: list[bytes]
) -> bytes:
    """Upload the pieces that the mailbox doesn't have yet. Return the hashes of all, one after the other."""
    hashes = [piece_hash(each) for each in pieces]
    have = await client.has_pieces(hashes) if hashes else []
    for piece, there in zip(pieces, have, strict=True):
        if not there:
            await client.put_piece(device, piece, seconds=seconds, access=access)
    return b"".join(hashes)


@dataclass(frozen=True)
class Attachment:
    """A file that came with a message; `save` fetches it."""

    name: str
    size: int
    key: bytes
    roots: tuple[bytes, ...]
    mailboxes: tuple[str, ...]
    pool: MailboxPool
    #: How near the source of the mailboxes' names is.
    teller: Nearness = Nearness.ANYWHERE

    @property
    def mark(self) -> str:
        """The part of the unfinished file's name that no other attachment has: several may have the same name."""
        told = self.key + b"".join(self.roots)
        return hashlib.blake2b(told, digest_size=_MARK, person=b"dtp.part").hexdigest()

    async def save(self, path: str | os.PathLike[str], *, limit: int = DEFAULT_LIMIT) -> Path:
        """Store the file, and return its path.

        If `path` is a folder, the file is stored in it under its own name, with a number if that is taken: the sender
        chose the name, so nothing in the folder is replaced, and no hidden file is made. Otherwise the file replaces
        whatever is at `path`. If the transfer breaks off, the pieces that came stay at `NAME.MARK.dtp-part` (`mark`),
        and aren't fetched again. Raise `AttachmentTooLarge` for more than `limit` bytes, before anything is fetched;
        `AttachmentGone`, `AttachmentBroken`, `MessageError` where it can't be stored.
        """
        self._check_size(limit)
        hashes = await self._read_index()
        folder = Path(path)
        try:
            if not await asyncio.to_thread(os.path.isdir, folder):
                part = await self._fetch_pieces(folder, hashes)
                await asyncio.to_thread(os.replace, part, folder)
                return folder
            target = await asyncio.to_thread(_unused_path, folder, self.name)
            part = await self._fetch_pieces(target, hashes)
            return await asyncio.to_thread(_name_unused, part, folder, self.name)
        except OSError as fault:
            raise MessageError(f"{self.name} can't be stored at {path}: {fault.strerror}") from fault

    async def read(self, *, limit: int) -> bytes:
        """Return the file's contents. Raise `AttachmentTooLarge` before anything is fetched, `AttachmentGone`,
        `AttachmentBroken`."""
        self._check_size(limit)
        return b"".join([each async for each in self._iter_pieces(await self._read_index(), 0)])

    def _check_size(self, limit: int) -> None:
        if self.size > min(limit, MAX_BYTES):
            raise AttachmentTooLarge(
                f"{self.name} has {self.size} bytes; {limit} are taken: give a higher limit"
            )

    async def _fetch_pieces(self, target: Path, hashes: list[bytes]) -> Path:
        """Fetch what is missing, and return the path of the complete file, which will be renamed to `target`. Raise
        `OSError` if it can't be stored."""
        part = target.with_name(f"{target.name}.{self.mark}{PART_SUFFIX}")
        have = await asyncio.to_thread(self._count_kept, part, hashes)
        with part.open("r+b" if have else "wb") as file:
            file.truncate(have * PIECE)
            file.seek(have * PIECE)
            async for data in self._iter_pieces(hashes, have):
                await asyncio.to_thread(file.write, data)
            await asyncio.to_thread(_sync, file)
        return part

    def _count_kept(self, part: Path, hashes: list[bytes]) -> int:
        """Return how many pieces at the beginning of `part` match their hashes."""
        try:
            with part.open("rb") as file:
                for number, digest in enumerate(hashes):
                    data = file.read(PIECE)
                    if len(data) < PIECE or piece_hash(_seal(self.key, _CONTENT, number, data)) != digest:
                        return number
        except FileNotFoundError:
            return 0
        return len(hashes)

    async def _read_index(self) -> list[bytes]:
        count = -(-self.size // PIECE)
        if len(self.roots) != -(-count // _INDEXED):
            raise AttachmentBroken("an attachment's index isn't as long as its size says")
        hashes = b""
        for number, root in enumerate(self.roots):
            hashes += _open(self.key, _INDEX, number, await self._get_piece(root))
        if len(hashes) != count * _HASH:
            raise AttachmentBroken("an attachment has not as many pieces as its size says")
        return [hashes[at : at + _HASH] for at in range(0, len(hashes), _HASH)]

    async def _iter_pieces(self, hashes: list[bytes], first: int) -> AsyncIterator[bytes]:
        for number in range(first, len(hashes)):
            data = _open(self.key, _CONTENT, number, await self._get_piece(hashes[number]))
            wanted = min(PIECE, self.size - number * PIECE)
            if not wanted <= len(data) < wanted + _STEP:
                raise AttachmentBroken("a piece of an attachment isn't as long as its size says")
            yield data[:wanted]

    async def _get_piece(self, digest: bytes) -> bytes:
        found = b""

        async def ask(client: MailboxClient) -> bool:
            nonlocal found
            found = await client.get_piece(digest)
            return piece_hash(found) == digest

        if not await self.pool.try_each(self.mailboxes, self.teller, ask):
            raise AttachmentGone(f"no mailbox has a piece of {self.name}, or not any more")
        return found
