"""Sealed shows: who is admitted hears, others don't; keys rotate, and one that is shared opens nothing later."""

import asyncio
import json
from pathlib import Path

import pytest
import second_segments as second
from hypothesis import given
from hypothesis import strategies as st
from shows import HERE, ME, all_of, hear, produce, run, until
from simulated import Network

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.errors import BroadcastError, SegmentError, ShowSealed
from dtp.broadcast.feeding import Feeder
from dtp.broadcast.format import Announcement, Flag, SegmentSigner
from dtp.broadcast.held import HeldSegments
from dtp.broadcast.money.tickets import Seats, seat_claim
from dtp.broadcast.recording import Recorder, Recording
from dtp.broadcast.sealed.admission import Guests, KeyAdmission, Refusal
from dtp.broadcast.sealed.issuing import KeyIssuer
from dtp.broadcast.sealed.keys import open_key, open_segment, seal_key, seal_segment
from dtp.broadcast.sealed.opening import KeyAsker, KeyPace, Opener
from dtp.chain.signer import KeySigner
from dtp.errors import CarrierError, ChainError, DtpError
from dtp.identity import Identity
from dtp.net.address import Address
from dtp.testing import clock

VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "vectors" / "broadcast.json").read_text())[
    "sealed"
]
ALICE, BOB, CAROL = (Identity(bytes([each]) * 32) for each in (1, 2, 3))
STREAM, KEY = bytes(range(32)), bytes(range(32, 64))


def segment_of(data, *, epoch=1, flags=Flag.START, stream_of=ME):
    signer = SegmentSigner(ME, Announcement.sign(stream_of, bytes(32), time_ms=0, sealed=True))
    return signer.announcement.stream, signer.sign(data, time_ms=0, epoch=epoch, flags=flags)


# ---- formats -----------------------------------------------------------------------------------------------------


def test_the_vectors_are_opened():
    identity = Identity(bytes.fromhex(VECTORS["listener_seed"]))
    stream, key = bytes.fromhex(VECTORS["stream"]), bytes.fromhex(VECTORS["key"])
    assert open_key(bytes.fromhex(VECTORS["keys"]), stream, VECTORS["epoch"], identity) == key
    sealed = bytes.fromhex(VECTORS["segment"])
    assert seal_segment(key, stream, VECTORS["number"], VECTORS["data"].encode()) == sealed
    claim = seat_claim(
        KeySigner.from_identity(Identity(bytes.fromhex(VECTORS["account_seed"]))),
        bytes.fromhex(VECTORS["show"]), identity.id, VECTORS["claim_time_ms"],
    )  # fmt: skip
    assert claim.signature.hex() == VECTORS["claim_signature"]


@given(st.floats(1, 3600), st.lists(st.floats(0, 100), max_size=60), st.integers(-(10**6), 10**9))
def test_keys_are_bought_as_fast_as_they_last_and_eight_at_once(lasts, steps, now):
    pace = KeyPace(lasts)
    assert sum(pace.allow_purchase(now) for _ in range(20)) == 8
    bought, began = 8, now
    for step in steps:
        now += step * lasts / 50
        bought += pace.allow_purchase(now)
        assert bought <= 9 + (now - began) / lasts


def test_keys_that_last_no_time_are_bought_at_any_pace():
    pace = KeyPace(0)
    assert all(pace.allow_purchase(1.0) for _ in range(100))


@given(st.binary(max_size=200), st.integers(0, 2**63 - 1))
def test_the_second_implementation_opens_what_is_sealed(data, number):
    sealed = seal_segment(KEY, STREAM, number, data)
    assert second.open_segment(KEY, STREAM, number, sealed) == data
    assert second.seal_segment(KEY, STREAM, number, data) == sealed


@given(st.integers(0, 4), st.integers(1, 2**32 - 1))
def test_the_second_implementation_finds_its_key(others, epoch):
    listeners = [ALICE.id, *(Identity(bytes([9, each]) * 16).id for each in range(others))]
    body = seal_key(KEY, STREAM, epoch, listeners)
    assert second.open_key(body, STREAM, epoch, ALICE.seed) == KEY
    assert second.open_key(body, STREAM, epoch, BOB.seed) is None
    made = second.seal_key(KEY, STREAM, epoch, [second.public(ALICE.seed)], bytes(range(64)))
    assert open_key(made, STREAM, epoch, ALICE) == KEY


def test_many_listeners_have_one_key():
    listeners = [Identity(each.to_bytes(32, "big")).id for each in range(1, 600)]
    body = seal_key(KEY, STREAM, 7, listeners)
    assert open_key(body, STREAM, 7, Identity((599).to_bytes(32, "big"))) == KEY
    assert open_key(body, STREAM, 7, ALICE) is None
    assert len(body) < 600 * 84 + 1000


@given(st.data())
def test_no_changed_byte_opens(data):
    stream, segment = segment_of(b"x" * 66)
    sealed = bytearray(seal_segment(KEY, stream, 0, b"x" * 50))
    body = bytearray(seal_key(KEY, STREAM, 7, [ALICE.id]))
    for changed, opens in (
        (sealed, lambda: open_segment(KEY, segment, bytes(sealed))),
        (body, lambda: open_key(bytes(body), STREAM, 7, ALICE)),
    ):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] ^= data.draw(st.integers(1, 255))
        try:
            assert opens() in (None, KEY)  # another name of a key that isn't ours, or one more of the list
        except SegmentError:
            continue
        assert changed is body


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_the_producers_fault(size):
    """The cipher takes none of it, and whoever listens would end by its words."""
    with pytest.raises(SegmentError, match=f"has {size} bytes, not 32"):
        open_key(seal_key(bytes(size), STREAM, 7, [ALICE.id]), STREAM, 7, ALICE)


def test_a_key_of_another_epoch_or_stream_is_none():
    body = seal_key(KEY, STREAM, 7, [ALICE.id])
    assert open_key(body, STREAM, 8, ALICE) is None
    assert open_key(body, bytes(32), 7, ALICE) is None
    with pytest.raises(SegmentError, match="cut short"):
        open_key(body[:-1], STREAM, 7, ALICE)


def test_a_producer_that_seals_with_another_key_is_said():
    stream, segment = segment_of(b"")
    opener = Opener(ALICE)
    with pytest.raises(ShowSealed):
        opener.open_segment(segment, b"")
    opener.add_keys({1: KEY})
    with pytest.raises(SegmentError, match="epoch 1"):
        opener.open_segment(segment, seal_segment(bytes(32), stream, 0, b"words"))


def test_keys_of_no_epoch_are_no_segment():
    with pytest.raises(SegmentError, match="no epoch"):
        segment_of(b"", epoch=0, flags=Flag.KEYS)
    with pytest.raises(SegmentError, match="something else"):
        segment_of(b"", flags=Flag.KEYS | Flag.LAST)


# ---- shows -------------------------------------------------------------------------------------------------------


def words(heard):
    return [data for _, data in heard if data]


def test_who_waits_for_a_sealed_show_that_ends_before_it_began_is_told_its_end():
    """Its producer is gone then, and nobody needs a key for nothing."""

    async def test():
        async with produce(admission=Guests([ALICE.id])) as on_air, hear(*on_air.addresses) as stream:
            heard = []
            listening = asyncio.ensure_future(all_of(stream, heard))
            await until(lambda: on_air.listeners)
            await on_air.end()
            await listening
            assert {data for _, data in heard} == {b""}

    run(test())


def test_guests_hear_through_a_relay_that_cant():
    async def test():
        async with produce(admission=Guests([ALICE.id])) as on_air:
            await on_air.write(b"init", flags=Flag.INIT)
            await on_air.write(b"one")
            async with hear(*on_air.addresses, identity=BOB, place=HERE) as relay:
                await relay.announcement()
                heard = []
                listening = asyncio.ensure_future(all_of(hear(*relay.addresses, identity=ALICE), heard))
                await until(lambda: words(heard) == [b"init", b"one"])
                await on_air.rotate_key()
                await on_air.write(b"two")
                await on_air.end()
                await listening
                assert words(heard) == [b"init", b"one", b"two"]  # and init data once
                with pytest.raises(ShowSealed) as caught:
                    await all_of(relay)
                assert caught.value.refusal == Refusal.NOT_INVITED
            late = await all_of(hear(*on_air.addresses, identity=ALICE, back_ms=0))
            assert words(late) == [b"init", b"two"]
            carried = b"".join(on_air.held.get_segment(each).data for each in range(on_air.held.edge + 1))
            assert not [each for each in (b"init", b"one", b"two") if each in carried]

    run(test())


class List(KeyAdmission):
    """Those on a list that changes; or it can't be told."""

    def __init__(self, *those):
        self.those, self.away = list(those), False

    async def refused(self, asking):
        if self.away:
            raise ChainError("the node is away")
        return {each: Refusal.NO_TICKET for each in asking if each not in self.those}


def test_a_neighbour_that_tells_of_what_is_no_address_keeps_nobody_from_asking_for_keys():
    async def test():
        async with produce(admission=List(ALICE.id)) as on_air:
            on_air.feeder.know_others(lambda: ["that is none"])
            await on_air.write(b"one")
            await on_air.end()
            assert words(await all_of(hear(*on_air.addresses, identity=ALICE))) == [b"one"]

    run(test())


def test_a_node_of_another_identity_hears_what_is_sealed_to_who_listens():
    async def test():
        node = Identity.generate()
        async with produce(admission=Guests([ALICE.id])) as on_air:
            await on_air.write(b"one")
            async with hear(*on_air.addresses, identity=ALICE, node_identity=node, place=HERE) as stream:
                assert {Address.parse(each).peer for each in stream.addresses} == {node.id}
                listening = asyncio.ensure_future(all_of(stream))
                await until(lambda: stream.receiver.completed)
                await on_air.end()
                assert words(await listening) == [b"one"]

    run(test())


def test_who_leaves_hears_to_the_next_key_and_no_further():
    async def test():
        admission = List(ALICE.id, BOB.id)
        async with produce(admission=admission) as on_air:
            await on_air.write(b"one")
            heard, others = [], []
            listening = asyncio.ensure_future(all_of(hear(*on_air.addresses, identity=ALICE), heard))
            leaving = asyncio.ensure_future(all_of(hear(*on_air.addresses, identity=BOB), others))
            await until(lambda: words(heard) == words(others) == [b"one"])
            admission.those.remove(BOB.id)
            await on_air.write(b"two")  # the key is his still
            await until(lambda: words(others) == [b"one", b"two"])
            await on_air.rotate_key()
            await on_air.write(b"three")
            with pytest.raises(ShowSealed) as caught:
                await leaving
            assert caught.value.refusal == Refusal.NO_TICKET
            await on_air.end()
            await listening
            assert words(heard) == [b"one", b"two", b"three"]

    run(test())


def test_a_key_that_is_shared_opens_nothing_later():
    async def test():
        async with produce(admission=Guests([ALICE.id])) as on_air:
            await on_air.write(b"one")
            shared = await on_air.issuer.issue_keys(ALICE.id, ())
            thief = Opener(CAROL)
            thief.add_keys(shared)
            one = on_air.held.get_segment(1)
            assert thief.open_segment(one.segment, one.data) == b"one"
            await on_air.rotate_key()
            two = await on_air.write(b"two")
            thief.take_keys(on_air.held.get_segment(2).segment, on_air.held.get_segment(2).data)
            with pytest.raises(ShowSealed):
                thief.open_segment(two, on_air.held.get_segment(two.number).data)

    run(test())


def test_while_the_chain_is_away_nobody_loses_a_key_and_nobody_gets_one():
    async def test():
        admission = List(ALICE.id, BOB.id)
        async with produce(admission=admission) as on_air:
            await on_air.write(b"one")
            heard, late = [], []
            listening = asyncio.ensure_future(all_of(hear(*on_air.addresses, identity=ALICE), heard))
            await until(lambda: words(heard) == [b"one"])
            admission.away = True
            await on_air.rotate_key()
            await on_air.write(b"two")
            assert await on_air.issuer.issue_keys(BOB.id, ()) == Refusal.NOT_NOW
            coming = asyncio.ensure_future(all_of(hear(*on_air.addresses, identity=BOB), late))
            await until(lambda: words(heard) == [b"one", b"two"])
            admission.away = False
            await until(lambda: words(late) == [b"two"])
            await on_air.end()
            await asyncio.gather(listening, coming)

    run(test())


def test_a_recording_of_a_sealed_show_is_opened_by_its_keys(tmp_path):
    async def test():
        async with produce(admission=Guests([ALICE.id])) as on_air:
            recorder = Recorder(tmp_path / "kept", on_air.announcement)
            on_air.on_sent = recorder.add
            await on_air.write(b"one")
            await on_air.rotate_key()
            await on_air.write(b"two")
            await on_air.end()
            recorder.close()
            mine = Recorder(tmp_path / "heard", on_air.announcement)
            async for each in hear(*on_air.addresses, identity=ALICE, start=0):
                mine.add(each.segment, each.carried)
            mine.close()

    run(test())
    assert (tmp_path / "kept").read_bytes() == (tmp_path / "heard").read_bytes()
    recording, opener = Recording(tmp_path / "kept"), Opener(ALICE)
    assert [opener.open_segment(*each) for each in recording.segments()] == [b"", b"one", b"", b"two", b""]
    recording.close()


def test_a_sealed_show_goes_on_after_a_restart_with_another_key(tmp_path):
    async def test():
        options = {"show": bytes(range(32)), "store": tmp_path}
        async with produce(admission=Guests([ALICE.id]), **options) as on_air:
            before = await on_air.write(b"one")
        with pytest.raises(BroadcastError, match="sealed before, and stays so"):
            produce(**options)
        async with produce(admission=Guests([ALICE.id]), **options) as on_air:
            after = await on_air.write(b"two")
            assert after.epoch == before.epoch + 1
            await on_air.end()
            assert words(await all_of(hear(*on_air.addresses, identity=ALICE, start=2))) == [b"two"]

    run(test())


def test_keys_are_asked_of_the_producer_at_the_show_itself_and_of_nobody_else():
    async def test():
        async with (
            produce(admission=Guests([ALICE.id])) as on_air,
            hear(*on_air.addresses, place=HERE, identity=BOB) as relay,
        ):
            await on_air.write(b"one")
            await relay.receiver.wait_opened()
            assert "/show" in on_air.addresses[0]
            for address, given in ((on_air.addresses[0], True), (relay.addresses[0], False)):
                async with relay.node.connect(address) as connection:
                    stream = await connection.open_stream()
                    frames.write(stream, m.KeyWanted(()))
                    if given:
                        assert (await frames.read(stream)).why == Refusal.NOT_INVITED
                    else:
                        with pytest.raises(DtpError):
                            await frames.read(stream)

    run(test())


def test_a_producer_that_is_gone_is_given_up():
    def dial(address):
        raise CarrierError(f"{address} is down")

    async def test():
        announcement = Announcement.sign(ME, bytes(32), time_ms=0, sealed=True)
        with pytest.raises(ShowSealed, match="producer is down") as caught:
            await KeyAsker(dial, lambda _: ["producer"]).ask_keys(announcement, 1)
        assert caught.value.refusal == Refusal.NOT_NOW
        assert asyncio.get_running_loop().time() >= 30

    clock.run(test())


class Listeners(KeyAdmission):
    """Admits those who listen, counts whom it is asked about, and takes a second for each answer."""

    def __init__(self, *listeners):
        self.listeners, self.counts = set(listeners), []

    async def refused(self, asking):
        self.counts.append(len(asking))
        await asyncio.sleep(1)
        return {each: Refusal.NO_TICKET for each in asking if each not in self.listeners}


def test_who_asks_for_keys_has_nobody_elses_tickets_looked_at():
    """Anybody may ask: each question would cost the chain as many looks as there are listeners."""
    heard = [Identity(bytes([9, each] * 16)).id for each in range(50)]

    async def test():
        admission = Listeners(*heard)
        issuer = KeyIssuer(bytes(32), admission)
        for each in heard:
            assert await issuer.issue_keys(each, ()) == {}
        assert (
            await issuer.issue_keys(
                BOB.id, [seat_claim(KeySigner.from_identity(ALICE), bytes(32), BOB.id, 5)]
            )
            == Refusal.NO_TICKET
        )
        assert set(admission.counts) == {1}
        assert issuer.listeners == 50
        await issuer.rotate_key()
        assert admission.counts[-1] == 50

    clock.run(test())


def test_who_is_let_in_while_the_next_key_is_made_has_it():
    """Whose ticket is looked at for that is known before the chain answers."""

    class Slow(Seats):
        async def _list_tickets(self, accounts):
            await asyncio.sleep(1)
            return {each: (f"ticket of {each}",) for each in accounts}

    async def test():
        issuer = KeyIssuer(bytes(32), Slow(bytes(32)))
        assert await issuer.issue_keys(ALICE.id, ()) == {}
        asking = asyncio.ensure_future(issuer.issue_keys(BOB.id, ()))
        await asyncio.sleep(0.5)
        await issuer.rotate_key()
        assert await asking == {}
        made = issuer.begin_epoch()
        assert all(open_key(made.body, bytes(32), 1, each) == made.key for each in (ALICE, BOB))

    clock.run(test())


@pytest.mark.parametrize("why", [each for each in Refusal if each is not Refusal.FOR_SALE])
def test_who_has_a_ticket_is_not_told_to_buy_keys_where_it_helps_to_wait_or_to_set_the_clock(why):
    """It would pay for what it has paid for."""

    async def refuse(peer, claims):
        return why

    async def test():
        held = HeldSegments(Announcement.sign(ME, bytes(32), time_ms=0, sealed=True))
        feeder, network = Feeder(held, ME.id, ask_keys=refuse), Network()
        feeder.keys_sold_at, network.serving["producer"] = f"dtp+tcp://{ME.id}@192.0.2.1:9/keys", feeder
        async with network.dial(BOB.id, "producer") as connection:
            stream = await connection.open_stream()
            frames.write(stream, m.KeyWanted(()))
            return (await frames.read(stream)).why

    is_for_sale = why not in (Refusal.CLOCK, Refusal.NOT_NOW)
    assert clock.run(test()) == (Refusal.FOR_SALE if is_for_sale else why)


def test_a_flood_of_questions_for_keys_from_one_address_delays_nobody_elses():
    async def test():
        admission = Listeners(BOB.id)
        held = HeldSegments(Announcement.sign(ME, bytes(32), time_ms=0, sealed=True))
        feeder = Feeder(held, ME.id, ask_keys=KeyIssuer(bytes(32), admission).issue_keys)
        network = Network()
        network.serving["producer"] = feeder

        async def ask(peer, source):
            async with network.dial(peer, "producer", source) as connection:
                stream = await connection.open_stream()
                frames.write(stream, m.KeyWanted(()))
                return await frames.read(stream)

        flood = [asyncio.ensure_future(ask(Identity.generate().id, "attacker")) for _ in range(100)]
        await asyncio.sleep(0.5)
        began = asyncio.get_running_loop().time()
        assert await ask(BOB.id, "bob") == m.KeysGiven({})
        assert asyncio.get_running_loop().time() - began < 2
        told = [each.why for each in await asyncio.gather(*flood)]
        assert told.count(Refusal.NOT_NOW) > 80  # nobody waits for ever
        assert len(admission.counts) < 15

    clock.run(test())
