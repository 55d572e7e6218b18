"""The side that gives a tip: one-time keys, no store, and words with which to come back from any machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.errors import DtpError
from dtp.identity import Identity
from dtp.messaging.cards import ContactCard
from dtp.messaging.ends.keys import INSTANCE_BYTES, NO_RATCHET, DeviceKeys
from dtp.messaging.errors import EnvelopeBroken, MessageError
from dtp.messaging.mailbox.client import MailboxClient
from dtp.messaging.mailbox.pool import ConnectMailbox, MailboxPool, connect_plainly
from dtp.messaging.mailbox.protocol import MailboxRefused, Refusal
from dtp.messaging.mailbox.store import Tray, access_hash
from dtp.messaging.person.attachments import Attachment
from dtp.messaging.person.delivery import LIFETIME, now_ms
from dtp.messaging.tips.errors import LetterForged, LineUnreached, TipError
from dtp.messaging.tips.letter import ReplyTo, TipLetter
from dtp.messaging.tips.line import PATIENCE, attachments_of, stripped, upload_files
from dtp.messaging.tips.words import TipWords

log = logging.getLogger("dtp.messaging")

#: Seconds for a letter with attachments.
_SENDING: Final = 600.0
_BATCH: Final = 100
#: The most answers that are read from one mailbox, which could make up any number.
_ANSWERS: Final = 2000


@dataclass(frozen=True)
class Seen:
    """The answers found in a tip's mailboxes, and whether every mailbox could be asked."""

    letters: list[TipLetter]
    complete: bool


class Tipster:
    """A tip to a line, by its card. Leaving `async with` closes all connections. Nothing is kept on this
    machine.

    `teller` is how near the source of the card is, if the card wasn't handed over: mailboxes that are nearer
    than that, that are on this machine, or that cost money to dial, aren't dialled.
    """

    def __init__(
        self,
        card: ContactCard,
        words: TipWords | None = None,
        *,
        teller: Nearness | None = None,
        connect: ConnectMailbox = connect_plainly,
    ) -> None:
        if card.account is not None:
            raise TipError("that is a person's card, not a line's: write to it with 'dtp message send'")
        self.card = card
        self.words = words or TipWords.generate()
        self.teller = card.nearness_by_hand if teller is None else teller
        self._dial = connect
        self.pool = MailboxPool(connect)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.pool.close()

    async def _connect(self, address: str, identity: Identity | None) -> MailboxClient:
        with dialled_as_told(self.teller):
            return await self._dial(address, identity)

    @property
    def reply_to(self) -> ReplyTo:
        """Where answers go, but for the mailboxes."""
        return ReplyTo(self.words.device.id.key, self.words.access, self.words.key.static_public)

    async def send(self, text: str, *, attachments: Iterable[Path] = (), as_is: bool = False) -> TipLetter:
        """Write to the line, and return the letter once one of the line's mailboxes has stored it.

        Metadata is removed from attachments unless `as_is` is set. Raise `MetadataKept`, `TipError` or
        `MessageTooLong` before anything is sent, and `LineUnreached`.
        """
        async with stripped(list(attachments), as_is) as paths:
            return await self._send_somewhere(text, paths)

    async def _send_somewhere(self, text: str, paths: list[Path]) -> TipLetter:
        faults = []
        for address in self.card.mailboxes:
            try:
                async with asyncio.timeout(_SENDING if paths else 2 * PATIENCE):
                    return await self._send_by_mailbox(address, text, paths)
            except TimeoutError:
                faults.append(f"{address}: no answer in time")
            except MessageError:  # of what is to be sent, whatever the mailbox
                raise
            except DtpError as fault:
                log.info("the mailbox %s: %s", address, fault)
                faults.append(f"{address}: {fault}")
        raise LineUnreached("; ".join(faults) or "the line's card names no mailbox")

    async def _send_by_mailbox(self, address: str, text: str, paths: list[Path]) -> TipLetter:
        """Send a letter by one mailbox: identified as the tip's device where answers are collected, and
        anonymously where the letter is left."""
        words, device = self.words, self.words.device.id.key
        client = await self._connect(address, words.device)
        try:
            await client.publish_keys(self._encoded_keys(), [])
            await client.set_access(access_hash(words.access), 0)
            files = await upload_files(paths, client, address, device, words.access, words.upload_secret)
        finally:
            await client.close()
        reply_to = ReplyTo(device, words.access, words.key.static_public, (address,))
        letter = TipLetter(words.key.id.key, self.card.key, text, tuple(files), reply_to=reply_to)
        client = await self._connect(address, None)
        try:
            bundle = await client.get_keys(self.card.key, now_ms())
            envelope = letter.seal(words.key, bundle.keys.sealing)
            await client.deposit_with_work(self.card.key, envelope, seconds=LIFETIME)
        finally:
            await client.close()
        return letter

    def _encoded_keys(self) -> bytes:
        device = self.words.device
        keys = DeviceKeys(
            *(device.id.key, device.static_public[:INSTANCE_BYTES], now_ms()),
            olm=NO_RATCHET,
            sealing=device.static_public,
            fallback=NO_RATCHET,
        )
        return keys.signed_by(device).encoded

    async def read(self) -> Seen:
        """Return the answers of the line's owner that mailboxes still keep, oldest first.

        Reading deletes nothing: the words open the answers again. Raise `LineUnreached` if no mailbox could
        be asked, `TipError` if none knows the tip.
        """
        found: dict[bytes, TipLetter] = {}
        asked, known, faults = 0, False, []
        for address in self.card.mailboxes:
            try:
                async with asyncio.timeout(PATIENCE):
                    letters = await self._read_mailbox(address)
            except (DtpError, TimeoutError) as fault:
                faults.append(f"{address}: {fault or 'no answer in time'}")
                continue
            asked += 1
            known = known or letters is not None
            found |= {each.nonce: each for each in letters or []}
        if not asked:
            raise LineUnreached("; ".join(faults) or "the line's card names no mailbox")
        if not known and not faults:
            raise TipError("no mailbox of this line knows a tip with these words: are they for another line?")
        return Seen(sorted(found.values(), key=lambda each: (each.sent_ms, each.nonce)), not faults)

    async def _read_mailbox(self, address: str) -> list[TipLetter] | None:
        """Return the letters in one mailbox, or None if it doesn't know the tip."""
        client = await self._connect(address, self.words.device)
        try:
            try:
                await client.get_status()
            except MailboxRefused as refused:
                if refused.refusal is Refusal.UNKNOWN_RECIPIENT:
                    return None
                raise
            letters: list[TipLetter] = []
            after = 0
            while len(letters) < _ANSWERS and (
                kept := await client.fetch_envelopes(Tray.KNOWN, after=after, most=_BATCH)
            ):
                if kept[-1].id <= after:
                    break
                after = kept[-1].id
                letters += [
                    letter for each in kept if (letter := self._open_letter(each.envelope)) is not None
                ]
            return letters
        finally:
            await client.close()

    def _open_letter(self, envelope: bytes) -> TipLetter | None:
        """Open an envelope. Return the line's letter, or None if somebody else has left the envelope."""
        try:
            letter = TipLetter.open(envelope, self.words.key, self.words.key.id.key)
        except (EnvelopeBroken, LetterForged) as fault:
            log.info("a letter to the tip: %s", fault)
            return None
        return letter if letter.sender == self.card.key else None

    def attachments(self, letter: TipLetter) -> list[Attachment]:
        """Return the files of a letter; `save` of each fetches it, up to a limit in bytes. Files are fetched
        only from mailboxes in the line's card, since the owner of another mailbox would learn where the
        holder of the words is."""
        return attachments_of(letter, self.pool, self.card.mailboxes, self.teller)

    async def forget(self) -> None:
        """Have the line's mailboxes delete the tip and all answers that they keep. Letters that the line has
        read stay with its owner."""
        for address in self.card.mailboxes:
            try:
                async with asyncio.timeout(PATIENCE):
                    client = await self._connect(address, self.words.device)
                    try:
                        await client.forget_device()
                    finally:
                        await client.close()
            except (DtpError, TimeoutError) as fault:
                log.info("the mailbox %s: %s", address, fault)
