"""Mailboxes of others that don't answer, or not soon: whoever writes to somebody else waits for none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from post_office import PostOffice, post_office, take, wait_notice

from dtp.carriers.nearness import Nearness
from dtp.identity import Identity
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.mailbox import MailboxClient
from dtp.messaging.mailbox import pool as pool_module
from dtp.messaging.mailbox.pool import MailboxPool, connect_plainly
from dtp.messaging.person import delivery as delivery_module
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import What


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up within a test, and nobody waits long for others."""
    short = {"_TURN": 0.05, "_UPLOAD_TURN": 0.05, "_ANSWER": 0.0}
    seconds = [(pool_module, "_PATIENCE", 3600.0)]
    for module, name, value in [*seconds, *((delivery_module, *each) for each in short.items())]:
        monkeypatch.setattr(module, name, value)


class Held:
    """Connects to mailboxes of which one answers some requests of strangers only from `go_on` on."""

    def __init__(self, *requests: str) -> None:
        self.address, self._requests = "", requests
        self.go_on = asyncio.Event()
        #: How many requests wait, and the most that did at once.
        self.waiting = self.most = 0

    async def connect(self, address: str, identity: Identity | None) -> MailboxClient:
        client = await connect_plainly(address, identity)
        if identity is None and address == self.address:
            for name in self._requests:
                setattr(client, name, self._held(getattr(client, name)))
        return client

    def _held(self, genuine: Callable[..., Any]) -> Callable[..., Any]:
        async def request(*arguments: Any, **options: Any) -> Any:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            await self.go_on.wait()
            self.waiting -= 1
            return await genuine(*arguments, **options)

        return request


async def meet(at: PostOffice, held: Held) -> tuple[Messenger, Messenger, Messenger]:
    """Alice and Bob have one mailbox, and Carol, whom both know, another that doesn't answer Bob."""
    box, held.address = await at.open(), await at.open("other")
    alice, carol = await at.begin("alice", box), await at.begin("carol", held.address)
    bob = await at.begin("bob", box, connect=held.connect)
    for each in (alice, carol):
        await bob.add_contact(each.card)
        await each.add_contact(bob.card)
    return alice, bob, carol


async def until(true: Callable[[], bool], bob: Messenger) -> None:
    while not true():
        await bob.delivery.run_in_thread(lambda: None)


@pytest.mark.parametrize("request_name", ["get_keys", "deposit_with_work"])
def test_who_writes_to_others_waits_for_no_mailbox_that_does_not_answer(
    tmp_path: Path, request_name: str
) -> None:
    """All that was written waited for it half a minute, and again whenever it was tried."""

    async def main(at: PostOffice) -> None:
        held = Held(request_name)
        alice, bob, carol = await meet(at, held)
        for number in range(3):
            await bob.send(carol.card, f"carol {number}")
        await until(lambda: bool(held.waiting), bob)
        for number in range(5):
            await bob.send(alice.card, f"alice {number}")
            assert [each.text for each in await take(alice, 1)] == [f"alice {number}"]
        held.go_on.set()
        assert [each.text for each in await take(carol, 3)] == [f"carol {number}" for number in range(3)]
        await bob.wait_delivered()
        await bob.send(carol.card, "and again")
        assert [each.text for each in await take(carol, 1)] == ["and again"]

    post_office(main, tmp_path, f"slow-{request_name}")


def test_who_writes_to_us_by_a_mailbox_that_does_not_answer_holds_up_nobody(tmp_path: Path) -> None:
    """A stranger's card names it: what has come is said there."""

    async def main(at: PostOffice) -> None:
        held = Held("deposit_with_work")
        alice, bob, carol = await meet(at, held)
        await carol.send(bob.card, "hello")
        assert [each.text for each in await take(bob, 1)] == ["hello"]
        await until(lambda: bool(held.waiting), bob)
        await bob.send(alice.card, "who is it?")
        assert [each.text for each in await take(alice, 1)] == ["who is it?"]

    post_office(main, tmp_path, "slow-answer")


def test_little_is_on_its_way_to_a_mailbox_that_does_not_answer(tmp_path: Path) -> None:
    """What is written meanwhile waits on the disk, and nothing counts as delivered."""

    async def main(at: PostOffice) -> None:
        held = Held("deposit_with_work")
        alice, bob, carol = await meet(at, held)
        await bob.send(carol.card, "0")
        await until(lambda: bool(held.waiting), bob)
        first = held.waiting
        for number in range(1, 40):
            await bob.send(carol.card, str(number))
        await bob.send(alice.card, "hello")
        await take(alice, 1)
        assert held.most == first
        delivered = asyncio.ensure_future(bob.wait_delivered())
        await until(lambda: not bob.delivery.settled.is_set(), bob)
        assert not delivered.done()
        held.go_on.set()
        await delivered
        assert [each.text for each in await take(carol, 40)] == [str(number) for number in range(40)]

    post_office(main, tmp_path, "slow-many")


def test_a_message_counts_as_sent_once_a_mailbox_has_it(tmp_path: Path) -> None:
    """It counted as sent while its mailbox was asked, and 'dtp message send' said so if that gave no answer."""

    async def main(at: PostOffice) -> None:
        held = Held("deposit_with_work")
        alice, bob, carol = await meet(at, held)
        kept = await bob.send(carol.card, "is asked")
        await until(lambda: not bob.correspondence.store.count_unsent(message=kept.id), bob)
        sent = await bob.send(alice.card, "hello")
        await take(alice, 1)
        await until(lambda: len(bob.delivery.under_way) == held.waiting, bob)
        assert [await bob.delivery.count_unsent(message=each.id) for each in (sent, kept)] == [0, 1]
        held.go_on.set()
        await bob.wait_delivered(message=kept)
        assert [each.text for each in await take(carol, 1)] == ["is asked"]

    post_office(main, tmp_path, "slow-counted")


def test_what_is_of_the_moment_is_passed_on_to_who_is_there(tmp_path: Path) -> None:
    """One by one: who came behind such a mailbox heard it too late."""

    async def main(at: PostOffice) -> None:
        held = Held("send_signal")
        alice, bob, carol = await meet(at, held)
        for each in (alice, carol):
            await bob.send(each.card, "hello")
            await take(each, 1)
        typing = Event(EventKind.TYPING, alice.card.person, 0, now_ms(), {"on": True}).encode()
        devices = [each.identity.id.key for each in (carol, alice)]
        telling = asyncio.ensure_future(bob.delivery.send_signal(devices, typing))
        await wait_notice(alice, What.TYPING)
        held.go_on.set()
        await telling

    post_office(main, tmp_path, "slow-moment")


def test_what_a_mailbox_has_not_answered_at_the_end_is_sent_the_next_time(tmp_path: Path) -> None:
    async def main(at: PostOffice) -> None:
        held = Held("deposit_with_work")
        held.address = await at.open()
        carol = await at.begin("carol", held.address)
        async with at.messenger("bob", held.address, connect=held.connect) as bob:
            await bob.send(carol.card, "hello")
            await until(lambda: bool(held.waiting), bob)
        async with at.messenger("bob", held.address) as bob:
            assert [each.text for each in await take(carol, 1)] == ["hello"]

    post_office(main, tmp_path, "slow-end")


def test_one_answer_is_on_its_way_to_a_mailbox_that_does_not_answer(
    tmp_path: Path,
) -> None:
    """Another one was with each message that came: as many waited as a stranger liked."""

    async def main(at: PostOffice) -> None:
        held = Held("deposit_with_work")
        alice, bob, carol = await meet(at, held)
        await carol.send(bob.card, "0")
        assert [each.text for each in await take(bob, 1)] == ["0"]
        await until(lambda: bool(held.waiting), bob)
        await bob.send(alice.card, "before")
        await take(alice, 1)
        first = held.waiting
        for number in range(1, 6):
            await carol.send(bob.card, str(number))
            assert [each.text for each in await take(bob, 1)] == [str(number)]
            await bob.send(alice.card, f"after {number}")
            await take(alice, 1)
        await bob.send(alice.card, "the last")
        await take(alice, 1)
        assert held.most == first
        held.go_on.set()
        await carol.wait_delivered()
        await until(lambda: not carol.correspondence.store.count_waiting(bob.identity.id.key), bob)

    post_office(main, tmp_path, "slow-answers")


def test_who_writes_to_others_waits_for_no_own_mailbox_that_does_not_answer(
    tmp_path: Path,
) -> None:
    """A group's state that is put there for new members held up all messages, for good."""

    async def main(at: PostOffice) -> None:
        box, waits = await at.open(), asyncio.Event()

        async def connect(address: str, identity: Identity | None) -> MailboxClient:
            client = await connect_plainly(address, identity)
            if identity is not None:

                async def hold(digests: list[bytes]) -> list[bool]:
                    waits.set()
                    await asyncio.Event().wait()
                    return []

                client.has_pieces = hold
            return client

        alice = await at.begin("alice", box)
        bob = await at.begin("bob", box, connect=connect)
        await bob.add_contact(alice.card)
        await alice.add_contact(bob.card)
        await bob.wait_reached()
        bob.correspondence.group_states.most_sent = 0
        await bob.create_group("choir", [alice.card])
        await waits.wait()
        await bob.send(alice.card, "hello")
        assert [each.text for each in await take(alice, 1)] == ["hello"]

    post_office(main, tmp_path, "slow-own")


def test_a_mailbox_that_has_not_answered_in_time_is_asked_last_from_then_on(tmp_path: Path) -> None:
    """Each piece of a file took half a minute more, where somebody names another mailbox that has it."""

    async def main(at: PostOffice) -> None:
        slow, good = await at.open("slow"), await at.open()
        own, asked = MailboxPool(connect_plainly, own=(slow, good)), []

        async def ask(client: MailboxClient) -> bool:
            asked.append(client)
            if client is await own.get_client(slow, Nearness.PROCESS) and is_slow:
                raise TimeoutError
            return True

        is_slow, clients = True, [await own.get_client(each, Nearness.PROCESS) for each in (slow, good)]
        for _ in range(3):
            assert await own.try_each((slow, good), Nearness.PROCESS, ask)
        assert asked == [*clients, clients[1], clients[1]]
        is_slow = False
        assert await own.try_each((slow,), Nearness.PROCESS, ask)
        assert await own.try_each((slow, good), Nearness.PROCESS, ask)
        assert asked[4:] == [clients[0]] * 2  # it has answered since
        await own.close()

    post_office(main, tmp_path, "slow-last")
