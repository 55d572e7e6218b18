"""A show in a browser: HLS that ffmpeg plays, a page on which Chromium does, and what neither must be given."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import click
import pytest
from shows import hear, produce, run, until

from dtp.broadcast.cutting import AutoCutter
from dtp.broadcast.errors import ShowSealed
from dtp.broadcast.format import Flag
from dtp.broadcast.gateway.playlist import playlist, window
from dtp.broadcast.gateway.server import Gateway, GatewayError
from dtp.broadcast.sealed.admission import Guests
from dtp.cli.shows_gateway import page_beside
from dtp.errors import LocalError
from dtp.session.limits import GATEWAY_UNTAKEN

sys.path.insert(0, str(Path(__file__).parents[1]))
from browsers import dump, dump_when


@pytest.fixture(scope="session")
def film():
    """Six seconds of video with sound, as ffmpeg makes it: fragmented MP4, a key frame each second."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    source = [
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=160x120:rate=10:duration=6",
        "-f",
        "lavfi",
        "-i",
        "sine=duration=6",
    ]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    form = ["-movflags", "frag_keyframe+empty_moov+default_base_moof", "-f", "mp4", "-"]
    return subprocess.run(
        ["ffmpeg", "-v", "error", *source, *coding, *form], capture_output=True, timeout=60, check=True
    ).stdout


def matroska(*coding):
    """Two seconds of video as Matroska, a cluster each second."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=160x120:rate=10:duration=2",
        "-g",
        "10",
    ]
    form = ["-pix_fmt", "yuv420p", "-cluster_time_limit", "1000", "-"]
    return subprocess.run([*command, *coding, *form], capture_output=True, timeout=60, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coding", "waited", "told"),
    [
        (("-c:v", "libvpx", "-f", "webm"), "video.dataset.size", 'data-size="160x120"'),
        (
            ("-c:v", "libx264", "-f", "matroska"),
            "'fault' in at('status').dataset",
            "play Matroska with codecs other than those of WebM",
        ),
    ],
)
def test_what_isnt_named_is_told_by_its_bytes(coding, waited, told):
    page = run(on_gateway(matroska(*coding), lambda url: dump_when(url, waited), media=""))
    assert told in page, page.partition("<video")[2]


async def on_gateway(film, look, *, end=True, media="video/mp4", prepare=lambda _: None, **options):
    """Have a film at a gateway, whole, and look at it."""
    async with produce(media=media, title="<film>") as on_air:
        for each in AutoCutter().feed(film, 0.0):
            duration = 0 if Flag.INIT in each.flags else 1000
            await on_air.write(each.data, duration_ms=duration, flags=each.flags)
        if end:
            await on_air.end()
        async with Gateway(on_air.held, **options) as gateway:
            prepare(gateway)
            return await asyncio.to_thread(look, gateway.url)


#: As `ShowWatcher.make_page` gives it.
MONEY = {
    "show": "0xabc", "air": "on air", "pot": "1 SUI", "next_slot": "0.1 SUI", "slot_s": 30.0, "paid": "2 SUI",
    "tips": "0 SUI", "rate": "0.1 SUI", "lasts_s": 90.0, "starts_at": "0.2 SUI", "tickets": None, "ticket": None,
    "start_by_ms": None, "more": 7, "is_unposted": False, "old_s": None,
    "line": [
        {"number": 3, "kind": "question", "amount": "1 SUI", "raised": 2, "text": "<b>why?</b>"},
        {"number": 0, "kind": "tip", "amount": "0.5 SUI", "raised": 0, "text": "thank you"},
    ],
}  # fmt: skip


TICKETS = {
    **MONEY,
    "rate": None,
    "tickets": {"held": 3, "wanted": 50},
    "ticket": "1 SUI",
    "air": "funding",
    "start_by_ms": 4_000_000_000_000,
}


@pytest.mark.slow
def test_a_page_says_that_a_show_cant_start_any_more_and_how_tickets_are_paid_back(film):
    late = {**TICKETS, "start_by_ms": 1_000_000_000_000}
    page = run(on_gateway(film, lambda url: dump(url, 20_000), end=False, money=lambda: late))
    assert "too few tickets were sold in time" in page
    assert "dtp show refund 0xabc" in page
    assert "dtp show buy" not in page


@pytest.mark.slow
def test_the_producers_page_moderates_and_a_ticketed_show_says_what_is_sold(film):
    page = run(
        on_gateway(film, lambda url: dump(url, 20_000), money=lambda: TICKETS, dismiss=lambda number: None)
    )
    assert "3 of 50 needed" in page
    assert "dtp show buy 0xabc" in page
    assert page.count("<button") == 2


def test_only_the_page_itself_dismisses_and_only_on_this_machine():
    dismissed = []

    def dismiss(number):
        if number == 13:
            raise LocalError("the disk is full")
        dismissed.append(number)

    def look(url):
        here = url.rstrip("/")
        told = []
        for path, origin in [
            ("line/7/dismiss", here), ("line/8/dismiss", "http://evil.example"), ("line/9/dismiss", None),
            ("line/x/dismiss", here), ("state", here), ("line/13/dismiss", here),
        ]:  # fmt: skip
            headers = {} if origin is None else {"Origin": origin}
            request = urllib.request.Request(url + path, headers=headers, method="POST", data=b"")
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    told.append(answer.status)
            except urllib.error.HTTPError as fault:
                told.append(fault.code)
        return told

    async def test():
        async with produce() as on_air:
            with pytest.raises(GatewayError, match="would moderate"):
                Gateway(on_air.held, "0.0.0.0", dismiss=dismiss)
            async with Gateway(on_air.held, dismiss=dismiss) as gateway:
                return await asyncio.to_thread(look, gateway.url)

    assert run(test()) == [200, 403, 403, 404, 404, 500]
    assert dismissed == [7]


@pytest.mark.slow
def test_a_page_says_why_listening_has_ended(film):
    """Of a sealed show without a ticket nothing can be had, and that isn't why."""

    def refuse(segment, data):
        raise ShowSealed("there is no key")

    def set_fault(gateway):
        gateway.fault = "no ticket: buy one with dtp show buy"

    page = run(on_gateway(film, lambda url: dump(url, 20_000), end=False, open=refuse, prepare=set_fault))
    assert "stopped: no ticket: buy one with dtp show buy" in page


@pytest.mark.slow
def test_a_page_is_told_why_listening_has_ended_before_it_is_gone():
    async def test():
        pages = []
        async with produce() as on_air, hear(*on_air.addresses) as stream:
            await on_air.write(b"data")

            async def fail():
                async with page_beside(stream, ("127.0.0.1", 0), None) as page:
                    pages.append(page)
                    raise ShowSealed("no ticket")

            failing = asyncio.ensure_future(fail())
            await until(lambda: pages and pages[0].state()["fault"])
            assert pages[0].state()["fault"] == "no ticket"
            with pytest.raises(ShowSealed):
                await failing

    with click.Context(click.Command("listen")):
        run(test())


@pytest.mark.slow
def test_chromium_plays_a_show(film):
    played = "over && video.dataset.size"
    page = run(on_gateway(film, lambda url: dump_when(url, played), money=lambda: MONEY))
    assert 'data-size="160x120"' in page, page.partition("<video")[2]
    assert "the show is over" in page
    assert "&lt;film&gt;" in page
    assert "&lt;b&gt;why?&lt;/b&gt;" in page
    assert "in the pot" in page
    assert "1 min 30 s" in page
    assert "dtp show fund 0xabc AMOUNT" in page
    assert "and 7 more, for less" in page
    assert "<button" not in page  # who only watches moderates nothing
    checked = page.partition('id="checked">')[2].partition("<")[0]
    assert int(checked) >= 6


@pytest.mark.slow
def test_who_comes_late_begins_near_what_is_live(film):
    """The page began with the oldest segment in the window, and stayed as far behind for ever."""
    page = run(on_gateway(film, lambda url: dump(url, 8_000), end=False, money=lambda: MONEY))
    assert "live, and authentic" in page
    behind = page.partition('id="behind">')[2].partition(" s<")[0]
    assert float(behind) <= 3.0
    checked = page.partition('id="checked">')[2].partition("<")[0]
    assert int(checked) <= 3


@pytest.mark.slow
def test_a_page_says_why_nothing_comes_and_asks_for_no_money_once_it_is_over(film):
    paused = {**MONEY, "air": "paused"}
    page = run(on_gateway(film, lambda url: dump(url, 8_000), end=False, money=lambda: paused))
    assert "paused, until somebody pays for more" in page
    assert 'id="behind"></dd>' in page
    over = {**MONEY, "air": "ended"}
    page = run(on_gateway(film, lambda url: dump(url, 20_000), money=lambda: over))
    assert "the show is over" in page
    assert '<p hidden=""><span id="take">Take part' in page
    assert "next slot" not in page
    page = run(on_gateway(film, lambda url: dump(url, 20_000), money=lambda: {**over, "is_unspent": True}))
    assert 'What is unspent comes back with</span> <code id="how">dtp show refund 0xabc' in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("money", "told", "air"),
    [
        (None, "nothing comes now: its producer is quiet, or away", ""),
        (MONEY, "nothing comes now: its producer is quiet, or away", "on air"),
        ({**MONEY, "is_unposted": True}, "paused: no slots are posted, so nobody pays for them", "paused"),
        ({**MONEY, "old_s": 90.0}, "The chain hasn't answered for 1 min 30 s", "on air"),
    ],
)
def test_a_page_says_that_nothing_comes_though_the_chain_has_the_show_on_air(film, money, told, air):
    """It said "live, and authentic" for ever, also where the producer's node was away and it had stopped sending."""
    options = {} if money is None else {"money": lambda: money}
    page = run(on_gateway(film, lambda url: dump(url, 20_000), end=False, **options))
    assert told in page
    assert "live, and authentic" not in page
    assert page.partition('data-air="')[2].partition('"')[0] == air


@pytest.mark.slow
@pytest.mark.parametrize("moderates", [False, True])
def test_a_page_has_room_for_questions_on_a_phone(film, moderates):
    """One letter stood on each line, beside what was paid and the button, and the page was wider than the phone."""
    line = [
        {"number": 3, "kind": "question", "amount": "0.020000001 SUI", "raised": 1200, "text": "why? " * 30}
    ]
    widths = """[...document.querySelectorAll('#line .text')].map((each) => each.offsetWidth)"""
    note = f"document.body.dataset.widths = [document.documentElement.scrollWidth, {widths}].join()"
    options = {"money": lambda: {**MONEY, "line": line}, **({"dismiss": print} if moderates else {})}
    shown = f"document.querySelector('#line .text') && ({note})"
    page = run(on_gateway(film, lambda url: dump_when(url, shown, width=360), **options))
    wide, text = map(int, page.partition('data-widths="')[2].partition('"')[0].split(","))
    assert wide == 360
    assert text > 250
    assert ("<button" in page) == moderates
    assert "question 3" in page
    assert "dtp show ask 0xabc --raise NUMBER" in page


def test_ffmpeg_plays_the_playlist(film):
    def look(url):
        return subprocess.run(
            [
                "ffmpeg",
                "-v",
                "error",
                "-xerror",
                "-i",
                url + "live.m3u8",
                "-map",
                "0:v",
                "-f",
                "framecrc",
                "-",
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    done = run(on_gateway(film, look))
    assert done.stderr == ""
    assert done.returncode == 0
    assert len([line for line in done.stdout.splitlines() if not line.startswith("#")]) == 60


def test_a_playlist_names_gaps_and_new_encoders():
    async def test():
        async with produce() as on_air:
            assert playlist(on_air.held).splitlines()[-1] == "#EXT-X-MEDIA-SEQUENCE:0"
            await on_air.write(b"init", flags=Flag.INIT)
            await on_air.write(b"middle", duration_ms=1000, flags=Flag(0))
            await on_air.write(b"one", duration_ms=2500)
            await on_air.write(b"two", duration_ms=1000, flags=Flag(0))
            await on_air.write(b"other", flags=Flag.INIT)
            before = await on_air.write(b"three", duration_ms=1000)
            on_air.signer.sign(b"lost", time_ms=before.time_ms)
            await on_air.write(b"four")
            assert [each.number for each in window(on_air.held)] == [2, 3, 5, 7]
            return playlist(on_air.held).splitlines()

    lines = run(test())
    assert lines[:4] == ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-TARGETDURATION:3", "#EXT-X-MEDIA-SEQUENCE:2"]
    assert lines[4:9] == [
        '#EXT-X-MAP:URI="segments/0.mp4"',
        "#EXTINF:2.500,",
        "segments/2.m4s",
        "#EXTINF:1.000,",
        "segments/3.m4s",
    ]
    assert lines[9:11] == ["#EXT-X-DISCONTINUITY", '#EXT-X-MAP:URI="segments/4.mp4"']
    assert lines[12:14] == ["segments/5.m4s", "#EXT-X-DISCONTINUITY"]
    assert lines[-1] == "segments/7.m4s"
    assert "#EXT-X-ENDLIST" not in lines


def test_keys_between_two_segments_are_no_gap_in_a_playlist():
    """A player begins anew behind a gap: it would do so each minute."""

    async def test():
        async with produce(admission=Guests([])) as on_air:
            await on_air.write(b"one")
            await on_air.rotate_key()
            await on_air.write(b"two")
            return [each.number for each in window(on_air.held)], playlist(on_air.held)

    numbers, lines = run(test())
    assert numbers == [1, 3]
    assert "#EXT-X-DISCONTINUITY" not in lines


def test_what_no_key_opens_or_isnt_whole_is_not_there_yet():
    """As for a segment of which nothing is known: a player asks again, and what is asked next is answered."""

    def open_segment(segment, data):
        if data == b"sealed":
            raise ShowSealed("no key has come")
        return data

    async def test():
        async with produce() as on_air, Gateway(on_air.held, open=open_segment) as gateway:
            for body in b"open", b"sealed":
                await on_air.write(body)
            on_air.held.add_manifest(on_air.signer.sign(b"not whole", time_ms=10**15).encoded)
            host, port = gateway.url.removeprefix("http://").rstrip("/").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            told = []
            for number in range(3):
                writer.write(b"GET /segments/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                told.append((head.split()[1], await reader.readexactly(size)))
            writer.close()
            return told

    assert run(test()) == [(b"200", b"open"), (b"404", b"not found\n"), (b"404", b"not found\n")]


def test_who_asks_for_the_head_of_an_answer_gets_that_alone_and_asks_on():
    async def test():
        async with produce() as on_air, Gateway(on_air.held) as gateway:
            host, port = gateway.url.removeprefix("http://").rstrip("/").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            for method in b"HEAD", b"HEAD":
                writer.write(method + b" /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert b"ontent-Length: 0" not in head
            writer.close()

    run(test())


def test_what_a_gateway_refuses():
    def look(url):
        told = {}
        for name, path, headers, method in [
            ("there", "segments/0", {}, "GET"),
            ("head", "state", {}, "HEAD"),
            ("missing", "segments/99", {}, "GET"),
            ("nonsense", "../../etc/passwd", {}, "GET"),
            ("write", "state", {}, "POST"),
            ("another name", "state", {"Host": "evil.example"}, "GET"),
        ]:
            request = urllib.request.Request(url + path, headers=headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    told[name] = answer.status
                    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            except urllib.error.HTTPError as fault:
                told[name] = fault.code
        return told

    async def test():
        async with produce() as on_air:
            await on_air.write(b"x")
            async with Gateway(on_air.held) as gateway:
                with pytest.raises(
                    GatewayError, match=r"can't listen at 127.0.0.1:\d+: Address already in use$"
                ):
                    async with Gateway(on_air.held, port=int(gateway.url.rpartition(":")[2].strip("/"))):
                        pass
                return await asyncio.to_thread(look, gateway.url)

    assert run(test()) == {
        "there": 200,
        "head": 200,
        "missing": 404,
        "nonsense": 404,
        "write": 405,
        "another name": 403,
    }


def test_who_holds_all_connections_of_a_gateway_keeps_nobody_out():
    async def get(url, source):
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
        writer.write(b"GET /state HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return await reader.readline(), reader, writer

    async def test():
        async with produce() as on_air, Gateway(on_air.held) as gateway, contextlib.AsyncExitStack() as stack:
            viewer, reader, kept = await get(gateway.url, "127.0.0.2")
            stack.callback(kept.close)
            for _ in range(100):
                answer, _, writer = await get(gateway.url, "127.0.0.1")
                stack.callback(writer.close)
                assert answer.startswith(b"HTTP/1.1 200")
            other, _, writer = await get(gateway.url, "127.0.0.3")
            stack.callback(writer.close)
            assert viewer == other == b"HTTP/1.1 200 \r\n"
            kept.write(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"HTTP/1.1 200")  # who was there before is served on

    run(test())


async def ask(url, source="127.0.0.1"):
    """Ask for the first segment, and take nothing of it yet."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    sock.bind((source, 0))
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    sock.send(b"GET /segments/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return sock


async def take(sock):
    taken = 0
    with contextlib.suppress(ConnectionResetError):
        while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
            taken += len(data)
    return taken


def test_all_who_take_slowly_what_they_asked_for_keep_a_bounded_part_of_memory():
    size = 8 * 1024 * 1024

    async def test():
        async with produce(limit=4 * size) as on_air, Gateway(on_air.held) as gateway:
            await on_air.write(bytes(size))
            with contextlib.ExitStack() as stack:
                viewer = stack.enter_context(contextlib.closing(await ask(gateway.url, "127.0.0.2")))
                await asyncio.get_running_loop().sock_recv(viewer, 1)
                for _ in range(20):
                    sock = stack.enter_context(contextlib.closing(await ask(gateway.url)))
                    await asyncio.get_running_loop().sock_recv(sock, 1)  # it is answered
                    assert gateway.unread_bytes <= GATEWAY_UNTAKEN
                assert gateway.unread_bytes > GATEWAY_UNTAKEN - 2 * size
                assert await take(viewer) >= size  # who has less than others is none of those that go
                await until(lambda: gateway.unread_bytes <= GATEWAY_UNTAKEN - size)

    run(test())


@pytest.mark.parametrize(
    ("media", "told"),
    [
        ('video/mp4; codecs="avc1"', 'video/mp4; codecs="avc1"'),
        ("text/html", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
        ("video/mp4\r\nX: y", "application/octet-stream"),
    ],
)
def test_a_producer_says_no_media_type_that_a_browser_runs(media, told):
    async def test():
        async with produce(media=media) as on_air, Gateway(on_air.held) as gateway:
            await on_air.write(b"<script>")
            answer = await asyncio.to_thread(urllib.request.urlopen, gateway.url + "segments/0", timeout=20)
            with answer:
                return answer.headers["Content-Type"]

    assert run(test()) == told


def test_who_takes_no_answer_keeps_neither_it_nor_the_connection():
    size = 8 * 1024 * 1024

    async def test():
        async with produce(limit=4 * size) as on_air, Gateway(on_air.held) as gateway:
            await on_air.write(bytes(size))
            with contextlib.closing(await ask(gateway.url)) as stalled, contextlib.ExitStack() as stack:
                await asyncio.get_running_loop().sock_recv(stalled, 1)  # it is answered
                for _ in range(100):  # so many that it has to go
                    stack.enter_context(contextlib.closing(await ask(gateway.url)))
                assert await take(stalled) < size

    run(test())


def test_many_who_ask_at_once_are_answered_one_in_each_turn_of_the_loop():
    """Else each turn takes as long as all of them, and what is passed on by the same process takes many turns."""
    turns, answered = [0], []

    async def count_turns():
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    def money():
        answered.append(turns[0])
        return {}

    async def test():
        async with produce() as on_air, Gateway(on_air.held, money=money) as gateway:
            host, port = gateway.url.removeprefix("http://").rstrip("/").split(":")
            clients = [await asyncio.open_connection(host, int(port)) for _ in range(40)]
            counting = asyncio.ensure_future(count_turns())
            for _, writer in clients:
                writer.write(b"GET /state HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for reader, writer in clients:
                await reader.readuntil(b"HTTP/1.1 200")
                writer.close()
            counting.cancel()
        assert len(answered) == len(set(answered)) == 40

    run(test())


def test_a_client_that_has_to_go_before_it_is_looked_at_is_closed():
    async def test():
        async with produce() as on_air, Gateway(on_air.held) as gateway, contextlib.AsyncExitStack() as stack:
            host, port = gateway.url.removeprefix("http://").rstrip("/").split(":")
            flood = []
            for _ in range(200):  # all at once: the gateway accepts them in one turn of the loop
                sock = socket.socket()
                stack.callback(sock.close)
                sock.setblocking(False)
                sock.connect_ex((host, int(port)))
                flood.append(sock)
            gone = [asyncio.ensure_future(asyncio.get_running_loop().sock_recv(each, 1)) for each in flood]
            await until(lambda: sum(each.done() for each in gone) >= 200 - 64)
            for each in gone:
                each.cancel()
            await asyncio.gather(*gone, return_exceptions=True)

    run(test())
