"""Posts through the chain in a messenger's inbox: each once, strangers' apart, whatever becomes of the node."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from chain_resolver.hosts import make_host, run
from click.testing import CliRunner

from chain_carrier.worlds import forgetful
from dtp.carriers.nearness import Nearness
from dtp.chain import Deployments, KeySigner, Program, card, host
from dtp.chain.card import CardContents, PublishedDevice, Statement
from dtp.chain.errors import NodeUnavailable
from dtp.chain.pipes.posts import hint_with_key, send_post
from dtp.cli import main
from dtp.identity import Account, Identity
from dtp.identity.card import Device
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.errors import NoPostPlace, UnknownContact
from dtp.messaging.person.messenger import Messenger
from dtp.messaging.person.notices import What
from dtp.messaging.person.posts import ChainPosts, find_post_place
from dtp.testing.nodes import ScriptedNode

ME = Identity(bytes([1]) * 32, bytes([11]) * 32)
FRIEND = Identity(bytes([2]) * 32)


async def published(chain):
    """A host whose endpoint is the messenger's device."""
    hosted = await make_host(chain)
    await hosted.service("messages")
    program, hint = Program(), hint_with_key("tcp://127.0.0.1:1", ME)
    host.enroll(program, hosted.beacon, hosted.op, ME.id.key, hint=hint)
    host.heartbeat(program, hosted.beacon, hosted.op, ME.id.key, 1)
    await chain.execute(program)
    return hosted


@asynccontextmanager
async def messenger(tmp_path, chain, hosted):
    """The inbox, whose looks at the chain are those of the test."""
    made = Messenger(identity=ME, store=tmp_path / "me.db", posts=ChainPosts(chain, hosted.id))
    async with made:
        await made.tasks.posts.stop()
        yield made


def account_of(number):
    """An account with one device, whose key it has: another one for each test of a network."""
    key, recovery = (Identity(bytes([each, number]) * 16) for each in (4, 5))
    return Account.create(key, recovery.id, [Device(key.id.key, "friend")])


async def link(chain, account, devices=(), expires_ms=0):
    """Publish the card of an account with these devices, and link the wallet of `chain` to it."""
    directory = await card.find_directory(chain)
    program, key, recovery = Program(), account.identity, account.card.recovery
    published = tuple(map(PublishedDevice, devices))
    contents = CardContents(b"e" * 32, b"p" * 32, published, (b"dtp+tcp://box:9000/mail",), expires_ms)
    said = Statement(directory, account.card.account, 1, 1, contents)
    signed = key.sign(card.statement_bytes(said))
    card.publish(program, directory, (key.id.key, recovery), (), contents, signed)
    await chain.execute(program)
    found = await card.find_card(chain, directory, account.card.account)
    signed = key.sign(card.wallet_bytes(found.next_wallet_statement(chain.address, True)))
    program = Program()
    card.link_wallet(program, directory, found.id, signed)
    await chain.execute(program)


def test_a_post_of_a_sui_account_is_in_the_inbox_once_and_says_that_no_card_is_behind_it(
    client, wallet, tmp_path
):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            hosted = await published(owner)
            sent = await send_post(user, hosted.id, "messages", b"is the room free?")
            for _ in range(2):  # as another run of the program
                async with messenger(tmp_path, owner, hosted) as me:
                    await me.tasks.posts.collect()
                    await me.tasks.posts.collect()
                    (message,) = await me.unread()
                    assert (message.text, message.sender, message.own) == ("is the room free?", None, False)
                    assert message.sender_name == message.wallet == user.address
                    assert message.transaction == sent.transaction
            async with messenger(tmp_path, owner, hosted) as me:
                await (await me.unread())[0].mark_read()
                assert await me.tasks.posts.collect() == 0
                assert await me.unread() == []

    run(scenario())


def test_a_post_by_a_wallet_that_a_friends_card_links_is_the_friends(client, wallet, tmp_path):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            hosted = await published(owner)
            account = account_of(1)
            await link(user, account)
            told = {"identity": account.identity, "account": account, "store": tmp_path / "friend.db"}
            async with Messenger(**told, name="Friend") as friend:
                cards = friend.card
            await send_post(user, hosted.id, "messages", b"it is me")
            async with messenger(tmp_path, owner, hosted) as me:
                await me.add_contact(cards)
                assert await me.tasks.posts.collect() == 1
                (message,) = await me.history(cards)
                assert (message.sender_name, message.wallet) == ("Friend", user.address)

    run(scenario())


def test_a_flood_of_strangers_waits_on_the_chain_and_keeps_no_friend_out(client, wallet, tmp_path):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user, client(wallet()) as other:
            hosted = await published(owner)
            account = account_of(2)
            await link(other, account)
            for text in ("1", "2", "3", "4"):
                await send_post(user, hosted.id, "messages", text.encode())
            await send_post(other, hosted.id, "messages", b"friend")
            told = {"identity": account.identity, "account": account, "store": tmp_path / "friend.db"}
            async with Messenger(**told) as friend:
                cards = friend.card
            found = []
            for expected in (["1", "2", "friend"], ["3", "4"], []):
                async with messenger(tmp_path, owner, hosted) as me:
                    me.correspondence.post_tray.most = 2
                    await me.add_contact(cards)
                    assert await me.tasks.posts.collect() == len(expected)
                    assert await me.tasks.posts.collect() == 0
                    new = await me.unread()
                    assert sorted(each.text for each in new) == expected
                    found += [each.text for each in new]
                    for each in new:
                        await each.mark_read()
            assert sorted(found) == ["1", "2", "3", "4", "friend"]

    run(scenario())


def test_a_node_that_is_away_or_has_forgotten_loses_nothing_that_it_has(client, wallet, tmp_path):
    node = ScriptedNode()

    async def away(genuine, *args, **options):
        raise NodeUnavailable("nobody answers")
        yield

    async def scenario():
        async with client(wallet(), rpc=node) as owner, client(wallet()) as user:
            hosted = await published(owner)
            await send_post(user, hosted.id, "messages", b"one")
            async with messenger(tmp_path, owner, hosted) as me:
                with node.answering(list_events=away), pytest.raises(NodeUnavailable):
                    await me.tasks.posts.collect()
                assert await me.tasks.posts.collect() == 1
                await send_post(user, hosted.id, "messages", b"two")
                with node.answering(list_events=forgetful):
                    assert await me.tasks.posts.collect() == 1
                assert [each.text for each in await me.unread()] == ["one", "two"]

    run(scenario())


def test_nobody_makes_up_a_post_by_a_message(tmp_path):
    """What says that it came through the chain is taken from the chain alone."""

    async def scenario():
        async with Messenger(identity=FRIEND, store=tmp_path / "f.db") as friend:
            cards = friend.card
        async with Messenger(identity=ME, store=tmp_path / "me.db") as me:
            await me.add_contact(cards)
            told = {"text": "pay me", "wallet": bytes(32), "transaction": "x"}
            event = Event(EventKind.POST, me.card.person, 1, 1, told)
            mail = me.correspondence
            with mail.transaction():
                mail.desk.note_person(FRIEND.id.key, FRIEND.id.key)
                assert mail._receive_event(FRIEND.id.key, event, Nearness.ANYWHERE, 1) == []
            assert await me.history(cards) == []

    asyncio.run(scenario())


def test_only_a_full_tray_is_told_of(client, wallet, tmp_path):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            hosted = await published(owner)
            for text in (b"1", b"2"):
                await send_post(user, hosted.id, "messages", text)
            async with messenger(tmp_path, owner, hosted) as me:
                me.correspondence.post_tray.most = 1
                await me.tasks.posts.collect()
                async for notice in me.notices():
                    if notice.what is What.POSTS_WAIT:
                        break

    run(scenario())


def test_an_account_is_written_to_by_its_card_and_has_it_in_its_inbox(client, wallet, tmp_path):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            account = account_of(7)
            name = account.card.account
            with pytest.raises(UnknownContact):
                await find_post_place(user, name)
            await link(owner, account, [ME.id.key])
            with pytest.raises(NoPostPlace):
                await find_post_place(user, name)
            hosted = await published(owner)
            place = await find_post_place(user, name)
            assert (place.host, place.recipients) == (hosted.id, (ME.static_public,))
            await send_post(user, place.host, "messages", b"are you in?", recipients=place.recipients)
            async with messenger(tmp_path, owner, hosted) as me:
                assert await me.tasks.posts.collect() == 1
                assert [each.text for each in await me.unread()] == ["are you in?"]

    run(scenario())


def test_nothing_is_sealed_to_devices_of_a_card_that_has_expired(client, wallet, net):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            account, ends = account_of(11), net.now_ms() + 3_600_000
            await link(owner, account, [ME.id.key], ends)
            await published(owner)
            place = await find_post_place(user, account.card.account, lambda: ends)
            assert place.recipients == (ME.static_public,)
            with pytest.raises(NoPostPlace):
                await find_post_place(user, account.card.account, lambda: ends + 1)

    run(scenario())


def test_nothing_is_sealed_to_an_endpoint_that_the_card_does_not_name(client, wallet):
    async def scenario():
        async with client(wallet()) as owner, client(wallet()) as user:
            account = account_of(8)
            await link(owner, account, [FRIEND.id.key])
            await published(owner)
            with pytest.raises(NoPostPlace):
                await find_post_place(user, account.card.account)

    run(scenario())


def test_the_command_sends_to_an_account(client, wallet, net, deployments, tmp_path, monkeypatch):
    user_key = tmp_path / "user.pem"
    FRIEND.save(user_key)
    account = account_of(9)

    async def prepare():
        wallet(KeySigner.from_identity(FRIEND))
        async with client(wallet()) as owner:
            await link(owner, account, [ME.id.key])
            return (await published(owner)).id, owner.chain_id

    hosted, chain_id = run(prepare())
    kept = Deployments(chain_id, tmp_path / "packages.json")
    for each in deployments.list_all():
        kept.save(each)
    monkeypatch.setenv("DTP_PACKAGES", str(tmp_path / "packages.json"))
    monkeypatch.setenv("DTP_NETWORK", net.url)
    arguments = ["post", "send", account.card.name, "are you in?", "--wallet", str(user_key), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    assert json.loads(result.stdout)["host"] == hosted
