"""Shared test set-up: hypothesis profiles that are deterministic and print what to repeat."""

import faulthandler
import gc
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The benchmark, which some tests are about, isn't installed; at the end, so that `dtp` stays the installed one.
sys.path.append(str(Path(__file__).parents[1]))
# Children that tests start find the installed package, not the sources in the folder they happen to stand in.
os.environ["PYTHONSAFEPATH"] = "1"
# Where Python keeps nothing that it has compiled, each program that tests start would compile all of this anew, which
# takes as long as to run it. Programs that they start, and the workers of xdist, share it.
if sys.dont_write_bytecode and sys.pycache_prefix is None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
# Only tests that are about it ask the LAN: who isn't found would take a second each.
os.environ["DTP_DISCOVER"] = ""

# A shell has what it starts in the background ignore SIGINT, and children inherit that; tests interrupt theirs.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The default run must say the same thing twice; `HYPOTHESIS_PROFILE=explore` looks for new failures.
_common: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    # These depend on more than the test: on the machine, and on constants found in whatever is imported.
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("ci", derandomize=True, max_examples=60, **_common)
settings.register_profile("explore", max_examples=2000, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


#: Where files of tests are kept in memory, and the bytes that have to be free there. Most of a run's stores sync each
#: transaction to the disk; programs are killed in these tests, not machines.
_MEMORY, _ROOM = Path("/dev/shm"), 4 * 2**30
#: Bytes of a temporary folder's path below which Unix sockets of tests fit into what systems allow (107 bytes).
_SHORT = 24
_DESELECTED = pytest.StashKey[int]()
_TEMPORARY = pytest.StashKey[str]()
_DATA = pytest.StashKey[tuple[str, str | None]]()


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of the run a data folder of its own: histories of one seed in two of them make stores that
    would be taken for copies of each other. Temporary ones are short where $TMPDIR is long, since Unix sockets
    have to fit into them, and in memory where none is named."""
    config.stash[_DESELECTED] = 0
    if hasattr(config, "workerinput"):
        os.environ["XDG_DATA_HOME"] += f"/{config.workerinput['workerid']}"
        return  # the rest is inherited
    config.stash[_DATA] = tempfile.mkdtemp(prefix="dtp-data-"), os.environ.get("XDG_DATA_HOME")
    os.environ["XDG_DATA_HOME"] = config.stash[_DATA][0]
    if len(tempfile.gettempdir()) > _SHORT:
        config.stash[_TEMPORARY] = tempfile.mkdtemp(prefix="dtp-", dir="/tmp")
        os.environ["PYTEST_DEBUG_TEMPROOT"] = config.stash[_TEMPORARY]
    elif "TMPDIR" not in os.environ and _is_usable(_MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def _is_usable(folder: Path) -> bool:
    """Return whether tests may keep files in a folder, and start programs there."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return False
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize >= _ROOM and not found.f_flag & os.ST_NOEXEC


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one worker more than there are cores: tests of programs wait half of their time for them."""
    return (os.cpu_count() or 1) + 1


def pytest_unconfigure(config: pytest.Config) -> None:
    if "postgres" in sys.modules:  # some test has used it
        sys.modules["postgres"].stop()
    if (data := config.stash.get(_DATA, None)) is not None:
        folder, before = data
        os.environ.pop("XDG_DATA_HOME", None)
        if before is not None:
            os.environ["XDG_DATA_HOME"] = before
        shutil.rmtree(folder, ignore_errors=True)
    if (folder := config.stash.get(_TEMPORARY, None)) is not None:
        del os.environ["PYTEST_DEBUG_TEMPROOT"]
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage meanwhile, and look at nothing of what was collected afterwards: it stays until the end, and
    each look at all 800,000 objects took half a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take the time limit (pyproject.toml) from tests that take minutes."""
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Take the dump of stacks from them as well: pytest has it begin for each test in the same way."""
    if item.get_closest_marker("long"):
        faulthandler.cancel_dump_traceback_later()


# Workers of xdist don't tell what they have deselected: with `-n auto` it looked as if everything had run.


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[_DESELECTED] += len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = session.config.stash[_DESELECTED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Each worker has collected, and deselected, the same."""
    count = getattr(node, "workeroutput", {}).get("deselected", 0)
    node.config.stash[_DESELECTED] = max(node.config.stash[_DESELECTED], count)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if count := config.stash[_DESELECTED]:
        what = "test was" if count == 1 else "tests were"
        terminalreporter.write_line(
            f"{count} {what} deselected; those that take seconds each run with `pytest -m 'slow and not long'`, "
            "those that take minutes with `pytest -m long`"
        )


@pytest.fixture(autouse=True)
def levels_of_logs_stay():
    """What is logged is kept until a test ends: at a lower level it would keep what another test counts."""
    before = [(each, each.level) for each in map(logging.getLogger, ("", "dtp", "dtpd"))]
    yield
    for logger, level in before:
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_chain_connection_is_left():
    """One that a test leaves would be found in another, whenever the collector comes by."""
    yield
    if (client := sys.modules.get("grpclib.client")) is not None:
        left = [each for each in client._channels if each._protocol is not None and each._loop.is_closed()]
        client._channels.difference_update(left)  # it is told once
        assert not left


_MACHINES = itertools.count()


@pytest.fixture
def machines():
    """Two machines on one LAN: namespaces whose only networks are loopback and a pair of veth."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("root and `ip` are needed for network namespaces")

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=60)

    here, there = names = [f"dtplan{os.getpid()}n{next(_MACHINES)}" for _ in range(2)]
    if subprocess.run(["ip", "netns", "add", here], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not to be had here")
    try:
        ip("netns", "add", there)
        ip("-n", here, "link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns", there)
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "lan0")
            for link in ("lo", "lan0"):
                ip("-n", name, "link", "set", link, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
