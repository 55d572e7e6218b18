"""Networks by name and URL, package ids that are remembered, amounts as people write them."""

import json
import re

import pytest

from dtp.chain import ChainClient, Deployment, Deployments, find_network
from dtp.chain.errors import NetworkError, NodeUnavailable, PackageNotPublished, ProgramError
from dtp.chain.known import decode_known, find_class
from dtp.chain.model import SUI_COIN, format_amount
from dtp.chain.node._wire import parse_url
from dtp.chain.node.networks import NETWORKS
from dtp.chain.packages.deployments import packages_path
from dtp.chain.wallet import parse_amount
from dtp.errors import ConfigError

from ..conftest import run

ID, OTHER = "0x" + "a" * 64, "0x" + "b" * 64


def test_names(monkeypatch):
    monkeypatch.delenv("DTP_NETWORK", raising=False)
    assert find_network("testnet").endpoints == ("https://fullnode.testnet.sui.io",)
    assert find_network() is NETWORKS["localnet"]
    monkeypatch.setenv("DTP_NETWORK", "mainnet")
    assert find_network().chain_id.startswith("4btiui")
    assert not find_network().faucet


def test_urls(monkeypatch):
    monkeypatch.setenv("DTP_FAUCET", "http://localhost:1/gas")
    network = find_network("http://a:1, https://b")
    assert network.endpoints == ("http://a:1", "https://b")
    assert network.faucet == "http://localhost:1/gas"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://localhost:9000", ("localhost", 9000, False)),
        ("https://node", ("node", 443, True)),
        ("http://[::1]:9000/", ("::1", 9000, False)),
    ],
)
def test_parse_url(url, parts):
    assert parse_url(url) == parts


def test_a_password_in_a_url_is_not_told():
    with pytest.raises(NetworkError, match="nothing else") as caught:
        parse_url("http://u:secret@127.0.0.1:1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "devnet",
        "localhost:9000",
        "ftp://a",
        "http://",
        "http://a:99999",
        "http://a/b",
        "http://u@a",
        "http://a?x=1",
        ",",
    ],
)
def test_networks_that_are_none(text):
    with pytest.raises(NetworkError):
        find_network(text)


# ---- deployments


def deployment(name="transport", id=ID):
    return Deployment(name, id, id, "00" * 32, OTHER, "digest")


def test_ids_are_remembered_by_chain(tmp_path):
    path = tmp_path / "deep" / "packages.json"
    Deployments("chain1", path).save(deployment())
    Deployments("chain2", path).save(deployment("escrow"))
    assert Deployments("chain1", path).package_id("transport") == ID
    assert Deployments("chain1", path).by_id(ID) == deployment()
    assert Deployments("chain2", path).get("transport") is None
    with pytest.raises(PackageNotPublished, match="dtp move publish transport"):
        Deployments("chain2", path).package_id("transport")
    assert json.loads(path.read_text())["format"] == 1


def test_two_processes_add_to_one_file(tmp_path):
    path = tmp_path / "packages.json"
    one, two = Deployments("c", path), Deployments("c", path)
    one.save(deployment("transport"))
    two.save(deployment("escrow", OTHER))
    assert {each.package for each in Deployments("c", path).list_all()} == {"transport", "escrow"}


def test_hosts_are_remembered_by_chain_and_account(tmp_path):
    path = tmp_path / "packages.json"
    for chain, host in (("c", ID), ("c", OTHER), ("d", "0x7")):
        Deployments(chain, path).remember_host("0x5", host)
    Deployments("c", path).save(deployment())  # keeps them
    assert Deployments("c", path).hosts_of("0x05") == {ID, OTHER}
    assert Deployments("c", path).hosts_of("0x6") == Deployments("e", path).hosts_of("0x5") == set()
    assert Deployments("c", path).get("transport") is not None


def test_names_of_services_are_remembered_by_chain_once(tmp_path):
    path = tmp_path / "packages.json"
    one, two = Deployments("c", path), Deployments("c", path)
    for each in (one, two, one):
        each.remember_service("weather")
    two.remember_service("games/chess")
    Deployments("d", path).remember_service("news")
    one.save(deployment())  # keeps them
    assert Deployments("c", path).services == ("weather", "games/chess")
    assert Deployments("d", path).services == ("news",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2}',
        '{"format": 1, "chains": {"c": {"t": {"id": "x"}}}}',
        '{"format": 1, "chains": {}, "hosts": {"c": {"0x5": ["x"]}}}',
        "\xff",
    ],
)
def test_broken_files_are_named(tmp_path, text):
    path = tmp_path / "packages.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"packages\.json"):
        Deployments("c", path)


def test_the_file_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DTP_PACKAGES", str(tmp_path / "p.json"))
    assert packages_path() == tmp_path / "p.json"
    monkeypatch.delenv("DTP_PACKAGES")
    monkeypatch.setenv("DTP_HOME", str(tmp_path))
    assert packages_path() == tmp_path / "packages.json"


def test_deployments_are_not_known_before_the_chain_is():
    with pytest.raises(NodeUnavailable, match="connect"):
        _ = ChainClient("localnet").deployments


def test_classes_are_found_by_type():
    known = Deployments("c")
    known.save(deployment())
    found = find_class(known, f"{ID}::channel::Channel<0x2::sui::SUI>")
    assert found is not None
    schema, cls = found
    assert (schema.module, cls.__name__) == ("channel", "Channel")
    for other in (
        f"{OTHER}::channel::Channel",
        f"{ID}::channel::Nothing",
        f"{ID}::lock::Lock",
        "package",
        "u8",
    ):
        assert find_class(known, other) is None
        assert decode_known(known, other, b"") is None
    assert decode_known(known, f"{ID}::channel::ToppedUp", b"cut off") is None


# ---- amounts and faucets


@pytest.mark.parametrize(
    ("text", "mist"),
    [
        ("0.5SUI", 500_000_000),
        ("1sui", 1_000_000_000),
        ("1.000000001 SUI", 1_000_000_001),
        ("500MIST", 500),
        ("500", 500),
        (" 7 mist ", 7),
    ],
)
def test_amounts(text, mist):
    assert parse_amount(text) == mist
    assert parse_amount(format_amount(mist).replace(" ", "")) == mist


@pytest.mark.parametrize("text", ["", "SUI", "-1", "1e9", "0.0000000001SUI", "0.5", "0.5MIST", "1,5SUI"])
def test_amounts_that_are_none(text):
    with pytest.raises(ProgramError):
        parse_amount(text)


def test_amounts_of_another_coin_are_numbers_of_its_smallest_unit():
    coin = "0x2::other::COIN"
    assert parse_amount(" 500 ", coin) == 500
    assert parse_amount("0.5SUI", "0x02::sui::SUI") == 500_000_000
    for text in ("0.5SUI", "500MIST", "1SUI", "-1", "", "1_000", "٣"):
        with pytest.raises(ProgramError, match="smallest unit of 0x2::other::COIN"):
            parse_amount(text, coin)


@pytest.mark.parametrize(
    ("text", "coin", "most"),
    [
        ("18446744073.709551616SUI", SUI_COIN, "18446744073.709551615 SUI"),
        ("9" * 5000 + "SUI", SUI_COIN, "18446744073.709551615 SUI"),  # Python reads no such number
        ("18446744073709551616", "0x2::other::COIN", "18,446,744,073,709,551,615"),
        ("9" * 5000, "0x2::other::COIN", "18,446,744,073,709,551,615"),
    ],
)
def test_more_than_a_coin_holds_is_no_amount(text, coin, most):
    with pytest.raises(ProgramError, match=f"more than a coin can hold: write {re.escape(most)} at most"):
        parse_amount(text, coin)


def test_the_most_that_a_coin_holds_is_an_amount():
    assert parse_amount("18446744073.709551615SUI") == 2**64 - 1
    assert parse_amount("0" * 5000 + "7") == 7


def test_format_amount():
    assert format_amount(10_000_000_000) == "10 SUI"
    assert format_amount(-1) == "-0.000000001 SUI"


def test_faucets(network):
    from dataclasses import replace

    from dtp.chain.errors import NodeRefused
    from dtp.chain.wallet import request_sui

    gift = run(request_sui(network, "0x77"))
    assert gift.amounts == (10_000_000_000,)
    with pytest.raises(NetworkError, match="no faucet"):
        run(request_sui(NETWORKS["mainnet"], "0x1"))
    with pytest.raises(NodeUnavailable, match="doesn't answer"):
        run(request_sui(replace(network, faucet="http://127.0.0.1:1/gas"), "0x1"))
    with pytest.raises(NodeRefused, match="400"):
        run(request_sui(replace(network, faucet=network.faucet.replace("/v2/gas", "/nothing")), "0x1"))
    with pytest.raises(NetworkError):
        run(request_sui(replace(network, faucet="file:///etc/passwd"), "0x1"))
