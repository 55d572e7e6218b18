"""Tips through the chain: read from where they were read last, whatever becomes of the line and of the node."""

import pytest
from chain_resolver.hosts import make_host, run

from dtp.chain import Program, host
from dtp.chain.errors import HistoryPruned
from dtp.chain.pipes.posts import PostReader, hint_with_key, send_post
from dtp.identity import Identity
from dtp.messaging.tips import line_store
from dtp.messaging.tips.line import TipLine
from dtp.messaging.tips.posts import collect_posts, send_tip
from dtp.messaging.tips.words import TipWords

ME = Identity(bytes([1]) * 32, bytes([11]) * 32)


async def published(chain):
    """A host whose endpoint is the line."""
    hosted = await make_host(chain)
    await hosted.service("tips")
    program, hint = Program(), hint_with_key("tcp://127.0.0.1:1", ME)
    host.enroll(program, hosted.beacon, hosted.op, ME.id.key, hint=hint)
    host.heartbeat(program, hosted.beacon, hosted.op, ME.id.key, 1)
    await chain.execute(program)
    return hosted


def opened(tmp_path):
    return TipLine(identity=ME, store=tmp_path / "line.sqlite")


async def texts(line):
    return [each.letter.text for tip in await line.tips() for each in await line.letters(tip)]


def seen_by(monkeypatch):
    """What readers were given, whatever came of it."""
    found, read = [], PostReader.read

    async def reading(reader):
        async for each in read(reader):
            found.append(each.transaction)
            yield each

    monkeypatch.setattr(PostReader, "read", reading)
    return found


def test_what_was_read_is_not_asked_for_again(client, wallet, tmp_path, monkeypatch):
    seen = seen_by(monkeypatch)

    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            hosted = await published(owner)
            await send_tip(user, hosted.id, "tips", TipWords.make(), "one")
            await send_post(user, hosted.id, "tips", b"no tip at all")
            async with opened(tmp_path) as line:
                assert await collect_posts(owner, hosted.id, line) == 1
            assert len(seen) == 2
            await send_tip(user, hosted.id, "tips", TipWords.make(), "two")
            async with opened(tmp_path) as line:  # as another run of the program
                assert await collect_posts(owner, hosted.id, line) == 1
                assert await collect_posts(owner, hosted.id, line) == 0
                assert await texts(line) == ["one", "two"]
            assert len(seen) == 3

    run(scenario())


def test_each_host_is_read_from_where_it_was_read(client, wallet, tmp_path):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as other, client(wallet()) as user:
            first, second = await published(owner), await published(other)
            await send_tip(user, second.id, "tips", TipWords.make(), "to the second")
            await send_tip(user, first.id, "tips", TipWords.make(), "to the first")
            async with opened(tmp_path) as line:
                assert await collect_posts(owner, first.id, line) == 1
                assert await collect_posts(other, second.id, line) == 1

    run(scenario())


def test_a_line_that_is_full_goes_on_there_once_there_is_room(client, wallet, tmp_path, monkeypatch):
    monkeypatch.setattr(line_store, "MAX_TIPS", 2)

    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            hosted = await published(owner)
            for text in ("one", "two", "three", "four"):
                await send_tip(user, hosted.id, "tips", TipWords.make(), text)
            async with opened(tmp_path) as line:
                assert await collect_posts(owner, hosted.id, line) == 2
                assert await collect_posts(owner, hosted.id, line) == 0
                for tip in await line.tips():
                    await line.forget(tip)
                assert await collect_posts(owner, hosted.id, line) == 2
                assert await texts(line) == ["three", "four"]

    run(scenario())


def test_where_the_node_has_forgotten_all_that_it_has_is_read_once(client, wallet, tmp_path, monkeypatch):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            hosted = await published(owner)
            await send_tip(user, hosted.id, "tips", TipWords.make(), "one")
            async with opened(tmp_path) as line:
                assert await collect_posts(owner, hosted.id, line) == 1
                await send_tip(user, hosted.id, "tips", TipWords.make(), "two")
                read = PostReader.read

                async def pruned(reader):
                    if reader.cursor is not None:
                        raise HistoryPruned("the node begins later")
                    async for each in read(reader):
                        yield each

                monkeypatch.setattr(PostReader, "read", pruned)
                assert await collect_posts(owner, hosted.id, line) == 1
                assert await texts(line) == ["one", "two"]

    run(scenario())


def test_a_node_that_has_no_history_at_all_is_told_of(client, wallet, tmp_path, monkeypatch):
    async def pruned(reader):
        raise HistoryPruned("the node has none")
        yield

    monkeypatch.setattr(PostReader, "read", pruned)

    async def scenario():
        async with client(wallet()) as owner, opened(tmp_path) as line:
            with pytest.raises(HistoryPruned):
                await collect_posts(owner, "0x7", line)

    run(scenario())
