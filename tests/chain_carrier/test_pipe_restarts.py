"""A node that is killed in the middle of a file, and what is left on the chain for everybody to read."""

import asyncio
import contextlib
import hashlib
import json
import random
import signal
import sys
import zlib

import pytest
from chain_resolver.hosts import make_host, run

import dtp
from chain_carrier.worlds import World, tuned
from dtp.chain import ChainClient, EventFollower, KeySigner, Network, pipe, publish
from dtp.chain.pipe import PipeFrame
from dtp.chain.pipes.carrier import kind_for
from dtp.chain.pipes.frames import decode
from dtp.chain.pipes.hub import PipeHub
from dtp.chain.resolver import HostDirectory
from dtp.chain.wallet import request_sui
from dtp.files import fetch_file, serve_file
from dtp.identity import Identity
from dtp.net.resolver import HostResolver
from dtp.session.link import Link

PIPES = 4


class Node:
    """`dtp localnet` as a process that can be killed, and started again on the same state and ports."""

    def __init__(self, folder):
        self._folder = folder
        self._ports = ("0", "0")
        self._process = None
        self.url = self.faucet = ""

    async def start(self):
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "dtp", "localnet", "--json", "--until-eof"),
            *("--state", str(self._folder), "--port", self._ports[0], "--faucet-port", self._ports[1]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        told = json.loads(await self._process.stdout.readline())
        self.url, self.faucet = told["url"], told["faucet"]
        self._ports = tuple(
            each.split("//")[1].split("/")[0].rpartition(":")[2] for each in (self.url, self.faucet)
        )

    async def kill(self):
        self._process.send_signal(signal.SIGKILL)
        await self._process.communicate()


@contextlib.asynccontextmanager
async def node(folder):
    made = Node(folder)
    await made.start()
    try:
        yield made
    finally:
        await made.kill()


@contextlib.asynccontextmanager
async def world_on(made):
    """A host with service `files` and a user, over a node that may go away for a while."""
    network = Network("localnet", (made.url,), faucet=made.faucet)
    owner, user = Identity.generate(), Identity.generate()
    for each in (owner, user):
        for _ in range(2):
            await request_sui(network, each.id.sui_address)
    async with ChainClient(network, KeySigner.from_identity(owner), deployments=None) as server:
        await publish(server, "transport")
        hosted = await make_host(server)
        number = await hosted.service("files")
        await hosted.endpoint(owner.id.key)
        async with ChainClient(
            network, KeySigner.from_identity(user), deployments=server.deployments
        ) as client:
            for each in (server, client):
                tuned(each, stall=90, gap=60)
            yield World(server, client, hosted, number, owner), user


def kept_keys(monkeypatch):
    """Every key that records are sealed with, as it goes by."""
    keys, make = [], Link.__init__

    def noting(self, number, established, limits, now):
        keys.extend((bytes(established.split.send), bytes(established.split.receive)))
        make(self, number, established, limits, now)

    monkeypatch.setattr(Link, "__init__", noting)
    return keys


async def everything(chain):
    """The contents of all events of the chain, and the frames among them."""
    source = EventFollower(chain, (), start=0)
    found = [each.event async for each in source.past_events()]
    frames = [
        pipe.SCHEMA.decode(PipeFrame, each.contents) for each in found if each.type.endswith("::pipe::Frame")
    ]
    return [each.contents for each in found], frames


async def fetch_through(made, user, tmp_path, disturb):
    """Fetch a file of words over four pipes; `disturb(progress)` hears of every piece."""
    said = ["attack", "at", "dawn", "over", "the", "northern", "bridge"]
    words = " ".join(random.Random(3).choices(said, k=500_000)).encode()
    (tmp_path / "words.txt").write_bytes(words)

    async def serve(connection):
        while True:
            await serve_file(await connection.accept_stream(), tmp_path / "words.txt", "")

    async with await dtp.listen([], {"files": serve}, identity=made.me) as listener:
        await listener.add(f"pipe://{made.hosted.id}?to={made.me.id.key.hex()}", kind_for(made.server))
        resolvers = [HostResolver(HostDirectory(made.user, max_age=0))]
        address = f"dtp://{made.hosted.id}/files?via=pipe"
        async with dtp.connect(address, identity=user, resolvers=resolvers) as connection:
            (end,) = PipeHub.hub_of(made.user).ends
            assert end.pipes == PIPES
            got = await fetch_file(connection, tmp_path / "got", progress=disturb)
    assert (tmp_path / "got" / "words.txt").read_bytes() == words
    assert got.digest == hashlib.sha256(words).digest()
    return words


@pytest.mark.slow
def test_a_node_that_is_killed_in_the_middle_of_a_file(tmp_path, monkeypatch):
    """SIGKILL at a third and at two thirds of the file, and a new process on what the old one had written."""
    keys = kept_keys(monkeypatch)
    (tmp_path / "got").mkdir()

    async def scenario():
        killed = []
        async with node(tmp_path / "chain") as net, world_on(net) as (made, user):
            again = set()
            one_by_one = asyncio.Lock()  # two thirds may come before the node is back

            async def restart():
                async with one_by_one:
                    await net.kill()
                    await net.start()

            def disturb(progress):
                if len(killed) < 2 and progress.done * 3 > progress.file.size * (len(killed) + 1):
                    killed.append(progress.done)
                    task = asyncio.ensure_future(restart())
                    again.add(task)

            words = await fetch_through(made, user, tmp_path, disturb)
            await asyncio.gather(*again)
            assert len(killed) == 2
            contents, frames = await everything(made.user)
        return words, contents, frames, (made.me, user)

    words, contents, frames, identities = run(scenario())
    assert len({frame.index for frame in frames}) == PIPES
    assert_nothing_is_told(words, contents, frames, [*keys, *secrets_of(*identities)])
    # Each frame is there once, whatever became of the answers about it.
    places = [(frame.channel, frame.direction, frame.index, frame.sequence) for frame in frames]
    assert len(set(places)) == len(places)


def secrets_of(*identities):
    return [secret for each in identities for secret in (each._secret_key[:32], each.static_private)]


def assert_nothing_is_told(words, contents, frames, keys):
    """No plaintext and no key is in any event, and frames are noise behind their headers."""
    everything = b"".join(contents)
    assert len(keys) >= 8
    assert all(len(key) == 32 and key not in everything and key[::-1] not in everything for key in keys)
    pieces = {words[at : at + 12] for at in range(0, len(words) - 12, 1009)}
    assert not any(piece in everything for piece in pieces)
    for said in (b"attack", b"words.txt", b"files"):
        assert said not in everything
    noise = b"".join(bytes(decode(frame.flags, frame.data)[1]) for frame in frames)
    assert len(noise) > len(words)
    assert len(zlib.compress(words)) < len(words) / 3
    assert len(zlib.compress(noise)) > len(noise) * 0.999


def test_the_check_would_find_a_leak():
    words = b"attack at dawn " * 5000
    keys = [bytes([number]) * 32 for number in range(8)]
    with pytest.raises(AssertionError):
        assert_nothing_is_told(words, [words], [], keys)
    with pytest.raises(AssertionError):
        assert_nothing_is_told(words, [b"x" + keys[3]], [], keys)
