"""The commands for subscriptions: plans, passes, quotas, refunds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dtp.chain import ChainClient, KeySigner, Program, find_network, host, pass_
from dtp.identity import Identity

from ..homes import PRICED, site


@pytest.mark.slow
def test_passes_are_bought_renewed_shown_and_given_back(net: Any, homes: Any) -> None:
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--file", folder, *PRICED):
        pass

    server.run("host", "plan", "nosuch", "--price", "5", code=3)
    server.run("host", "plan", "files", "--price", "5", "--period", "soon", code=2)
    server.run("host", "plan", "files", "--price", "5", "--period", "10s", code=2)  # less than a minute
    (made,) = server.run("host", "plan", "files", "--price", "0.001SUI", "--period", "1h")
    plan = made["plan"]
    (sold,) = client.run("pass", "plans", "--host", made["host"])[0]["plans"]
    assert (sold["id"], sold["service"]) == (plan, made["service"])
    assert client.run("pass", "plans", "--host", plan)[0]["plans"] == []
    (shown,) = client.run("pass", "plans", plan)[0]["plans"]
    text = client.text("pass", "plans", plan)
    assert f"service files, number {made['service']}, of {made['host']}: 0.001 SUI for 1h, no quota" in text
    assert made["name"] == shown["name"] == "files"
    assert (shown["price"], shown["period_ms"], shown["on_sale"]) == (1_000_000, 3_600_000, True)
    client.run("pass", "buy", plan, "--periods", "3", "--most", "0.0029SUI", code=3)
    client.run("pass", "buy", plan, "--coin", "0x2::clock::Clock", code=3)
    (bought,) = client.run("pass", "buy", plan)
    assert (bought["renewed"], bought["periods"], bought["paid"]) == (False, 1, 1_000_000)
    (renewed,) = client.run("pass", "buy", plan, "--periods", "3")
    assert (renewed["pass"], renewed["renewed"], renewed["paid"]) == (bought["pass"], True, 3_000_000)
    with server.serving("--file", folder, "--plan", plan) as (address, _):
        client.run("recv", f"{address}/a.txt", "--budget", "0")
    (held,) = client.run("pass", "plans")[0]["plans"]
    assert held["periods"] == 4
    (back,) = client.run("pass", "cancel", bought["pass"])
    assert (back["periods"], back["refunded"]) == (3, 3_000_000)
    client.run("pass", "cancel", plan, code=6)
    # The owner draws the period that has begun once it is over, and nothing of those that were given back.
    (drawn,) = server.run("host", "draw", plan)
    assert (drawn["passes"], drawn["drawn"], drawn["gas_mist"]) == (1, 0, 0)
    net.advance_clock(3_600_000)
    assert ["drawn", "0.001", "SUI"] in [
        line.split() for line in server.text("host", "draw", plan).splitlines()
    ]
    client.run("host", "draw", plan, code=6)
    # Off sale nobody buys or renews; what is held stays good.
    for changed in (True, False):
        (off,) = server.run("host", "sale", plan, "--off")
        assert (off["on_sale"], off["changed"], "transaction" in off) == (False, changed, changed)
    assert "not on sale" in client.text("pass", "plans", plan)
    client.run("pass", "buy", plan, code=6)
    client.run("host", "sale", plan, "--on", code=6)
    server.run("host", "sale", plan, "--on")
    (again,) = client.run("pass", "buy", plan, "--periods", "2")
    client.run("pass", "destroy", again["pass"], code=6)  # it isn't over
    # A pass that the host revokes is paid back, and a plan without passes ends with what is left in it.
    client.run("host", "revoke", again["pass"], code=6)
    (back,) = server.run("host", "revoke", again["pass"])
    assert (back["periods"], back["refunded"]) == (2, 2_000_000)
    server.run("host", "retire", plan, code=6)  # the first pass is neither over nor off sale
    (gone,) = client.run("pass", "destroy", again["pass"])
    assert (gone["pass"], client.run("pass", "plans")[0]["plans"]) == (again["pass"], [])
    client.run("pass", "destroy", again["pass"], code=6)
    (retired,) = server.run("host", "retire", plan)
    assert (retired["plan"], retired["drawn"], retired["refunded"]) == (plan, 0, 0)
    assert client.run("pass", "plans", "--host", made["host"])[0]["plans"] == []


@pytest.mark.slow
def test_a_plan_of_a_deleted_host_is_retired_and_its_passes_are_paid_back(
    net: Any, homes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands read the host first, and a pass that was thrown away kept the plan until its periods were over."""
    server, client = homes
    monkeypatch.setenv("DTP_PACKAGES", str(net.packages))
    with server.serving("--file", site(server, **{"a.txt": b"words"}), *PRICED):
        pass
    (made,) = server.run("host", "plan", "files", "--price", "0.001SUI", "--period", "1h")
    plan = made["plan"]
    (bought,) = client.run("pass", "buy", plan, "--periods", "100")

    async def work(home: Any, *calls: Any) -> None:
        signer = KeySigner.from_identity(Identity.load(home.folder / "identity.pem"))
        async with ChainClient(find_network(net.url), signer) as chain:
            for call in calls:
                program = Program()
                await call(chain, program)
                await chain.execute(program)

    async def throw_away(chain: Any, program: Any) -> None:
        pass_.discard(program, bought["pass"])

    async def delete_host(chain: Any, program: Any) -> None:
        (cap,) = await chain.owned(host.SCHEMA, host.HostCap, chain.address)
        beacon = (await chain.read(host.SCHEMA, host.Host, cap.host)).beacon
        host.destroy(program, cap.host, beacon, cap.id)

    asyncio.run(work(client, throw_away))
    asyncio.run(work(server, delete_host))
    (drawn,) = server.run("host", "draw", plan)
    assert (drawn["passes"], drawn["drawn"], drawn["gas_mist"]) == (1, 0, 0)
    server.run("host", "sale", plan, "--off")
    assert server.failing("host", "retire", plan, code=6)["code"] == "passes-running"
    (retired,) = server.run("host", "retire", plan, "--refund")
    assert (retired["drawn"], retired["refunded"]) == (0, 100_000_000)
