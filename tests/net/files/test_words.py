"""Codes of words: who has them gets the addresses, and who guesses, guesses once; also who sits between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtp
from dtp.files.words import (
    WORDS_SERVICE,
    CodeBurnt,
    CodeUnusable,
    CodeWrong,
    WordCode,
    WordSender,
    ask_by_words,
    looks_like_code,
)

CODE = WordCode(7, ("cactus", "violin"))
WRONG = WordCode(7, ("cactus", "zoo"))
PLACE = dtp.Address.parse(f"dtp+tcp://{dtp.Identity.generate().id}@192.0.2.1:9/words-secret")


def meeting(
    test: Callable[[WordSender, str], Awaitable[None]], name: str, places: Sequence[dtp.Address] = (PLACE,)
) -> None:
    async def main() -> None:
        sender = WordSender(CODE, places)
        services = {WORDS_SERVICE: sender.serve_connection}
        async with (
            asyncio.timeout(60),
            await dtp.listen(f"memory://{name}", services, identity=CODE.meeting) as listener,
        ):
            await test(sender, str(listener.address(WORDS_SERVICE)))

    asyncio.run(main())


def test_who_has_the_words_is_told_where_the_file_is() -> None:
    async def main(sender: WordSender, address: str) -> None:
        async with dtp.connect(address) as connection:
            assert await ask_by_words(connection, CODE) == [PLACE]
        assert await sender.used is True
        async with dtp.connect(address) as connection:  # a second one with the right words comes too late
            with pytest.raises(CodeBurnt):
                await ask_by_words(connection, CODE)

    meeting(main, "words-right")


@pytest.mark.parametrize("told", [["dtp+pipe://{}@0x" + "5a" * 32 + "/x", "dtp+unix://{}@/run/x.sock"], []])
def test_who_has_made_the_code_has_nobody_pay_or_use_what_is_on_this_machine(told: list[str]) -> None:
    unfit = [dtp.Address.parse(each.format(PLACE.peer)) for each in told]

    async def main(sender: WordSender, address: str) -> None:
        async with dtp.connect(address) as connection:
            with pytest.raises(CodeWrong, match="no place"):
                await ask_by_words(connection, CODE)

    meeting(main, "words-unfit", unfit)


def test_one_wrong_guess_burns_the_code() -> None:
    async def main(sender: WordSender, address: str) -> None:
        async with dtp.connect(address) as connection:
            with pytest.raises(CodeWrong):
                await ask_by_words(connection, WRONG)
        assert await sender.used is False
        async with dtp.connect(address) as connection:
            with pytest.raises(CodeBurnt):
                await ask_by_words(connection, CODE)

    meeting(main, "words-wrong")


def test_of_two_guessers_at_once_one_is_heard() -> None:
    async def main(sender: WordSender, address: str) -> None:
        async with dtp.connect(address) as one, dtp.connect(address) as two:
            results = await asyncio.gather(
                ask_by_words(one, WRONG), ask_by_words(two, CODE), return_exceptions=True
            )
        # Whoever proves first is judged; nobody after that.
        assert isinstance(results[0], CodeWrong | CodeBurnt)
        assert (results[1] == [PLACE]) is await sender.used

    meeting(main, "words-two")


def test_attempts_without_a_guess_leave_the_code_until_there_are_too_many() -> None:
    async def main(sender: WordSender, address: str) -> None:
        for _ in range(3):
            async with dtp.connect(address) as connection:
                stream = await connection.open_stream()
                stream.write(bytes(33))
                await stream.readexactly(33)
        async with dtp.connect(address) as connection:
            assert await ask_by_words(connection, CODE) == [PLACE]

    meeting(main, "words-mute")


def test_a_code_is_burnt_after_so_many_attempts_without_a_guess() -> None:
    """Each costs its sender two multiplications, and whoever makes them nothing."""

    async def main() -> None:
        sender = WordSender(CODE, [PLACE])

        async def serve(connection: dtp.Connection) -> None:
            async for stream in connection:
                with contextlib.suppress(dtp.DtpError, EOFError):
                    await sender.answer_attempt(stream)

        services = {WORDS_SERVICE: serve}
        async with (
            asyncio.timeout(60),
            await dtp.listen("memory://words-attempts", services, identity=CODE.meeting) as listener,
            dtp.connect(str(listener.address(WORDS_SERVICE))) as connection,
        ):
            while not sender.used.done():
                stream = await connection.open_stream()
                stream.write(bytes(33))
                answered = await stream.readexactly(33)
                stream.write_eof()
            assert answered == bytes(33)
            assert sender.used.result() is False

    asyncio.run(main())


def test_whoever_sits_between_without_the_words_learns_nothing() -> None:
    """The one between has the meeting's identity, which everybody can make, and a guess of its own."""

    async def main() -> None:
        between = WordSender(WRONG, [PLACE])
        services = {WORDS_SERVICE: between.serve_connection}
        async with await dtp.listen("memory://words-between", services, identity=CODE.meeting) as listener:
            async with dtp.connect(str(listener.address(WORDS_SERVICE))) as connection:
                with pytest.raises(CodeWrong):
                    await ask_by_words(connection, CODE)
            assert await between.used is False

    asyncio.run(main())


def test_a_server_between_that_passes_all_on_reads_no_address() -> None:
    """It has the meeting's identity at both ends, and hands on each byte: SPAKE2's key isn't among them."""
    seen = bytearray()

    async def main(sender: WordSender, address: str) -> None:
        async def pass_on(connection: dtp.Connection) -> None:
            stream = await connection.accept_stream()
            async with dtp.connect(address) as onward:
                other = await onward.open_stream()
                for size, source, target in ((33, stream, other), (33, other, stream), (32, stream, other)):
                    data = await source.readexactly(size)
                    seen.extend(data)
                    target.write(data)
                    await target.drain()
                rest = await other.read(-1)
                seen.extend(rest)
                stream.write(rest)
                stream.write_eof()
                await connection.wait_closed()

        services = {WORDS_SERVICE: pass_on}
        async with (
            await dtp.listen("memory://words-passing", services, identity=CODE.meeting) as listener,
            dtp.connect(str(listener.address(WORDS_SERVICE))) as connection,
        ):
            assert await ask_by_words(connection, CODE) == [PLACE]
        assert str(PLACE).encode() not in seen
        assert b"words-secret" not in seen

    meeting(main, "words-onward")


@given(st.binary(max_size=200))
def test_nonsense_from_who_is_met_has_a_name(data: bytes) -> None:
    async def main() -> None:
        async def nonsense(connection: dtp.Connection) -> None:
            stream = await connection.accept_stream()
            stream.write(data)
            stream.write_eof()
            await connection.wait_closed()

        services = {WORDS_SERVICE: nonsense}
        async with (
            await dtp.listen("memory://words-nonsense", services, identity=CODE.meeting) as listener,
            dtp.connect(str(listener.address(WORDS_SERVICE))) as connection,
        ):
            with pytest.raises((CodeWrong, CodeBurnt)):
                await ask_by_words(connection, CODE)

    asyncio.run(main())


@given(st.integers(0, 998), st.integers(0, 2047), st.integers(0, 2047))
def test_codes_come_back_as_they_were(number: int, first: int, second: int) -> None:
    chosen = iter((number, first, second))
    code = WordCode.make(lambda most: next(chosen))
    assert WordCode.parse(f" {str(code).upper()} ") == code
    assert looks_like_code(str(code))
    assert code.meeting.id == WordCode(code.number, CODE.words).meeting.id


@pytest.mark.parametrize(
    "text", ["", "cactus-violin", "7-cactus", "7-cactus-violin-zoo", "7-cactus-vioolin", "\u0667-cactus-zoo"]
)
def test_what_is_no_code_has_a_name(text: str) -> None:
    with pytest.raises(CodeUnusable):
        WordCode.parse(text)


def test_no_address_looks_like_a_code() -> None:
    assert not looks_like_code("dtp://home/files")
    assert not looks_like_code(str(PLACE))
