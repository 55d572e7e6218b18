"""How programs end whatever they were doing: Ctrl-C while their modules are loaded, a chain that doesn't answer."""

import asyncio
import contextlib
import errno
import importlib.abc
import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dtp import programs
from dtp.chain.errors import NodeUnavailable, OutcomeUnknown
from dtp.chain.packages.deployments import Deployments
from dtp.cli import main, output, selling
from dtp.cli import serve as serving
from dtp.cli.listening import Listening
from dtp.cli.options import IdentitySource
from dtp.cli.services import ServiceDirectory, make
from dtp.identity import Identity
from dtp.pay.store import Store
from dtp.pay.store.rows import Bought
from dtp.pay.voucher import LaneKey

ROOT = Path(__file__).parents[2]


class Interrupts(importlib.abc.MetaPathFinder):
    """Ctrl-C, just when a module is to be loaded."""

    def __init__(self, module):
        self._module = module

    def find_spec(self, name, path=None, target=None):
        if name == self._module:
            raise KeyboardInterrupt
        return


@pytest.fixture
def nothing_loaded():
    """No modules of commands and of the daemon are loaded, as when a program begins; later all are as before."""
    ours = ("dtp.cli", "dtp.daemon")
    loaded = {name: module for name, module in sys.modules.items() if name.startswith(ours)}
    for name in loaded:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.startswith(ours)]:
        del sys.modules[name]
    sys.modules.update(loaded)
    for name in ours:  # the package has them as attributes too
        if name in loaded:
            setattr(sys.modules["dtp"], name.removeprefix("dtp."), loaded[name])


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize(
    ("program", "words", "module"),
    [
        (programs.dtp, ("peers",), "dtp.cli"),
        (programs.dtp, ("peers",), "dtp.cli.output"),
        (programs.dtp, ("peers",), "dtp.cli.peers"),
        (programs.dtpd, ("status",), "dtp.cli.daemon"),
        (programs.dtpd, ("top",), "dtp.daemon.process.program"),
        (programs.dtpd, ("check",), "dtp.daemon.config.load"),
        (programs.dtpd, ("top", "-c", "/nowhere"), "dtp.cli.daemon_top"),
    ],
)
def test_an_interrupt_while_modules_are_loaded(monkeypatch, capsys, program, words, module):
    monkeypatch.setattr(sys, "meta_path", [Interrupts(module), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["program", *words])
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 130
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_installed_begins_there():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"dtp": "dtp.programs:dtp", "dtpd": "dtp.programs:dtpd"}


def test_beginning_takes_no_module_of_ours():
    """What is loaded in front of the guarded part can be interrupted with a traceback."""
    program = (
        "import sys, dtp.programs; print(*sorted(n for n in sys.modules if n.startswith(('dtp.', 'click'))))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["dtp.programs", "dtp.version"]


def test_an_interrupt_when_all_is_done():
    """Python gives SIGINT its first meaning back before it frees what is left: programs died of it there."""
    program = """if True:
        import os, signal, sys
        from dtp import programs

        class Left:
            def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGINT):
                kill(me, number)

        left = Left()
        sys.argv = ["dtp", "--version"]
        programs.dtp()
    """
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_node_that_does_not_answer_is_the_network_s_failure():
    """Nothing was done, and trying again may help; of what may have been done that can't be said."""
    assert NodeUnavailable.code == output.NODE_AWAY
    assert output.exit_code(NodeUnavailable("away")) == 5
    assert output.exit_code(OutcomeUnknown("sent", digest="d", transaction=b"", signatures=())) == 6


def test_serving_waits_for_no_chain(monkeypatch, tmp_path, capsys):
    """The address is printed while the chain is asked whether a host sells what is given away."""
    me, asked = Identity.generate(), asyncio.Event()
    packages = tmp_path / "packages.json"
    monkeypatch.setenv("DTP_PACKAGES", str(packages))
    Deployments("chain", packages).remember_host(me.id.sui_address, "0x5")  # which may sell it

    class Chain:
        async def __aenter__(self):
            asked.set()
            await asyncio.Event().wait()

        async def __aexit__(self, *_):
            pass

    class Account:
        wallet = None

        def make_client(self, *, signing):
            assert not signing
            return Chain()

    class Given:
        wanted, account = False, Account()

    async def scenario():
        services = [make("echo", "echo=")]
        listening = Listening((), frozenset(), None, IdentitySource(Path("none")), until_eof=False)
        listening.__dict__["identity"] = me
        task = asyncio.create_task(
            serving.serve_services(ServiceDirectory(services), services, Given(), listening, None)
        )
        await asked.wait()
        assert str(me.id) in capsys.readouterr().out
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    with click.Context(click.Command("serve")):
        asyncio.run(scenario())


@pytest.mark.parametrize("command", ["list", "watch", "claim"])
def test_a_store_that_is_not_there_is_said_without_a_chain(tmp_path, command):
    """It was the chain that was asked first, and said to be away."""
    words = ["channel", command, "--store", str(tmp_path / "none"), "--network", "http://127.0.0.1:1"]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, f"no store at {tmp_path / 'none'}" in done.stderr) == (3, True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("ended", [False, True])
def test_a_sale_waits_for_its_chain(capsys, ended):
    """A server that began before the network was there ended at once, and nobody began it again."""
    stop, asked, closed = asyncio.Event(), [], []

    class Client:
        async def __aenter__(self):
            asked.append(self)
            if len(asked) == 2 and ended:
                stop.set()
            if len(asked) < 3:
                raise NodeUnavailable("no answer from http://node")
            return self

        async def __aexit__(self, *_):
            closed.append(self)

    class Account:
        def make_client(self, *, signing):
            assert signing
            return Client()

    class Sale:
        account = Account()

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            chain = await selling.connect_when_there(stack, Sale(), stop, 0.001)
            assert chain is (None if ended else asked[2])
        assert closed == ([] if ended else [chain])

    with click.Context(click.Command("serve")):
        asyncio.run(scenario())
    assert capsys.readouterr().err.count("waiting for the chain") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["keygen", "--identity", "{}"],
        ["recv", f"dtp+tcp://{Identity(bytes(32)).id}@127.0.0.1:1/f", "--output", "{}"],
        ["wallet", "list"],
    ],
)
def test_a_folder_that_one_may_not_look_into_is_no_fault_of_ours(monkeypatch, tmp_path, words):
    """Merely to ask whether a file is there fails then: it was a traceback."""
    where = tmp_path / "locked" / "file"
    monkeypatch.setenv("DTP_IDENTITY", str(where))

    def stat(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", stat)
    ended = CliRunner().invoke(main, [each.format(where) for each in words])
    assert ended.exit_code == 3, ended.output
    assert "Permission denied" in ended.output
    assert "dtp: can't use " in ended.output


@pytest.mark.slow
def test_channels_are_listed_as_they_were_last_known_where_no_node_answers(tmp_path):
    """What is locked, and with whom, was not to be had without a node."""
    path, key, channel = tmp_path / "pay.sqlite", LaneKey.generate(), "0x" + "7" * 64
    with Store(path) as store:
        store.keep_key(key, 7)
        store.add_bought(Bought(channel, "c", "0xa", 1, "0xb", "open", 1, deposited=5_000_000), 0, key.public)
    words = ["channel", "list", "--store", str(path), "--network", "http://127.0.0.1:1"]
    ended = CliRunner().invoke(main, words)
    assert ended.exit_code == 5, ended.output
    assert (
        f"{channel}  pays, not asked: vouched 0 SUI of 0.005 SUI; open, as far as is known here"
        in ended.stdout
    )
    (record,) = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)["channels"]
    assert (record["state"], record["last_state"], record["deposited"]) == ("not-asked", "open", 5_000_000)
