"""A localnet with history, and raw calls to it with the message classes that pysui ships."""

import asyncio
from types import SimpleNamespace

import pytest

from dtp.chain import ChainClient, KeySigner, Program, publish
from dtp.chain import host as hosts
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.localnet.grpc.messages import library

PATIENCE = 240


def run(work):
    async def limited():
        async with asyncio.timeout(PATIENCE):
            return await work

    return asyncio.run(limited())


@pytest.fixture(scope="package")
def v2():
    return library().v2


@pytest.fixture(scope="package")
def net():
    with LocalnetThread() as localnet:
        yield localnet


@pytest.fixture(scope="package")
def history(net):
    """Ids and digests of what was done: a package, a host with entries in a table, events."""
    signer = KeySigner.generate()
    net.fund(signer.address, 10_000_000_000, 3)

    async def work():
        async with ChainClient(net.url, signer, deployments=None) as chain:
            deployment, published = await publish(chain, "transport")
            program = Program()
            hosts.create(program, signer.address, operator=signer.address)
            created = await chain.execute(program)
            made = chain.events_in(created, hosts.SCHEMA, hosts.HostCreated)[0]
            (op,) = await chain.owned(hosts.SCHEMA, hosts.OpCap, signer.address)
            (cap,) = await chain.owned(hosts.SCHEMA, hosts.HostCap, signer.address)
            program = Program()
            hosts.allow(program, made.host, op.id, [f"0x{n:x}" for n in range(1, 8)])
            hosts.add_service(program, made.host, cap.id, 1, hosts.Terms())
            changed = await chain.execute(program)
            allow = (await chain.read(hosts.SCHEMA, hosts.Host, made.host)).allow.id
        return SimpleNamespace(
            signer=signer,
            package=deployment.id,
            published=published.digest,
            created=created.digest,
            changed=changed.digest,
            host=made.host,
            beacon=made.beacon,
            allow=allow,
            cap=cap.id,
        )

    return run(work())


@pytest.fixture
def call(net, v2):
    """Call a method: `call("LedgerService", "get_object", request)`; a stream gives the list of its frames."""

    def make(service, method, request, read_mask=None):
        async def work():
            channel = library_channel(net.url)
            try:
                stub = getattr(v2, f"{service}Stub")(channel, timeout=PATIENCE)
                if read_mask is not None:
                    request.read_mask = library().protobuf.FieldMask(paths=list(read_mask))
                found = getattr(stub, method)(request)
                if hasattr(found, "__aiter__"):
                    return [frame async for frame in found]
                return await found
            finally:
                channel.close()

        return run(work())

    return make


def library_channel(url):
    from grpclib.client import Channel

    host, port = url.removeprefix("http://").split(":")
    return Channel(host, int(port))
