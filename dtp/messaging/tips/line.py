"""A line for tips, on its owner's side: strangers write to it with one-time keys, and answers go to these keys."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

from dtp.carriers.nearness import Nearness
from dtp.errors import DtpError, PeerError
from dtp.identity import Identity, PeerId
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import MAX_ATTACHMENTS
from dtp.messaging.ends.device import save_key
from dtp.messaging.ends.keys import INSTANCE_BYTES, NO_RATCHET, DeviceKeys
from dtp.messaging.errors import EnvelopeBroken
from dtp.messaging.mailbox.client import MailboxClient
from dtp.messaging.mailbox.pool import ConnectMailbox, MailboxPool, connect_plainly
from dtp.messaging.mailbox.protocol import MailboxRefused, Refusal
from dtp.messaging.mailbox.stamps import DEFAULT_BITS
from dtp.messaging.mailbox.store import KeptEnvelope, Tray, access_hash
from dtp.messaging.person.attachments import Attachment, upload
from dtp.messaging.person.delivery import LIFETIME, now_ms
from dtp.messaging.tips.errors import LetterForged, LineUnreached, TipError
from dtp.messaging.tips.letter import TipLetter
from dtp.messaging.tips.line_store import KeptLetter, LineStore, Tip
from dtp.messaging.tips.strip_process import strip_files

log = logging.getLogger("dtp.messaging")

#: Seconds within which a mailbox has to answer all that is asked of it at once.
PATIENCE: Final = 30.0
#: Envelopes that are fetched at a time.
_BATCH: Final = 100


class TipLine:
    """A line. `async with` opens its store. Only `publish`, `collect`, `answer` and `send_waiting` connect to
    mailboxes.

    `mailboxes` and `name` stay as they were unless they are given. `stamp_bits` is the work that a letter
    costs its sender.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        store: str | os.PathLike[str],
        mailboxes: Sequence[str] | None = None,
        name: str | None = None,
        stamp_bits: int = DEFAULT_BITS,
        connect: ConnectMailbox = connect_plainly,
    ) -> None:
        self.identity = identity
        self._path, self._mailboxes, self._name = store, mailboxes, name
        self._bits, self._connect = stamp_bits, connect
        #: Set by `async with`. `_places` are all mailboxes that the card has ever named, and the pool's own.
        self.card: ContactCard
        self._places: list[str] = []
        self.pool = MailboxPool(connect, own=self._places)
        self.store: LineStore

    async def __aenter__(self) -> Self:
        """Open the store, as `open` does."""
        await asyncio.to_thread(self.open)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.close()

    def open(self) -> None:
        """Open the store. Raise `StoreFailed`, and `TipError` for a store of another line."""
        self.store = LineStore(self._path, save_key(self.identity))
        try:
            self.card = self._load_card()
        except BaseException:
            self.store.close()
            raise

    async def move(self, mailboxes: Sequence[str]) -> None:
        """Use other mailboxes from now on: the card names them once it is published again."""
        self._mailboxes = mailboxes
        self.card = await asyncio.to_thread(self._load_card)

    async def close(self) -> None:
        """End connections to mailboxes, and close the store."""
        await self.pool.close()
        self.store.close()

    def _load_card(self) -> ContactCard:
        saved = self.store.load_card()
        before = ContactCard.parse(saved) if saved else None
        if before is not None and before.key != self.identity.id.key:
            raise TipError(f"{self._path} is the store of another line, {before.person_name}")
        name = self._name if self._name is not None else before.name if before else ""
        places = self._mailboxes if self._mailboxes is not None else before.mailboxes if before else ()
        self._places[:] = self.store.add_mailboxes([*places, *(before.mailboxes if before else ())])
        if before is not None and (before.name, before.mailboxes) == (name, tuple(places)):
            return before
        sequence = max(now_ms(), before.sequence + 1 if before else 0)
        card = ContactCard(self.identity.id.key, None, sequence, 0, name, tuple(places)).signed_by(
            self.identity
        )
        self.store.put_card(card.encode())
        return card

    async def _run_in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(work, *arguments)

    # ---- mailboxes ---------------------------------------------------------------------------------------------

    async def publish(self) -> None:
        """Upload the line's card and keys to its mailboxes, which accept tips from then on. Call it at least
        once a week, since keys expire.

        Raise `LineUnreached` if none of them does.
        """
        made_ms, newest = (await self._run_in_thread(self.store.sealing_keys, self.identity, now_ms()))[0]
        # A device without a ratchet needs no random instance number: the same key always gives the same one.
        keys = DeviceKeys(
            *(self.identity.id.key, newest.static_public[:INSTANCE_BYTES], made_ms),
            olm=NO_RATCHET,
            sealing=newest.static_public,
            fallback=NO_RATCHET,
        ).signed_by(self.identity)
        access = access_hash(await self._run_in_thread(self.store.load_access))

        async def ask(client: MailboxClient) -> bool:
            await client.publish_keys(keys.encoded, [])
            await client.set_access(access, self._bits)
            try:
                await client.put_card(self.card)
            except MailboxRefused as refused:
                if refused.refusal is not Refusal.OLDER_KEYS:
                    raise
                raise TipError(
                    "the mailbox has a newer card of this line: use the store that signed it"
                ) from None
            return True

        await self._ask_each(ask)

    async def _ask_each(self, ask: Any) -> list[Any]:
        """Call `ask` for each mailbox, and return the results of those that answered. Raise `LineUnreached`
        if none did."""
        found, faults = [], []
        for address in self.card.mailboxes:
            try:
                async with asyncio.timeout(PATIENCE):
                    client = await self._connect(address, self.identity)
                    try:
                        found.append(await ask(client))
                    finally:
                        await client.close()
            except TimeoutError:
                faults.append(f"{address}: no answer in time")
            except TipError:
                raise
            except DtpError as fault:
                log.info("the mailbox %s: %s", address, fault)
                faults.append(f"{address}: {fault}")
        if not found:
            raise LineUnreached("; ".join(faults) or "the line has no mailbox: give mailboxes=[...]")
        return found

    async def collect(self) -> int:
        """Fetch the letters that mailboxes hold for the line, and have them deleted there. Return how many
        are new.

        Letters that can't be read are deleted as well, and not counted: anybody can write anything. Once
        `MAX_TIPS` tips are kept, letters of further tips stay in the mailbox. Raise `LineUnreached`,
        `StoreFailed`.
        """
        keys = [
            each for _, each in await self._run_in_thread(self.store.sealing_keys, self.identity, now_ms())
        ]

        async def ask(client: MailboxClient) -> int:
            return sum([await self._collect_tray(client, tray, keys) for tray in Tray])

        return sum(await self._ask_each(ask))

    async def _collect_tray(self, client: MailboxClient, tray: Tray, keys: list[Identity]) -> int:
        new, after = 0, 0
        while (kept := await client.fetch_envelopes(tray, after=after, most=_BATCH)) and kept[-1].id > after:
            after = kept[-1].id
            outcomes = await self._run_in_thread(self._take_all, kept, keys)
            done = [each.id for each, outcome in zip(kept, outcomes, strict=True) if outcome is not None]
            await client.acknowledge_envelopes(done)
            new += sum(map(bool, outcomes))
        return new

    def _take_all(self, kept: list[KeptEnvelope], keys: list[Identity]) -> list[bool | None]:
        return [self._receive_letter(each, keys) for each in kept]

    def _receive_letter(self, kept: KeptEnvelope, keys: list[Identity]) -> bool | None:
        for key in keys:
            try:
                letter = TipLetter.open(kept.envelope, key, self.identity.id.key)
            except EnvelopeBroken:  # perhaps it is sealed to an older key
                continue
            except LetterForged as fault:
                log.info("a letter to the line: %s", fault)
                return False
            return self.store.add_letter(letter, kept.received * 1000)
        return False

    async def take_post(self, data: bytes, post: str) -> bool | None:
        """Keep a letter that came as a message through the chain; `post` is its transaction, as
        `HOST#DIGEST`.

        Return whether the letter is new, or None if it would begin a tip beyond `MAX_TIPS`. Raise
        `EnvelopeBroken`, `LetterForged` for bytes that aren't a letter.
        """
        letter = TipLetter.from_padded(data, self.identity.id.key)
        outcome: bool | None = await self._run_in_thread(
            lambda: self.store.add_letter(letter, now_ms(), post=post)
        )
        return outcome

    # ---- tips --------------------------------------------------------------------------------------------------

    async def tips(self) -> list[Tip]:
        """Return all tips, oldest first."""
        found: list[Tip] = await self._run_in_thread(self.store.list_tips)
        return found

    async def find_tip(self, key: PeerId) -> Tip:
        """Return the tip of a one-time key. Raise `TipError` if there is none."""
        found: Tip | None = await self._run_in_thread(self.store.get_tip, key.key)
        if found is None:
            raise TipError(f"there is no tip by {key} here")
        return found

    async def letters(self, tip: Tip) -> list[KeptLetter]:
        """Return the letters of a tip, in order."""
        found: list[KeptLetter] = await self._run_in_thread(self.store.list_letters, tip.key)
        return found

    async def mark_read(self, tip: Tip) -> None:
        """Mark all letters of a tip as read."""
        await self._run_in_thread(self.store.mark_read, tip.key)

    async def forget(self, tip: Tip) -> None:
        """Delete a tip and its letters from this store."""
        await self._run_in_thread(self.store.delete_tip, tip.key)

    def attachments(self, letter: TipLetter) -> list[Attachment]:
        """Return the files of a letter; `save` of each fetches it, up to a limit in bytes. Files are fetched
        only from the line's own mailboxes, since whoever runs another mailbox would learn where the owner is."""
        return attachments_of(letter, self.pool, self._places)

    def _keep_own(self, told: Iterable[str]) -> tuple[str, ...]:
        """Return those of the given mailboxes, named by somebody else, that the line's card has ever named."""
        return tuple(each for each in told if each in self._places)

    async def answer(
        self, tip: Tip, text: str, *, attachments: Iterable[Path] = (), lock: str = "", as_is: bool = False
    ) -> TipLetter:
        """Answer a tip: whoever has its words can read it. `lock` names a reward's lock, so that the reward
        can be claimed.

        Raise `LineUnreached` if no mailbox accepts the answer: it is kept then, and `send_waiting` sends it.
        Raise `MetadataKept` for a file, and `TipError` for a tip that only came through the chain, that
        doesn't say where answers go, or that names only mailboxes that were never the line's.
        """
        if tip.reply_to is None:
            raise TipError(
                "this tip came through the chain: it is answered there, or says nowhere to answer to"
            )
        if not self._keep_own(tip.reply_to.mailboxes):
            raise TipError(
                "this tip wants its answers at a mailbox that was never the line's: whoever runs that would learn "
                "where you are"
            )
        async with stripped(list(attachments), as_is) as paths:
            files = await self._upload_files(paths)
        letter = TipLetter(self.identity.id.key, tip.key, text, tuple(files), now_ms(), lock=lock)
        letter.seal(
            self.identity, self.identity.static_public
        )  # too long a text is refused before it is kept
        number = await self._run_in_thread(self.store.put_answer, letter)
        await self._send_letter(tip, letter, number)
        return letter

    async def keep_sent(self, letter: TipLetter) -> None:
        """Keep an answer that was sent by another way than a mailbox."""
        number = await self._run_in_thread(self.store.put_answer, letter)
        await self._run_in_thread(self.store.mark_sent, number)

    async def send_waiting(self) -> int:
        """Send the answers that no mailbox has accepted yet. Return how many still wait."""
        waiting: list[KeptLetter] = await self._run_in_thread(self.store.list_waiting)
        left = 0
        for each in waiting:
            tip: Tip | None = await self._run_in_thread(self.store.get_tip, each.letter.recipient)
            if tip is None:  # forgotten meanwhile
                continue
            try:
                await self._send_letter(tip, each.letter, each.id)
            except LineUnreached:
                left += 1
        return left

    async def _send_letter(self, tip: Tip, letter: TipLetter, number: int) -> None:
        to = tip.reply_to
        assert to is not None
        try:
            envelope = letter.seal(self.identity, to.sealing)
        except PeerError as fault:
            raise TipError(f"the tip has no keys that an answer can be sealed to: {fault}") from None

        async def ask(client: MailboxClient) -> bool:
            await client.deposit_with_work(to.device, envelope, seconds=LIFETIME, access=to.access)
            return True

        if not await self.pool.try_each(self._keep_own(to.mailboxes), Nearness.ANYWHERE, ask):
            raise LineUnreached(
                "no mailbox of the tip takes the answer now; it is kept, and sent with the next"
            )
        await self._run_in_thread(self.store.mark_sent, number)

    async def _upload_files(self, paths: list[Path]) -> list[Any]:
        if not paths:
            return []
        secret, access = (
            await self._run_in_thread(self.store.upload_secret),
            await self._run_in_thread(self.store.load_access),
        )
        for address in self.card.mailboxes:
            try:
                client = await self._connect(address, self.identity)
            except DtpError as fault:
                log.info("the mailbox %s: %s", address, fault)
                continue
            try:
                return await upload_files(paths, client, address, self.identity.id.key, access, secret)
            finally:
                await client.close()
        raise LineUnreached("none of the line's mailboxes can be reached, which keep attachments")


def attachments_of(
    letter: TipLetter, pool: MailboxPool, known: Collection[str], teller: Nearness = Nearness.ANYWHERE
) -> list[Attachment]:
    """Return the files of a letter, which are fetched only from mailboxes in `known`, whatever the letter
    names. `teller` is how near the source of these mailboxes is."""
    return [
        Attachment(
            name, size, key, tuple(roots), tuple(each for each in places if each in known), pool, teller
        )
        for name, size, key, roots, places in letter.files
    ]


@asynccontextmanager
async def stripped(paths: list[Path], as_is: bool) -> AsyncIterator[list[Path]]:
    """Yield copies of files without metadata, in a folder that is deleted afterwards; with `as_is` yield the
    files themselves.

    Raise `MetadataKept`, `TipError`.
    """
    if len(paths) > MAX_ATTACHMENTS:
        raise TipError(f"a letter has {MAX_ATTACHMENTS} files at most: send the others with another one")
    if as_is or not paths:
        yield paths
        return
    folder = await asyncio.to_thread(tempfile.TemporaryDirectory)
    try:
        yield await strip_files(paths, Path(folder.name))
    finally:
        await asyncio.to_thread(folder.cleanup)


async def upload_files(
    paths: list[Path], client: MailboxClient, address: str, device: bytes, access: bytes, secret: bytes
) -> list[Any]:
    """Upload files to the mailbox at `address`, and return what the letter says of each.

    Raise `MessageError`, and the errors of the mailbox's client.
    """
    told = {"secret": secret, "now_ms": now_ms(), "seconds": LIFETIME}
    return [[*await upload(path, client, device, access, **told), [address]] for path in paths]  # type: ignore[arg-type]
