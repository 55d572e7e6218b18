"""Who isn't let in is found by the operator: in the log by any of their names, in the counts by the reason."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from rich.console import Console

import dtp
from dtp.cli.daemon_status import show
from dtp.daemon.callers import caller_of
from dtp.daemon.mesh import Member
from dtp.daemon.observing import logs
from dtp.daemon.paying.side import ChainSide
from dtp.daemon.policies import Denial, Moment, Policies, moment
from dtp.daemon.policies.bans import FOR_EVER, Bans
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.door import Door
from dtp.daemon.relays.expose import Exposed
from dtp.daemon.server import LIMITS, Daemon
from dtp.daemon.web import metrics
from dtp.daemon.workers.summing import ended, merge
from dtp.errors import CarrierError
from dtp.limited_log import OF_ONE
from dtp.net.listener import Crowded, Request
from dtp.session.codes import CloseCode, HandshakeError, Refuse

from ..conftest import FAR, NEAR, Backend, Pair, Run, echo, printed
from ..money.test_daemon_onchain import List
from ..money.test_daemon_onchain import expose as expose_on_chain
from ..streams.test_daemon_relay import expose, reset, until


def request(service: str = "api", ticket: bytes = b"") -> Request:
    return Request(NEAR.id, service, ticket, b"", "192.0.2.7")


def door_of(
    pair: Pair,
    text: str,
    *,
    gate: List | None = None,
    shut: Callable[..., Any] = lambda: None,
    bans: Bans | None = None,
    clock: Callable[..., Any] = moment,
) -> tuple[Door, Exposed]:
    """The door of a daemon with one service, and the service."""
    settings = pair.far_config(text)
    (expose,) = settings.expose
    exposed = Exposed(expose, Policies().policies_for(expose.service, expose.rules))
    side = ChainSide(settings, FAR, LIMITS, None, gate=gate)  # type: ignore[arg-type]
    return Door({expose.service: exposed}.get, shut, bans or Bans(), side, Member()), exposed


async def drain(daemon: Daemon) -> None:
    daemon.draining = True


async def fill(daemon: Daemon) -> None:
    await daemon.governor.close()  # it looks by itself no more
    daemon.governor.check_memory(lambda: daemon.governor.bound + 1)


async def ban(daemon: Daemon) -> None:
    await daemon.ban(NEAR.id.sui_address, FOR_EVER)


async def nothing(daemon: Daemon) -> None:
    """It is refused as it is."""


@pytest.mark.parametrize(
    ("name", "code", "happens", "ticket", "allow"),
    [
        ("drain", CloseCode.SHUTDOWN, drain, None, "*"),
        ("memory", CloseCode.BUSY, fill, None, "*"),
        ("ban", CloseCode.DENIED, ban, None, "*"),
        ("access", CloseCode.DENIED, nothing, None, str(FAR.id)),
        ("price", CloseCode.PAYMENT, nothing, lambda *_: b"x", "*"),
        ("chain", CloseCode.DENIED, nothing, None, "*"),
    ],
)
def test_a_refusal_is_counted_by_its_reason_and_logged_with_all_names(
    run: Run,
    caplog: pytest.LogCaptureFixture,
    name: str,
    code: CloseCode,
    happens: Callable[..., Any],
    ticket: Callable[..., Any] | None,
    allow: str,
) -> None:
    async def scenario(pair: Pair) -> None:
        text = expose_on_chain(1) if name == "chain" else expose(1).replace('"*"', f'"{allow}"')
        pair.far = Daemon(pair.far_config(text), FAR, gate=List())  # type: ignore[arg-type]
        await pair.far.start()
        await happens(pair.far)
        with pytest.raises(dtp.ConnectionRefused) as refused:
            await dtp.connect(pair.listener.address("api"), identity=NEAR, ticket=ticket)
        assert refused.value.close_code == code
        assert pair.exposed.denials == {name: 1}

    caplog.set_level("INFO", "dtpd")
    run(scenario)
    (said,) = [each for each in caplog.records if f"refused by {name}" in each.getMessage()]
    for part in (str(NEAR.id), NEAR.id.sui_address, "127.0.0.1", "api: "):
        assert part in said.getMessage()
    assert vars(said)["fields"].items() >= {
        "event": "denied", "service": "api", "peer": str(NEAR.id), "account": NEAR.id.sui_address,
        "source": "127.0.0.1", "policy": name,
    }.items()  # fmt: skip


def test_who_comes_over_another_carrier_is_kept_out_by_a_ban_and_not_by_a_drain(run: Run) -> None:
    """What was under way may end; by the chain, and for what it pays, it is looked at while it is here."""

    async def scenario(pair: Pair) -> None:
        bans, drains = Bans(), Denial("drain", Reason.DRAINING, "it is about to end")
        door, _ = door_of(pair, expose_on_chain(1), gate=List(), shut=lambda: drains, bans=bans)
        again = replace(request(ticket=b"used up"), again=True)
        assert door.admit_request(again) is None
        assert door.admit_request(replace(again, service="gone")) is None
        bans.set_ban(NEAR.id.sui_address, FOR_EVER)
        with pytest.raises(Refuse, match="banned by the operator"):
            door.admit_request(again)

    run(scenario)


def test_the_operator_hears_why_a_ticket_was_not_checked(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The caller doesn't: it is none of its affair."""

    async def admit(_: Request) -> None:
        raise Refuse(CloseCode.BUSY, "try again later") from CarrierError("node 10.0.0.1 is away")

    async def scenario(pair: Pair) -> None:
        gate = List()
        gate.admit_request = admit
        door, _ = door_of(pair, expose_on_chain(1), gate=gate)
        with pytest.raises(Refuse, match=r"^try again later$"):
            await door.admit_request(request())

    caplog.set_level("INFO", "dtpd")
    run(scenario)
    assert "refused by chain: try again later (node 10.0.0.1 is away)" in caplog.text


@pytest.mark.parametrize(("code", "name"), [(CloseCode.TICKET, "price"), (CloseCode.BUSY, "chain")])
def test_who_is_refused_after_all_is_counted_too(run: Run, code: CloseCode, name: str) -> None:
    """By a channel that another daemon serves, or that was closed meanwhile."""

    async def scenario(pair: Pair) -> None:
        pair.far = Daemon(pair.far_config(expose(1)), FAR)
        await pair.far.start()
        pair.far.side.seller = Mock(
            meter_connection=AsyncMock(side_effect=Refuse(code, "taken")), close=AsyncMock()
        )
        wire = Mock(peer=NEAR.id, source="192.0.2.7", service="api")
        assert not await pair.far.reception.is_paid(wire, caller_of(wire))
        wire.abort.assert_called_once_with(code, "taken", detail=0)
        assert pair.exposed.denials == {name: 1}

    run(scenario)


def test_who_comes_to_no_service_is_counted_and_shown(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(pair: Pair) -> None:
        await pair.start(expose(1))
        far = pair.far
        door, _ = door_of(pair, expose(1))
        with pytest.raises(Refuse) as refused:
            door.admit_request(request("x\nitems"))
        assert refused.value.code == CloseCode.UNKNOWN_SERVICE
        door.note_failed("192.0.2.8", Crowded("too many"))
        door.note_failed("192.0.2.9", HandshakeError("garbage"))
        door.note_failed("192.0.2.10", CarrierError("it broke off"))
        status = {**far.get_status(), "refused": dict(door.refused)}
        counts = {"unknown-service": 1, "half-open": 1, "handshake": 1}
        assert status["refused"] == counts
        assert merge([status, ended(status)])["refused"] == dict.fromkeys(counts, 2)
        console = Console(file=io.StringIO(), width=200)
        show(status, console)
        assert "1 by unknown-service, 1 by half-open, 1 by handshake" in printed(console)
        text = metrics.exposition(Mock(get_status=lambda **_: status)).decode()
        for reason in counts:
            assert f'\ndtpd_refused_total{{reason="{reason}"}} 1.0\n' in text
        assert 'dtpd_refused_total{reason="handshake"} 0.0\n' in metrics.exposition(pair.near).decode()

    caplog.set_level("INFO", "dtpd")
    run(scenario)
    assert (
        f"{NEAR.id} ({NEAR.id.sui_address}, from 192.0.2.7) asked for the service 'x\\nitems'" in caplog.text
    )
    assert "somebody from 192.0.2.8 refused by half-open: too many" in caplog.text
    assert "192.0.2.10" not in caplog.text


def test_strangers_fill_neither_the_log_nor_what_is_shown(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(pair: Pair) -> None:
        # All in one second, however long it takes.
        door, _ = door_of(pair, expose(1), clock=lambda: Moment(1000.0, 0.0))
        for _ in range(1000):
            door.note_failed("192.0.2.8", HandshakeError("garbage"))
        with pytest.raises(Refuse, match="no service 'other' here"):
            door.admit_request(request("other"))
        assert door.refused["handshake"] == 1000

    caplog.set_level("INFO", "dtpd")
    shown = logs.Recent()
    caplog.handler.addFilter(lambda record: shown.emit(record) or True)
    run(scenario)
    assert caplog.text.count("refused by handshake") == OF_ONE
    assert "asked for the service 'other'" in caplog.text
    assert not [one for one in shown.kept if "handshake" in one["message"]]


def test_carriers_that_come_to_nothing(run: Run) -> None:
    """A bound of half-open ones, and garbage, are refusals; a look at the port is none."""

    async def scenario(pair: Pair) -> None:
        async with Backend(echo) as backend:
            limits = replace(LIMITS, half_open_per_source=1)
            pair.far = Daemon(pair.far_config(expose(backend.port)), FAR, limits=limits)
            await pair.far.start()

            def half_open() -> int:
                found: int = pair.far.get_status()["half_open"]
                return found

            def refused() -> dict[str, int]:
                found: dict[str, int] = pair.far.get_status()["refused"]
                return found

            listener = pair.far.listener
            host, port = listener.urls[0].removeprefix("tcp://").split(":")
            _, looks = await asyncio.open_connection(host, int(port))
            await until(lambda: half_open() == 1)
            reset(looks)
            await until(lambda: not half_open())
            assert not any(refused().values())
            _, garbage = await asyncio.open_connection(host, int(port))
            garbage.write(b"\0\4abcd")  # of the length that it says
            await until(lambda: refused()["handshake"])
            garbage.close()
            await until(lambda: not half_open())
            late = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
            await until(lambda: refused()["half-open"])
            for _, writer in late:
                writer.close()
            assert refused() == {"handshake": 1, "half-open": 1, "unknown-service": 0}

    run(scenario)
