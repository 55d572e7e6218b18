"""Missed calls: each is told, also by the next program where one was killed before it could."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mortal import FUSE, Killed
from post_office import NoMedia, PostOffice, known_identity, post_office, take, wait_notice
from village import NOW, villages

from dtp.messaging.calls.book import CallBook
from dtp.messaging.calls.calling import Calls
from dtp.messaging.calls.signals import Reason, Signal, SignalAct
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import CallSignalled, Notice, What, missed_call
from dtp.messaging.person.storage.call_store import MOST

FINGERPRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"
CALL = b"c" * 16


def seal(mail: Correspondence, to: Correspondence, signal: Signal) -> list[bytes]:
    """Return the envelopes of a signal about a call."""
    event = Event(EventKind.CALL, mail.person, 0, NOW, signal.to_fields())
    mail.say_to_devices([to.identity.id.key], event, NOW)
    return [each.envelope for each in mail.desk.seal_due(NOW)]


@contextlib.asynccontextmanager
async def acquainted_once(at: PostOffice, box: str) -> AsyncIterator[tuple[Messenger, Messenger]]:
    """Alice, and Bob, whose program ends with the block; they have each other's cards from then on."""
    alice = await at.begin("alice", box)
    async with at.messenger("bob", box) as bob:
        await bob.wait_reached()
        await alice.add_contact(bob.card)
        await bob.add_contact(alice.card)
        yield alice, bob


OFFER = Signal(CALL, SignalAct.OFFER, FINGERPRINT)
END = Signal(CALL, SignalAct.END, reason=Reason.NO_ANSWER)


@pytest.mark.usefixtures("mortal")
def test_a_missed_call_is_told_at_whatever_write_the_program_is_killed(folder: Path) -> None:
    """It was lost from when its offer had come until the program took the notice."""
    number, killed = 0, True
    while killed:
        home = folder / str(number)
        home.mkdir()
        with villages(home) as make:
            at = make("alice", "bob", least=0)
            alice, bob = at.people["alice"], at.people["bob"]
            at.say("alice", bob.person, "hello")
            at.say("bob", alice.person, "hello")
            at.deliver()
            letters = [seal(alice, bob, each) for each in (OFFER, END)]
            killed = False
            try:
                with FUSE.lit(number):
                    for each in letters:
                        bob.receive_envelopes(each, NOW)
            except Killed:
                killed = True
            with contextlib.suppress(Exception):
                bob.close()
            bob = at.people["bob"] = at.open("bob")
            for each in letters:  # the mailbox wasn't told to forget them
                bob.receive_envelopes(each, NOW)
            assert bob.store.calls.list_calls() == [missed_call(alice.person, CALL, Reason.NO_ANSWER)]
        number += 1
    assert number > 5


@pytest.mark.parametrize(
    ("signals", "left"),
    [
        ([OFFER], 1),
        ([OFFER, OFFER], 1),
        ([OFFER, Signal(CALL, SignalAct.TAKEN, device=b"d" * 32)], 0),
        ([OFFER, Signal(CALL, SignalAct.END, reason=Reason.REFUSED)], 0),
        ([END, Signal(b"e" * 16, SignalAct.TAKEN, device=b"d" * 32)], 0),
        ([Signal(bytes((each,)) * 16, SignalAct.OFFER, FINGERPRINT) for each in range(MOST + 3)], MOST),
    ],
)
def test_what_is_kept_of_calls(tmp_path: Path, signals: list[Signal], left: int) -> None:
    with villages(tmp_path) as make:
        at = make("alice", "bob", least=0)
        alice, bob = at.people["alice"], at.people["bob"]
        at.say("alice", bob.person, "hello")
        at.say("bob", alice.person, "hello")
        at.deliver()
        for each in signals:
            bob.receive_envelopes(seal(alice, bob, each), NOW)
        kept = bob.store.calls.list_calls()
        assert len(kept) == left
        assert all(isinstance(each, CallSignalled) and not each.own for each in kept)
        with bob.transaction():
            bob.store.calls.drop_calls([each.call for each in signals])
        assert bob.store.calls.list_calls() == []


def test_a_missed_call_that_nobody_has_asked_for_is_told_by_the_next_program_and_once(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted_once(at, box) as (alice, bob):
            await bob.send("alice", "hello")
            await take(alice, 1)
            async with Calls(alice, book=CallBook(alice.identity.id.key, ring_ms=1)) as alices:
                call = await alices.call("bob", NoMedia())
                assert await call.wait_over() is Reason.NO_ANSWER
            await alice.send("bob", "I called")
            await take(bob, 1)
        for takes_calls in (False, True):
            async with at.messenger("bob", box) as bob, contextlib.AsyncExitStack() as stack:
                if takes_calls:
                    await stack.enter_async_context(Calls(bob))
                else:
                    notice = await wait_notice(bob, What.MISSED_CALL)
                    assert (notice.person, notice.message) == (alice.card.person, call.id)
                await bob.wait_reached()
                await alice.send("bob", "again")
                await take(bob, 1)
                await stack.aclose()
                assert What.MISSED_CALL not in [each.what for each in bob.take_notices()]

    post_office(main, tmp_path, "missed")


def test_a_call_rings_again_where_the_program_was_begun_again_meanwhile(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        async with acquainted_once(at, box) as (alice, _):
            pass
        async with Calls(alice) as alices:
            call = await alices.call("bob", NoMedia())
            await alice.send("bob", "pick up")
            async with at.messenger("bob", box) as bob:
                await take(bob, 1)
            async with at.messenger("bob", box) as bob, Calls(bob) as bobs:
                ringing = await anext(aiter(bobs))
                assert ringing.id == call.id
                await ringing.answer(NoMedia())
                await call.wait_talking()
                await call.hang_up()
                await ringing.wait_over()
        async with at.messenger("bob", box) as bob:
            await alice.send("bob", "until tomorrow")
            await take(bob, 1)
            told: list[Notice] = bob.take_notices()
            assert What.MISSED_CALL not in [each.what for each in told]

    post_office(main, tmp_path, "rings-again")


def test_who_rang_is_missed_also_where_another_device_was_busy() -> None:
    """The caller's end says BUSY then, and this device told nobody."""
    alice, bob = known_identity("alice").id.key, known_identity("bob").id.key
    book = CallBook(bob)
    book.receive_signal(alice, alice, OFFER, own=False, sent=0, now=0)
    assert book.may_be_missed(CALL)
    ended = Signal(CALL, SignalAct.END, reason=Reason.BUSY)
    commands = book.receive_signal(alice, alice, ended, own=False, sent=0, now=0)
    assert [each.reason for each in commands if type(each).__name__ == "Missed"] == [Reason.BUSY]
    assert not book.may_be_missed(CALL)
