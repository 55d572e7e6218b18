"""Listing and subscribing: order, filters, limits, cursors, and subscribers that don't read."""

import asyncio

import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from dtp.chain import ChainClient, KeySigner, Program
from dtp.chain import host as hosts
from dtp.localnet.grpc import server as server_module
from dtp.localnet.grpc.event_stream import decode_cursor, encode_cursor

from .conftest import library_channel, run

SERVICE = ("LedgerService", "list_events")


@pytest.fixture(scope="module")
def many(net, history):
    """Twelve transactions with one to three events each; all events in order."""
    signer = KeySigner.generate()
    net.fund(signer.address)

    async def work():
        keys = []
        async with ChainClient(net.url, signer, deployments=None) as chain:
            from dtp.chain import Deployment

            chain.deployments.save(Deployment("transport", history.package, history.package, ""))
            for n in range(12):
                program = Program()
                for _ in range(n % 3 + 1):
                    hosts.create(program, signer.address)
                executed = await chain.execute(program)
                keys += [event.key for event in executed.events]
        return signer.address, keys

    return run(work())


def events_of(frames):
    return [
        (each.event.transaction_digest, each.event.event_index) for each in frames if each.event is not None
    ]


def by_sender(v2, address):
    literal = v2.EventLiteral(sender=v2.SenderFilter(address=address))
    return v2.EventFilter(terms=[v2.EventTerm(literals=[literal])])


def reason(frames):
    (end,) = [each.end for each in frames if each.end is not None]
    assert frames[-1].end is end
    return end.reason.name


def test_all_in_order_with_a_cursor_on_every_frame(call, v2, many):
    sender, keys = many
    frames = call(*SERVICE, v2.ListEventsRequest(filter=by_sender(v2, sender)))
    assert events_of(frames) == keys
    assert reason(frames) == "LEDGER_TIP"
    places = [decode_cursor(each.watermark.cursor, "") for each in frames]
    assert places == sorted(places)  # type: ignore[type-var]
    first = frames[0].event
    assert first.event_type.endswith("::host::HostCreated")
    assert first.contents.name == first.event_type
    assert first.json.struct_value is not None
    assert first.checkpoint is not None
    assert first.transaction_index in (0, 1)  # the clock's transaction comes first when it has moved


def test_backwards(call, v2, many):
    sender, keys = many
    options = v2.QueryOptions(ordering=v2.Ordering.DESCENDING, limit=7)
    frames = call(*SERVICE, v2.ListEventsRequest(filter=by_sender(v2, sender), options=options))
    assert events_of(frames) == keys[::-1][:7]
    assert reason(frames) == "ITEM_LIMIT"
    options = v2.QueryOptions(ordering=v2.Ordering.DESCENDING, before=frames[-1].watermark.cursor)
    rest = call(*SERVICE, v2.ListEventsRequest(filter=by_sender(v2, sender), options=options))
    assert events_of(rest) == keys[::-1][7:]
    assert reason(rest) == "CHECKPOINT_BOUND"


@pytest.mark.parametrize("limit", [1, 2, 5, 24, 1000])
def test_pages_of_every_size_give_all(call, v2, many, limit):
    sender, keys = many
    seen, after = [], None
    while True:
        request = v2.ListEventsRequest(
            filter=by_sender(v2, sender), options=v2.QueryOptions(limit=limit, after=after)
        )
        frames = call(*SERVICE, request)
        found = events_of(frames)
        assert len(found) <= limit
        seen += found
        after = frames[-1].watermark.cursor
        if reason(frames) == "LEDGER_TIP":
            break
    assert seen == keys


def test_bounds(call, v2, many):
    sender, keys = many
    frames = call(*SERVICE, v2.ListEventsRequest(filter=by_sender(v2, sender)))
    listed = [each for each in frames if each.event is not None]
    middle = listed[10].event.checkpoint
    for start, end, expected in (
        (middle, None, [each for each in listed if each.event.checkpoint >= middle]),
        (None, middle, [each for each in listed if each.event.checkpoint < middle]),
        (middle, middle, []),
        (middle, middle + 1, [each for each in listed if each.event.checkpoint == middle]),
    ):
        request = v2.ListEventsRequest(
            filter=by_sender(v2, sender), start_checkpoint=start, end_checkpoint=end
        )
        found = call(*SERVICE, request)
        assert events_of(found) == events_of(expected)
        assert reason(found) == ("LEDGER_TIP" if end is None else "CHECKPOINT_BOUND")
    between = v2.QueryOptions(after=listed[3].watermark.cursor, before=listed[9].watermark.cursor)
    found = call(*SERVICE, v2.ListEventsRequest(filter=by_sender(v2, sender), options=between))
    assert events_of(found) == keys[4:9]
    assert reason(found) == "CURSOR_BOUND"


def test_nothing_at_all(call, v2):
    (frame,) = call(*SERVICE, v2.ListEventsRequest(end_checkpoint=0))
    assert (frame.event, frame.end.reason.name) == (None, "CHECKPOINT_BOUND")
    assert not frame.watermark.cursor


def test_a_final_cursor_continues_with_what_comes_later(call, v2, net, many):
    frames = call(*SERVICE, v2.ListEventsRequest(start_checkpoint=10**6))
    after = frames[-1].watermark.cursor
    net.advance_clock(1)
    again = call(*SERVICE, v2.ListEventsRequest(options=v2.QueryOptions(after=after)))
    assert events_of(again) == []


def test_filters(call, v2, history, many):
    sender, keys = many

    def listed(*terms):
        request = v2.ListEventsRequest(
            filter=v2.EventFilter(terms=[v2.EventTerm(literals=list(t)) for t in terms])
        )
        return events_of(call(*SERVICE, request))

    def literal(negated=False, **fields):
        return v2.EventLiteral(negated=negated, **fields)

    mine = literal(sender=v2.SenderFilter(address=sender))
    others = literal(True, sender=v2.SenderFilter(address=sender))
    module = literal(emit_module=v2.EmitModuleFilter(module=f"{history.package}::host"))
    created = literal(event_type=v2.EventTypeFilter(event_type=f"{history.package}::host::HostCreated"))
    not_created = literal(
        True, event_type=v2.EventTypeFilter(event_type=f"{history.package}::host::HostCreated")
    )
    everything = listed([literal(event_type=v2.EventTypeFilter(event_type=history.package))])
    assert listed([mine]) == listed([mine, module]) == listed([mine, created]) == keys
    assert listed([mine, not_created]) == []
    assert sorted(listed([mine]) + listed([others])) == sorted(everything)
    assert listed([mine], [others]) == everything
    assert listed([literal(event_type=v2.EventTypeFilter(event_type=f"{history.package}::pipe"))]) == []
    assert listed([literal(emit_module=v2.EmitModuleFilter(module="0x2"))]) == []


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda v2: v2.EventFilter(), Status.INVALID_ARGUMENT),
        (lambda v2: v2.EventFilter(terms=[v2.EventTerm()]), Status.INVALID_ARGUMENT),
        (
            lambda v2: v2.EventFilter(terms=[v2.EventTerm(literals=[v2.EventLiteral()])]),
            Status.INVALID_ARGUMENT,
        ),
        (lambda v2: literal_of(v2, sender=v2.SenderFilter(address="bob")), Status.INVALID_ARGUMENT),
        (lambda v2: literal_of(v2, sender=v2.SenderFilter()), Status.INVALID_ARGUMENT),
        (
            lambda v2: literal_of(v2, event_type=v2.EventTypeFilter(event_type="0x1::m::")),
            Status.INVALID_ARGUMENT,
        ),
        (lambda v2: literal_of(v2, emit_module=v2.EmitModuleFilter(module="m")), Status.INVALID_ARGUMENT),
        (lambda v2: literal_of(v2, event_stream_head=v2.EventStreamHeadFilter()), Status.UNIMPLEMENTED),
    ],
)
def test_filters_that_are_none(call, v2, make, status):
    with pytest.raises(GRPCError) as refused:
        call(*SERVICE, v2.ListEventsRequest(filter=make(v2)))
    assert refused.value.status is status


def literal_of(v2, **fields):
    return v2.EventFilter(terms=[v2.EventTerm(literals=[v2.EventLiteral(**fields)])])


@pytest.mark.parametrize("cursor", [b"x", b"0" * 15, b"0" * 17])
def test_cursors_that_are_none(call, v2, cursor):
    with pytest.raises(GRPCError) as refused:
        call(*SERVICE, v2.ListEventsRequest(options=v2.QueryOptions(after=cursor)))
    assert (refused.value.status, "options.after" in refused.value.message) == (Status.INVALID_ARGUMENT, True)  # type: ignore[operator]


def test_cursors_both_ways():
    assert decode_cursor(encode_cursor((5, 6, 7)), "") == (5, 6, 7)
    assert decode_cursor(b"", "") is decode_cursor(None, "") is None


# ---- subscriptions


class Subscription:
    def __init__(self, net, v2, method, request, answer):
        self.channel = library_channel(net.url)
        route = f"/sui.rpc.v2.SubscriptionService/{method}"
        self.call = self.channel.request(route, Cardinality.UNARY_STREAM, type(request), answer)
        self.request = request

    async def __aenter__(self):
        self.stream = await self.call.__aenter__()
        await self.stream.send_message(self.request, end=True)
        await self.stream.recv_initial_metadata()
        return self.stream

    async def __aexit__(self, *exc):
        self.channel.close()


def test_new_events_with_cursors_that_a_listing_understands(call, v2, net, history):
    signer = KeySigner.generate()
    net.fund(signer.address)
    request = v2.SubscribeEventsRequest(filter=by_sender(v2, signer.address))

    async def work():
        async with ChainClient(net.url, signer, deployments=None) as chain:
            from dtp.chain import Deployment

            chain.deployments.save(Deployment("transport", history.package, history.package, ""))
            async with Subscription(
                net, v2, "SubscribeEvents", request, v2.SubscribeEventsResponse
            ) as stream:
                keys, frames = [], []
                for n in range(3):
                    program = Program()
                    for _ in range(n + 1):
                        hosts.create(program, signer.address)
                    keys += [event.key for event in (await chain.execute(program)).events]
                await asyncio.to_thread(net.advance_clock, 5)  # a checkpoint without any
                while len([f for f in frames if f.event is not None]) < 6 or frames[-1].event is not None:
                    frames.append(await stream.recv_message())
                return keys, frames

    keys, frames = run(work())
    assert events_of(frames) == keys
    marks = [(decode_cursor(each.watermark.cursor, ""), each.watermark.checkpoint) for each in frames]
    assert marks == sorted(marks)
    for place, each in enumerate(frames):
        if each.event is not None:
            options = v2.QueryOptions(after=each.watermark.cursor)
            rest = call(*SERVICE, v2.ListEventsRequest(filter=request.filter, options=options))
            done = len(events_of(frames[: place + 1]))
            assert events_of(rest) == keys[done:]


def test_new_checkpoints_without_gaps(v2, net):
    from dtp.localnet.grpc.messages import library

    mask = library().protobuf.FieldMask(paths=["sequence_number", "summary.timestamp", "transactions.digest"])
    request = v2.SubscribeCheckpointsRequest(read_mask=mask)

    async def work():
        async with Subscription(
            net, v2, "SubscribeCheckpoints", request, v2.SubscribeCheckpointsResponse
        ) as stream:
            for _ in range(4):
                await asyncio.to_thread(net.advance_clock, 10)
            return [await stream.recv_message() for _ in range(4)]

    frames = run(work())
    numbers = [each.cursor for each in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert [each.checkpoint.sequence_number for each in frames] == numbers
    assert all(len(each.checkpoint.transactions) == 1 for each in frames)


def test_a_subscriber_that_falls_behind_is_cut_off(v2, net, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_BEHIND", 3)
    request = v2.SubscribeCheckpointsRequest()

    async def drained(stream):
        while await stream.recv_message() is not None:
            pass
        await stream.recv_trailing_metadata()

    def burst(node):
        for _ in range(20):  # within one turn of the loop: nothing can be sent between
            node.advance_clock(1)

    async def work():
        async with Subscription(
            net, v2, "SubscribeCheckpoints", request, v2.SubscribeCheckpointsResponse
        ) as stream:
            await asyncio.to_thread(net.run, burst)
            with pytest.raises(GRPCError) as cut:
                await drained(stream)
            return cut.value

    error = run(work())
    assert error.status is Status.RESOURCE_EXHAUSTED
    assert "subscribe again" in error.message


def test_unsupported_filters_are_named(call, v2):
    with pytest.raises(GRPCError) as refused:
        call(
            "SubscriptionService",
            "subscribe_checkpoints",
            v2.SubscribeCheckpointsRequest(filter=v2.TransactionFilter()),
        )
    assert refused.value.status is Status.UNIMPLEMENTED


def test_streams_end_with_the_node(v2):
    from dtp.localnet.grpc.localnet import LocalnetThread

    async def work():
        net = await asyncio.to_thread(LocalnetThread().start)
        request = v2.SubscribeCheckpointsRequest()
        async with Subscription(
            net, v2, "SubscribeCheckpoints", request, v2.SubscribeCheckpointsResponse
        ) as stream:
            await asyncio.to_thread(net.close)
            with pytest.raises((GRPCError, StreamTerminatedError)):
                await stream.recv_message()

    run(work())
