"""Services with a price: a caller's daemon pays by vouchers within its budget, the server's claims; on a localnet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from chain_resolver.conftest import client, deployments, net, network, wallet
from conditions import until

from dtp.chain import KeySigner, Program, host
from dtp.chain.heartbeat import EndpointsApart
from dtp.chain.host import Bearer, Terms
from dtp.chain.pipes.where import channel_of
from dtp.daemon.config.model import BudgetSettings
from dtp.daemon.paying.buying import Buyer, Wallet
from dtp.daemon.paying.calls import reader_of
from dtp.daemon.server import Daemon
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.net.address import Address
from dtp.pay import dial
from dtp.pay.errors import ChargeDeclined
from dtp.pay.metered import Metered
from dtp.pay.serving import serve
from dtp.pay.store import Store
from dtp.session.codes import ConnectionRefused
from dtp.session.limits import Limits

from ..conftest import FAR, NEAR, OTHER, Backend, Pair, Run, config, echo
from ..databases import postgresql_url
from ..market import FILE, MIB, MakeClient, Market, pool_of, push, vouchers
from ..programs import place
from ..streams.test_daemon_relay import exchange

__all__ = ["client", "deployments", "net", "network", "place", "postgresql_url", "vouchers", "wallet"]


@pytest.mark.slow
def test_a_service_is_paid_and_claimed(
    run: Run, client: MakeClient, net: LocalnetThread, vouchers: str
) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.keep(vouchers)
            await market.sell(backend, '{ request = 1000, mib = "0.002SUI", deposit = 1000 }')
            port = await market.buy('{ most = "0.5SUI", deposit = "0.1SUI" }')
            data = bytes(3 * MIB)
            for _ in range(2):
                assert await exchange(port, data) == data
            cost = 2 * 1000 + 12 * 2_000_000  # 2 requests; 6 MiB there, 6 back
            await until(lambda: market.bought()["spent"] >= cost * 9 // 10)
            assert market.bought()["budget"] == 500_000_000
            before = await market.balance(FAR)
            await pair.near.close()  # pays for the rest
            await until(lambda: market.sold()["earned"] >= cost)
            earned = market.sold()["earned"]
            assert earned == pytest.approx(cost, rel=0.01)
            await pair.far.close()  # claims
            assert await market.balance(FAR) > before + earned // 2

    run(scenario)


@pytest.mark.slow
def test_two_daemons_of_a_host_have_one_store(
    run: Run, client: MakeClient, net: LocalnetThread, vouchers: str
) -> None:
    """With a file for each, every one of them would take a caller's whole deposit for its own: it doesn't start."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.keep(vouchers)
            price = "{ request = 1000, deposit = 1000 }"
            await market.sell(backend, price)
            net.fund(OTHER.id.sui_address, 10_000_000_000, 3)
            program = Program()
            program.transfer(
                [host.new_operator(program, market.host, market.cap, host.Rights.ALL)], OTHER.id.sui_address
            )
            await market.far_chain.execute(program)
            async with client(KeySigner.from_identity(OTHER)) as chain:
                market.vouchers = "other.sqlite" if vouchers == FILE else vouchers
                other = Daemon(market.far_config(backend, price), OTHER, client=chain)
                if vouchers == FILE:
                    with pytest.raises(EndpointsApart, match='vouchers = "postgresql://'):
                        await other.start()
                    # Nor by a reload: what it gave away till then it goes on to give.
                    other = Daemon(
                        market.far_config(backend, "", endpoint="tcp://127.0.0.1:8"), OTHER, client=chain
                    )
                    await other.start()
                    with pytest.raises(EndpointsApart, match="stop the other"):
                        await other.reload(market.far_config(backend, price, endpoint="tcp://127.0.0.1:8"))
                    assert other.exposed["api"].config.price is None
                else:
                    await other.start()
                    assert other.exposed["api"].config.price is not None
                await other.close()

    run(scenario)


def test_whoever_does_not_pay_does_not_come_in(
    run: Run, client: Callable[..., Any], net: LocalnetThread
) -> None:
    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }")
            to = pair.listener.address("api")
            pair.near = Daemon(
                config(pair.tmp_path, f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"\n'), NEAR
            )
            await pair.near.start()
            with pytest.raises(ConnectionError):
                await exchange(pair.port, b"for nothing")
            assert "TICKET" in market.bought()["trouble"]
            assert backend.connections == 0

    run(scenario)


def keep_out(daemon: Any, how: Any) -> Any:
    """Have a daemon take nobody, or not this caller; an awaitable."""
    if how == "draining":
        daemon.draining = True
        return asyncio.sleep(0)
    return daemon.ban(str(OTHER.id), 2.0**40)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["banned", "draining"])
def test_who_is_kept_out_may_close(
    run: Run, client: MakeClient, net: LocalnetThread, how: Any, tmp_path: Path
) -> None:
    """Closing is no service: the rest of the deposit was locked for an hour."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, '{ request = 1000, mib = "0.002SUI", deposit = 1000 }')
            with Store(tmp_path / "buyer.sqlite") as store:
                chain = market.near_chain
                buyer: dict[str, Any] = {
                    "wallet": chain.signer,
                    "network": chain,
                    "store": store,
                    "identity": OTHER,
                }
                address = f"dtp://{market.host}/api"
                async with dial.connect(address, budget="0.1SUI", keep=True, **buyer) as connection:
                    stream = await connection.open_stream()
                    stream.write(b"words")
                    assert await stream.read(5) == b"words"
                    stream.write_eof()
                await keep_out(pair.far, how)
                with pytest.raises(ConnectionRefused):
                    await dial.connect(address, budget="0.1SUI", keep=True, **buyer)
                (kept,) = store.bought_channels()
                purchase = await dial.close_with_server(chain, store, kept.channel, identity=OTHER)
                assert purchase.closing.closed.to_client == 100_000_000 - connection.paid
                assert not await chain.objects([kept.channel])
                pair.far.draining = False

    run(scenario)


def test_a_budget_is_the_end_of_it(run: Run, client: Callable[..., Any], net: LocalnetThread) -> None:
    """What is paid stays below the budget, and the program is told, not left waiting."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, "{ request = 1000, deposit = 1000 }")
            port = await market.buy("{ most = 5000 }")
            passed = 0
            for _ in range(40):
                with contextlib.suppress(ConnectionError):
                    passed += await exchange(port, b"x") == b"x"
            assert market.bought()["spent"] <= 5000
            assert 4 <= passed <= 5

    run(scenario)


@pytest.mark.slow
def test_pipes_of_a_forward_go_over_the_channel_that_it_pays_with(
    client: MakeClient, wallet: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one would be a deposit beside the budget, and a server whose clients bear transport takes none."""

    async def serve_nothing(connection: Any) -> None:
        await connection.wait_closed()

    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))

    async def scenario() -> None:
        limits, terms = Limits(handshake=60), Terms(price_mib=1000, bearer=Bearer.CLIENT, credit=1000)
        signer = wallet()
        async with client(signer) as seller, client(wallet()) as payer:
            with Store(tmp_path / "sold.sqlite") as sold, Store(tmp_path / "bought.sqlite") as bought:
                serving = await serve(
                    "files", serve_nothing, wallet=signer, network=seller, terms=terms, store=sold, pipe=True,
                    limits=limits,
                )  # fmt: skip
                async with serving:
                    address = Address.parse(f"{serving.address}?via=pipe")
                    buyer = Buyer(
                        Wallet(payer, bought), BudgetSettings(10_000_000), NEAR, limits, None, (address,)
                    )
                    connection = await buyer.dial_paid(address, None)
                    (channel,) = (each.channel for each in bought.bought_channels())
                    assert [channel_of(each) for each in connection.stats.carriers] == [channel]
                    await connection.close()

    asyncio.run(scenario())


def test_a_forward_pays_for_no_more_calls_than_it_has_sent(
    tmp_path: Path, client: Callable[..., Any], wallet: Callable[..., Any]
) -> None:
    """Else a server could charge the whole budget before a byte has come, or for each 12 bytes of an upload."""
    declined = []
    three = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + bytes(5000)
    three += b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2

    async def take(connection: Metered) -> None:
        async for request in connection.requests():
            await request.stream.readexactly(len(three))
            for units in (2, 1_000_000, 2, 1):
                try:
                    await request.charge(units)
                except ChargeDeclined:
                    declined.append(units)
            request.stream.write_eof()

    async def scenario() -> None:
        signer = wallet()
        async with client(signer) as seller, client(wallet()) as payer:
            with Store(tmp_path / "sold.sqlite") as sold, Store(tmp_path / "bought.sqlite") as bought:
                serving = await serve(
                    "api", take, wallet=signer, network=seller, terms=Terms(price_request=10), store=sold
                )
                async with serving:
                    to = (serving.address,)
                    buyer = Buyer(
                        Wallet(payer, bought), BudgetSettings(100_000_000), NEAR, Limits(), None, to
                    )
                    connection = await buyer.dial_paid(serving.address, None)
                    stream = await connection.open_stream()
                    reader_of(connection).feed_data(three)
                    stream.write(three)
                    assert await stream.read() == b""
                    await connection.close()
                    assert connection.usage.requests == 1 + 3  # type: ignore[attr-defined]

    asyncio.run(scenario())
    assert declined == [1_000_000, 2]


@pytest.mark.slow
def test_a_budget_holds_over_a_connection_that_lingers_beside_a_new_one(
    run: Run, client: MakeClient, net: LocalnetThread
) -> None:
    """What both may sign together is never above it, whoever uses it."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend, Market(pair, client, net) as market:
            await market.sell(backend, '{ mib = "0.002SUI" }')
            port = await market.buy('{ most = "0.02SUI" }')  # 10 MiB
            await until(lambda: pool_of(pair).connections)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            await reader.readexactly(1)
            (old,) = pool_of(pair).connections
            pool_of(pair)._retire_connection(old)  # as one whose server drains
            other, more = await asyncio.open_connection("127.0.0.1", port)
            more.write(b"y")
            await other.readexactly(1)
            both = pool_of(pair).connections
            assert len(both) == 2
            payers = [each.meter.payer for each in both]  # type: ignore[attr-defined]
            assert sum(each.funds.most for each in payers) <= 20_000_000
            await asyncio.gather(*(push(each, 10 * MIB) for each in [(reader, writer), (other, more)]))
            assert 5_000_000 < sum(each.signed.amount for each in payers) <= 20_000_000
            await pair.near.close()
            await until(lambda: market.sold()["earned"] > 0)
            assert market.sold()["earned"] <= 20_000_000

    run(scenario)


def test_each_call_is_paid(run: Run, client: Callable[..., Any], net: LocalnetThread) -> None:
    """Of JSON-RPC a stream carries many; a batch costs what its calls do, and what is refused costs nothing."""
    import aiohttp
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        calls = await request.json()
        found = [
            {"jsonrpc": "2.0", "id": one["id"], "result": 1}
            for one in (calls if isinstance(calls, list) else [calls])
        ]
        return web.json_response(found if isinstance(calls, list) else found[0])

    async def scenario(pair: Pair) -> None:
        application = web.Application()
        application.router.add_post("/", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()

        class Node:
            port = runner.addresses[0][1]

        def call(number: int, method: str = "eth_call") -> dict[str, int | str]:
            return {"jsonrpc": "2.0", "id": number, "method": method}

        async with Market(pair, client, net) as market, aiohttp.ClientSession() as session:
            more = 'kind = "json-rpc"\nmethods = { deny = ["admin_*"] }'
            await market.sell(Node, "{ request = 1000, deposit = 1000 }", more)
            port = await market.buy("{ most = 6000 }")

            async def ask(message: dict[str, int | str] | list[dict[str, int | str]]) -> tuple[int, Any]:
                async with session.post(f"http://127.0.0.1:{port}/", json=message) as answer:
                    return answer.status, await answer.json()

            assert (await ask(call(1)))[1]["result"] == 1
            batch = (await ask([call(2), call(3, "admin_x"), call(4)]))[1]
            assert [one["id"] for one in batch if "result" in one] == [2, 4]
            assert (await ask(call(5, "admin_x")))[1]["error"]["code"] == -32601
            assert market.sold()["streams"] == 1
            await until(lambda: market.bought()["spent"] == 3000)
            assert market.sold()["earned"] == 3000
            status, told = await ask([call(number) for number in range(10, 20)])
            assert status == 200
            assert {one["error"]["data"]["policy"] for one in told} == {"price"}
            assert (await ask(call(30)))[1]["result"] == 1
            assert market.sold()["denials"] == {"methods": 2, "price": 1}
        await runner.cleanup()

    run(scenario)


def test_each_call_of_grpc_is_paid(run: Run, client: Callable[..., Any], net: LocalnetThread) -> None:
    """Before the backend hears of it; when the budget ends, a call is told so by its status and the client stays."""
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    pytest.importorskip("grpc.aio")
    from ..grpc_servers import PACKAGE, core_client, core_server, failure, pieces

    async def scenario(pair: Pair) -> None:
        class Node:
            port = 0

        async with core_server() as Node.port, Market(pair, client, net) as market:
            more = 'kind = "grpc"\nmethods = { deny = ["*/Secret"] }'
            await market.sell(Node, "{ request = 1000, deposit = 1000 }", more)
            port = await market.buy("{ most = 12000 }")
            async with core_client(port) as channel:
                unary = channel.unary_unary(f"{PACKAGE}/Unary")
                assert await unary(bytes(200_000)) == bytes(200_000)
                into = channel.stream_unary(f"{PACKAGE}/In")
                assert await into(pieces(*[bytes(10_000)] * 30)) == b"300000"
                answers = await asyncio.gather(*(unary(b"%d" % number) for number in range(8)))
                assert answers == [b"%d" % number for number in range(8)]
                error = await failure(channel.unary_unary(f"{PACKAGE}/Secret")(b""))
                assert error.code() == grpc.StatusCode.PERMISSION_DENIED  # and costs nothing
                await until(lambda: market.bought()["spent"] == 10_000)
                passed, refused = 0, []
                for number in range(6):
                    try:
                        passed += await unary(b"%d" % number) == b"%d" % number
                    except grpc.aio.AioRpcError as caught:
                        refused.append(caught)
                assert passed == 2
                for each in refused:
                    assert each.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                    assert dict(each.trailing_metadata())["dtp-policy"] == "price"
                assert market.bought()["spent"] == market.sold()["earned"] == 12_000
                assert market.sold()["denials"] == {"methods": 1, "price": 4}
                assert market.sold()["streams"] == 1

    run(scenario)
