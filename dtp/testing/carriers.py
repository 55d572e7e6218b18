"""The check that every carrier has to pass: `check_carrier`. For carriers of this package and for your own.

It uses a kind of carrier as the layers above do, dials and listens, and raises `ContractError` with the
clause of `dtp.carriers.base` that was broken. It needs no particular loop: on `dtp.testing.clock` it is
deterministic, on a loop with sockets it waits for events only.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass

from dtp.carriers.base import CarrierKind
from dtp.carriers.errors import ListenError
from dtp.errors import CarrierError
from dtp.testing.carrier_ends import PATIENCE, Bench, CarrierEnd, ContractError, compare_bytes, settle

#: Give up on back-pressure when so many bytes were taken for a receiver that doesn't read.
NO_BACKPRESSURE = 256 * 1024 * 1024

#: How many packets are sent over a lossy path.
PACKETS = 400

_SIZES = (1, 2, 3, 125, 126, 1000, 65535, 65536, 65537, 300_000)


def _noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


# The checks. Each gets a pair that isn't started.


async def _describes_itself(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    for carrier in (near.carrier, far.carrier):
        if not (carrier.scheme and carrier.source and carrier.remote):
            raise ContractError("scheme, source and remote must say something")


async def _keeps_order(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    _start(near, far)
    wanted = bytearray()
    for number, size in enumerate(_SIZES):
        piece = _noise(size, number)
        wanted += piece
        await near.send_piece(piece)
    await far.until_received(bytes(wanted))


async def _carries_both_ways(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    _start(near, far)
    there, back = _noise(options.transfer, 1), _noise(options.transfer, 2)
    await asyncio.gather(near.send_all(there, 100_000), far.send_all(back))
    await asyncio.gather(far.until_received(there), near.until_received(back))


async def _allows_calls_from_reports(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    """Echo from inside `carrier_received`, and close there on a sign."""

    def on_received(data: bytes) -> None:
        far.write(data)
        if data.endswith(b"."):
            far.close()

    far.recorder.on_received = on_received
    _start(near, far)
    near.write(b"again")
    await near.until_received(b"again")
    near.write(b" and out.")
    await near.until_received(b"again and out.")
    _orderly(await near.until_lost())
    _orderly(await far.until_lost())


async def _takes_empty_writes(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    _start(near, far)
    if not near.write(b""):
        raise ContractError("an empty write must not make the writer wait")
    near.write(b"x")
    await far.until_received(b"x")


async def _closes_after_the_rest(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    _start(near, far)
    data = _noise(options.transfer, 3)
    near.write(data)  # more than fits: whatever it says, all is kept
    near.write(b"goodbye")
    near.close()
    near.close()
    if near.write(b"too late"):
        raise ContractError("write after close must give False")
    _orderly(await far.until_lost())
    compare_bytes(far.recorder.received, data + b"goodbye")
    _orderly(await near.until_lost())
    for end in (near, far):
        if end.write(b"too late"):
            raise ContractError("write after carrier_lost must give False")
        end.close()
        end.abort()


async def _drops_what_comes_after_close(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    _start(near, far)
    far.write(_noise(100_000, 4))
    near.close()
    _orderly(await near.until_lost())
    await far.until_lost()
    if near.recorder.received:
        raise ContractError("carrier_received after close")


async def _both_close(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    _start(near, far)
    near.close()
    far.close()
    _orderly(await near.until_lost())
    _orderly(await far.until_lost())


async def _closes_before_start(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    """Check that what was sent to a carrier before it started is kept for it, and so is the end."""
    near.start()
    near.write(b"early")
    near.close()
    await settle()
    far.start()
    _orderly(await far.until_lost())
    compare_bytes(far.recorder.received, b"early")
    _orderly(await near.until_lost())


async def _ends_unstarted(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    far.start()
    near.close()
    _orderly(await far.until_lost())
    near.start()
    _orderly(await near.until_lost())


async def _aborts(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    _start(near, far)
    near.write(b"x")
    await far.until_received(b"x")
    near.abort()
    near.abort()
    near.close()
    if near.write(b"too late"):
        raise ContractError("write after abort must give False")
    if await near.until_lost() is not None:
        raise ContractError("carrier_lost after abort must say None")
    lost = await far.until_lost()
    if options.abort_is_seen and lost is None:
        raise ContractError("an abort looked like an orderly end to the other side")
    compare_bytes(far.recorder.received, b"x")


async def _aborts_while_blocked(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    near.start()
    sent = _fill(near)
    near.abort()
    if await near.until_lost() is not None:
        raise ContractError("carrier_lost after abort must say None")
    far.start()
    await far.until_lost()
    got = far.recorder.received
    compare_bytes(got, bytes(sent[: len(got)]))


async def _aborts_a_blocked_close(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    near.start()
    _fill(near)
    near.close()
    await settle()
    if near.recorder.ended:
        raise ContractError("close did not wait for the other side to take the rest")
    near.abort()
    if await near.until_lost() is not None:
        raise ContractError("carrier_lost after abort must say None")


async def _stops_the_writer(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    near.start()
    sent = _fill(near)
    await settle()

    def times() -> int:
        return near.recorder.writable

    if times() and not options.middle:
        raise ContractError("carrier_writable although nothing was read")
    far.start()
    await near.wait_until(lambda: times() > 0, "carrier_writable after the other side has read")
    await far.until_received(bytes(sent))
    await settle()
    if times() != 1:
        raise ContractError(f"carrier_writable came {times()} times for one stop")


async def _pauses_reading(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    """Paused from inside a report, it reports nothing more, not even the end, until it is resumed."""
    data = _noise(200_000, 6)
    reports: list[int] = []

    def on_received(part: bytes) -> None:
        reports.append(len(part))
        far.carrier.pause_reading()
        far.carrier.pause_reading()

    far.recorder.on_received = on_received
    _start(near, far)
    near.write(data)
    near.close()
    got = 0
    while got < len(data):
        await far.wait_until(lambda: bool(reports), "carrier_received")
        await settle()
        if len(reports) != 1:
            raise ContractError("carrier_received although reading was paused")
        if far.recorder.ended:
            raise ContractError("carrier_lost although reading was paused")
        got += reports.pop()
        far.carrier.resume_reading()
        far.carrier.resume_reading()
        if reports:
            raise ContractError("carrier_received from inside resume_reading")
    _orderly(await far.until_lost())
    compare_bytes(far.recorder.received, data)
    _orderly(await near.until_lost())


async def _has_ended_only_once_it_has(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    """Check that what was sent before the end is not an end, whether or not that is known of one whose reading is
    paused."""
    _start(near, far)
    near.write(b"x")
    await far.until_received(b"x")
    far.carrier.pause_reading()
    await settle()
    if far.carrier.has_ended():
        raise ContractError("has_ended is true though nothing has ended")
    near.write(b"y")
    near.close()
    await settle()
    if far.carrier.has_ended():
        raise ContractError("has_ended is true in front of what is still to be read")
    far.carrier.resume_reading()
    _orderly(await far.until_lost())
    _orderly(await near.until_lost())
    compare_bytes(far.recorder.received, b"xy")


async def _breaks_off_only_once_it_has(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    """Check that an orderly end isn't a break, and after one of those that are known the end comes, though reading is
    paused."""
    _start(near, far)
    near.write(b"x")
    await far.until_received(b"x")
    far.carrier.pause_reading()
    near.write(b"y")
    near.close()
    await settle()
    if far.carrier.broken_off():
        raise ContractError("broken_off is true after an orderly end")
    far.carrier.resume_reading()
    _orderly(await far.until_lost())
    _orderly(await near.until_lost())
    compare_bytes(far.recorder.received, b"xy")


async def _ends_once_it_has_broken_off(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    _start(near, far)
    near.write(b"x")
    await far.until_received(b"x")
    far.carrier.pause_reading()
    near.write(b"y")
    await settle()
    near.abort()
    await near.until_lost()
    await settle()
    if far.carrier.broken_off():
        if far.recorder.ended:
            raise ContractError("carrier_lost from inside broken_off")
    else:  # it isn't known to every carrier
        far.carrier.resume_reading()
    await far.until_lost()


def _fill(end: CarrierEnd) -> bytearray:
    """Write until the carrier says to wait, and one piece more; what was written."""
    sent = bytearray()
    while True:
        piece = _noise(65536, len(sent))
        sent += piece
        if not end.write(piece):
            break
        if len(sent) >= NO_BACKPRESSURE:
            raise ContractError(f"write never gave False, for {len(sent)} bytes that nobody reads")
    sent += b"one more"
    if end.write(b"one more"):
        raise ContractError("write gave True before carrier_writable")
    return sent


def _start(*ends: CarrierEnd) -> None:
    for end in ends:
        end.start()


def _orderly(lost: CarrierError | None) -> None:
    if lost is not None:
        raise ContractError(f"an orderly end was reported as {lost!r}")


async def _keeps_packets_whole(near: CarrierEnd, far: CarrierEnd, options: _Options) -> None:
    """Check a lossy path, where there is one: packets come as sent or not at all, and hold up no bytes."""
    _start(near, far)
    size = near.carrier.packet_size
    near.write(b"x")
    await far.until_received(b"x")
    near.write_packet(bytes(size + 1))  # too large, or no path: dropped
    if not size:
        await near.deliver_message(b"y", far)
        if far.recorder.packets:
            raise ContractError("a packet came although packet_size is 0")
        return
    rng = random.Random(5)
    packets = [rng.randbytes(rng.choice([16, 100, size])) for _ in range(PACKETS)]
    for number, packet in enumerate(packets):
        near.write_packet(packet)
        if number % 20 == 19:  # what is sent faster than it is read is lost
            await near.deliver_message(b"%d" % number, far)
    got = far.recorder.packets
    await far.wait_until(
        lambda: len(got) >= options.packets_expected, f"{options.packets_expected} of {PACKETS} packets"
    )
    if not set(got) <= set(packets):
        raise ContractError("a packet arrived that was not sent so")
    near.close()
    near.write_packet(b"too late")
    await near.until_lost()


_Check = Callable[[CarrierEnd, CarrierEnd, "_Options"], Awaitable[None]]

_CHECKS: tuple[_Check, ...] = (
    _describes_itself,
    _keeps_order,
    _carries_both_ways,
    _allows_calls_from_reports,
    _takes_empty_writes,
    _closes_after_the_rest,
    _drops_what_comes_after_close,
    _both_close,
    _closes_before_start,
    _ends_unstarted,
    _aborts,
    _aborts_while_blocked,
    _aborts_a_blocked_close,
    _stops_the_writer,
    _pauses_reading,
    _has_ended_only_once_it_has,
    _breaks_off_only_once_it_has,
    _ends_once_it_has_broken_off,
    _keeps_packets_whole,
)


# The checks of a listener.


async def _listener_frees_its_place(bench: Bench, options: _Options) -> None:
    """Close: what was accepted lives on, nothing new comes in, the place is free again, twice does no
    harm."""
    async with bench.pair() as (near, far):
        _start(near, far)
        urls = bench.listener.urls
        await bench.listener.close()
        await bench.listener.close()
        with suppress(CarrierError):
            (await bench.dial()).abort()
            raise ContractError("dialled a listener that is closed")
        await near.deliver_message(b"still there", far)
        await far.deliver_message(b"so am I", near)
    bench.listener = await bench.kind.listen(options.listen_again(urls[0]), bench.accepted.put_nowait)
    async with bench.pair() as (near, far):
        _start(near, far)
        await near.deliver_message(b"new", far)


async def _listener_keeps_its_place(bench: Bench, options: _Options) -> None:
    try:
        second = await bench.kind.listen(
            options.listen_again(bench.listener.urls[0]), bench.accepted.put_nowait
        )
    except ListenError:
        return
    await second.close()
    raise ContractError("two listeners at one place, without being asked for that")


async def _keeps_pairs_apart(bench: Bench, options: _Options) -> None:
    async with AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(bench.pair()) for _ in range(5)]
        for number, (near, far) in enumerate(pairs):
            _start(near, far)
            await near.deliver_message(b"%d" % number, far)
        for number, (_near, far) in enumerate(pairs):
            if set(far.recorder.received) != set(b"%d" % number):
                raise ContractError(f"pair {number} received {bytes(far.recorder.received)!r}")


@dataclass(frozen=True)
class _Options:
    transfer: int
    abort_is_seen: bool
    packets_expected: int
    listen_again: Callable[[str], str]
    middle: bool


def _same(url: str) -> str:
    return url


async def check_carrier(
    kind: CarrierKind,
    listen_url: str,
    *,
    dial_url: Callable[[str], str] = _same,
    listen_again: Callable[[str], str] = _same,
    abort_is_seen: bool = True,
    transfer: int = 3_000_000,
    packets_expected: int = PACKETS,
    patience: float = PATIENCE,
    middle: bool = False,
) -> None:
    """Check that `kind` keeps the contract of `dtp.carriers.base`. Raises `ContractError` when it doesn't.

    Listens at `listen_url`, and dials what `dial_url` makes of the URL that the listener gives (to add
    options, or to go through a proxy); `listen_again` makes of that URL one to listen at once more.
    `abort_is_seen`: the other side can tell an abort from an orderly end. `transfer`: bytes in the large
    transfers. `packets_expected`: how many of 400 packets have to arrive at least, where there is a lossy
    path. `patience`: seconds to wait for anything that has to happen. `middle`: something between the ends takes
    bytes while nobody reads: a relay, or what QUIC may have under way.
    """
    bench = Bench(kind, dial_url, patience)
    options = _Options(transfer, abort_is_seen, packets_expected, listen_again, middle)
    bench.listener = await kind.listen(listen_url, bench.accepted.put_nowait)
    try:
        for check in _CHECKS:
            for swapped in (False, True):
                with _named(check.__name__ + (", from the accepted side" if swapped else "")):
                    async with bench.pair(swapped) as (near, far):
                        await check(near, far, options)
        for listener_check in (_keeps_pairs_apart, _listener_keeps_its_place, _listener_frees_its_place):
            with _named(listener_check.__name__):
                await listener_check(bench, options)
    finally:
        await bench.listener.close()


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say in a `ContractError` which check it comes from."""
    try:
        yield
    except ContractError as error:
        raise ContractError(f"{name.removeprefix('_')}: {error}") from error
