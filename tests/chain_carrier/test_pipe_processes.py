"""Processes that know of each other by the chain alone: a file over `?via=pipe`, by the command."""

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from contextlib import ExitStack
from unittest.mock import Mock

import pytest
from chain_resolver.hosts import make_host, run
from children import child_process

from chain_carrier.worlds import end_of, tuned, world
from dtp.chain import Deployments, KeySigner
from dtp.chain.errors import SignerError
from dtp.chain.pipes.carrier import dial, environment_signer
from dtp.chain.pipes.hub import PipeHub
from dtp.chain.pipes.lock import PipeLocks
from dtp.chain.pipes.where import ChannelInUse, Timing
from dtp.errors import LocalError
from dtp.identity import Identity

#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 240


@pytest.fixture
def published(client, wallet, net, deployments, tmp_path):
    """A host with service `files`, its owner's and a user's folders: (host, environments of both)."""
    server, user = Identity.generate(), Identity.generate()
    for each in (server, user):
        wallet(KeySigner.from_identity(each))

    async def prepare():
        async with client(KeySigner.from_identity(server)) as chain:
            hosted = await make_host(chain)
            await hosted.service("files")
            await hosted.endpoint(server.id.key)
            return chain.chain_id, hosted.id

    chain_id, host_id = run(prepare())
    kept = Deployments(chain_id, tmp_path / "packages.json")
    for each in deployments.list_all():
        kept.save(each)
    environments = []
    for name, identity in (("server", server), ("user", user)):
        (tmp_path / name).mkdir()
        path = identity.save(tmp_path / name / "identity.pem")
        environments.append(
            {
                **os.environ,
                "DTP_HOME": str(tmp_path / name),
                "DTP_IDENTITY": str(path),
                "DTP_NETWORK": net.url,
                "DTP_PACKAGES": str(tmp_path / "packages.json"),
            }
        )
    return host_id, *environments


def dtp(*arguments):
    return [sys.executable, "-P", "-m", "dtp", *arguments]


def test_a_file_between_processes(published, tmp_path):
    host_id, server, user = published
    data = random.Random(5).randbytes(400_000)
    (tmp_path / "big.bin").write_bytes(data)
    command = dtp(
        "serve", "--file", f"files={tmp_path / 'big.bin'}", "--listen", f"pipe://{host_id}", "--json"
    )
    with subprocess.Popen(command, env=server, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as serving:
        watchdog = threading.Timer(PATIENCE, serving.kill)
        watchdog.start()
        try:
            listening = json.loads(serving.stdout.readline())
            assert f"@{host_id}/files" in json.dumps(listening)
            got = subprocess.run(
                dtp("recv", f"dtp://{host_id}/files?via=pipe", "-o", str(tmp_path / "got.bin"), "--json"),
                env=user,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            assert got.returncode == 0, got.stderr.decode()
            assert (
                hashlib.sha256((tmp_path / "got.bin").read_bytes()).digest() == hashlib.sha256(data).digest()
            )
            # Who isn't there, and who isn't asked: a host without a place to dial says what to do.
            refused = subprocess.run(
                dtp("ping", f"dtp://{host_id}/files", "--json"),
                env=user,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            assert refused.returncode == 5
            assert b"?via=pipe goes through the chain" in refused.stderr
        finally:
            serving.terminate()
            watchdog.cancel()


def test_the_wallet_of_the_environment(published, tmp_path, monkeypatch):
    _, _, user = published
    for name in ("DTP_HOME", "DTP_IDENTITY"):
        monkeypatch.setenv(name, user[name])
    monkeypatch.delenv("DTP_WALLET", raising=False)
    own = environment_signer().address
    other = KeySigner.generate()
    from dtp.chain.keystores import save_key

    save_key(other, tmp_path / "user" / "other.pem")
    for spelled in (str(tmp_path / "user" / "other.pem"),):
        monkeypatch.setenv("DTP_WALLET", spelled)
        assert environment_signer().address == other.address != own
    monkeypatch.setenv("DTP_WALLET", "nobody")
    with pytest.raises(SignerError, match="there is no wallet"):
        environment_signer()


@pytest.mark.slow
def test_channels_of_pipes_are_closed_by_the_command(published, net, tmp_path):
    """What a free service's dials left: the channel is asked to close, the next run has its deposit back."""
    host_id, server, user = published

    async def dial_once():
        from dtp.chain import ChainClient, find_network
        from dtp.chain.host_state import service_number
        from dtp.chain.keystores import load_key
        from dtp.chain.pipes.carrier import dial, listen

        clients = [
            ChainClient(
                find_network(net.url), load_key(each["DTP_IDENTITY"]), deployments=tmp_path / "packages.json"
            )
            for each in (server, user)
        ]
        async with clients[0] as owner, clients[1] as client:
            taken = []
            listener = await listen(f"pipe://{host_id}", taken.append, chain=owner)
            near = await dial(f"pipe://{host_id}?service={service_number('files')}&pipes=2", chain=client)
            near.abort()
            await listener.close()
            return near.channel

    channel = run(dial_once())

    def call(*arguments):
        done = subprocess.run(
            dtp("channel", *arguments, "--json"), env=user, capture_output=True, timeout=PATIENCE, check=True
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    (given, waiting) = call("close", "--pipes")
    assert (given["pipes"], given["closing"]) == (2, [channel])
    assert (waiting["event"], waiting["channel"]) == ("closing", channel)
    (listed,) = call("list")[0]["channels"]
    assert (listed["channel"], listed["state"]) == (channel, "closing")
    net.advance_clock(3_600_000)
    assert [each["event"] for each in call("close")] == ["closed"]
    assert call("list")[0]["channels"] == []


LOCKER = """
import sys
from dtp.chain.pipes.lock import PipeLocks

class Sender:
    gone = False

sender = Sender()
with PipeLocks.of_home().hold_pipes(sys.argv[1], sender):
    print("locked", flush=True)
    sys.stdin.read()
"""


class Sender:
    """One who sends over pipes."""

    gone = False


def test_pipes_that_can_t_be_locked_say_why(tmp_path, monkeypatch):
    def without_locks(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LocalError, match=r"by .*/file/pipes\.lock: .*DTP_HOME"):
        PipeLocks(tmp_path / "file" / "pipes.lock")
    locks = PipeLocks(tmp_path / "pipes.lock")
    monkeypatch.setattr(fcntl, "lockf", without_locks)
    with (
        pytest.raises(LocalError, match="no locks available"),
        locks.hold_pipes("0x1", Sender()),
    ):
        pass


def test_one_program_at_a_time_sends_over_a_channel_s_pipes(client, wallet):
    """Two of one wallet would use the same version of a pipe twice, which a network may lock it for."""

    async def scenario():
        async with world(client, wallet) as made:
            listener, near, far = await made.pair("&pipes=2")
            hub, channel = PipeHub.hub_of(made.user), near.channel

            def other():
                program, pipe = [sys.executable, "-P", "-c", LOCKER, channel], subprocess.PIPE
                return child_process(*program, stdin=pipe, stdout=pipe, stderr=pipe)

            async with other() as refused:
                _, told = await refused.communicate()
            assert b"ChannelInUse: another program of this wallet" in told
            near.abort()
            await hub.stop_sending(channel)
            async with other() as holder:  # killed at the end
                assert await holder.stdout.readline() == b"locked\n"
                before = await made.user.balance(made.user.address)
                with pytest.raises(ChannelInUse, match="another program"):
                    await dial(f"{made.url}&channel={channel}", chain=made.user)
                assert await made.user.balance(made.user.address) == before
            again = await dial(f"{made.url}&channel={channel}", chain=made.user)
            for each in (again, far):
                each.abort()
            await hub.stop_sending(channel)
            await listener.close()

    run(scenario())


def test_one_client_of_a_program_at_a_time_sends_over_a_channel_s_pipes(client, wallet):
    """Each connection may have a client of its own; the pipes of one that isn't used any more are handed over."""

    async def scenario():
        async with world(client, wallet) as made, client(made.user.signer) as second:
            await second.connect()
            tuned(second)
            listener, near, far = await made.pair("&pipes=2")
            url = f"{made.url}&channel={near.channel}"
            with pytest.raises(ChannelInUse, match="another connection of this program"):
                await dial(url, chain=second)
            near.close()  # whose end is on its way when the next comes
            again = await dial(url, chain=second)
            assert PipeHub.hub_of(made.user).ends.channels == []
            assert end_of(again, second).pipes == 4
            with pytest.raises(ChannelInUse, match="another connection of this program"):
                await dial(url, chain=made.user)
            for each in (again, far):
                each.abort()
            await PipeHub.hub_of(second).stop_sending(near.channel)
            await listener.close()

    run(scenario())


def test_pipes_are_handed_over_between_threads(client, wallet):
    """As between clients of one loop: an end that nobody uses would keep its channel for as long as its hub lives."""

    async def scenario():
        async with world(client, wallet) as made:
            listener, near, far = await made.pair("&pipes=2")
            url = f"{made.url}&channel={near.channel}"

            async def elsewhere():
                async with client(made.user.signer) as second:
                    await second.connect()
                    tuned(second)
                    again = await dial(url, chain=second)
                    pipes = end_of(again, second).pipes
                    again.abort()
                    await PipeHub.hub_of(second).stop_sending(near.channel)
                    return pipes

            with pytest.raises(ChannelInUse, match="another connection of this program"):
                await asyncio.to_thread(asyncio.run, elsewhere())
            near.close()  # whose end is on its way when the next comes
            assert await asyncio.to_thread(asyncio.run, elsewhere()) == 4
            assert PipeHub.hub_of(made.user).ends.channels == []
            far.abort()
            await listener.close()

    run(scenario())


def test_a_hub_whose_thread_stands_still_is_not_waited_for_without_end():
    """Nor one whose loop was closed as it was asked."""
    stopped = asyncio.new_event_loop()

    async def scenario():
        hub.timing = Timing(linger=0.01)
        await hub.hand_over("0x1")
        stopped.close()
        await hub.hand_over("0x1")

    async def make():
        return PipeHub(Mock())

    hub = stopped.run_until_complete(make())
    asyncio.run(scenario())


def test_who_can_t_send_any_more_holds_no_pipes(tmp_path):
    """Its event loop was closed before it ended, as `asyncio.run` does."""
    locks, before, after = PipeLocks(tmp_path / "pipes.lock"), Sender(), Sender()
    with locks.hold_pipes("0x1", after):
        with ExitStack() as late:
            with locks.hold_pipes("0x2", before):
                with pytest.raises(ChannelInUse), locks.hold_pipes("0x2", after):
                    pass
                before.gone = True
                late.enter_context(locks.hold_pipes("0x2", after))
            assert locks.sender_of("0x2") is after  # what the other frees was taken over
            with locks.hold_pipes("0x2", after):
                pass
            assert locks.sender_of("0x2") is after
        assert locks.sender_of("0x2") is None
        assert locks.sender_of("0x1") is after
