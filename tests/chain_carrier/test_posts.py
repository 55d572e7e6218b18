"""Messages without a connection: sealed, bound to who sent them, answered; over a node and by the command."""

import asyncio
import contextlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from chain_resolver.hosts import do, make_host, run
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey

from dtp.chain import Program, host, pipe
from dtp.chain.errors import MoveAborted, NotFound
from dtp.chain.events import Cursor
from dtp.chain.host import Endpoint
from dtp.chain.host_state import ServiceClosed, ServiceMissing, direct_url, service_number
from dtp.chain.node._wire import NodeRpc
from dtp.chain.pipes import posts
from dtp.chain.pipes.posts import (
    MAX_POST_BYTES,
    MOST_FEE,
    FeeTooHigh,
    PostKeyMissing,
    PostTooLong,
    ReceivedPost,
    ReplyKey,
    ReplyKeyError,
    SealBroken,
    SealError,
    answers,
    hint_of,
    hint_with_key,
    open_sealed,
    post_key,
    read_post,
    read_posts,
    seal,
    send_answer,
    send_post,
)
from dtp.identity import Identity
from dtp.sui.names import SuiNameError, format_digest

ME, YOU = Identity(bytes([1]) * 32, bytes([11]) * 32), Identity(bytes([2]) * 32, bytes([12]) * 32)


@given(st.binary(max_size=300), st.integers(1, 16), st.data())
def test_any_recipient_opens_and_nobody_else(data, count, drawn):
    keys = [PrivateKey(bytes([number + 1]) * 32) for number in range(count)]
    sealed = seal(data, [bytes(key.public_key) for key in keys], b"context")
    chosen = drawn.draw(st.sampled_from(keys))
    assert open_sealed(sealed, bytes(chosen), b"context") == data
    assert data not in sealed or len(data) < 8
    with pytest.raises(SealBroken):
        open_sealed(sealed, bytes([99]) * 32, b"context")
    with pytest.raises(SealBroken):
        open_sealed(sealed, bytes(chosen), b"another context")
    place = drawn.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[place] ^= drawn.draw(st.integers(1, 255))
    try:
        # Another recipient's seal may be changed without harm to ours; the message may not.
        assert open_sealed(bytes(changed), bytes(chosen), b"context") == data
    except SealBroken:
        pass
    else:
        assert place < 2 + 84 * count


@given(st.binary(max_size=400))
def test_no_bytes_can_do_harm(sealed):
    with pytest.raises(SealBroken):
        open_sealed(sealed, bytes([1]) * 32, b"context")


def test_keys_of_wrong_sizes():
    with pytest.raises(ReplyKeyError):
        ReplyKey(b"short")
    with pytest.raises(ReplyKeyError):
        seal(b"x", [], b"")
    assert "private" not in repr(ReplyKey.generate())


def endpoint(hint, key=ME.id.key):
    return Endpoint(key, 1, 0, 1, 1, 0, hint)


def test_an_endpoint_publishes_its_static_key_under_proof():
    hint = hint_with_key("tcp://h:1", ME)
    assert len(hint) <= 512
    assert post_key(endpoint(hint)) == ME.static_public
    assert direct_url(endpoint(hint)) == "tcp://h:1"
    assert post_key(endpoint(hint_with_key("", ME))) == ME.static_public
    made_up = Identity(bytes(32))  # another one after the next start, for which nothing can be sealed
    assert hint_of("tcp://x:1", made_up) == b"tcp://x:1"
    assert (endpoint(hint).url, endpoint(b"tcp://x:1").url) == ("tcp://h:1", "tcp://x:1")
    kept = Identity.generate()
    assert post_key(Endpoint(kept.id.key, 1, 0, 1, 1, 0, hint_of("tcp://x:1", kept))) == kept.static_public
    assert hint_of(hint.decode(), kept) == hint
    assert direct_url(endpoint(hint_with_key("", ME))) == ""
    # A proof of another identity, none, or nonsense.
    for bad in (
        hint_with_key("tcp://h:1", YOU),
        b"tcp://h:1",
        b"tcp://h:1#static=AAAA",
        b"#static=!",
        b"\xff",
    ):
        assert post_key(endpoint(bad)) is None
    assert post_key(endpoint(hint, bytes(32))) is None


async def published(chain, identity=ME, **service):
    hosted = await make_host(chain)
    await hosted.service("echo", **service)
    program = Program()
    host.enroll(
        program, hosted.beacon, hosted.op, identity.id.key, hint=hint_with_key("tcp://127.0.0.1:1", identity)
    )
    host.heartbeat(program, hosted.beacon, hosted.op, identity.id.key, 1)
    await chain.execute(program)
    return hosted


async def all_of(found):
    return [each async for each in found]


def test_a_message_and_its_answer(client, wallet):
    async def scenario():
        async with client(wallet()) as server, client(wallet()) as user:
            hosted = await published(server, post_fee=700)
            inbox = read_posts(server, hosted.id, ME, follow=True)
            first = asyncio.ensure_future(anext(inbox))
            sent = await send_post(user, hosted.id, "echo", b"may I have a pass?")
            got = await first
            assert (got.data, got.sender, got.fee) == (b"may I have a pass?", user.address, 700)
            assert got.transaction == sent.transaction
            replies = answers(user, sent)
            reply = asyncio.ensure_future(anext(replies))
            await send_answer(server, got, b"x" * MAX_POST_BYTES)
            answer = await reply
            assert answer.data == b"x" * MAX_POST_BYTES
            assert answer.sender == server.address
            # The message again, from history; our own answer isn't sealed to us.
            assert [each.data for each in await all_of(read_posts(server, hosted.id, ME))] == [got.data]
            assert await all_of(read_posts(server, hosted.id, YOU)) == []
            assert await all_of(read_posts(server, hosted.id, ME, cursor=got.cursor)) == []
            assert [each.data for each in await all_of(answers(user, sent, follow=False))] == [answer.data]
            for each in (inbox, replies):
                await each.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_nobody_passes_a_copy_off_as_their_own_or_answers_for_the_host(client, wallet):
    async def scenario():
        async with client(wallet()) as server, client(wallet()) as user, client(wallet()) as thief:
            hosted = await published(server)
            sent = await send_post(user, hosted.id, "echo", b"mine")
            executed = await user.transaction(sent.transaction)
            (posted,) = user.events_in(executed, pipe.SCHEMA, pipe.Posted)
            program = Program()
            (money,) = program.split(program.gas, [0])
            pipe.post(program, hosted.id, posted.service, posted.reply_key, posted.data, money)
            await thief.execute(program)
            (got,) = await all_of(read_posts(server, hosted.id, ME))
            assert got.sender == user.address
            # The thief may seal something to the reply key, which is public; it isn't the owner.
            await send_answer(thief, got, b"trust me")
            await send_answer(server, got, b"genuine")
            assert [each.data for each in await all_of(answers(user, sent, follow=False))] == [b"genuine"]

    run(scenario())


def test_what_is_refused(client, wallet):
    async def scenario():
        async with client(wallet()) as server, client(wallet()) as user:
            hosted = await published(server, post_fee=700)
            with pytest.raises(PostTooLong):
                await send_post(user, hosted.id, "echo", bytes(MAX_POST_BYTES + 1))
            with pytest.raises(MoveAborted) as aborted:
                await send_post(user, hosted.id, "echo", b"cheap", fee=699)
            assert aborted.value.error is pipe.PipeError.FEE_TOO_SMALL
            await hosted.deny(user.address)
            with pytest.raises(MoveAborted) as aborted:
                await send_post(user, hosted.id, "echo", b"let me in")
            assert aborted.value.error is host.HostError.DENIED
            assert await all_of(read_posts(server, hosted.id, ME)) == []
            closed = await hosted.service("shut", opened=False)
            with pytest.raises(ServiceClosed, match=str(closed)):
                await send_post(user, hosted.id, "shut", b"x")
            await hosted.undeny(user.address)
            await do(server, host.withdraw, hosted.beacon, hosted.op, ME.id.key)
            with pytest.raises(PostKeyMissing, match="hint_with_key"):
                await send_post(user, hosted.id, "echo", b"x")
            sent = await send_post(user, hosted.id, "echo", b"by hand", recipients=[YOU.static_public])
            (got,) = await all_of(read_posts(server, hosted.id, YOU))
            assert (got.data, got.transaction) == (b"by hand", sent.transaction)

    run(scenario())


def by_hand(chain, hosted, reply_key, data):
    """A message of a foreign program, with any bytes for a reply key."""
    number, program = service_number("echo"), Program()
    context = posts.seal_context(hosted.id, number, chain.address, reply_key)
    (money,) = program.split(program.gas, [0])
    pipe.post(program, hosted.id, number, reply_key, seal(data, [ME.static_public], context), money)
    return chain.execute(program)


def test_a_question_that_cannot_be_answered_stops_nobody_who_answers(client, wallet):
    async def scenario():
        async with client(wallet()) as server, client(wallet()) as user:
            hosted = await published(server)
            await by_hand(user, hosted, bytes(32), b"of small order")
            sent = await send_post(user, hosted.id, "echo", b"honest")
            (got,) = await all_of(read_posts(server, hosted.id, ME))
            assert got.transaction == sent.transaction
            with pytest.raises(SealError):
                await send_answer(server, replace(got, reply_key=bytes(32)), b"!")

    run(scenario())


def test_a_message_is_read_by_its_transaction(client, wallet):
    async def scenario():
        async with client(wallet()) as server, client(wallet()) as user:
            hosted = await published(server)
            sent = await send_post(user, hosted.id, "echo", b"hello")
            got = await read_post(server, hosted.id, ME, sent.transaction)
            assert (got.data, got.sender, got.transaction) == (b"hello", user.address, sent.transaction)
            (same,) = await all_of(read_posts(server, hosted.id, ME, cursor=got.cursor))
            assert replace(same, cursor=got.cursor) == got
            assert await read_post(server, hosted.id, YOU, sent.transaction) is None
            assert await read_post(server, user.address, ME, sent.transaction) is None
            with pytest.raises(NotFound, match="archive"):
                await read_post(server, hosted.id, ME, format_digest(bytes(32)))
            with pytest.raises(SuiNameError):
                await read_post(server, hosted.id, ME, "nonsense")

    run(scenario())


def test_a_host_gets_no_large_fee_unasked(client, wallet):
    async def scenario():
        async with client(wallet()) as server, client(wallet()) as user:
            hosted = await published(server, post_fee=MOST_FEE)
            await send_post(user, hosted.id, "echo", b"as usual")
            await hosted.service("dear", post_fee=MOST_FEE + 1)
            with pytest.raises(FeeTooHigh, match="--fee"):
                await send_post(user, hosted.id, "dear", b"how much?")
            await send_post(user, hosted.id, "dear", b"so much", fee=MOST_FEE + 1)
            fees = [each.fee for each in await all_of(read_posts(server, hosted.id, ME))]
            assert fees == [MOST_FEE, MOST_FEE + 1]

    run(scenario())


@pytest.mark.parametrize("fee", [0, 1])
def test_so_much_of_another_coin_may_be_a_fortune(fee):
    service = SimpleNamespace(post_fee=fee, terms=SimpleNamespace(coin="0x2::gold::GOLD"))
    with pytest.raises(FeeTooHigh) if fee else contextlib.nullcontext():
        assert posts.least_fee(service) == fee


def test_the_command(client, wallet, net, deployments, tmp_path, monkeypatch):
    """`dtp post send`, `read`, `answer`: the server's identity is its account, too."""
    from dtp.chain import Deployments, KeySigner
    from dtp.cli import main

    server_key, user_key = tmp_path / "server.pem", tmp_path / "user.pem"
    ME.save(server_key)
    YOU.save(user_key)

    async def prepare():
        owner = wallet(KeySigner.from_identity(ME))
        wallet(KeySigner.from_identity(YOU))
        async with client(owner) as server:
            hosted = await make_host(server)
            await hosted.service("echo")
            await hosted.service("gold", coin="0x2::object::ID")
            return server.chain_id, hosted.id

    chain_id, host_id = run(prepare())
    kept = Deployments(chain_id, tmp_path / "packages.json")
    for each in deployments.list_all():
        kept.save(each)
    monkeypatch.setenv("DTP_PACKAGES", str(tmp_path / "packages.json"))
    monkeypatch.setenv("DTP_NETWORK", net.url)

    def call(*arguments, code=0, **options):
        result = CliRunner().invoke(main, ["post", *arguments, "--json"], **options)
        assert result.exit_code == code, (result.output, result.exception)
        return [json.loads(line) for line in (result.stderr if code else result.stdout).splitlines()]

    address = f"dtp://{host_id}/echo"
    (error,) = call("send", address, "x", "--wallet", str(user_key), code=6)
    assert "has published a key" in error["error"]["message"]
    beat = ["host", "heartbeat", "--wallet", str(server_key), "--host", host_id, "--json"]
    for more in (
        ["--hint", "tcp://127.0.0.1:1"],
        ["--sealed"],
        [],
    ):  # a key is added to what is there, and stays
        assert CliRunner().invoke(main, [*beat, *more]).exit_code == 0
    refused = CliRunner().invoke(main, [*beat, "--sealed", "--key", str(YOU.id)])
    assert (refused.exit_code, "another identity" in refused.stderr) == (3, True)
    (sent,) = call("send", address, "-", "--wallet", str(user_key), input="hello there")
    (got,) = call("read", address, "-i", str(server_key))
    assert (got["text"], got["sender"]) == ("hello there", YOU.id.sui_address)
    assert got["transaction"] == sent["transaction"]
    as_server = ("-i", str(server_key), "--wallet", str(server_key))
    (answered,) = call("answer", address, got["transaction"], "hello yourself", *as_server)
    assert answered["answers"] == got["transaction"]
    (error,) = call("answer", address, "nonsense", "x", *as_server, code=3)
    assert "is not a digest" in error["error"]["message"]
    (error,) = call("answer", address, answered["transaction"], "x", *as_server, code=3)
    assert "is sealed to this identity" in error["error"]["message"]

    real = NodeRpc.service_info

    async def pruned(wire):
        info = await real(wire)
        return replace(info, lowest_checkpoint=info.checkpoint)  # the question is from before

    monkeypatch.setattr(NodeRpc, "service_info", pruned)
    result = CliRunner().invoke(main, ["post", "read", address, "-i", str(server_key), "--json"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(result.stderr)["event"] == "history"
    (again,) = call("answer", address, got["transaction"], "hello again", *as_server)
    assert again["answers"] == got["transaction"]
    as_user = ("--wallet", str(user_key))
    (error,) = call("send", f"dtp://{host_id}/gold", "x", "--fee", "0.1SUI", *as_user, code=3)
    assert "smallest unit of 0x" in error["error"]["message"]
    tip = ["tip", "send", f"dtp://{host_id}/gold", "x", "--fee", "0.1SUI", *as_user, "--json"]
    refused = CliRunner().invoke(main, tip)
    assert (refused.exit_code, "smallest unit of 0x" in refused.stderr) == (3, True)
    (error,) = call("send", "dtp://alice/echo", "x", "--wallet", str(user_key), code=3)
    assert "not a host on chain" in error["error"]["message"]


def test_a_question_to_a_service_that_is_gone_has_no_answer(monkeypatch):
    async def read_gone(chain, id):
        return SimpleNamespace(host=SimpleNamespace(id=id, services={}))

    monkeypatch.setattr(posts, "read_host", read_gone)
    question = ReceivedPost("0x1", 5, "0x2", bytes(32), 0, b"?", "digest", Cursor(1))
    with pytest.raises(ServiceMissing, match="no service 5"):
        asyncio.run(send_answer(SimpleNamespace(address="0x3"), question, b"!"))
