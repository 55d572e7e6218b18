"""A line killed before any statement of SQLite, and mailboxes that never end: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mortal import open_by
from post_office import known_identity

from dtp.identity import Identity
from dtp.messaging.mailbox.store import KeptEnvelope, Status, Tray
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.tips.letter import ReplyTo, TipLetter
from dtp.messaging.tips.line import TipLine
from dtp.messaging.tips.line_store import RENEW_MS, LineStore
from dtp.messaging.tips.tipster import Tipster
from dtp.messaging.tips.words import TipWords

LINE = known_identity("line")
WORDS = TipWords(bytes(range(16)))
NOW = 1_700_000_000_000
REPLY = ReplyTo(WORDS.device.id.key, WORDS.access, WORDS.key.static_public, ("memory://box",))
TIP = TipLetter(WORDS.key.id.key, LINE.id.key, "a tip", reply_to=REPLY, nonce=b"n" * 16)
ANSWER = TipLetter(LINE.id.key, WORDS.key.id.key, "an answer", sent_ms=NOW, nonce=b"a" * 16)


class Killed(BaseException):
    """The program is gone."""


def work(store: LineStore, done: list[str]) -> None:
    """Do what a line does; what it has done is in `done`, as whoever waits for it has heard it."""
    store.sealing_keys(LINE, NOW + RENEW_MS)
    store.add_letter(TIP, NOW)
    done.append("took")
    if not any(each.own for each in store.list_letters(TIP.sender)):
        number = store.put_answer(ANSWER)
        done.append("kept")
    else:
        (number,) = [each.id for each in store.list_letters(TIP.sender) if each.own]
    store.mark_sent(number)
    store.mark_read(TIP.sender)
    done.append("sent")


def test_a_line_that_is_killed_anywhere_keeps_each_letter_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: float = float("inf")

    class Mortal(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return super().execute(*arguments)

    open_by(monkeypatch, Mortal)
    for statements in itertools.count():
        path, done = tmp_path / f"{statements}.db", []
        store = LineStore(path, bytes(32))
        left = statements
        with contextlib.suppress(Killed):
            work(store, done)
        survived, left = left >= 0, float("inf")
        store.close()
        store = LineStore(path, bytes(32))
        kept = [(each.letter.text, each.own) for each in store.list_letters(TIP.sender)]
        assert len(kept) >= len([each for each in done if each != "sent"])
        assert len(store.list_waiting()) <= ("sent" not in done)
        keys = [each.static_public for _, each in store.sealing_keys(LINE, NOW + RENEW_MS)]
        assert len(keys) == 1  # what a mailbox was told of is the key that is kept
        work(store, done)
        assert [(each.letter.text, each.own) for each in store.list_letters(TIP.sender)] == [
            ("a tip", False),
            ("an answer", True),
        ]
        assert store.list_waiting() == []
        assert [each.reply_to for each in store.list_tips()] == [REPLY]
        store.close()
        if survived:
            break
    assert statements > 20


class Endless:
    """A mailbox that gives the same again whatever it is asked for, by numbers that don't rise."""

    def __init__(self, envelope: bytes) -> None:
        self._envelope, self.asked = envelope, 0

    async def fetch_envelopes(self, tray: Tray, *, after: int, most: int) -> list[KeptEnvelope]:
        self.asked += 1
        assert self.asked < 100
        return [KeptEnvelope(7, NOW // 1000, self._envelope)] * most

    async def get_status(self) -> Status:
        return Status(1, 1, 1, 0)

    async def acknowledge_envelopes(self, ids: list[int]) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("wrong", ["junk", "genuine"])
def test_a_mailbox_that_never_ends_holds_nobody_up(tmp_path: Path, wrong: str) -> None:
    async def main() -> None:
        box: Any = Endless(b"")

        async def connect(address: str, identity: Identity | None) -> Any:
            return box

        async with TipLine(
            identity=LINE, store=tmp_path / "line.db", mailboxes=["memory://box"], connect=connect
        ) as line:
            sealing = line.store.sealing_keys(LINE, now_ms())[0][1].static_public
            box = Endless(TIP.seal(WORDS.key, sealing) if wrong == "genuine" else b"x" * 512)
            assert await line.collect() == (wrong == "genuine")
            box = Endless(ANSWER.seal(LINE, WORDS.key.static_public) if wrong == "genuine" else b"x" * 512)
            async with Tipster(line.card, WORDS, connect=connect) as tipster:
                assert [each.text for each in (await tipster.read()).letters] == ["an answer"] * (
                    wrong == "genuine"
                )

    asyncio.run(main())


def test_a_clock_that_was_a_year_ahead_once_costs_a_line_no_tip(tmp_path: Path) -> None:
    """The keys that tips were sealed to were forgotten, tips that waited were taken as unreadable, and for a year the
    line had keys from the future, which no mailbox takes."""
    year = 365 * 86_400_000
    with closing(LineStore(tmp_path / "line.db", bytes(32))) as store:
        before = store.sealing_keys(LINE, NOW)
        for _ in range(3):  # it publishes, and collects, and again
            assert [made for made, _ in store.sealing_keys(LINE, NOW + year)] == [NOW + year, NOW]
        after = store.sealing_keys(LINE, NOW + 1)
        assert [made for made, _ in after] == [NOW + 1, NOW + year, NOW]
        assert after[-1][1].static_private == before[0][1].static_private
        for week in range(1, 9):
            found = store.sealing_keys(LINE, NOW + 1 + week * RENEW_MS)
        made = [made for made, _ in found if made < NOW + year]
        assert made == [NOW + 1 + week * RENEW_MS for week in range(8, 1, -1)]
