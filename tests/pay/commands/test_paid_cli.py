"""The commands, as processes of their own against a localnet: selling, buying, channels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from variants import slow_after

from dtp.chain.errors import ProgramError
from dtp.chain.host import Bearer, Terms
from dtp.chain.model import SUI_COIN, canonical_type, format_amount
from dtp.chain.pipes.gas import frame_credit
from dtp.cli import channel as command
from dtp.cli import channel_records, selling
from dtp.cli.paying import _Bill
from dtp.cli.selling import Sale
from dtp.errors import ConfigError
from dtp.pay.client.lane_start import PayerLane, Reserved
from dtp.pay.settling import Settlement
from dtp.pay.terms import Usage

from ..homes import PATIENCE, PRICED, PRICES, site
from ..selling.test_claims import TERMS, channel, sold


@pytest.mark.parametrize("size", slow_after(0, ["3M", "64M"]))
def test_the_demo_adds_up(tmp_path: Path, size: str) -> None:
    """Above 50 MiB the server claims on the way, which costs it gas."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dtp", "demo", "--paid", "--size", size, "--json"],
        capture_output=True,
        timeout=PATIENCE,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode()
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["ok"]
    assert record["paid"] == record["server_gained"] > 6_000_000
    assert record["client_spent"] == record["paid"] + record["client_gas"]


def sale(**options: Any) -> Any:
    names = ("price_mib", "price_request", "min_deposit", "host", "hint", "bearer", "credit", "account")
    return Sale(**{**dict.fromkeys(names), "plans": (), "pipe": False, **options})


def test_terms_that_serve_is_not_told_stay() -> None:
    """Each start set the least deposit, the cap, times, coin, bearer and credit back to what is usual."""
    known = Terms(1, 2, 3, 4, Bearer.CLIENT, 5, 6_000_000, 7_000_000, canonical_type("0x2::other::COIN"), 8)
    same = replace(known, revision=0)
    assert sale(price_mib="9").terms_for(known, 1000) == replace(same, price_mib=9)
    assert sale(price_mib="2", pipe=True).terms_for(known, 1000) == same
    assert sale(plans=("0x1",), credit="6").terms_for(known, 1000) == replace(same, credit=6)
    assert sale(plans=("0x1",)).terms_for(known, 1000) is None
    assert (
        sale(plans=("0x1",), min_deposit="6").terms_for(None, 1000) is None
    )  # it would be free, and for all
    with pytest.raises(ProgramError, match="smallest unit"):
        sale(price_mib="1SUI").terms_for(known, 1000)
    # New ones begin with what is usual, and a bearer with a credit.
    assert sale(price_mib="9").terms_for(None, 1000) == Terms(price_mib=9)
    bears = Terms(price_mib=9, bearer=Bearer.CLIENT, credit=frame_credit(1000))
    assert sale(price_mib="9", pipe=True).terms_for(None, 1000) == bears
    # Whoever pays for what goes through the chain is never changed unasked, nor taken for granted.
    split = replace(known, bearer=Bearer.SPLIT, credit=0)
    with pytest.raises(ConfigError, match="--bearer client"):
        sale(price_mib="2", pipe=True).terms_for(split, 1000)
    assert sale(price_mib="2", pipe=True, bearer="split").terms_for(split, 1000) == replace(split, revision=0)
    found = sale(price_mib="2", bearer="server").terms_for(split, 1000)
    assert (found.bearer, found.credit) == (Bearer.SERVER, frame_credit(1000))
    with pytest.raises(ConfigError, match="--credit"):
        sale(price_mib="2", credit="5").terms_for(split, 1000)


@pytest.mark.slow
def test_a_service_is_served_again_as_it_is(homes: Any) -> None:
    server, _ = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--file", folder, *PRICED):
        pass
    server.run("host", "service", "files", "--idle", "7200", "--mode", "pass")
    (before,) = server.run("host", "show")[0]["services"].values()
    with server.serving("--file", folder, "--price-mib", "0.002SUI"):
        assert list(server.run("host", "show")[0]["services"].values()) == [before]
    with server.serving("--file", folder, "--price-mib", "0.003SUI", "--listen", "tcp://0.0.0.0:0"):
        (shown,) = server.run("host", "show")
    (after,) = shown["services"].values()
    assert "0.0.0.0" not in shown["endpoints"][0]["hint_text"]
    terms = {**before["terms"], "price_mib": 3_000_000, "revision": before["terms"]["revision"] + 1}
    assert after == {**before, "terms": terms}


def test_who_sells_where_nobody_else_comes_is_told(homes: Any) -> None:
    """The host announced 127.0.0.1 without a word; and what `--json` says was no JSON. That a host was made, and what
    it took, is said once."""
    server, _ = homes
    folder = site(server, **{"a.txt": b"words"})
    for listen, told in ([], True), (["--listen", "tcp://0.0.0.0:0"], False):
        said = [
            json.loads(line) for line in server.serving_says("--file", folder, *PRICED, *listen).splitlines()
        ]
        assert ({"event": "this-machine-only"} in said) == told
        begun = [each for each in said if each["event"] == "sold"]
        assert [(each["made"], each["price_mib"], each["gas_mist"] > 0) for each in begun] == (
            [(True, 2_000_000, True)] if told else []
        )


def test_a_file_is_sold_and_the_channel_kept_listed_and_closed(net: Any, homes: Any) -> None:
    server, client = homes
    data = os.urandom(300_000)
    folder = site(server, **{"big.iso": data})
    with server.serving("--http", folder, "--service", "files", *PRICED) as (address, said):
        events = client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI", "--keep-channel")
        assert (client.folder / "big.iso").read_bytes() == data
        paid = next(each for each in events if each["event"] == "paid")
        assert paid["amount"] == PRICES.cost_of(Usage(paid["requests"], paid["bytes"])) >= 570_000
        (channel,) = client.run("channel", "list")[0]["channels"]
        assert (channel["role"], channel["state"], channel["vouched"]) == ("pays", "open", paid["amount"])
        (shown,) = client.run("channel", "show", channel["channel"])
        assert shown["deposited"] == 500_000_000
        assert shown["vouchers"]["0"]["amount"] == paid["amount"]
        assert shown["terms"]["price_mib"] == 2_000_000
    served = next(each for each in said if each["event"] == "served")
    assert (served["vouched"], served["bytes"]) == (paid["amount"], paid["bytes"])
    gas = next(each for each in said if each["event"] == "gas")
    assert (gas["claims_mist"], gas["presence_mist"] > 0, gas["host_mist"] > 0) == (0, True, True)
    shown = subprocess.run(
        client.command("channel", "show", channel["channel"]),
        env=client.env,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert shown.returncode == 0, shown.stderr.decode()
    words = [line.split(maxsplit=2) for line in shown.stdout.decode().splitlines()]
    assert ["deposited", "0.5", "SUI"] in words
    assert ["price", "mib", "0.002 SUI"] in words
    assert ["bearer", "split"] in words
    # The server went without it being worth the gas; its operator claims it all the same.
    (theirs,) = server.run("channel", "list")[0]["channels"]
    assert (theirs["role"], theirs["vouched"], theirs["claimed"]) == ("is paid", paid["amount"], 0)
    (small,) = server.run("channel", "claim")
    assert (small["event"], small["amount"]) == ("small", paid["amount"])
    server.run("channel", "claim", "0x12ab", code=6)
    (claimed,) = server.run("channel", "claim", channel["channel"])
    assert claimed["to_server"] == paid["amount"]
    assert server.run("channel", "claim") == [{"event": "nothing"}]
    # The client closes: the server has its time, then the rest comes back.
    unreached, closing = client.run("channel", "close", channel["channel"])
    assert (unreached["event"], unreached["channel"]) == ("unreached", channel["channel"])
    assert (closing["event"], closing["seconds"]) == ("closing", 3600)
    net.advance_clock(3_600_000)
    (closed,) = client.run("channel", "close")
    assert closed["to_client"] == 500_000_000 - paid["amount"]
    assert client.run("channel", "close") == [{"event": "nothing"}]
    assert client.run("channel", "list")[0]["channels"] == []
    # The closed one is remembered, with all that it cost.
    for by in ("channel", "host", "day"):
        (history,) = client.run("channel", "history", "--by", by)
        ((spent,), (total,)) = history[by], history["total"]
        assert spent == {by: spent[by], **total}
        assert (spent["deposited"], spent["paid"], spent["channels"]) == (500_000_000, paid["amount"], 1)
        assert spent["came_back"] == closed["to_client"]
        assert spent["gas_mist"] > 5_000_000
    assert f"paid {format_amount(paid['amount'])} (went in 0.5 SUI" in client.text("channel", "history")


def test_what_was_sold_is_not_given_away_without_a_word(homes: Any) -> None:
    server, _ = homes
    folder = site(server, **{"a.txt": b"words"})
    assert "given-away" not in server.serving_says("--file", folder)
    with server.serving("--file", folder, *PRICED):
        pass
    assert "given-away" in server.serving_says("--file", folder)
    assert "given-away" not in server.serving_says("--file", f"other={folder}")


@pytest.mark.slow
def test_without_a_budget_nothing_is_bought(homes: Any) -> None:
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--file", folder, *PRICED) as (address, _):
        client.run("recv", f"{address}/a.txt", code=4)
        client.run("recv", f"{address}/a.txt", "--deposit", "5", code=2)
        client.run("recv", f"{address}/a.txt", "--budget", "10", code=3)
        assert client.run("channel", "list")[0]["channels"] == []


@pytest.mark.slow
def test_a_budget_may_be_of_another_coin(homes: Any) -> None:
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--file", folder, *PRICED) as (address, _):
        receive = ("recv", f"{address}/a.txt", "--coin", "0x2::other::COIN")
        client.run(*receive, code=2)
        client.run(*receive, "--budget", "0.5SUI", code=3)
        client.run(*receive, "--budget", "500000000", "--deposit", "0.5SUI", code=3)
        client.run(*receive, "--budget", "500000000", code=3)  # and the service is paid in SUI
        assert client.run("channel", "list")[0]["channels"] == []
        client.run(*receive[:3], "0x2::sui::SUI", "--budget", "0.5SUI")


def test_a_bill_says_what_gas_came_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Closing by agreement gives storage back: it said that a negative sum was paid."""
    with click.Context(click.Command("recv")):
        _Bill("0xc1", SUI_COIN, 5000, Usage(5, 7), 70_000, None, -2_000_000).print_bill()
    said = "paid 0.000005 SUI for 5 requests and 7 bytes, and 0.002 SUI of earlier gas came back"
    assert capsys.readouterr().err.splitlines() == [said]


def test_a_bill_is_in_the_coin_that_was_paid(capsys: pytest.CaptureFixture[str]) -> None:
    closed = Settlement("x", 5000, 65_000, 1_000_000)
    with click.Context(click.Command("recv")):
        _Bill("0xc1", "0x2::other::COIN", 5000, Usage(5, 7), 70_000, closed, 3_000_000).print_bill()
    assert capsys.readouterr().err.splitlines() == [
        "paid 5,000 of 0x2::other::COIN for 5 requests and 7 bytes, and 0.003 SUI of gas",
        "channel closed: 5,000 of 0x2::other::COIN to the server in all, 65,000 of 0x2::other::COIN back to you",
    ]


def test_what_a_program_may_have_vouched_is_shown_while_it_runs() -> None:
    """It was 0 SUI of a forward that had vouched for hundreds of requests."""
    held = channel(terms=TERMS)
    lane = PayerLane(held.id, 0, clean=False, reserved=Reserved(128, 7000))
    bought = SimpleNamespace(payer_lanes=lambda _: [(b"", lane)])
    record = channel_records.summary_of(SimpleNamespace(bought=bought), held.id, held, "pays")
    assert (record["vouched"], record["vouched_most"]) == (0, 7000)
    assert "pays, open: vouched 0 SUI to 0.000007 SUI, claimed" in channel_records.line_of(record)


def test_sums_of_channels_are_in_their_coin(capsys: pytest.CaptureFixture[str]) -> None:
    """And so what the chain did is said."""
    coin = canonical_type("0x2::other::COIN")
    held = channel(terms=replace(TERMS, coin=coin), balance=9000, deposited=12_000, claimed=3000)
    stores = SimpleNamespace(sold=SimpleNamespace(sold_lanes=lambda _: [sold(1, 5)]))
    record = channel_records.summary_of(stores, held.id, held, "is paid")
    assert channel_records.line_of(record).endswith(
        f"is paid, open: vouched 5,000 of {coin}, claimed 3,000 of {coin}, holds 9,000 of {coin}"
    )
    with click.Context(click.Command("claim")):
        for each in (coin, SUI_COIN):
            command.print_paid("claimed", Settlement("x", 5000, 0, 1_000_000, coin=each))
    assert capsys.readouterr().out.splitlines() == [
        f"claimed: 5,000 of {coin} to the server, 0 of {coin} to the client, gas 0.001 SUI",
        "claimed: 0.000005 SUI to the server, 0 SUI to the client, gas 0.001 SUI",
    ]
    with click.Context(click.Command("serve")):
        selling.print_claim(Settlement("x", 5000, 0, 1_000_000, coin=coin))
    assert capsys.readouterr().err == f"claimed 5,000 of {coin} for 0.001 SUI of gas\n"


def test_a_file_that_costs_more_than_the_budget_ends_at_once_and_goes_on_with_a_larger_one(
    homes: Any,
) -> None:
    server, client = homes
    data = os.urandom(5_000_000)
    folder = site(server, **{"big.iso": data})
    with server.serving("--file", folder, *PRICED) as (address, _):
        done = subprocess.run(
            client.command("recv", f"{address}/big.iso", "--budget", "0.004SUI", "--close-channel", "--json"),
            env=client.env,
            cwd=client.folder,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 3, done.stderr.decode()
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        assert error["code"] == "budget-spent"
        assert "larger budget" in error["message"]
        assert "SUI of 0.004 SUI are paid" in error["message"]  # 3,999,999 of 4,000,000, of nothing
        events = [json.loads(line) for line in done.stdout.splitlines()]
        paid = next(each for each in events if each["event"] == "paid")
        assert 3_999_998 <= paid["amount"] <= 4_000_000
        assert paid["bytes"] == PRICES.bytes_within(4_000_000, paid["requests"])
        assert next(each for each in events if each["event"] == "settled")["to_server"] == paid["amount"]
        assert (client.folder / "big.iso.dtp-part").stat().st_size > 1_000_000
        client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI")
    assert (client.folder / "big.iso").read_bytes() == data


def test_a_budget_that_ends_before_the_file_is_said_with_its_unit(homes: Any) -> None:
    """It was said as it was typed: "the budget of 200000"."""
    server, client = homes
    with server.serving("--file", site(server, **{"big.iso": bytes(500_000)}), *PRICED) as (address, _):
        done = subprocess.run(
            client.command("recv", f"{address}/big.iso", "--budget", "200000", "--close-channel"),
            env=client.env,
            cwd=client.folder,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 3
        assert b"the budget of 0.0002 SUI ends before all of it is paid" in done.stderr


def test_cat_pays_too(homes: Any) -> None:
    server, client = homes
    with server.serving("--echo", *PRICED) as (address, said):
        done = subprocess.run(
            client.command("cat", address, "--budget", "0.1SUI"),
            env=client.env,
            input=b"hello",
            capture_output=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr.decode()
        assert b"paid " in done.stderr
    served = next(each for each in said if each["event"] == "served")
    assert served["vouched"] == PRICES.cost_of(Usage(1, 10))


def test_a_site_speaks_http_on_the_same_service(homes: Any) -> None:
    server, client = homes
    folder = site(server, **{"index.html": b"<p>hello</p>", "a.txt": b"words"})
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nHEAD /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"
    request += (
        b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\nPUT /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    with server.serving("--http", folder) as (address, _):
        done = subprocess.run(
            client.command("cat", address),
            env=client.env,
            input=request,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr.decode()
        client.run("recv", f"{address}/a.txt")
    assert (client.folder / "a.txt").read_bytes() == b"words"
    answers = done.stdout.split(b"HTTP/1.1 ")[1:]
    assert [each[:3] for each in answers] == [b"200", b"200", b"404", b"405"]
    assert b"text/html" in answers[0]
    assert answers[0].endswith(b"<p>hello</p>")
    assert b"Content-Length: 5" in answers[1]
    assert not answers[1].endswith(b"words")


@pytest.mark.slow
def test_what_is_agreed_to_is_said_and_what_is_not_is_refused(homes: Any) -> None:
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--file", folder, *PRICED) as (address, _):
        receive = ("recv", f"{address}/a.txt")
        client.run(*receive, "--max-gas", "1SUI", code=2)  # about no budget
        client.run(*receive, "--budget", "0.5SUI", "--longest-lock", "soon", code=2)
        for options, code, exits in (
            (("--budget", "2SUI"), "needs-yes", 3),
            (("--budget", "0.5SUI", "--max-gas", "0.001SUI"), "gas-too-high", 6),
            (("--budget", "0.5SUI", "--longest-lock", "1m"), "lock-too-long", 3),
            (("--budget", "0.5SUI", "--most-per-mib", "0.001SUI"), "price-too-high", 3),
            (("--budget", "0.5SUI", "--most-per-host", "0.1SUI"), "host-limit", 3),
            (("--budget", "0.5SUI", "--most-per-day", "0.1SUI"), "day-limit", 3),
        ):
            command = client.command(*receive, *options, "--json")
            done = subprocess.run(command, env=client.env, capture_output=True, timeout=PATIENCE)
            assert done.returncode == exits, done.stderr.decode()
            assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == code
        assert client.run("channel", "list")[0]["channels"] == []
        done = subprocess.run(
            client.command(*receive, "--budget", "2SUI", "--yes", "--json", "--output", client.folder),
            env=client.env,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr.decode()
        events = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
        (opening,) = (each for each in events if each["event"] == "opening")
        (paid,) = (each for each in events if each["event"] == "paid")
        assert (opening["deposit"], opening["claim_ms"]) == (2_000_000_000, 3_600_000)
        assert 0 < paid["gas_mist"] < 3 * opening["gas_mist"]
