"""Calls between messengers: signalling through a mailbox with media that is none, then audio and video for real."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aioice.ice
import av
import pytest
from post_office import PostOffice, acquainted, known_identity, post_office, take, wait_notice

import dtp
from dtp.carriers.nearness import Nearness
from dtp.identity import Account, Device
from dtp.messaging.calls.book import CallBook, Phase
from dtp.messaging.calls.calling import CallEnded, Calls, Media
from dtp.messaging.calls.media import MediaEnd
from dtp.messaging.calls.recording import MediaRecorder
from dtp.messaging.calls.signals import CallMalformed, Reason, Signal, SignalAct
from dtp.messaging.calls.tunnel import PacketTunnel
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.errors import CallError, ContactBlocked, MediaUnusable
from dtp.messaging.person.card_sources import CardEnded, CardSource
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import What
from dtp.peers.reach.messages import RELAY_SERVICE
from dtp.peers.reach.relay import Relay

Test = Callable[[Callable[[PostOffice], Awaitable[None]]], None]
FINGERPRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Test:
    name = str(zlib.crc32(request.node.name.encode()))
    return lambda test: post_office(test, tmp_path, name)


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Media between addresses of this machine alone, also where it has no other."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


class NoMedia(Media):
    """Media that is up once both ends have each other's description."""

    def __init__(self, name: str, *, works: bool = True) -> None:
        self.description = f"{name}\r\n{FINGERPRINT}"
        self.heard, self.works, self.closed = "", works, False
        self._up, self._down = asyncio.Event(), asyncio.Event()

    async def offer(self) -> str:
        return self.description

    async def answer(self, offer: str) -> str:
        self.heard = offer
        self._up.set()
        return self.description

    async def accept(self, answer: str) -> None:
        self.heard = answer
        self._up.set()

    async def wait_up(self) -> bool:
        await self._up.wait()
        return self.works

    async def wait_down(self) -> None:
        await self._down.wait()

    async def close(self) -> None:
        self.closed = True
        self._up.set()
        self._down.set()


def test_a_call_is_answered_talked_and_hung_up(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with (
            acquainted(at, await at.open()) as (alice, bob),
            Calls(alice) as alices,
            Calls(bob) as bobs,
        ):
            mine, theirs = NoMedia("alice"), NoMedia("bob")
            call = await alices.call("bob", mine)
            ringing = await anext(aiter(bobs))
            assert ringing.contact.person == alice.card.person
            with pytest.raises(CallError, match="in a call"):
                await alices.call("bob", NoMedia("again"))
            await ringing.answer(theirs)
            await call.wait_talking()
            await ringing.wait_talking()
            assert (mine.heard, theirs.heard) == (theirs.description, mine.description)
            await ringing.hang_up()
            assert await call.wait_over() is Reason.HUNG_UP
            assert await ringing.wait_over() is Reason.HUNG_UP
            await call.hang_up()  # it is over: nothing happens
            with pytest.raises(CallError, match="ring"):
                await ringing.answer(NoMedia("late"))
        assert mine.closed
        assert theirs.closed

    office(main)


def test_a_call_is_refused_and_one_that_nobody_answers_ends(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob), Calls(bob) as bobs:
            async with Calls(alice) as alices:
                call = await alices.call("bob", NoMedia("alice"))
                await (await anext(aiter(bobs))).refuse()
                with pytest.raises(CallEnded) as ended:
                    await call.wait_talking()
                assert (ended.value.reason, ended.value.code) == (Reason.REFUSED, "call-ended")
            async with Calls(alice, book=CallBook(alice.identity.id.key, ring_ms=200)) as alices:
                call = await alices.call("bob", NoMedia("alice"))
                assert await call.wait_over() is Reason.NO_ANSWER
            notice = await wait_notice(bob, What.MISSED_CALL)
            assert (notice.person, notice.detail) == (alice.card.person, "no_answer")

    office(main)


def test_who_is_cancelled_twice_hangs_up_all_the_same(office: Test) -> None:
    """As when a program ends while it ends a part of itself: the other end was told nothing."""

    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob), Calls(bob) as bobs:
            calling = asyncio.get_running_loop().create_future()

            async def call_for_ever() -> None:
                async with Calls(alice) as calls:
                    calling.set_result(await calls.call("bob", NoMedia("alice")))
                    await asyncio.Event().wait()

            task = asyncio.create_task(call_for_ever())
            await calling
            ringing = await anext(aiter(bobs))
            await ringing.answer(NoMedia("bob"))
            await ringing.wait_talking()
            for _ in range(2):
                task.cancel()
                await asyncio.sleep(0)
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await ringing.wait_over() is Reason.HUNG_UP

    office(main)


def test_media_that_does_not_get_through_ends_the_call_at_both_ends(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with (
            acquainted(at, await at.open()) as (alice, bob),
            Calls(alice) as alices,
            Calls(bob) as bobs,
        ):
            call = await alices.call("bob", NoMedia("alice", works=False))
            ringing = await anext(aiter(bobs))
            await ringing.answer(NoMedia("bob", works=False))
            assert await call.wait_over() is Reason.FAILED
            assert await ringing.wait_over() is Reason.FAILED

    office(main)


async def with_two_devices(at: PostOffice) -> tuple[Messenger, Messenger, Messenger]:
    """Alice, and Bob's two devices."""
    box = await at.open()
    first = Device(known_identity("bob-1").id.key, "one")
    account = Account.create(known_identity("key"), known_identity("recovery").id, [first])
    one = await at.begin("bob-1", box, account=account)
    two = await at.begin("bob-2")
    await two.join(await one.approve_device(two.identity.id, "two"))
    await two.wait_reached()
    alice = await at.begin("alice", box)
    await alice.add_contact(one.card)
    for each in (one, two):
        await each.add_contact(alice.card)
    return alice, one, two


def test_all_devices_ring_and_the_others_are_told_who_took_it(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        alice, one, two = await with_two_devices(at)
        async with Calls(alice) as alices, Calls(one) as first, Calls(two) as second:
            call = await alices.call("bob", NoMedia("alice"))
            ringing = [await anext(aiter(each)) for each in (first, second)]
            await ringing[1].answer(NoMedia("bob"))
            await call.wait_talking()
            assert await ringing[0].wait_over() is Reason.TAKEN
            await call.hang_up()
            assert await ringing[1].wait_over() is Reason.HUNG_UP

    office(main)


def test_two_devices_answer_at_once_and_one_gets_it(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        alice, one, two = await with_two_devices(at)
        async with Calls(alice) as alices, Calls(one) as first, Calls(two) as second:
            call = await alices.call("bob", NoMedia("alice"))
            ringing = [await anext(aiter(each)) for each in (first, second)]
            # Media of one that isn't taken never comes up: nobody accepts its description.
            media = [NeverUp(f"bob-{each}") for each in (1, 2)]
            for each, end in zip(ringing, media, strict=True):
                if each.phase is Phase.RINGING:
                    await each.answer(end)
            await call.wait_talking()
            assert call.media is not None
            taken = [
                each
                for each, end in zip(ringing, media, strict=True)
                if end.description == call.media.heard  # type: ignore[attr-defined]
            ]
            assert len(taken) == 1
            (other,) = (each for each in ringing if each is not taken[0])
            assert await other.wait_over() is Reason.TAKEN
            await call.hang_up()

    office(main)


class NeverUp(NoMedia):
    async def answer(self, offer: str) -> str:
        self.heard = offer
        return self.description


def test_a_forged_answer_of_another_contact_is_not_talked_to(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with (
            acquainted(at, await at.open()) as (alice, bob),
            Calls(alice) as alices,
            Calls(bob) as bobs,
        ):
            mallory = await at.begin("mallory", alice.card.mailboxes[0])
            await mallory.add_contact(alice.card)
            await alice.add_contact(mallory.card)
            media = NoMedia("alice")
            call = await alices.call("bob", media)
            ringing = await anext(aiter(bobs))
            forged = Signal(call.id, SignalAct.ANSWER, "mallory\r\n" + FINGERPRINT)
            await mallory.signal_call([alice.identity.id.key], forged)
            await mallory.send("alice", "did you hear me?")
            await wait_notice(alice, What.MESSAGE)  # comes after the answer
            assert media.heard == ""
            theirs = NoMedia("bob")
            await ringing.answer(theirs)
            await call.wait_talking()
            assert media.heard == theirs.description

    office(main)


def test_strangers_do_not_ring_and_what_comes_while_nobody_takes_calls_is_missed(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob), Calls(alice) as alices:
            stranger = await at.begin("stranger", alice.card.mailboxes[0])
            await stranger.add_contact(bob.card.public())
            async with Calls(stranger) as theirs:
                await theirs.call("bob", NoMedia("stranger"))
                await stranger.send("bob", "I called")
                await wait_notice(bob, What.MESSAGE)
                call = await alices.call("bob", NoMedia("alice"))
                notice = await wait_notice(bob, What.MISSED_CALL)
                assert notice.person == alice.card.person
                await call.hang_up()

    office(main)


@pytest.mark.parametrize("takes_calls", [False, True])
def test_a_call_that_another_device_has_taken_was_not_missed(office: Test, takes_calls: bool) -> None:
    async def main(at: PostOffice) -> None:
        box = await at.open()
        first = Device(known_identity("bob-1").id.key, "one")
        account = Account.create(known_identity("key"), known_identity("recovery").id, [first])
        two, alice = await at.begin("bob-2"), await at.begin("alice", box)
        async with at.messenger("bob-1", box, account=account) as one:
            await one.wait_reached()
            await two.join(await one.approve_device(two.identity.id, "two"))
            await two.wait_reached()
            await alice.add_contact(one.card)
            for each in (one, two):
                await each.add_contact(alice.card)
            await one.wait_delivered()
        async with Calls(alice) as alices, Calls(two) as calls:
            call = await alices.call("bob", NoMedia("alice"))
            await (await anext(aiter(calls))).answer(NoMedia("bob"))
            await call.wait_talking()
            await call.hang_up()
        await alice.send("bob", "until tomorrow")
        await alice.wait_delivered()
        await two.wait_delivered()
        async with at.messenger("bob-1", box, account=account) as one, contextlib.AsyncExitStack() as stack:
            if takes_calls:
                await stack.enter_async_context(Calls(one))
            await take(one, 1)
            await stack.aclose()
            told = [each.what for each in one.take_notices()]
            assert What.MESSAGE in told
            assert What.MISSED_CALL not in told

    office(main)


def test_what_may_have_been_missed_is_told_when_no_more_calls_are_taken(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob), Calls(alice) as alices:
            async with Calls(bob) as bobs:
                calls_bob = await alices.call("bob", NoMedia("alice"))
                await (await anext(aiter(bobs))).answer(NoMedia("bob"))
                await calls_bob.wait_talking()
                carol = await at.begin("carol", alice.card.mailboxes[0])
                await carol.add_contact(bob.card)
                await bob.add_contact(carol.card)
                async with Calls(carol) as carols:
                    call = await carols.call("bob", NoMedia("carol"))
                    assert await call.wait_over() is Reason.BUSY
            notice = await wait_notice(bob, What.MISSED_CALL)
            assert notice.person == carol.card.person

    office(main)


class EndedCards(CardSource):
    """A chain on which accounts were ended."""

    def __init__(self) -> None:
        self.ended: set[bytes] = set()

    async def find_card(self, person: bytes) -> ContactCard | None:
        return None

    async def check_card(self, card: ContactCard) -> None:
        if card.person in self.ended:
            raise CardEnded("it was ended")


def test_whether_a_card_counts_is_asked_before_a_call(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        box, chain, media = await at.open(), EndedCards(), NoMedia("bob")
        alice, bob = await at.begin("alice", box), await at.begin("bob", box, cards=[chain])
        await bob.add_contact(alice.card)
        chain.ended.add(alice.card.person)
        async with Calls(bob) as calls:
            with pytest.raises(ContactBlocked):
                await calls.call("alice", media)
        assert media.closed

    office(main)


def test_signals_of_calls_are_events() -> None:
    event = Event(EventKind.CALL, b"p" * 32, 0, 0, Signal(b"c" * 16, SignalAct.RINGING).to_fields())
    assert Event.parse(event.encode()) == event


# ---- audio and video for real ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of red with a tone, as ffmpeg makes it."""
    path = tmp_path_factory.mktemp("film") / "red.mkv"
    made = ["-f", "lavfi", "-i", "color=red:s=160x120:r=10:d=60", "-f", "lavfi", "-i", "sine=440:d=60"]
    command = [
        "ffmpeg",
        "-loglevel",
        "error",
        *made,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-c:a",
        "libopus",
    ]
    subprocess.run([*command, str(path)], check=True)
    return path


def is_red(path: Path) -> bool:
    """Return whether a file's first picture is red; and there is sound beside it."""
    with av.open(str(path)) as container:
        assert container.streams.audio
        picture = next(container.decode(video=0)).reformat(format="rgb24")
        middle = bytes(picture.planes[0])[60 * picture.planes[0].line_size + 240 :][:3]
    return middle[0] > 180 and middle[1] < 80 and middle[2] < 80


@pytest.mark.slow
def test_a_film_arrives_at_the_other_end(office: Test, film: Path, tmp_path: Path, loopback: None) -> None:
    async def main(at: PostOffice) -> None:
        async with (
            acquainted(at, await at.open()) as (alice, bob),
            Calls(alice) as alices,
            Calls(bob) as bobs,
        ):
            kinds: set[str] = set()
            both = asyncio.Event()

            def came(kind: str) -> None:
                kinds.add(kind)
                if kinds == {"audio", "video"}:
                    both.set()

            call = await alices.call("bob", MediaEnd(file=film))
            ringing = await anext(aiter(bobs))
            await ringing.answer(MediaEnd(record=tmp_path / "seen.mkv", on_media=came))
            await call.wait_talking()
            await both.wait()
            await ringing.hang_up()
            assert await call.wait_over() is Reason.HUNG_UP
        assert is_red(tmp_path / "seen.mkv")

    office(main)


@pytest.mark.slow
def test_a_call_in_which_nothing_comes_leaves_no_recording(tmp_path: Path) -> None:
    """As where another device has taken it: a file was left that no player opens."""

    async def main() -> None:
        recorder = MediaRecorder(tmp_path / "seen.mkv")
        recorder.open()
        assert await recorder.close() == ""

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_breaks_off_with_the_other_end_has_not_come_to_its_end(
    film: Path, loopback: None
) -> None:
    """aiortc ends what is sent together with the connection: the call was over then as though all had been seen."""

    async def main() -> None:
        alice, bob = MediaEnd(file=film), MediaEnd()
        _, answer = await describe(alice, bob)
        await alice.accept(answer)
        assert await alice.wait_up()
        assert await bob.wait_up()
        await bob.close()
        await alice.wait_down()
        await alice.close()
        assert not alice.source_ended.is_set()

    asyncio.run(main())


async def describe(offering: MediaEnd, answering: MediaEnd) -> tuple[str, str]:
    offer = await offering.offer()
    return offer, await answering.answer(offer)


def other_fingerprint(description: str, of: str) -> str:
    """Return a description with the certificates of another one."""
    theirs = [line for line in of.splitlines() if line.startswith("a=fingerprint:")][:3]
    told = iter(theirs * 8)
    lines = [next(told) if each.startswith("a=fingerprint:") else each for each in description.splitlines()]
    return "".join(line + "\r\n" for line in lines)


@pytest.mark.slow
def test_whoever_has_another_certificate_than_was_signalled_is_not_talked_to(
    film: Path, loopback: None
) -> None:
    async def main() -> None:
        ends = alice, bob, mallory = [MediaEnd(file=film), MediaEnd(), MediaEnd()]
        try:
            _, answer = await describe(alice, bob)
            forged = other_fingerprint(answer, await mallory.offer())
            assert forged != answer
            await alice.accept(forged)
            assert await alice.wait_up() is False
        finally:
            for each in ends:
                await each.close()

    asyncio.run(main())


def test_descriptions_that_make_no_sense_have_a_name(loopback: None) -> None:
    async def main() -> None:
        end = MediaEnd()
        honest = await end.offer()
        try:
            for told in (
                FINGERPRINT,
                honest.replace("m=audio", "m=audio x"),
                honest.replace("a=rtpmap:", "a=rtpmap:x"),
                honest.replace("a=mid:", "a=mid:9"),
                honest.replace("a=candidate:", "a=candidate:x y "),
                honest.replace("a=ice-ufrag", "a=ice-nothing").replace("a=setup", "a=nothing"),
            ):
                other = MediaEnd()
                try:
                    await other.answer(told)
                except CallMalformed:
                    pass
                finally:
                    await other.close()
        finally:
            await end.close()

    asyncio.run(main())


def test_whatever_a_description_lacks_ends_with_a_name_and_is_closed(loopback: None) -> None:
    """Without a codec that is here, or with a part of no name, aiortc has other errors, or can't close."""

    async def main() -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, told: faults.append(told))
        end = MediaEnd()
        honest = await end.offer()
        await end.close()
        lines = honest.splitlines(keepends=True)
        lacking = ["".join(lines[:at] + lines[at + 1 :]) for at in range(len(lines))]
        codecs = ("a=rtpmap:", "a=fmtp:", "a=rtcp-fb:")
        foreign = honest.replace("opus/", "other/").replace("VP8/", "V/").replace("H264/", "H/")
        twice = honest.replace("a=mid:0\r\n", "a=mid:0\r\na=mid:\r\n")
        none = "".join(each for each in lines if not each.startswith(codecs))
        refused = 0
        apart = (
            honest.replace("a=mid:0", "a=mid: 0"),
            honest.replace("a=mid:0", "s=\rm=audio 9 X 0\r\na=mid:0"),
        )
        for told in (*lacking, foreign.replace("PCM", "P"), none, twice, *apart):
            other = MediaEnd()
            try:
                await other.answer(told)
            except CallMalformed:
                refused += 1
            finally:
                await other.close()
        assert refused > len(codecs)
        assert not faults

    asyncio.run(main())


def test_files_and_devices_that_cannot_be_had_have_a_name(tmp_path: Path, loopback: None) -> None:
    async def main() -> None:
        (tmp_path / "text.txt").write_text("no film")
        for end in (
            MediaEnd(file=tmp_path / "text.txt"),
            MediaEnd(file=tmp_path / "nothing"),
            MediaEnd(camera=str(tmp_path / "video0")),
            MediaEnd(record=tmp_path / "nowhere" / "seen.mkv"),
        ):
            with pytest.raises(MediaUnusable) as fault:
                await end.offer()
            assert fault.value.code == "call-media"
            await end.close()

    asyncio.run(main())


@pytest.mark.slow
def test_media_goes_by_a_relay_where_the_ends_have_no_other_way(
    office: Test, film: Path, tmp_path: Path, loopback: None
) -> None:
    """Both hide their addresses, so there is no other."""

    async def main(at: PostOffice) -> None:
        relay = dtp.Identity.generate()
        services = {RELAY_SERVICE: Relay().serve_connection}
        async with (
            await dtp.listen("tcp://127.0.0.1:0", services, identity=relay) as listener,
            acquainted(at, await at.open()) as (alice, bob),
            Calls(
                alice, relays=[f"relay://{listener.urls[0].partition('//')[2]}?relay={relay.id}"]
            ) as alices,
            Calls(bob) as bobs,
        ):
            came = asyncio.Event()
            call = await alices.call("bob", MediaEnd(file=film, hide_address=True))
            ringing = await anext(aiter(bobs))
            recorded = tmp_path / "seen.mkv"
            await ringing.answer(
                MediaEnd(record=recorded, hide_address=True, on_media=lambda kind: came.set())
            )
            await call.wait_talking()
            await came.wait()
            assert call.tunnel is not None
            assert call.tunnel.sent
            assert call.tunnel.received
            await ringing.hang_up()
            assert await call.wait_over() is Reason.HUNG_UP

    office(main)


def test_a_relay_that_is_not_reached_leaves_the_direct_way(office: Test) -> None:
    async def main(at: PostOffice) -> None:
        async with acquainted(at, await at.open()) as (alice, bob), Calls(bob) as bobs:
            nowhere = "memory://calls-nowhere"
            async with Calls(alice, relays=[nowhere]) as alices:
                call = await alices.call("bob", NoMedia("alice"))
                ringing = await anext(aiter(bobs))
                assert call.tunnel is not None
                await call.tunnel.close()
                await ringing.answer(NoMedia("bob"))
                assert ringing.tunnel is None
                await call.wait_talking()

    office(main)


def test_packets_pass_a_tunnel_both_ways_and_those_of_others_do_not() -> None:
    async def main() -> None:
        here, there = PacketTunnel(), PacketTunnel()
        loop = asyncio.get_running_loop()
        got: list[tuple[str, bytes]] = []
        all_came = asyncio.Event()

        class Agent(asyncio.DatagramProtocol):
            def __init__(self, name: str) -> None:
                self.name = name

            def datagram_received(self, data: bytes, addr: object) -> None:
                got.append((self.name, data))
                all_came.set()

        agents = []
        try:
            await here.open_port()
            await there.open_port()
            await there.dial(await here.listen_at("memory://calls-tunnel"), Nearness.PROCESS)
            for tunnel, name in ((here, "here"), (there, "there")):
                agent, _ = await loop.create_datagram_endpoint(
                    lambda name=name: Agent(name),
                    remote_addr=("127.0.0.1", tunnel.port),
                )
                agents.append(agent)
            while (
                len({name for name, _ in got}) < 2
            ):  # the first ones are lost, as each end has to be heard first
                all_came.clear()
                agents[0].sendto(b"to there")
                agents[1].sendto(b"to here")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await all_came.wait()
            assert set(got) == {("there", b"to there"), ("here", b"to here")}
        finally:
            for agent in agents:
                agent.close()
            await here.close()
            await there.close()

    asyncio.run(main())
