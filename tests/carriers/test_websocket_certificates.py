"""Certificates and time: not valid yet, no more, and renewed while the listener runs."""

import asyncio
import datetime
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from strangers import on_sockets

from dtp.carriers import CarrierListener, dial, listen
from dtp.carriers.base import Carrier
from dtp.carriers.errors import TlsError
from dtp.carriers.tls import ServerTls
from dtp.testing.carrier_ends import CarrierEnd

DAY = datetime.timedelta(days=1)


class Authority:
    """Writes certificates of 127.0.0.1 to one file, each valid from and to so many days from now."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.ca, self.server = folder / "ca.pem", folder / "server.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, first: int, last: int) -> None:
        now = datetime.datetime.now(datetime.UTC)
        issued = self._authority.issue_cert(
            "127.0.0.1", not_before=now + first * DAY, not_after=now + last * DAY
        )
        new = self.server.with_suffix(".new")
        new.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        new.replace(self.server)

    async def listen(self, accept: Callable[[Carrier], None]) -> CarrierListener:
        return await listen(f"wss://127.0.0.1:0/?cert={self.server}", accept)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize(("days", "words"), [((1, 90), "not yet valid"), ((-90, -1), "has expired")])
def test_a_certificate_of_another_time_is_refused_and_says_what_time_it_is_here(
    authority: Authority, days: tuple[int, int], words: str
) -> None:
    """Either clock may be the wrong one."""
    authority.issue(*days)

    async def main() -> None:
        accepted: asyncio.Queue = asyncio.Queue()
        listener = await authority.listen(accepted.put_nowait)
        with pytest.raises(TlsError, match=words) as refused:
            await dial(f"{listener.urls[0]}?ca={authority.ca}")
        today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m")
        assert f"by this machine's clock it is {today}" in str(refused.value)
        assert accepted.empty()
        await listener.close()

    on_sockets(main())


def test_a_certificate_that_was_renewed_is_used_from_then_on(authority: Authority) -> None:
    """Files were read once: after 90 days nobody came in until the listener was begun anew. What is open stays."""
    authority.issue(-1, 90)

    async def main() -> None:
        accepted: asyncio.Queue = asyncio.Queue()
        listener = await authority.listen(accepted.put_nowait)
        url = f"{listener.urls[0]}?ca={authority.ca}"
        pairs = [(CarrierEnd(await dial(url)).start(), CarrierEnd(await accepted.get()).start())]
        authority.issue(-90, -1)  # as a renewal that went wrong, so that it is seen which one is used
        with pytest.raises(TlsError, match="has expired"):
            await dial(url)
        authority.issue(-1, 90)
        pairs.append((CarrierEnd(await dial(url)).start(), CarrierEnd(await accepted.get()).start()))
        for near, far in pairs:
            near.write(b"still open")
            await far.until_received(b"still open")
            near.close()
            assert await near.until_lost() is None
            assert await far.until_lost() is None
        await listener.close()

    on_sockets(main())


def test_a_certificate_that_is_not_renewed_is_told_of_once_a_day(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Its clients are refused by their own rules, and the listener's log had nothing. Clocks jump, too."""
    authority.issue(-83, 7)
    now = [time.time() - 3600]
    tls = ServerTls("wss://127.0.0.1:1/", str(authority.server), None, lambda: now[0])

    def told(hours: float) -> list[str]:
        caplog.clear()
        now[0] += hours * 3600
        for _ in range(3):
            assert tls.context is not None
        return [each.getMessage() for each in caplog.records]

    assert told(0) == []
    (soon,) = told(2)
    assert "the certificate ends 20" in soon
    assert str(authority.server) in soon
    assert told(22) == []
    assert len(told(3)) == 1
    (ended,) = told(24 * 7)
    assert "has ended, and clients refuse it" in ended
    assert told(24 * -365) == []  # nobody knows which of the two is right
    assert len(told(24 * 365 * 2)) == 1
    authority.issue(-1, 3650)
    with caplog.at_level("INFO"):
        (renewed,) = told(24)
    assert "was read again" in renewed


def test_files_that_can_not_be_used_leave_the_certificate_as_it_was(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of a renewal, or a key that this user may not read any more."""
    caplog.set_level("INFO", "dtp")
    authority.issue(-1, 90)
    tls = ServerTls("wss://127.0.0.1:1/", str(authority.server), None)
    good = tls.context
    assert tls.context is good
    whole = authority.server.read_bytes()
    authority.server.write_bytes(whole[: len(whole) // 2])
    assert [tls.context for _ in range(3)] == [good] * 3
    authority.server.unlink()
    assert tls.context is good
    assert caplog.text.count("what was there before stays in use") == 2
    authority.server.write_bytes(whole)
    assert tls.context is not good
    assert caplog.text.count("the certificate was read again") == 1
