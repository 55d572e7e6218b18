"""End to end over a chain: a client that knows a host object opens, streams, pays and closes; the server is paid."""

from dtp.pay.terms import MIB, Prices, Usage

from .conftest import TERMS

PRICES = Prices(TERMS.price_request, TERMS.price_mib)


async def give(connection):
    """A handler: each stream says how many bytes it wants."""
    async for stream in connection:
        wanted = int(await stream.readline())
        piece = bytes(64 * 1024)
        while wanted:
            size = min(wanted, len(piece))
            stream.write(piece[:size])
            await stream.drain()
            wanted -= size
        stream.write_eof()


async def fetch(connection, size):
    stream = await connection.open_stream()
    stream.write(b"%d\n" % size)
    data = await stream.read()
    stream.close()
    return len(data)


def test_a_stream_is_paid_and_everything_is_closed_in_two_transactions(market):
    async def scenario(market):
        await market.serve(give)
        buyer = await market.buyer()
        before = await market.balance(market.server_wallet.address)
        async with market.connect(buyer) as connection:
            assert await fetch(connection, 5 * MIB) == 5 * MIB
        price = PRICES.of(Usage(1, 5 * MIB + len("5242880\n")))
        assert connection.paid == price
        # Closed by agreement, and deleted: the server's balance has risen without a transaction of its own.
        assert await market.channels(buyer) == [None]
        assert await market.balance(market.server_wallet.address) - before == price
        (bought,) = buyer["store"].bought()
        assert bought.state == "closed"

    market(scenario)
