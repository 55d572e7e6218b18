"""What a program gives in place of an address, an identity or bytes is named at once, not by something inside."""

import asyncio
from typing import Any

import pytest

import dtp
from dtp.net.address import Address


@pytest.mark.parametrize("address", [5, None, ("127.0.0.1", 80), b"dtp://a/b"])
def test_what_is_no_address(address: Any) -> None:
    async def dial() -> None:
        await dtp.connect(address)

    with pytest.raises(TypeError, match=r"an address is a str or a dtp\.Address, not "):
        asyncio.run(dial())
    with pytest.raises(TypeError, match=r"an address is a str or a dtp\.Address, not "):
        dtp.socket.create_connection(address)


def test_an_address_is_its_own() -> None:
    text = f"dtp+tcp://{dtp.Identity.generate().id}@127.0.0.1:1/x"
    assert Address.of(Address.of(text)) == Address.parse(text)


@pytest.mark.parametrize("identity", ["me.pem", None])
def test_what_is_no_identity(identity: Any) -> None:
    async def listen() -> None:
        await dtp.listen("tcp://127.0.0.1:0", identity=identity)

    with pytest.raises(TypeError, match=r"identity has to be a dtp\.Identity, not "):
        asyncio.run(listen())


@pytest.mark.parametrize(
    ("services", "error"),
    [({"echo": "cat"}, TypeError), ({"echo": None}, TypeError), ({" echo": print}, dtp.AddressError)],
)
def test_what_is_no_service(services: Any, error: Any) -> None:
    """The first caller heard of it, as an error of the inside."""

    async def listen() -> None:
        await dtp.listen("memory://types", services, identity=dtp.Identity.generate())

    with pytest.raises(error, match="echo"):
        asyncio.run(listen())


@pytest.mark.parametrize("data", ["text", 5, [1, 2], None])
def test_what_is_no_bytes(data: Any) -> None:
    """A number was as many zeros on the wire."""

    async def tell(connection: Any) -> None:
        stream = await connection.accept_stream()
        stream.write(await stream.read())
        stream.write_eof()

    async def scenario() -> None:
        me = dtp.Identity.generate()
        async with (
            await dtp.listen("memory://types", tell, identity=me) as listener,
            dtp.connect(listener.address()) as connection,
        ):
            stream = await connection.open_stream()
            with pytest.raises(TypeError):
                stream.write(data)
            stream.write(bytearray(b"ab"))
            stream.write(memoryview(b"abcd")[::2])
            stream.write_eof()
            assert await stream.read() == b"abac"

    asyncio.run(scenario())
