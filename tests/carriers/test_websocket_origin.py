"""Which web pages may dial a WebSocket: those that the listener lists. Programs say no origin."""

import asyncio
import contextlib
import logging

import pytest
from browsers import dump
from strangers import REQUEST, on_sockets, stranger_at

from dtp.carriers import dial, listen
from dtp.carriers.errors import CarrierUrlError


@pytest.mark.parametrize(
    ("option", "header", "status"),
    [
        ("", b"", b"101"),
        ("", b"Origin: http://page.example:8000\r\n", b"403"),
        ("", b"Origin: null\r\n", b"403"),
        ("", b"oRiGiN: \r\n", b"403"),
        ("?origins=http://page.example:8000", b"", b"101"),
        ("?origins=http://page.example:8000", b"Origin: http://page.example:8000\r\n", b"101"),
        (
            "?origins=https://a.example,http://page.example:8000",
            b"Origin: http://page.example:8000\r\n",
            b"101",
        ),
        ("?origins=http://page.example:8000", b"Origin: http://page.example\r\n", b"403"),
        ("?origins=http://page.example:8000", b"Origin: https://page.example:8000\r\n", b"403"),
        ("?origins=http://page.example:8000", b"Origin: http://page.example:8000.evil.example\r\n", b"403"),
        ("?origins=http://page.example", b"Origin: http://page.example\r\nOrigin: http://b\r\n", b"403"),
    ],
)
def test_only_listed_pages_and_programs_come_in(
    option: str, header: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dtp.carriers.websocket")

    async def main() -> None:
        async with stranger_at(f"ws://127.0.0.1:0/{option}") as (stranger, accepted, listener):
            stranger.writer.write(REQUEST + header + b"\r\n")
            assert (await stranger.head()).startswith(b"HTTP/1.1 " + status)
            program = await dial(listener.urls[0])  # always welcome
            (await accepted.get()).abort()
            if status == b"101":
                (await accepted.get()).abort()
            assert accepted.empty()
            program.abort()
            stranger.writer.close()
            while status == b"403" and "origins= in" not in caplog.text:  # noqa: ASYNC110 - turns of the loop
                await asyncio.sleep(0)

    on_sockets(main())
    assert ("origins= in" in caplog.text) == (status == b"403")


@pytest.mark.parametrize(
    "origin", ["page.example", "http://page.example/", "HTTP://page.example", "*", "null"]
)
def test_what_no_browser_says_is_no_origin(origin: str) -> None:
    with pytest.raises(CarrierUrlError, match="not an origin of web pages"):
        on_sockets(listen(f"ws://127.0.0.1:0?origins={origin}", lambda _carrier: None))


@pytest.mark.parametrize("listed", [False, True])
def test_a_page_in_a_browser(listed: bool) -> None:
    """Headless Chromium opens a page that dials."""

    async def main() -> None:
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                with contextlib.suppress(asyncio.IncompleteReadError):  # browsers dial ahead, and say nothing
                    await reader.readuntil(b"\r\n\r\n")
                page = f"""<p id=p>waiting</p><script>
                    const s = new WebSocket("{await url}");
                    const p = document.getElementById("p");
                    s.onopen = () => p.textContent = "came in";
                    s.onerror = () => p.textContent = "kept out"</script>"""
                head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\n"
                writer.write(f"{head}Content-Length: {len(page)}\r\n\r\n{page}".encode())

        pages = await asyncio.start_server(serve, "127.0.0.1", 0)
        origin = f"http://127.0.0.1:{pages.sockets[0].getsockname()[1]}"
        option = f"?origins={origin}" if listed else ""
        async with stranger_at(f"ws://127.0.0.1:0/{option}") as (_, accepted, listener):
            url.set_result(listener.urls[0].partition("?")[0])
            told = await asyncio.to_thread(dump, origin, 4000)
            assert ("came in" if listed else "kept out") in told
            assert accepted.qsize() == listed
            while not accepted.empty():
                accepted.get_nowait().abort()
        pages.close()

    asyncio.run(main())
