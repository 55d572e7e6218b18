"""`dtp localnet`, `wallet`, `move publish`, `host` and `chain` as people run them, against an embedded node."""

import json
import shutil
import signal
import stat
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from dtp.chain import KeySigner
from dtp.cli import main
from dtp.cli.show import amount, inline, moment, owner, plain, table
from dtp.identity import Identity

INT, TERM = signal.SIGINT, signal.SIGTERM

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "0x" + "7" * 64
FUNDS = 10_000_000_000


@pytest.fixture
def shell(home, net, monkeypatch):
    """Run `dtp` here: `shell("wallet", "list")` gives what it printed; it has to end with `code`."""
    monkeypatch.setenv("DTP_NETWORK", net.url)
    monkeypatch.setenv("DTP_FAUCET", net.faucet_url)
    monkeypatch.setenv("SUI_CONFIG_DIR", str(home / "sui"))
    monkeypatch.delenv("DTP_WALLET", raising=False)

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, list(map(str, arguments)))
        assert result.exit_code == code, (result.output, result.exception)
        assert "Traceback" not in result.output
        return result.stderr if code else result.stdout

    return run


@pytest.fixture
def call(shell):
    """The same with --json, parsed."""

    def run(*arguments, code=0):
        said = shell(*arguments, "--json", code=code)
        return json.loads(said)["error"] if code else json.loads(said)

    return run


@pytest.fixture
def alice(call, monkeypatch):
    """A funded wallet that is used when none is named; its address."""
    address = call("wallet", "new", "alice")["address"]
    call("wallet", "faucet", address)
    monkeypatch.setenv("DTP_WALLET", "alice")
    return address


# --- wallets.


@pytest.mark.parametrize("scheme", ["ed25519", "secp256k1", "secp256r1"])
def test_wallets_of_every_scheme_can_pay(call, scheme):
    made = call("wallet", "new", "pay", "--scheme", scheme)
    assert (made["scheme"], made["encrypted"]) == (scheme, False)
    assert stat.S_IMODE(Path(made["file"]).stat().st_mode) == 0o600
    gift = call("wallet", "faucet", "--wallet", "pay")
    assert (gift["address"], gift["amount"]) == (made["address"], FUNDS)
    to = KeySigner.generate().address
    sent = call("wallet", "send", to, "0.25SUI", "--wallet", "pay")
    assert (sent["recipient"], sent["amount"]) == (to, 250_000_000)
    assert sent["gas_mist"] > 0
    (have,) = call("wallet", "balance", to)["balances"].values()
    assert have == 250_000_000
    (left,) = call("wallet", "balance", "--wallet", made["file"])["balances"].values()
    assert left == FUNDS - 250_000_000 - sent["gas_mist"]


def test_an_encrypted_wallet_asks_for_its_passphrase(shell, call, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    made = call("wallet", "new", "safe", "--passphrase", "--passphrase-file", secret)
    assert made["encrypted"]
    call("wallet", "faucet", "--wallet", "safe")  # its file says whose it is
    call("wallet", "send", NOBODY, 5, "--wallet", "safe", "--passphrase-file", secret)
    assert call("wallet", "send", NOBODY, 5, "--wallet", "safe", code=3)["code"] == "passphrase-needed"
    secret.write_text("wrong\n")
    error = call("wallet", "send", NOBODY, 5, "--wallet", "safe", "--passphrase-file", secret, code=3)
    assert "safe.pem" in error["message"]


def test_a_wallet_from_what_a_wallet_exports(call, tmp_path):
    from dtp.identity import bech32

    signer = KeySigner.generate()
    file = tmp_path / "key"
    file.write_text(bech32.encode("suiprivkey", signer.flagged, variant="bech32") + "\n")
    file.chmod(0o600)
    assert call("wallet", "new", "moved", "--import", file)["address"] == signer.address
    file.write_text("suiprivkey1nonsense")
    assert call("wallet", "new", "other", "--import", file, code=3)["code"] == "signer"


def test_another_program_signs(shell, call, alice, tmp_path):
    file = call("wallet", "list")["wallets"][0]["file"]
    program = tmp_path / "signer.py"
    program.write_text(
        "import asyncio, base64, json, sys\n"
        "from dtp.chain.keystores import load_key\n"
        "asked = json.load(sys.stdin)\n"
        f"signing = load_key({file!r}).sign_transaction(base64.b64decode(asked['transaction']))\n"
        "print(json.dumps({'signature': base64.b64encode(asyncio.run(signing)).decode()}))\n"
    )
    wallet = f"exec:{alice} {sys.executable} -P '{program}'"
    call("wallet", "send", NOBODY, 7, "--wallet", wallet)
    assert call("wallet", "balance", "--wallet", wallet)["address"] == alice
    assert "did not print" in shell("wallet", "send", NOBODY, 7, "--wallet", f"exec:{alice} echo hi", code=3)
    assert "can't start" in shell("wallet", "send", NOBODY, 7, "--wallet", f"exec:{alice} /no/such", code=3)
    for text in ("exec:", f"exec:{alice}", f"exec:{alice} 'x"):
        assert "--wallet" in shell("wallet", "balance", "--wallet", text, code=3)
    assert "is not an address" in shell("wallet", "balance", "--wallet", "exec:bob sign", code=3)


def test_the_list_names_identity_wallets_and_the_sui_command_lines_keys(shell, call, home):
    import base64

    assert "dtp wallet new" in shell("wallet", "list")
    shell("keygen")
    call("wallet", "new", "second")
    signer = KeySigner.generate()
    (home / "sui").mkdir()
    store = home / "sui" / "sui.keystore"
    store.write_text(json.dumps([base64.b64encode(signer.flagged).decode()]))
    store.chmod(0o600)
    names = {each["name"]: each["address"] for each in call("wallet", "list")["wallets"]}
    assert names["(identity)"] == Identity.load(home / "identity.pem").id.sui_address
    assert names[f"sui:{signer.address}"] == signer.address
    assert set(names) == {"(identity)", "second", f"sui:{signer.address}"}
    shell("wallet", "faucet", "--wallet", f"sui:{signer.address}")
    assert shell("wallet", "balance", signer.address) == "10 SUI\n"
    assert shell("wallet", "balance") == "0 SUI\n"  # the identity's


def test_one_bad_file_does_not_hide_the_others(shell, call, alice):
    call("wallet", "new", "bob")
    folder = Path(call("wallet", "new", "carol")["file"]).parent
    (folder / "bob.pem").chmod(0o644)
    (folder / "carol.pem").write_text("garbage")
    listed = {each["name"]: each for each in call("wallet", "list")["wallets"]}
    assert listed["alice"]["address"] == alice
    assert "chmod 600" in listed["bob"]["problem"]
    assert (listed["carol"]["address"], "problem" in listed["carol"]) == ("", False)
    text = shell("wallet", "list")
    assert f"{alice}  alice" in text
    assert "(not said in its file)" in text
    assert "chmod 600" in shell("wallet", "balance", "--wallet", "bob", code=3)
    assert "can't be opened as a key" in shell("wallet", "balance", "--wallet", "carol", code=3)


def test_what_is_missing_is_said_with_what_to_do(shell, call, alice, monkeypatch):
    monkeypatch.delenv("DTP_WALLET")
    said = shell("wallet", "balance", code=3)
    assert "dtp keygen" in said
    assert "there is alice" in said
    assert "there is alice" in shell("wallet", "balance", "--wallet", "bob", code=3)
    assert "not a name for a wallet" in shell("wallet", "new", "a b", code=3)
    assert "exists" in shell("wallet", "new", "alice", code=3)
    assert "is not an address" in shell("wallet", "balance", "bob", code=3)


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ((NOBODY, "1.5"), 3, "below one MIST"),
        ((NOBODY, "much"), 3, "not an amount"),
        ((NOBODY, "0"), 3, "must be above 0"),
        (("bob", "1"), 3, "is not an address"),
        ((NOBODY[:-1], "1"), 3, "64 hex digits"),
        ((NOBODY, "11SUI"), 6, "has 10 SUI: too little to send 11 SUI and pay the gas"),
        ((NOBODY, "1", "--coin", "0x2::x"), 3, "0x2::x"),
        ((NOBODY, "1", "--coin", "0x2::x::X"), 6, "has 0 of"),
    ],
)
def test_sending_what_can_not_be_sent(shell, alice, arguments, code, part):
    assert part in shell("wallet", "send", *arguments, code=code)
    assert shell("wallet", "balance") == "10 SUI\n"


# --- packages and hosts.


def test_a_host_from_publishing_to_its_heartbeat(shell, call, alice):
    published = call("move", "publish", "transport", "escrow")["packages"]
    assert [each["package"] for each in published] == ["transport", "escrow"]
    assert all(each["transaction"] for each in published)
    assert "was there already" in shell("move", "publish", "transport")
    assert "NOT immutable" not in shell("move", "publish", "transport")
    assert "is NOT immutable" in shell("move", "publish", "transport", "--immutable")
    made = call("host", "create")
    assert {"host", "beacon", "cap", "operator_cap", "transaction", "gas_mist"} <= set(made)
    assert "none yet" in shell("host", "show")
    call("host", "service", 1, "--kind", "http", "--price-request", "0.001SUI", "--min-deposit", "2000")
    call("host", "service", 2, "--mode", "allow-list", "--closed", "--host", made["host"])
    again = call("host", "service", 1, "--kind", "http", "--price-mib", "5", "--price-request", "0")
    assert again["host"] == made["host"]
    assert "a service's kind stays" in shell("host", "service", 1, "--kind", "udp", code=3)
    for name in ("allow", "deny"):
        assert call("host", name, "0x5", "0x6")["addresses"] == ["0x5", "0x6"]
    call("host", "deny", "--remove", "0x6")
    for nowhere in ("tcp://0.0.0.0:9000", "dtp+tcp://[::]:9000"):
        assert "nobody can dial" in shell("host", "heartbeat", "--hint", nowhere, code=2)
    beat = call("host", "heartbeat", "--hint", "dtp+tcp://127.0.0.1:9000", "--weight", 3)
    assert beat["event"] == "heartbeat"
    shown = call("host", "show", "--host", made["host"])
    first, second = shown["services"]["1"], shown["services"]["2"]
    assert (first["kind"], first["mode"], first["open"]) == ("http", "open", True)
    assert (first["terms"]["revision"], first["terms"]["price_mib"]) == (3, 5)  # revisions are the host's
    assert (second["mode"], second["open"]) == ("allow-list", False)
    assert (len(shown["allow"]), len(shown["deny"])) == (2, 1)
    (endpoint,) = shown["endpoints"]
    assert endpoint["fresh"]
    call("host", "heartbeat", "--load", 5)  # what isn't named stays
    assert call("host", "show")["endpoints"][0]["weight"] == 3
    assert (endpoint["weight"], endpoint["role"]) == (3, "active")
    assert endpoint["hint_text"] == "dtp+tcp://127.0.0.1:9000"
    assert endpoint["identity"].startswith("dtp1")
    text = shell("host", "show")
    assert "service   1 (http): open, mode open; 0 SUI a request" in text
    assert "active, alive, dtp+tcp://127.0.0.1:9000" in text
    # What others may not: another wallet has no cap.
    other = call("wallet", "new", "other")["address"]
    call("wallet", "faucet", other)
    error = call("host", "heartbeat", "--wallet", "other", "--host", made["host"], code=6)
    assert error["code"] == "no-cap"
    assert "doesn't own" in shell("host", "service", 3, "--wallet", "other", "--host", made["host"], code=6)


def test_what_is_not_named_of_a_service_stays(shell, call, alice):
    """Each change set all else back, and a service that its owner had closed was open again."""
    shell("move", "publish", "transport")
    call("host", "create")
    first = call("host", "service", "files", "--kind", "http", "--mode", "pass", "--price-mib", 7,
                 "--price-request", 3, "--min-deposit", 20, "--epoch-cap", 100, "--bearer", "client",
                 "--credit", 9, "--idle", 7200, "--claim", 90, "--rate-requests", "10/s", "--burst-requests", 20,
                 "--rate-bytes", "1MiB/s", "--window", 5, "--post-fee", 4, "--closed")  # fmt: skip
    assert (first["added"], first["changes"]) == (True, {})
    number = str(first["service"])
    (before,) = call("host", "show")["services"].values()
    assert f"service   files, number {number} (http)" in shell("host", "show")
    again = call("host", "service", "files", "--price-mib", 8)
    assert again["changes"] == {"price_mib": {"old": 7, "new": 8}}
    changed = {**before, "terms": {**before["terms"], "price_mib": 8, "revision": 2}}
    assert call("host", "show")["services"] == {number: changed}
    for same in ((), ("--price-mib", 8, "--closed", "--rate-requests", "10/s", "--burst-requests", 20)):
        nothing = call("host", "service", "files", *same)
        assert (nothing["changes"], "transaction" in nothing) == ({}, False)
    assert "nothing to change" in shell("host", "service", "files")
    said = shell(
        "host", "service", "files", "--open", "--epoch-cap", "none", "--rate-bytes", "none", "--idle", 9000
    )
    assert "epoch cap: 0.0000001 SUI -> no cap" in said
    assert "rate bytes: 1,048,218.029/s, 1,048,576 at once -> no limit" in said
    assert "idle: 7200 s -> 9000 s" in said
    assert "open: no -> yes" in said
    (after,) = call("host", "show")["services"].values()
    assert (after["open"], after["mode"], after["terms"]["revision"]) == (True, "pass", 3)
    assert "10/s, 20 at once (requests)" in shell("host", "show")
    # Amounts mean something else in another coin.
    coin = ("--coin", "0x2::other::COIN")
    refused = shell("host", "service", "files", *coin, "--price-mib", 1, code=3)
    assert "name --price-request, --min-deposit, --credit, too" in refused
    for wrong in (("--burst-bytes", "1MiB"), ("--rate-requests", "soon"), ("--rate-bytes", "2GB/s")):
        assert "--rate-" in shell("host", "service", "files", *wrong, code=3)


def test_what_an_owner_changes_of_a_host(shell, call, alice):
    shell("move", "publish", "transport")
    made = call("host", "create")
    call("host", "service", 1)
    number = str(call("host", "service", "weather")["service"])
    services = call("host", "show")["services"]
    assert (services["1"]["name"], services[number]["name"]) == (None, "weather")
    assert f"service   weather, number {number} (tcp): open" in shell("host", "show")
    call("host", "remove", "weather")
    assert "nothing to change" in shell("host", "change", code=2)
    assert "64 hex digits" in shell("host", "change", "--paid-to", "0x5", code=3)
    changed = call("host", "change", "--ttl", 90, "--paid-to", NOBODY)["changes"]
    assert changed["ttl_ms"] == {"old": 43_200_000, "new": 90_000}
    assert changed["owner"]["old"] == alice
    assert call("host", "change", "--ttl", 90) == {"host": made["host"], "changes": {}}
    shown = call("host", "show")
    assert (shown["ttl_ms"], shown["owner"]) == (90_000, NOBODY)
    # An operator of its own does what it may, until all others' caps are void.
    bob = call("wallet", "new", "bob")["address"]
    call("wallet", "faucet", bob)
    assert "--rights" in shell("host", "operator", bob, "--rights", "heartbeat,all", code=2)
    assert call("host", "operator", bob, "--rights", "heartbeat,endpoints")["operator"] == bob
    as_bob = ("--wallet", "bob", "--host", made["host"])
    call("host", "heartbeat", *as_bob)
    assert call("host", "deny", "0x6", *as_bob, code=6)["code"] == "no-cap"
    (endpoint,) = call("host", "show")["endpoints"]
    assert call("host", "withdraw", endpoint["identity"])["endpoint"] == endpoint["identity"]
    assert call("host", "show")["endpoints"] == []
    assert call("host", "operator", "--revoke-others")["operator"] == alice
    assert "revoked" in shell("host", "heartbeat", *as_bob, code=6)
    call("host", "deny", "0x6")
    assert call("host", "remove", 1)["service"] == 1
    assert "no service" in shell("host", "remove", 1, code=6)
    assert call("host", "show")["services"] == {}


def test_a_package_that_somebody_else_published(shell, call, alice, home):
    (published,) = call("move", "publish", "transport")["packages"]
    (escrow,) = call("move", "publish", "escrow")["packages"]
    (home / "packages.json").unlink()
    assert "dtp move use transport ID" in shell("host", "create", code=3)
    assert call("move", "use", "transport", published["id"])["id"] == published["id"]
    assert call("host", "create")["host"]
    error = call("move", "use", "transport", escrow["id"], code=6)
    assert error["code"] == "foreign-package"
    assert "channel, host, lock, pass, pipe differ" in error["message"]
    assert call("move", "use", "transport", "0x6", code=6)["code"] == "not-found"
    assert "nothing" in shell("move", "use", "nothing", "0x6", code=3)
    assert "is what ships here" in shell("move", "use", "escrow", escrow["id"])


def test_who_can_change_a_package(shell, call, alice, monkeypatch):
    # Where SUI isn't free and nobody can be asked, it has to be said.
    monkeypatch.delenv("DTP_FAUCET")
    for command in (shell, call):
        command("move", "publish", "escrow", code=3)
    (kept,) = call("move", "publish", "escrow", "--upgradable")["packages"]
    assert (kept["policy"], bool(kept["upgrade_cap"])) == ("compatible", True)
    assert f"can be upgraded (compatible) by {alice}" in shell("move", "use", "escrow", kept["id"])
    assert "--immutable" in shell("move", "restrict", "escrow", code=2)
    assert call("move", "restrict", "escrow", "--dependencies-only")["policy"] == "dependencies"
    assert call("move", "use", "escrow", kept["id"])["policy"] == "dependencies"
    call("move", "restrict", "escrow", "--additive", code=6)
    assert call("move", "restrict", "escrow", "--immutable")["policy"] == "immutable"
    (known,) = call("move", "info", "escrow")["used"]
    assert (known["id"], known["policy"], known["upgrade_cap"]) == (kept["id"], "immutable", "")
    assert "isn't known" in shell("move", "use", "escrow", kept["id"])
    (made,) = call("move", "publish", "escrow", "--again", "--immutable")["packages"]
    assert (made["policy"], made["upgrade_cap"]) == ("immutable", "")
    assert "nobody can change it" in shell("move", "use", "escrow", made["id"])
    assert call("move", "upgrade", "escrow", code=3)["code"] == "not-upgradable"
    # A package in use is replaced by what ships, and what is of that version already isn't migrated.
    (first,) = call("move", "publish", "transport", "--upgradable")["packages"]
    found = call("host", "create")["host"]
    newer = call("move", "upgrade", "transport")
    assert (newer["before"], newer["id"] != first["id"]) == (first["id"], True)
    assert call("move", "migrate", found, code=6)["code"] == "move-abort"
    assert call("move", "migrate", "0x6", code=6)["code"] == "not-migratable"
    assert found in shell("host", "show", "--json")


def test_hosts_are_named_when_there_are_several(shell, call, alice):
    shell("move", "publish", "transport")
    assert "dtp host create" in shell("host", "service", 1, code=6)
    ids = {call("host", "create")["host"] for _ in range(2)}
    for arguments in (("show",), ("service", 1), ("heartbeat",), ("allow", "0x5")):
        said = shell("host", *arguments, code=6)
        assert all(each in said for each in ids)


def test_caps_that_others_send_are_not_used_unasked(shell, call, alice):
    shell("move", "publish", "transport")
    call("wallet", "faucet", call("wallet", "new", "mallory")["address"])
    made = call("host", "create", "--wallet", "mallory", "--operator", alice)
    said = shell("host", "heartbeat", code=6)
    assert made["host"] in said
    assert "made from here" in said
    own = call("host", "create")["host"]
    assert {call("host", *each)["host"] for each in (("service", 1), ("heartbeat",), ("allow", "0x5"))} == {
        own
    }
    assert (
        call("host", "heartbeat", "--host", made["host"])["host"] == made["host"]
    )  # named, it is one's own choice


def test_packages_that_are_not_published_here(shell, alice):
    assert "dtp move publish" in shell("host", "create", code=3)
    assert "dtp move publish" in shell("chain", "events", code=3)
    assert "nothing" in shell("move", "publish", "nothing", code=3)


# --- looking.


def test_objects_with_their_fields(shell, call, alice, net):
    clock = call("chain", "object", "0x6")
    assert clock["owner"] == {"kind": "shared", "address": "", "initial_version": 1}
    assert int(clock["fields"]["timestamp_ms"]) > 0
    text = shell("chain", "object", "0x6")
    assert "owner                 shared, since version 1" in text
    call("move", "publish", "transport")
    host = call("host", "create")["host"]
    assert call("chain", "object", host)["fields"]["owner"] == alice
    first = call("chain", "object", host)["version"]
    call("host", "service", 1)
    assert call("chain", "object", host, "--version", first)["fields"]["services"] == {}
    package = call("chain", "info")["packages"]["transport"]
    assert call("chain", "object", package)["type"] == "package"
    assert "it never was" in shell("chain", "object", NOBODY, code=6)
    assert "is not an address" in shell("chain", "object", "zz", code=3)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("node") is None or not (ROOT / "move/node_modules").is_dir(),
    reason="needs Node, and `npm ci` in move/",
)
def test_a_package_of_ones_own_is_linked_to_those_that_are_published(shell, call, alice, tmp_path):
    shutil.copytree(ROOT / "move/examples/stamps", tmp_path / "stamps")
    manifest = tmp_path / "stamps" / "Move.toml"
    manifest.write_text(manifest.read_text().replace("../../transport", str(ROOT / "move" / "transport")))
    deploy = ("move", "deploy", tmp_path / "stamps", "--source", ROOT)
    assert call(*deploy, code=3)["code"] == "package-not-published"
    call("move", "publish", "transport")
    made = call(*deploy)
    assert (made["package"], made["modules"]) == ("stamps", ["stamp"])
    assert call("chain", "object", made["id"])["type"] == "package"
    assert call("chain", "object", made["upgrade_cap"])["owner"]["address"] == alice
    assert call(*deploy, "--immutable")["upgrade_cap"] == ""
    (tmp_path / "stamps" / "sources" / "stamp.move").write_text("module stamps::stamp; fun")
    assert call(*deploy, code=3)["code"] == "move-compile"
    manifest.unlink()
    assert call(*deploy, code=3)["code"] == "move-build"


def test_events_of_the_past_once(shell, call, alice, tmp_path):
    call("move", "publish", "transport")
    host = call("host", "create")["host"]
    file = tmp_path / "cursor"
    listed = shell("chain", "events", "--cursor", file, "--type", "transport::host::HostCreated")
    assert [line for line in listed.splitlines() if host in line and "host::HostCreated" in line]
    call("host", "service", 1)
    again = shell("chain", "events", "--cursor", file, "--json")
    assert [json.loads(line)["fields"]["open"] for line in again.splitlines()] == [False, True]
    assert shell("chain", "events", "--cursor", file) == ""
    assert "not a cursor" in _spoilt(shell, file)
    assert "names no module" in shell("chain", "events", "--type", "0x2::", code=3)


def _spoilt(shell, file):
    file.write_text("{}")
    return shell("chain", "events", "--cursor", file, code=3)


@pytest.mark.parametrize(
    ("network", "code", "part"),
    [
        ("nonsense", 3, "there is localnet, testnet, mainnet"),
        ("ftp://a", 3, "not a URL of a node"),
        ("http://127.0.0.1:1", 5, "is the node running"),
    ],
)
def test_networks_that_are_none(shell, network, code, part):
    assert part in shell("chain", "info", "--network", network, code=code)


def test_every_command_has_help():
    import click

    def walk(command, path):
        result = CliRunner().invoke(main, [*path, "--help"])
        assert result.exit_code == 0
        assert command.help, path
        context = click.Context(command)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                walk(command.get_command(context, name), [*path, name])
        else:
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    assert parameter.help or parameter.name == "help", (path, parameter.name)
            assert any("--json" in parameter.opts for parameter in command.params), path

    for name in ("chain", "host", "localnet", "move", "wallet"):
        walk(main.get_command(click.Context(main), name), [name])


# --- processes.


@pytest.mark.slow
def test_a_localnet_that_keeps_its_state(dtp, tmp_path):
    def start(*more):
        program = dtp("localnet", "--port", 0, "--faucet-port", 0, "--state", tmp_path / "s", "--json", *more)
        return program, program.event("listening")

    net, said = start("--fund", NOBODY)
    assert said["funded"] == [NOBODY]
    faucet = urllib.request.Request(
        said["faucet"], json.dumps({"FixedAmountRequest": {"recipient": "0x5"}}).encode()
    )
    with urllib.request.urlopen(faucet, timeout=30) as answer:
        assert json.loads(answer.read())["status"] == "Success"
    net.signal(INT)
    net.wait(130)
    net, again = start("--until-eof")
    assert again["chain_id"] == said["chain_id"]
    balance = dtp("wallet", "balance", "0x5", "--network", again["url"], "--json")
    assert list(json.loads(balance.wait())["balances"].values()) == [FUNDS]
    taken = dtp("localnet", "--port", again["url"].rsplit(":", 1)[1])
    taken.wait(3)
    assert b"is another localnet running?" in taken.errors
    net.wait(0)
    text = dtp("localnet", "--port", 0, "--faucet-port", 0)
    lines = [text.line() for _ in range(5)]
    assert lines[3].startswith("use it  export DTP_NETWORK=http://127.0.0.1:")
    text.signal(TERM)
    text.wait(None)


@pytest.mark.slow
def test_following_and_beating_through_an_outage(dtp, tmp_path, monkeypatch):
    def start(port=0):
        more = ("--port", port, "--faucet-port", 0, "--state", tmp_path / "s", "--until-eof", "--json")
        program = dtp("localnet", *more)
        return program, program.event("listening")

    net, said = start()
    monkeypatch.setenv("DTP_NETWORK", said["url"])
    monkeypatch.setenv("DTP_FAUCET", said["faucet"])
    monkeypatch.setenv("DTP_WALLET", "w")

    def here(*arguments):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output

    for command in ("wallet new w", "wallet faucet", "move publish transport", "host create"):
        here(*command.split())
    follower = dtp("chain", "events", "--follow", "--cursor", tmp_path / "cursor", "--json")
    while not (tmp_path / "cursor").exists():  # it follows from now on: an event before would not come
        assert follower.process.poll() is None
        time.sleep(0.02)
    beater = dtp("host", "heartbeat", "--every", 1, "--json")
    beater.event("heartbeat")
    assert follower.event("event")["type"].endswith("::host::EndpointChanged")
    net.wait(0)
    missed = beater.event("missed")
    assert missed["code"] == "node-unavailable"
    net, _ = start(said["url"].rsplit(":", 1)[1])
    beater.event("heartbeat")
    here("host", "service", "1", "--closed")
    assert follower.event("event")["fields"]["service"] == 1
    for program in (beater, follower):
        program.signal(INT)
        program.wait(130)
    net.wait(0)


# --- text.


def test_records_as_text():
    record = {
        "gas_mist": 1_500_000,
        "seen_ms": 1_700_000_000_123,
        "ttl_ms": 60_000,
        "open": True,
        "nothing": None,
        "list": ["a", "b\x1b[31m"],
        "epoch_cap": 2**64 - 1,
        "inner": {"a": 1, "empty": {}},
        "many": [{"x": 1}],
    }
    assert table(record).splitlines() == [
        "gas        0.0015 SUI",
        "seen       2023-11-14 22:13:20.123 UTC",
        "ttl ms     60000",
        "open       yes",
        "nothing    -",
        "list       a, b\\x1b[31m",
        "epoch cap  no limit",
        "inner",
        "  a        1",
        "  empty    -",
        "many",
        "  0",
        "    x      1",
    ]
    assert inline({"a": True, "b": {"c": [1, 2]}}) == "a=yes b={c=1, 2}"
    assert (plain(""), amount(1), moment(0)) == ("-", "0.000000001 SUI", "1970-01-01 00:00:00.000 UTC")
    assert [owner("address", "0x1", 0), owner("object", "0x1", 0), owner("immutable", "", 0)] == [
        "address 0x1",
        "object 0x1",
        "immutable",
    ]
