"""Tips through the chain: read from where they were read last, whatever becomes of the line and of the node."""

import pytest
from chain_resolver.hosts import make_host, run

from chain_carrier.worlds import forgetful
from dtp.chain import Program, host
from dtp.chain.errors import HistoryPruned
from dtp.chain.pipes.posts import hint_with_key, send_post
from dtp.identity import Identity
from dtp.messaging.tips.line import TipLine
from dtp.messaging.tips.posts import collect_posts, send_tip
from dtp.messaging.tips.words import TipWords
from dtp.testing.nodes import ScriptedNode

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


def test_what_was_read_is_not_asked_for_again(client, wallet, tmp_path):
    node, seen = ScriptedNode(), []

    async def noting(genuine, *args, **options):
        async for frame in genuine(*args, **options):
            seen.extend([] if frame.event is None else [frame.event.transaction])
            yield frame

    async def scenario():
        node.answers["list_events"] = noting
        async with client(wallet(), rpc=node) as owner, client(wallet()) as user:
            hosted = await published(owner)
            first = await send_tip(user, hosted.id, "tips", TipWords.generate(), "one")
            other = await send_post(user, hosted.id, "tips", b"no tip at all")
            async with opened(tmp_path) as line:
                assert await collect_posts(owner, hosted.id, line) == 1
            assert [seen.count(each.transaction) for each in (first, other)] == [1, 1]
            del seen[:]
            second = await send_tip(user, hosted.id, "tips", TipWords.generate(), "two")
            async with opened(tmp_path) as line:  # as another run of the program
                assert await collect_posts(owner, hosted.id, line) == 1
                assert await collect_posts(owner, hosted.id, line) == 0
                assert await texts(line) == ["one", "two"]
            assert seen == [second.transaction]

    run(scenario())


def test_each_host_is_read_from_where_it_was_read(client, wallet, tmp_path):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as other, client(wallet()) as user:
            first, second = await published(owner), await published(other)
            await send_tip(user, second.id, "tips", TipWords.generate(), "to the second")
            await send_tip(user, first.id, "tips", TipWords.generate(), "to the first")
            async with opened(tmp_path) as line:
                assert await collect_posts(owner, first.id, line) == 1
                assert await collect_posts(other, second.id, line) == 1

    run(scenario())


def test_a_line_that_is_full_goes_on_there_once_there_is_room(client, wallet, tmp_path):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            hosted = await published(owner)
            for text in ("one", "two", "three", "four"):
                await send_tip(user, hosted.id, "tips", TipWords.generate(), text)
            async with opened(tmp_path) as line:
                line.store.most_tips = 2
                assert await collect_posts(owner, hosted.id, line) == 2
                assert await collect_posts(owner, hosted.id, line) == 0
                for tip in await line.tips():
                    await line.forget(tip)
                assert await collect_posts(owner, hosted.id, line) == 2
                assert await texts(line) == ["three", "four"]

    run(scenario())


def test_where_the_node_has_forgotten_all_that_it_has_is_read_once(client, wallet, tmp_path):
    node = ScriptedNode()

    async def scenario():
        async with client(wallet(), rpc=node) as owner, client(wallet()) as user:
            hosted = await published(owner)
            await send_tip(user, hosted.id, "tips", TipWords.generate(), "one")
            async with opened(tmp_path) as line:
                assert await collect_posts(owner, hosted.id, line) == 1
                await send_tip(user, hosted.id, "tips", TipWords.generate(), "two")
                node.answers["list_events"] = forgetful
                assert await collect_posts(owner, hosted.id, line) == 1
                assert await texts(line) == ["one", "two"]

    run(scenario())


def test_a_node_that_has_no_history_at_all_is_told_of(client, wallet, tmp_path):
    node = ScriptedNode()

    async def pruned(genuine, *args, **options):
        raise HistoryPruned("the node has none")
        yield

    async def scenario():
        node.answers["list_events"] = pruned
        async with client(wallet(), rpc=node) as owner, opened(tmp_path) as line:
            with pytest.raises(HistoryPruned):
                await collect_posts(owner, "0x7", line)

    run(scenario())
