"""A server whose node shows passes that nobody bought, to the good of who comes under one."""

import contextlib

from dtp.chain import ChainClient, find_network
from dtp.chain import pass_ as pass_module
from dtp.chain.pass_ import Account, Pass
from dtp.errors import DtpError
from dtp.pay.terms import Usage

from . import lies
from .dishonesty import QUOTA
from .test_faulty_nodes import play
from .test_paid import PRICES, give, sell_plan

PASS = "0x" + "ba" * 32


async def use(connection, wanted):
    """Take what comes of one request of so many bytes; what was asked for and came."""
    stream = await connection.open_stream()
    question = b"%d\n" % wanted
    got = len(question)
    with contextlib.suppress(DtpError):
        stream.write(question)
        while data := await stream.read(65_536):
            got += len(data)
    return Usage(1, got)


def test_a_pass_that_a_node_makes_up_is_served_no_more_than_its_quota(market, bound):
    """Its holder comes again, too; what it has used is in the server's own store, whatever the node says."""

    async def scenario(sessions):
        market = sessions.market
        server = await sessions.client(market.server_wallet, "server")
        await market.serve(give, network=server)
        plan = await sell_plan(market, requests=QUOTA.requests, size=QUOTA.bytes)
        await market.serving.close()
        await market.serve(give, network=server, plans=[plan])
        # The client asks the same node, and has an honest channel to begin with.
        signer = market.chain.wallet()
        chain = ChainClient(find_network(sessions.node.url), signer, deployments=market.chain.deployments)
        await market.stack.enter_async_context(chain)
        buyer = {"wallet": signer, "network": chain, "store": market.store()}
        async with market.connect(buyer, keep=True) as connection:
            await use(connection, 1000)
        number = market.serving.gate.firewall.rules.state.find_service("files")[0]
        account = Account(chain.address, market.chain.now_ms() - 1000, 1000, 0, False)
        made_up = Pass(PASS, plan, market.serving.host, number)
        sessions.node.lie(lies.made_up_pass(plan, made_up, account, chain.type_of(pass_module.SCHEMA, Pass)))
        await market.serving.firewall.refresh()
        used = Usage()
        for _ in range(3):
            with contextlib.suppress(DtpError):
                async with market.connect(buyer, budget=0, keep=True) as connection:
                    used = used.plus(*await use(connection, QUOTA.bytes))
        assert bound // 2 < PRICES.of(used) <= bound
        assert sessions.node.told

    play(market, "server", scenario)
