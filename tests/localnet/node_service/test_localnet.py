"""The whole localnet: ports, state that lasts, faucet and levers over HTTP, many callers at once."""

import asyncio
import json
import socket
import urllib.error
import urllib.request

import pytest

from dtp.chain import ChainClient, KeySigner, Network, Program
from dtp.chain.wallet import request_sui
from dtp.localnet.grpc.localnet import Localnet, LocalnetThread, PortTaken, StateFolderError
from dtp.localnet.model import NodeStateError

from .conftest import run


def post(url, body, raw=None):
    data = raw if raw is not None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


def base(net):
    return net.faucet_url.removesuffix("/v2/gas")


def test_the_faucet_speaks_as_suis(net):
    to = KeySigner.generate().address
    status, answer = post(net.faucet_url, {"FixedAmountRequest": {"recipient": to}})
    assert (status, answer["status"]) == (200, "Success")
    (coin,) = answer["coins_sent"]
    assert coin["amount"] == 10_000_000_000

    async def work():
        async with ChainClient(net.url, deployments=None) as chain:
            assert (await chain.object(coin["id"])).balance == 10_000_000_000
            assert (await chain.transaction(coin["transferTxDigest"])).digest == coin["transferTxDigest"]

    run(work())
    with urllib.request.urlopen(base(net) + "/", timeout=30) as response:
        assert json.loads(response.read())["status"] == "Success"


@pytest.mark.parametrize(
    ("path", "body", "raw"),
    [
        ("/v2/gas", {}, None),
        ("/v2/gas", {"FixedAmountRequest": {"recipient": "bob"}}, None),
        ("/v2/gas", {"FixedAmountRequest": {"recipient": 5}}, None),
        ("/v2/gas", {"FixedAmountRequest": []}, None),
        ("/v2/gas", None, b"not json"),
        ("/v2/gas", None, b"[1]"),
        ("/v2/gas", None, b"\xff\xfe"),
        ("/nothing", {}, None),
        ("/v1/clock", {"advance_ms": -5}, None),
        ("/v1/clock", {"advance_ms": True}, None),
        ("/v1/clock", {"advance_ms": 10**15}, None),
        ("/v1/clock", {"advance_ms": 2**64}, None),
        ("/v1/clock", {"advance_ms": 1.5}, None),
        ("/v1/clock", {}, None),
        ("/v1/epoch", {"reference_gas_price": "x"}, None),
        ("/v1/epoch", {"reference_gas_price": 2**64}, None),
    ],
)
def test_requests_that_are_none(net, path, body, raw):
    status, answer = post(base(net) + path, body, raw)
    assert status == 400
    assert answer["status"]["Failure"]["Internal"]


@pytest.mark.parametrize(
    "length", ["Content-Length: 100000\r\n", "Content-Length: x\r\n", "Transfer-Encoding: chunked\r\n"]
)
def test_bodies_of_no_known_or_too_great_length_are_not_read(net, length):
    port = int(net.faucet_url.removesuffix("/v2/gas").rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(f"POST /v2/gas HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode())
        answer = b""
        while data := sock.recv(4096):  # it closes the connection
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"at most 65536 bytes" in answer


def test_time_moves_when_it_is_told_to(net):
    before = net.now_ms()
    status, answer = post(base(net) + "/v1/clock", {"advance_ms": 3_600_000})
    assert status == 200
    assert answer["timestamp_ms"] >= before + 3_600_000
    request = urllib.request.Request(
        base(net) + "/v1/epoch", method="POST"
    )  # no body at all, as of `curl -X POST`
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.loads(response.read())
    assert answer["epoch"] >= 1
    assert net.advance_epoch() == answer["epoch"] + 1


def test_a_port_that_is_taken(net):
    port = int(net.url.rsplit(":", 1)[1])
    for net in (LocalnetThread(port=port), LocalnetThread(faucet_port=port)):
        with pytest.raises(PortTaken, match="another localnet"):
            net.start()


@pytest.mark.parametrize(
    ("host", "problem"),
    [("no host", "Name or service not known|not known"), ("192.0.2.1", "assign requested|not bind")],
)
def test_addresses_that_are_not_here(host, problem):
    async def work():
        with pytest.raises(PortTaken, match=problem) as refused:
            await Localnet().start(host)
        assert "another localnet" not in str(refused.value)

    run(work())


def test_over_ipv6():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")

    async def work():
        net = Localnet()
        try:
            await net.start("::1")
        except PortTaken:
            pytest.skip("no IPv6 here")
        try:
            assert net.url.startswith("http://[::1]:")
            network = Network("six", (net.url,), faucet=net.faucet_url)
            signer = KeySigner.generate()
            await request_sui(network, signer.address)
            async with ChainClient(network, deployments=None) as chain:
                assert (await chain.balance(signer.address)).total == 10_000_000_000
        finally:
            await net.close()

    run(work())


def test_state_lasts(tmp_path):
    signer = KeySigner.generate()

    async def spend(net):
        async with ChainClient(net.url, signer, deployments=None) as chain:
            program = Program()
            program.transfer(list(program.split(program.gas, [77])), "0x7")
            executed = await chain.execute(program)
            return chain.chain_id, executed.digest, (await chain.balance("0x7")).total

    with LocalnetThread(tmp_path / "deep" / "state") as net:
        net.fund(signer.address)
        first = run(spend(net))
    with LocalnetThread(tmp_path / "deep" / "state") as net:
        second = run(spend(net))
        assert second[0] == first[0]
        assert (first[2], second[2]) == (77, 154)

        async def look():
            async with ChainClient(net.url, deployments=None) as chain:
                return (await chain.transaction(first[1])).digest

        assert run(look()) == first[1]


def test_state_that_can_not_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateFolderError, match="can't make"):
        LocalnetThread(tmp_path / "file" / "state").start()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "localnet.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(NodeStateError):
        LocalnetThread(tmp_path / "state").start()


def test_many_callers_at_once(net):
    signers = [KeySigner.generate() for _ in range(8)]
    for each in signers:
        net.fund(each.address)

    async def pay(signer, n):
        async with ChainClient(net.url, signer, deployments=None) as chain:
            for amount in range(1, 6):
                program = Program()
                program.transfer(list(program.split(program.gas, [amount])), f"0xbeef{n}")
                await chain.execute(program)
            return (await chain.balance(f"0xbeef{n}")).total

    async def work():
        return await asyncio.gather(*(pay(signer, n) for n, signer in enumerate(signers)))

    assert run(work()) == [15] * 8


def test_on_an_event_loop_of_ones_own():
    async def work():
        async with Localnet(now=None) as net:
            async with ChainClient(net.url, deployments=None) as chain:
                assert chain.chain_id == net.chain_id
            url = net.url
        assert url.startswith("http://127.0.0.1:")
        with pytest.raises(RuntimeError, match="isn't running"):
            _ = net.node

    run(work())
