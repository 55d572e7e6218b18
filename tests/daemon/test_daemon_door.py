"""Who isn't let in is found by the operator: in the log by any of their names, in the counts by the reason."""

import asyncio
import io
import time
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest
from rich.console import Console

from dtp.cli.daemon_status import show
from dtp.daemon.observing import logs
from dtp.daemon.policies.bans import FOR_EVER
from dtp.daemon.relays.expose import caller_of
from dtp.daemon.server import LIMITS, Daemon
from dtp.daemon.web import metrics
from dtp.daemon.workers.summing import ended, merge
from dtp.errors import CarrierError
from dtp.net.listener import Crowded, Request
from dtp.session.codes import CloseCode, HandshakeError, Refuse

from .conftest import FAR, NEAR, Backend, echo
from .test_daemon_onchain import List
from .test_daemon_onchain import expose as expose_on_chain
from .test_daemon_relay import expose, reset, until


def request(service="api", ticket=b""):
    return Request(NEAR.id, service, ticket, b"", "192.0.2.7")


async def refusal(daemon, asked):
    """What the door says; the code."""
    with pytest.raises(Refuse) as caught:
        await daemon._door.admit_request(asked)
    return caught.value.code


def drain(daemon):
    daemon.draining = True


def fill(daemon):
    daemon._governor.full = True


def ban(daemon):
    daemon._bans.set_ban(NEAR.id.sui_address, FOR_EVER)


@pytest.mark.parametrize(
    ("name", "code", "happens", "asked", "allow"),
    [
        ("drain", CloseCode.SHUTDOWN, drain, request(), "*"),
        ("memory", CloseCode.BUSY, fill, request(), "*"),
        ("ban", CloseCode.DENIED, ban, request(), "*"),
        ("access", CloseCode.DENIED, None, request(), str(FAR.id)),
        ("price", CloseCode.PAYMENT, None, request(ticket=b"x"), "*"),
        ("chain", CloseCode.DENIED, None, request(), "*"),
    ],
)
def test_a_refusal_is_counted_by_its_reason_and_logged_with_all_names(
    run, caplog, name, code, happens, asked, allow
):
    async def scenario(pair):
        text = expose_on_chain(1) if name == "chain" else expose(1).replace('"*"', f'"{allow}"')
        pair.far = Daemon(pair.far_config(text), FAR, gate=List())
        await pair.far.start()
        if happens is not None:
            happens(pair.far)
        assert await refusal(pair.far, asked) == code
        assert pair.exposed.denials == {name: 1}
        pair.far._governor.full = False

    caplog.set_level("INFO", "dtpd")
    run(scenario)
    (said,) = [each for each in caplog.records if f"refused by {name}" in each.getMessage()]
    for part in (str(NEAR.id), NEAR.id.sui_address, "192.0.2.7", "api: "):
        assert part in said.getMessage()
    assert said.fields.items() >= {
        "event": "denied", "service": "api", "peer": str(NEAR.id), "account": NEAR.id.sui_address,
        "source": "192.0.2.7", "policy": name,
    }.items()  # fmt: skip


def test_who_comes_over_another_carrier_is_kept_out_by_a_ban_and_not_by_a_drain(run):
    """What was under way may end; by the chain, and for what it pays, it is looked at while it is here."""

    async def scenario(pair):
        pair.far = Daemon(pair.far_config(expose_on_chain(1)), FAR, gate=List())
        await pair.far.start()
        again = replace(request(ticket=b"used up"), again=True)
        drain(pair.far)
        assert pair.far._door.admit_request(again) is None
        assert pair.far._door.admit_request(replace(again, service="gone")) is None
        ban(pair.far)
        with pytest.raises(Refuse, match="banned by the operator"):
            pair.far._door.admit_request(again)

    run(scenario)


def test_the_operator_hears_why_a_ticket_was_not_checked(run, caplog):
    """The caller doesn't: it is none of its affair."""

    async def admit(_):
        raise Refuse(CloseCode.BUSY, "try again later") from CarrierError("node 10.0.0.1 is away")

    async def scenario(pair):
        gate = List()
        gate.admit_request = admit
        pair.far = Daemon(pair.far_config(expose_on_chain(1)), FAR, gate=gate)
        await pair.far.start()
        with pytest.raises(Refuse, match=r"^try again later$"):
            await pair.far._door.admit_request(request())

    caplog.set_level("INFO", "dtpd")
    run(scenario)
    assert "refused by chain: try again later (node 10.0.0.1 is away)" in caplog.text


@pytest.mark.parametrize(("code", "name"), [(CloseCode.TICKET, "price"), (CloseCode.BUSY, "chain")])
def test_who_is_refused_after_all_is_counted_too(run, code, name):
    """By a channel that another daemon serves, or that was closed meanwhile."""

    async def scenario(pair):
        pair.far = Daemon(pair.far_config(expose(1)), FAR)
        await pair.far.start()
        pair.far.side.shop = Mock(
            meter_connection=AsyncMock(side_effect=Refuse(code, "taken")), close=AsyncMock()
        )
        wire = Mock(peer=NEAR.id, source="192.0.2.7", service="api")
        assert not await pair.far._is_paid(wire, caller_of(wire))
        wire.abort.assert_called_once_with(code, "taken", detail=0)
        assert pair.exposed.denials == {name: 1}

    run(scenario)


def test_who_comes_to_no_service_is_counted_and_shown(run, caplog):
    async def scenario(pair):
        await pair.start(expose(1))
        far = pair.far
        assert await refusal(far, request("x\nitems")) == CloseCode.UNKNOWN_SERVICE
        far._door.note_failed("192.0.2.8", Crowded("too many"))
        far._door.note_failed("192.0.2.9", HandshakeError("garbage"))
        far._door.note_failed("192.0.2.10", CarrierError("it broke off"))
        status = far.get_status()
        counts = {"unknown-service": 1, "half-open": 1, "handshake": 1}
        assert status["refused"] == counts
        assert merge([status, ended(status)])["refused"] == dict.fromkeys(counts, 2)
        console = Console(file=io.StringIO(), width=200)
        show(status, console)
        assert "1 by unknown-service, 1 by half-open, 1 by handshake" in console.file.getvalue()
        text = metrics.exposition(far).decode()
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


def test_strangers_fill_neither_the_log_nor_what_is_shown(run, caplog, monkeypatch):
    still = SimpleNamespace(**{**vars(time), "monotonic": lambda: 1000.0})
    monkeypatch.setattr(logs, "time", still)  # all in one second, however long it takes

    async def scenario(pair):
        await pair.start(expose(1))
        for _ in range(1000):
            pair.far._door.note_failed("192.0.2.8", HandshakeError("garbage"))
        assert await refusal(pair.far, request("other")) == CloseCode.UNKNOWN_SERVICE
        assert pair.far.get_status()["refused"]["handshake"] == 1000

    caplog.set_level("INFO", "dtpd")
    shown = logs.Recent()
    caplog.handler.addFilter(lambda record: shown.emit(record) or True)
    run(scenario)
    assert caplog.text.count("refused by handshake") == logs.OF_ONE
    assert "asked for the service 'other'" in caplog.text
    assert not [one for one in shown.kept if "handshake" in one["message"]]


def test_carriers_that_come_to_nothing(run):
    """A bound of half-open ones, and garbage, are refusals; a look at the port is none."""

    async def scenario(pair):
        async with Backend(echo) as backend:
            limits = replace(LIMITS, half_open_per_source=1)
            pair.far = Daemon(pair.far_config(expose(backend.port)), FAR, limits=limits)
            await pair.far.start()

            def half_open():
                return pair.far.get_status()["half_open"]

            def refused():
                return pair.far.get_status()["refused"]

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
