"""The commands, as processes of their own against a localnet: selling, buying, channels, subscriptions."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading

import pytest

from dtp.chain import ChainClient, KeySigner, publish
from dtp.chain.networks import find_network
from dtp.identity import Identity
from dtp.localnet.grpc.localnet import LocalnetThread
from dtp.pay.terms import Exposure, Prices, Spending, Usage

from .conftest import run

PATIENCE = 100


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A localnet with the packages, and where their ids are remembered."""
    packages = tmp_path_factory.mktemp("cli") / "packages.json"
    with LocalnetThread() as localnet:
        publisher = KeySigner.generate()
        localnet.fund(publisher.address)

        async def publish_all():
            async with ChainClient(find_network(localnet.url), publisher, deployments=packages) as chain:
                await publish(chain, "transport")

        run(publish_all())
        localnet.packages = packages
        yield localnet


class Home:
    """An account with a home of its own, and the `dtp` that runs there."""

    def __init__(self, net, folder):
        folder.mkdir()
        self.folder = folder
        identity = Identity.generate()
        identity.save(folder / "identity.pem")
        self.address = identity.id.sui_address
        net.fund(self.address)
        self.env = {
            **os.environ,
            "DTP_HOME": str(folder),
            "DTP_NETWORK": net.url,
            "DTP_FAUCET": net.faucet_url,
            "DTP_PACKAGES": str(net.packages),
        }

    def command(self, *arguments):
        return [sys.executable, "-P", "-m", "dtp", *map(str, arguments)]

    def run(self, *arguments, code=0):
        """Run to the end; the lines of JSON that it printed."""
        done = subprocess.run(
            self.command(*arguments, "--json"),
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.splitlines()]

    @contextlib.contextmanager
    def serving(self, *arguments, kill=False):
        """`dtp serve`, until the block ends or, with `kill`, is killed there; gives the address, and at the end what
        else it said."""
        process = subprocess.Popen(
            self.command("serve", "--json", "--until-eof", *arguments),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        said = []
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read().decode()
            yield json.loads(line)["address"], said
            if kill:
                process.kill()
                return
            rest, errors = process.communicate()
            said += [json.loads(line) for line in rest.splitlines()]
            assert process.returncode == 0, errors.decode()
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()


@pytest.fixture
def homes(net, tmp_path):
    return Home(net, tmp_path / "server"), Home(net, tmp_path / "client")


def site(home, **files):
    folder = home.folder / "site"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


PRICED = ("--price-mib", "0.002SUI", "--price-request", "1000", "--min-deposit", "1000")
PRICES = Prices(1000, 2_000_000)


def test_the_demo_adds_up(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dtp", "demo", "--paid", "--size", "3M", "--json"],
        capture_output=True,
        timeout=PATIENCE,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode()
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["ok"]
    assert record["paid"] == record["server_gained"] > 6_000_000
    assert record["client_spent"] == record["paid"] + record["client_gas"]


def test_a_file_is_sold_and_the_channel_kept_listed_and_closed(net, homes):
    server, client = homes
    data = os.urandom(300_000)
    folder = site(server, **{"big.iso": data})
    with server.serving("--http", folder, "--service", "files", *PRICED) as (address, said):
        events = client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI", "--keep-channel")
        assert (client.folder / "big.iso").read_bytes() == data
        paid = next(each for each in events if each["event"] == "paid")
        assert paid["amount"] == PRICES.of(Usage(paid["requests"], paid["bytes"])) >= 570_000
        (channel,) = client.run("channel", "list")[0]["channels"]
        assert (channel["role"], channel["state"], channel["vouched"]) == ("pays", "open", paid["amount"])
        (shown,) = client.run("channel", "show", channel["channel"])
        assert shown["deposited"] == 500_000_000
        assert shown["vouchers"]["0"]["amount"] == paid["amount"]
    served = next(each for each in said if each["event"] == "served")
    assert (served["vouched"], served["bytes"]) == (paid["amount"], paid["bytes"])
    shown = subprocess.run(
        client.command("channel", "show", channel["channel"]),
        env=client.env,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert shown.returncode == 0, shown.stderr.decode()
    assert b"0.5 SUI" in shown.stdout
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
    (closing,) = client.run("channel", "close", channel["channel"])
    assert (closing["event"], closing["seconds"]) == ("closing", 3600)
    net.advance_clock(3_600_000)
    (closed,) = client.run("channel", "close")
    assert closed["to_client"] == 500_000_000 - paid["amount"]
    assert client.run("channel", "close") == [{"event": "nothing"}]
    assert client.run("channel", "list")[0]["channels"] == []


def test_what_was_vouched_survives_a_server_that_is_killed(homes):
    server, client = homes
    folder = site(server, **{"big.iso": os.urandom(5_000_000)})
    with server.serving("--file", folder, *PRICED, kill=True) as (address, _):
        events = client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI", "--keep-channel")
    paid = next(each for each in events if each["event"] == "paid")
    (theirs,) = server.run("channel", "list")[0]["channels"]
    assert (theirs["vouched"], theirs["claimed"]) == (paid["amount"], 0)
    # The next run goes on with the same channel, and counts from there.
    (client.folder / "big.iso").unlink()
    with server.serving("--file", folder, *PRICED) as (again, _):
        assert again == address
        events = client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI")
    more = next(each for each in events if each["event"] == "paid")
    assert more["amount"] == pytest.approx(2 * paid["amount"], abs=5)
    assert client.run("channel", "list")[0]["channels"] == []


def test_a_server_that_is_killed_in_the_middle_loses_no_more_than_the_exposure(net, homes):
    """kill -9 while the file moves; both come again, the file is whole, and every coin is somewhere."""
    server, client = homes
    size, budget = 150_000_000, 2_000_000_000
    data = os.urandom(1_000_000) * (size // 1_000_000)
    folder = site(server, **{"big.iso": data})
    part = client.folder / "big.iso.part"
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = ("--listen", f"tcp://127.0.0.1:{free.getsockname()[1]}")
    with contextlib.ExitStack() as stack:
        with server.serving("--file", folder, *where, *PRICED, kill=True) as (address, _):
            receiving = subprocess.Popen(
                client.command("recv", f"{address}/big.iso", "--budget", "2SUI", "--keep-channel", "--json"),
                env=client.env,
                cwd=client.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            stack.callback(receiving.kill)
            while receiving.poll() is None and not (part.exists() and part.stat().st_size > 20_000_000):
                select.select([], [], [], 0.005)
        assert receiving.poll() is None, "it was over before the server was killed"
        assert part.stat().st_size < size
        with server.serving("--file", folder, *where, *PRICED) as (again, _):
            assert again == address
            said, errors = receiving.communicate(timeout=PATIENCE)
    assert receiving.returncode == 0, errors.decode()
    events = [json.loads(line) for line in said.splitlines()]
    assert (client.folder / "big.iso").read_bytes() == data
    paid = max((each for each in events if each["event"] == "paid"), key=lambda each: each["amount"])
    # The killed server forgot at most the exposure; the client pays nothing twice but what was under way.
    lost, twice = Exposure().most_bytes, Spending().slack_bytes + Spending().voucher_bytes
    assert size - lost <= paid["bytes"] <= size + twice
    assert paid["amount"] == PRICES.of(Usage(paid["requests"], paid["bytes"]))
    (ours,) = client.run("channel", "list")[0]["channels"]
    (theirs,) = server.run("channel", "list")[0]["channels"]
    assert ours["channel"] == theirs["channel"]
    assert ours["vouched"] == theirs["vouched"] == paid["amount"]
    assert theirs["claimed"] == paid["amount"]  # the server that ended in order saw to that
    client.run("channel", "close", ours["channel"])
    net.advance_clock(3_600_000)
    (closed,) = client.run("channel", "close")
    assert closed["to_client"] + paid["amount"] == budget


def test_a_watcher_claims_for_a_server_that_sleeps(net, homes):
    server, client = homes
    folder = site(server, **{"big.iso": os.urandom(30_000_000)})
    with server.serving("--file", f"films={folder}", "--price-mib", "0.02SUI") as (address, _):
        client.run("recv", f"{address}/big.iso", "--budget", "1SUI", "--keep-channel")
        (channel,) = client.run("channel", "list")[0]["channels"]
    watcher = Home(net, server.folder.parent / "watcher")
    watcher.env["DTP_PAY_STORE"] = str(server.folder / "data" / "pay.sqlite")
    # What was worth it was claimed when the server ended; a watcher finds nothing more.
    assert watcher.run("channel", "watch", "--once") == []
    assert server.run("channel", "list")[0]["channels"][0]["claimed"] == channel["vouched"]
    client.run("channel", "close", channel["channel"])
    net.advance_clock(3_600_000)
    (closed,) = client.run("channel", "watch", "--once")
    assert (closed["event"], closed["to_client"]) == ("closed", 1_000_000_000 - channel["vouched"])


def test_without_a_budget_nothing_is_bought(homes):
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--file", folder, *PRICED) as (address, _):
        client.run("recv", f"{address}/a.txt", code=4)
        client.run("recv", f"{address}/a.txt", "--deposit", "5", code=2)
        client.run("recv", f"{address}/a.txt", "--budget", "10", code=3)
        assert client.run("channel", "list")[0]["channels"] == []


def test_a_file_that_costs_more_than_the_budget_ends_at_once_and_goes_on_with_a_larger_one(homes):
    server, client = homes
    data = os.urandom(5_000_000)
    folder = site(server, **{"big.iso": data})
    with server.serving("--file", folder, *PRICED) as (address, _):
        done = subprocess.run(
            client.command("recv", f"{address}/big.iso", "--budget", "0.004SUI", "--json"),
            env=client.env,
            cwd=client.folder,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 3, done.stderr.decode()
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        assert error["code"] == "budget-spent"
        assert "larger budget (--budget)" in error["message"]
        events = [json.loads(line) for line in done.stdout.splitlines()]
        paid = next(each for each in events if each["event"] == "paid")
        assert 3_999_998 <= paid["amount"] <= 4_000_000
        assert paid["bytes"] == PRICES.bytes_within(4_000_000, paid["requests"])
        assert next(each for each in events if each["event"] == "settled")["to_server"] == paid["amount"]
        assert (client.folder / "big.iso.part").stat().st_size > 1_000_000
        client.run("recv", f"{address}/big.iso", "--budget", "0.5SUI")
    assert (client.folder / "big.iso").read_bytes() == data


def test_cat_pays_too(homes):
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
    assert served["vouched"] == PRICES.of(Usage(1, 10))


def test_a_site_speaks_http_on_the_same_service(homes):
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


def test_passes_are_bought_renewed_shown_and_given_back(net, homes):
    server, client = homes
    folder = site(server, **{"a.txt": b"words"})
    with server.serving("--file", folder, *PRICED):
        pass

    server.run("host", "plan", "nosuch", "--price", "5", code=3)
    server.run("host", "plan", "files", "--price", "5", "--period", "soon", code=2)
    (made,) = server.run("host", "plan", "files", "--price", "0.001SUI", "--period", "1h")
    plan = made["plan"]
    (sold,) = client.run("pass", "plans", "--host", made["host"])[0]["plans"]
    assert (sold["id"], sold["service"]) == (plan, made["service"])
    assert client.run("pass", "plans", "--host", plan)[0]["plans"] == []
    (shown,) = client.run("pass", "plans", plan)[0]["plans"]
    assert (shown["price"], shown["period_ms"], shown["on_sale"]) == (1_000_000, 3_600_000, True)
    (bought,) = client.run("pass", "buy", plan)
    assert (bought["renewed"], bought["periods"]) == (False, 1)
    (renewed,) = client.run("pass", "buy", plan, "--periods", "3")
    assert (renewed["pass"], renewed["renewed"]) == (bought["pass"], True)
    with server.serving("--file", folder, "--plan", plan) as (address, _):
        client.run("recv", f"{address}/a.txt", "--budget", "0")
    (held,) = client.run("pass", "plans")[0]["plans"]
    assert held["periods"] == 4
    (back,) = client.run("pass", "cancel", bought["pass"])
    assert (back["periods"], back["refunded"]) == (3, 3_000_000)
    client.run("pass", "cancel", plan, code=6)
    # The owner draws the period that has begun once it is over, and nothing of those that were given back.
    (drawn,) = server.run("host", "draw", plan)
    assert (drawn["passes"], drawn["drawn"]) == (1, 0)
    net.advance_clock(3_600_000)
    (drawn,) = server.run("host", "draw", plan)
    assert drawn["drawn"] == 1_000_000
    client.run("host", "draw", plan, code=6)
