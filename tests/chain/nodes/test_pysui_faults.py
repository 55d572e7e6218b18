"""Faults of pysui 1.5.1, one test each: that it is there, and that it doesn't reach us.

When one of these fails after pysui was upgraded, a workaround in `dtp/chain/node/_pysui.py` can go.
"""

import asyncio
import inspect
import logging
import os
import ssl
import stat
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from dtp.chain import Program, host
from dtp.chain.errors import MoveAborted, TransactionFailed
from dtp.chain.node._pysui import PYSUI_VERSION, _fast_types, encode_transaction, library
from dtp.sui import transaction as sui
from dtp.sui.names import TYPE_TAG, parse_type

from ..conftest import run

GAS = sui.GasData((), bytes(32), 1, 1)


def encoded(*commands, inputs=()):
    return encode_transaction(
        sui.TransactionData(sui.ProgrammableTransaction(inputs, commands), bytes(32), GAS)
    )


def test_the_pinned_release_is_installed():
    assert version("pysui") == PYSUI_VERSION


def test_its_client_always_speaks_tls(net):
    """`GrpcProtocolClient` makes its channel with ssl=True whatever the URL says."""
    from pysui.sui.sui_grpc import pgrpc_clients

    assert "ssl=True" in inspect.getsource(pgrpc_clients.GrpcProtocolClient)

    async def by_its_channel():
        port = int(net.url.rsplit(":", 1)[1])
        channel = library().Channel("127.0.0.1", port, ssl=True)
        stub = library().v2.LedgerServiceStub(channel, timeout=5)
        try:
            with pytest.raises((ssl.SSLError, OSError)):
                await stub.get_service_info()
        finally:
            channel.close()

    run(by_its_channel())


def test_the_client_reaches_a_plaintext_node(client):
    async def work():
        async with client() as chain:
            assert (await chain.service_info()).chain == "localnet"

    run(work())


def test_option_some_is_encoded_as_none():
    """The factory of `Optional` arguments takes a value for its type, and gives an empty one."""
    bcs = library().bcs
    value = bcs.BuilderArg("Pure", [1, 5])
    assert bcs.OptionalTypeFactory.as_optional(value).value is None
    program = Program()
    assert program.pure("0x1::option::Option<u64>", 5) == sui.Input(0)
    assert program.inputs[0].data == b"\1\5" + bytes(7)


@pytest.mark.parametrize(
    "text",
    [
        "vector<0x2::coin::Coin<0x2::sui::SUI>>",
        "0x2::table::Table<address,vector<u8>>",
        "0x9::m::S<0x2::coin::Coin<0x2::sui::SUI>,u64>",
        "vector<vector<bool>>",
    ],
)
def test_nested_type_tags(text):
    tag = parse_type(text)
    bcs = library().bcs
    try:
        theirs = bytes(bcs.TypeTag.type_tag_from(text).serialize())
    except (ValueError, IndexError, TypeError):
        theirs = b"refused"
    right = TYPE_TAG.encode(tag)
    assert right in encoded(sui.MakeMoveVec(tag, ()))
    assert theirs != right


def test_more_than_256_transactions_can_be_built():
    """pysui caches what it knows of 256 functions and doesn't find the 257th again."""
    from pysui.sui.sui_common import async_txn

    assert "maxsize=256" in inspect.getsource(async_txn)
    for number in range(300):
        call = sui.MoveCall(bytes(32), "m", f"function_{number}")
        assert f"function_{number}".encode() in encoded(call)


def test_shared_objects_by_value_are_mutable():
    """`SharedObjectReference.from_grpc_ref` says immutable unless the parameter is `&mut`: wrong for `T`."""
    bcs = library().bcs
    assert (
        inspect.signature(bcs.SharedObjectReference.from_grpc_ref).parameters["is_mutable"].default is False
    )
    program = Program()
    host.destroy(program, "0x1", "0x2", "0x3")
    assert [each.mutable for each in program.objects] == [True, True, True]
    shared = sui.SharedInput(bytes(32), 7, sui.Mutability.MUTABLE)
    assert bytes(32) + (7).to_bytes(8, "little") + b"\1" in encoded(sui.Publish((), ()), inputs=(shared,))


def test_modules_are_taken_whole(monkeypatch):
    """pysui encodes them byte by byte and copies all before each: quadratic."""
    import canoser  # type: ignore[import-untyped]

    calls = []
    plain = canoser.Uint8.encode
    monkeypatch.setattr(canoser.Uint8, "encode", lambda value: calls.append(value) or plain(value))
    bcs, code = library().bcs, b"\7" * 3000
    theirs = bytes(bcs.Publish([list(code)], []).serialize())
    assert len(calls) == len(code)
    calls.clear()
    assert theirs in encoded(sui.Publish((code,), ()), inputs=(sui.Pure(code),))
    assert calls.count(7) == 0


def test_a_program_that_used_pysuis_classes_itself_changes_nothing():
    """What fields a class has is set up with its first object, and inherited from then on."""
    bcs = library().bcs
    bcs.Publish([[7]], [])
    bcs.Upgrade([[7]], [], bcs.Address([0] * 32), bcs.Argument("GasCoin"))
    types = _fast_types(bcs)
    for kind, more in (
        (types.Publish, ([],)),
        (types.Upgrade, ([], bcs.Address([0] * 32), bcs.Argument("GasCoin"))),
    ):
        assert kind((b"code",), *more).serialize()[:6] == b"\1\4code"


def test_a_failure_on_chain_is_an_error(client, wallet):
    """pysui reports "ok" for a transaction whose effects say that it failed."""
    signer = wallet()

    async def work():
        async with client(signer) as chain:
            program = Program()
            host.create(program, chain.address, ttl_ms=1)
            with pytest.raises(MoveAborted) as refused:
                await chain.execute(program, gas_budget=50_000_000)
            return refused.value

    error = run(work())
    assert error.error is host.HostError.BAD_TTL
    assert isinstance(error, TransactionFailed)


def test_errors_are_raised_and_not_logged(client, caplog):
    """pysui logs a traceback at level error for each refused call, and returns the error as a value."""
    with (
        caplog.at_level(logging.DEBUG, logger="pgrpc_client"),
        caplog.at_level(logging.DEBUG, logger="pysui"),
    ):

        async def work():
            async with client() as chain:
                with pytest.raises(Exception, match="no object"):
                    await chain.object("0x123456")

        run(work())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_its_configuration_writes_keys_for_everybody_to_read(tmp_path, monkeypatch):
    from pysui import PysuiConfiguration

    import dtp.chain.node._pysui as ours
    import dtp.chain.node._wire as wire

    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0o022)
    try:
        config = PysuiConfiguration.initialize_config(
            in_folder=tmp_path / "config", init_groups=[{"name": "group", "make_active": True}]
        )
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "config" / "PysuiConfig.json").stat().st_mode) == 0o644
    assert '"key_list"' in config.to_json()
    for module in (ours, wire):
        assert "PysuiConfiguration" not in inspect.getsource(module)


def test_its_own_client_works_against_the_localnet(net):
    """The node speaks no dialect: pysui's high-level client reads from it, once its channel is replaced."""
    from pysui.sui.sui_grpc import pgrpc_requests as requests
    from pysui.sui.sui_grpc.pgrpc_clients import GrpcProtocolClient

    profile = SimpleNamespace(active_group=SimpleNamespace(active_profile=SimpleNamespace(url=net.url)))

    async def work():
        theirs = GrpcProtocolClient(pysui_config=profile)
        theirs._channel.close()
        theirs._channel = library().Channel("127.0.0.1", int(net.url.rsplit(":", 1)[1]))
        try:
            info = await theirs.execute_grpc_request(request=requests.GetServiceInfo())
            clock = await theirs.execute_grpc_request(request=requests.GetObject(object_id="0x6"))
        finally:
            await theirs.close()
        return info, clock

    info, clock = run(work())
    assert info.is_ok()
    assert info.result_data.chain == "localnet"
    assert clock.result_data.object.object_type.endswith("::clock::Clock")


class _Silent:
    """A server that takes connections and says nothing; `drop` ends them."""

    async def __aenter__(self):
        self.writers, self.met = [], asyncio.Event()

        async def meet(reader, writer):
            self.writers.append(writer)
            await reader.read(1)
            self.met.set()

        self.server = await asyncio.start_server(meet, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    def drop(self):
        for writer in self.writers:
            writer.transport.abort()

    async def __aexit__(self, *exc):
        self.drop()
        self.server.close()
        await self.server.wait_closed()


@pytest.mark.parametrize("way", ["dropped", "timeout"])
def test_grpclib_cancels_the_caller_to_wake_it(way):
    """It cancels the task and forgets to take it back: Ctrl-C and groups of tasks would be confused from then on."""
    from dtp.chain.errors import NodeUnavailable
    from dtp.chain.node._wire import NodeRpc

    async def work():
        async with _Silent() as node:
            wire = NodeRpc(node.url, timeout=60 if way == "dropped" else 0.01)
            calling = asyncio.ensure_future(wire.service_info())
            if way == "dropped":
                await node.met.wait()
                await asyncio.sleep(0)
                node.drop()
            with pytest.raises(NodeUnavailable):
                await calling
            wire.close()
            assert calling.cancelling() == 0

    run(work())


def test_a_caller_that_is_cancelled_while_the_node_goes_away_is_cancelled():
    from dtp.chain.node._wire import NodeRpc

    async def work():
        async with _Silent() as node:
            wire = NodeRpc(node.url, timeout=60)
            calling = asyncio.ensure_future(wire.service_info())
            await node.met.wait()
            await asyncio.sleep(0)
            wire._channel._protocol.processor.close("gone")  # what grpclib does when the connection is lost
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            wire.close()

    run(work())


def test_asyncio_is_not_blocked_by_a_lost_node():
    """A lost connection ends as our error, also where grpclib would raise one of its own."""
    from dtp.chain.errors import NodeUnavailable
    from dtp.chain.node._wire import NodeRpc

    async def work():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        wire = NodeRpc(f"http://127.0.0.1:{port}", timeout=5)
        try:
            with pytest.raises(NodeUnavailable):
                await wire.service_info()
        finally:
            wire.close()
            server.close()
            await server.wait_closed()

    run(work())
