"""What arrives together is all heard, and `flush` tells the truth about what the peer has."""

import asyncio

import pytest

import dtp
from dtp.carriers.memory import MemoryCarrier
from dtp.net.connection import HEARD, LINGER
from dtp.testing.clock import run

ME = dtp.Identity(bytes(range(32)))


def test_connecting_again_when_the_admission_comes_with_the_end_of_the_handshake() -> None:
    async def main() -> None:
        async with await dtp.listen("memory://again", identity=ME) as listener:
            for _ in range(2):  # the first teaches the static key, the second uses it: IK
                async with dtp.connect(listener.address()) as client:
                    assert await client.ping() >= 0

    run(main())


def test_flush_returns_when_the_end_is_acknowledged_and_the_peer_goes_on_sending() -> None:
    async def main() -> bytes:
        async with (
            await dtp.listen("memory://flush", identity=ME) as listener,
            dtp.connect(listener.address()) as client,
        ):
            server = await listener.accept()
            stream = await client.open_stream()
            stream.write(b"all I have to say")
            stream.write_eof()
            await stream.flush()
            return await (await server.accept_stream()).read()

    assert run(main()) == b"all I have to say"


def test_flush_after_the_peer_took_everything_and_closed() -> None:
    async def main() -> None:
        async with (
            await dtp.listen("memory://closed", identity=ME) as listener,
            dtp.connect(listener.address()) as client,
        ):
            server = await listener.accept()
            stream = await client.open_stream()
            stream.write(b"x" * 1000)
            stream.write_eof()
            await (await server.accept_stream()).read()
            server.abort()  # the acknowledgement and the goodbye leave in one write
            await client.wait_closed()
            await stream.flush()
            with pytest.raises(dtp.ConnectionClosed):
                stream.write(b"more")

    run(main())


def test_flush_when_the_connection_ended_first() -> None:
    async def main() -> None:
        async with (
            await dtp.listen("memory://early", identity=ME) as listener,
            dtp.connect(listener.address()) as client,
        ):
            server = await listener.accept()
            stream = await client.open_stream()
            stream.write(b"x" * (3 * client.limits.stream_window))
            flushing = asyncio.ensure_future(stream.flush())
            await (await server.accept_stream()).readexactly(1000)
            server.abort()
            with pytest.raises(dtp.ConnectionClosed):
                await flushing

    run(main())


def have_closing_wait(patch: pytest.MonkeyPatch) -> list[MemoryCarrier]:
    """Have carriers in memory not close but by `abort`; return where those that are aborted are listed."""
    aborted: list[MemoryCarrier] = []
    abort = MemoryCarrier.abort

    def note_abort(carrier: MemoryCarrier) -> None:
        aborted.append(carrier)
        abort(carrier)

    patch.setattr(MemoryCarrier, "close", lambda carrier: None)
    patch.setattr(MemoryCarrier, "abort", note_abort)
    return aborted


def test_closing_what_is_over_waits_a_second_for_a_peer_that_keeps_its_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However it ended. It took 5 s, each time that somebody left `async with`."""

    async def main() -> None:
        async with await dtp.listen("memory://stays", identity=ME) as listener:
            client = await dtp.connect(listener.address())
            await client.ping()
            cut_off = have_closing_wait(monkeypatch)
            client.abort()
            began = client.loop.time()
            await client.close()
            assert client.loop.time() - began == HEARD
            assert len(cut_off) == 1
            await client.close()
            assert client.loop.time() - began == HEARD
            monkeypatch.undo()

    run(main())


def test_carriers_whose_peer_takes_nothing_are_cut_off_when_a_connection_has_waited_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer that was killed never says that it has the last word, over QUIC for instance."""

    async def main() -> None:
        async with await dtp.listen("memory://killed", identity=ME):
            # So far away that nothing comes of what it does when it hears of the end.
            client = await dtp.connect(dtp.Address.direct(ME.id, "memory://killed?delay=3"))
            await client.ping()
            cut_off = have_closing_wait(monkeypatch)
            client.abort()
            began = client.loop.time()
            await client.wait_gone()
            assert client.loop.time() - began == LINGER
            assert len(cut_off) == 2  # the listener's as well
            monkeypatch.undo()

    run(main())
