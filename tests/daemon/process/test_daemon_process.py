"""The daemon as a process: what may change when, what a second request does, whom the service manager watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self, cast
from unittest.mock import AsyncMock, Mock

import pytest

from dtp.carriers.errors import ListenError
from dtp.daemon.config.model import Config
from dtp.daemon.observing import logs
from dtp.daemon.process import program as process
from dtp.daemon.process import systemd
from dtp.daemon.process.adopted import by_setting
from dtp.daemon.process.control import Control, NotRunning, ask, path_of
from dtp.daemon.process.program import Process
from dtp.daemon.process.replaced import ReplacedProcesses
from dtp.daemon.process.successor import Launcher, UpgradeFailed
from dtp.daemon.state.counted import Counted
from dtp.errors import ConfigError

from ..conftest import config

#: A program that is run as the successor: reads what it needs from its environment, and tells the pipe that waits.
SUCCESSOR = "import os; from dtp.daemon.process import systemd; tell = int(os.environ['DTPD_READY']); "
#: A program that stays until it is killed, whatever its standard input is.
STAYS = "import signal; signal.pause()"


class Served:
    """In place of a daemon: what it was asked for, each of which takes as long as the test wants."""

    on_fenced = None
    open_streams = reloads = 0

    def __init__(self, config: Config) -> None:
        self.config = config
        self.asked: list[str] = []
        self.sockets: dict[str, list[socket.socket]] = {}
        self.replaced = ReplacedProcesses()
        self.may_reload = asyncio.Event()
        self.may_reload.set()
        self.drained, self.may_close = asyncio.Event(), asyncio.Event()
        self.may_close.set()

    async def start(self, adopted: dict[str, Any], counted: Counted) -> None:
        self.adopted, self.export_counts = adopted, lambda: counted

    async def ban(self, caller: str, until: float) -> None:
        self.export_counts = lambda: Counted({caller: until}, kept_in="here")

    async def take_over(self) -> None:
        self.asked.append("take over")

    async def reload(self, config: Config) -> None:
        self.asked.append("reload")
        await self.may_reload.wait()
        self.asked.append("reloaded")

    async def hand_over(self) -> None:
        self.asked.append("hand over")

    async def has_connection(self, connection_id: bytes) -> bool:
        return False

    def take_carrier(self, fields: object, descriptors: list[int]) -> None:
        self.asked.append("take carrier")

    async def drain(self, grace: float) -> None:
        self.asked.append("drain")
        self.grace = grace
        await self.drained.wait()

    def get_status(self, *, callers: bool = True) -> dict[str, list[dict[str, int | str]]]:
        return {"exposed": [{"service": "api", "open": self.open_streams}]}

    async def refresh_status(self, *, callers: bool = True) -> None:
        pass

    async def close(self) -> None:
        self.asked.append("close")
        await self.may_close.wait()


class Launch(Launcher):
    """Runs another program as the successor; what it has started."""

    def __init__(self, command: list[str], patience: float = 30.0) -> None:
        super().__init__(command, patience)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *given: Any) -> tuple[subprocess.Popen[bytes], Any]:
        successor, ready = super().start(*given)
        self.started.append(successor)
        return successor, ready


def command(served: Process, do: str, **fields: float | str | None) -> Coroutine[Any, Any, Any]:
    """What the control socket does with it."""
    return served.control.carry_out({"do": do, **fields})


@pytest.fixture
def serve(tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `scenario(process, daemon)` while a process serves by a file with one forward."""
    monkeypatch.setattr(logs, "set_up", Mock())
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def run_it(scenario: Callable[..., Coroutine[Any, Any, Any]], launcher: Launch | None = None) -> None:
        launcher = launcher or Launch([])
        path = tmp_path / "dtpd.toml"
        path.write_text(
            f'[identity]\nfile = "me.pem"\n[daemon]\ncontrol = "{short}/c.sock"\n'
            '[[forward]]\nlisten = "127.0.0.1:1"\nto = "dtp://alice/api"\n'
        )

        async def main() -> None:
            async with asyncio.timeout(120):
                daemon = Served(config(tmp_path, path.read_text()))
                served, ready = process.Process(daemon.config, cast(Any, daemon), launcher), asyncio.Event()
                running = asyncio.create_task(served.run(lambda _: ready.set()))
                await asyncio.wait(
                    (running, asyncio.create_task(ready.wait())), return_when="FIRST_COMPLETED"
                )
                try:
                    await scenario(served, daemon)
                finally:
                    daemon.drained.set()
                    served.stop()
                    await running
                    for successor in launcher.started:
                        successor.wait()

        asyncio.run(main())

    return run_it


def test_a_second_signal_ends_it_at_once(
    serve: Callable[..., Any], short: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also while the end waits for a chain or a database: a database that said nothing kept a daemon for ever."""

    async def scenario(served: Process, daemon: Served) -> None:
        daemon.may_close.clear()
        os.kill(os.getpid(), signal.SIGTERM)
        while "drain" not in daemon.asked:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)  # what is open is cut off
        while "close" not in daemon.asked:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (short / "c.sock").exists()
        os.kill(os.getpid(), signal.SIGTERM)
        while (short / "c.sock").exists():  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert daemon.asked[-1] == "close"

    serve(scenario)
    assert "ended at once" in caplog.text


@pytest.mark.parametrize("name", ["c.sock", "50%41 #1?x.sock"])
def test_the_control_socket_is_its_user_s_alone(short: Path, name: str) -> None:
    path = short / "run" / name

    async def hello(request: dict[str, str]) -> dict[str, str]:
        return {"text": "x" * 1_000_000}

    async def scenario() -> None:
        control = Control(path, {"hello": hello})  # type: ignore[dict-item]
        await control.start()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert len((await ask(path, "hello"))["text"]) == 1_000_000
        await control.close()
        assert not path.exists()
        await control.close()

    asyncio.run(scenario())


def test_a_second_daemon_of_one_file_hears_that_the_first_one_runs(short: Path) -> None:
    """It heard that somebody listened at a path that it had never named."""

    async def scenario() -> None:
        first, second = Control(short / "c.sock", {}), Control(short / "c.sock", {})
        await first.start()
        with pytest.raises(ListenError, match="a dtpd that runs already has this control socket"):
            await second.start()
        await first.close()
        (short / "c.sock").write_text("no socket")
        with pytest.raises(ListenError, match="a file that is not a socket"):
            await second.start()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"hello\n", "malformed"),
        (b"[1]\n", "unknown"),
        (b'{"do": []}\n', "unknown"),
        (b'{"x": 1}\n', "unknown"),
    ],
)
def test_what_is_no_command(short: Path, said: bytes, code: str) -> None:
    async def scenario() -> None:
        control = Control(short / "c.sock", {})
        await control.start()
        reader, writer = await asyncio.open_unix_connection(short / "c.sock")
        with contextlib.closing(writer):
            for _ in range(2):  # and the next one is heard
                writer.write(said)
                assert json.loads(await reader.readline())["error"]["code"] == code
            writer.write(b"x" * 100_000)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        await control.close()

    asyncio.run(scenario())


def test_a_runtime_folder_that_is_too_deep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What stays as it is is no `ListenError`, after which systemd would try again."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/tmp/{'x' * 100}")
    parsed = config(tmp_path, '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://a/b"')
    with pytest.raises(ConfigError, match="a shorter folder, or control in"):
        path_of(parsed)


def test_sockets_that_were_opened_for_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are ours alone: no child inherits them. What is no socket, or doesn't listen, is a mistake."""
    monkeypatch.setenv("LISTEN_FDNAMES", "a")
    with socket.socket() as sock, open(tmp_path / "file", "w") as file:
        sock.bind(("127.0.0.1", 0))
        for given, words in ((sock, "doesn't listen"), (file, "is not a socket")):
            number = os.dup(given.fileno())
            monkeypatch.setenv(systemd.SOCKETS, json.dumps([("", number)]))
            with pytest.raises(ConfigError, match=words):
                systemd.listening_sockets()
            with contextlib.suppress(OSError):
                os.close(number)
        sock.listen()
        number = os.dup(sock.fileno())
        os.set_inheritable(number, True)
        monkeypatch.setenv(systemd.SOCKETS, json.dumps([("127.0.0.1:0", number)]))
        ((setting, found),) = systemd.listening_sockets()
        assert setting == "127.0.0.1:0"
        assert not found.get_inheritable()
        found.close()
    assert "LISTEN_FDNAMES" not in os.environ
    assert systemd.SOCKETS not in os.environ


@pytest.mark.parametrize("said", ["7,8,9", "7", "", "[7]", '[["a"]]', "null", '[["a", 7, 8]]'])
def test_sockets_of_a_process_that_hands_them_over_otherwise(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """As one of an earlier version may: the one that is replaced goes on, and the log says what to do."""
    monkeypatch.setenv(systemd.SOCKETS, said)
    with pytest.raises(ConfigError, match="another version of dtpd"):
        systemd.listening_sockets()


def test_a_watchdog_that_is_away_for_a_moment_is_told_again(
    monkeypatch: pytest.MonkeyPatch, short: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = str(short / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", place)

    async def main() -> None:
        telling = asyncio.create_task(systemd.tell_alive(0))
        await until(lambda: "can't be told" in caplog.text)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.bind(place)
            assert await asyncio.get_running_loop().sock_recv(manager, 100) == b"WATCHDOG=1"
            telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling

    asyncio.run(main())


def test_a_manager_at_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0dtpd-test-{os.getpid()}")
        manager.settimeout(120)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@dtpd-test-{os.getpid()}")
        systemd.notify("READY=1", "STATUS=x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize("heard", [True, False])
def test_a_daemon_that_ends_before_it_answers(short: Path, heard: bool) -> None:
    """Its socket is closed, or reset, when it was asked and had not read it yet."""

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if heard:
            await reader.readline()
        writer.transport.abort()

    async def scenario() -> None:
        server = await asyncio.start_unix_server(end, short / "c.sock")
        with pytest.raises(NotRunning, match="ended before it answered"):
            await ask(short / "c.sock", "status")
        server.close()

    asyncio.run(scenario())


def test_a_daemon_that_ends_while_somebody_asks_says_nothing_of_it(
    short: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As 'dtpd drain' of one with nothing open: the last lines of its log were a traceback."""

    async def main(asking: socket.socket) -> None:
        control = Control(short / "control", {})
        await control.start()
        loop = asyncio.get_running_loop()
        await loop.sock_connect(asking, str(short / "control"))
        await loop.sock_sendall(asking, b"{}\n")
        assert b"no such command" in await loop.sock_recv(asking, 1000)
        await control.close()

    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        asyncio.run(main(asking))
    assert caplog.messages == []


async def until(condition: Callable[..., Any]) -> None:
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


def answer(said: str) -> list[str]:
    """The successor says so much to the pipe, then ends."""
    return [sys.executable, "-c", f"{SUCCESSOR}os.write(tell, {said})"]


@pytest.mark.parametrize("second", ["upgrade", "reload"])
def test_what_comes_after_an_upgrade_is_refused(serve: Callable[..., Any], second: str) -> None:
    """Else two processes would serve in the place of one, each with half of those who come."""

    async def scenario(served: Process, daemon: Served) -> None:
        place = Path(served.control.place.removeprefix("unix:"))
        asked = [asyncio.create_task(ask(place, each)) for each in ("upgrade", second)]
        first, other = await asyncio.gather(*asked, return_exceptions=True)
        assert first["pid"]  # type: ignore[index]
        assert "changes nothing any more" in str(other)
        assert daemon.asked.count("hand over") == 1
        assert "reload" not in daemon.asked

    serve(scenario, Launch(answer("b'1'")))


def test_an_upgrade_waits_for_a_reload(serve: Callable[..., Any]) -> None:
    async def scenario(served: Process, daemon: Served) -> None:
        daemon.may_reload.clear()
        reload = asyncio.create_task(command(served, "reload"))
        await until(lambda: daemon.asked)
        upgrade = asyncio.create_task(command(served, "upgrade"))
        await asyncio.sleep(0)
        daemon.may_reload.set()
        await asyncio.gather(reload, upgrade)
        assert daemon.asked[:3] == ["reload", "reloaded", "hand over"]

    serve(scenario, Launch(answer("b'1'")))


def test_nothing_changes_while_it_drains(serve: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """SIGHUP in the last minute opens no place, and what is open still has its time, however often it is told."""

    async def scenario(served: Process, daemon: Served) -> None:
        await command(served, "drain")
        for change in ("reload", "upgrade"):
            with pytest.raises(process.AboutToEnd):
                await command(served, change)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "not reloaded" in caplog.text)
        await command(served, "drain")
        daemon.on_fenced()
        for _ in range(10):
            await asyncio.sleep(0)
        assert daemon.asked == ["drain"]
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: "close" in daemon.asked)

    serve(scenario)
    assert "not reloaded" in caplog.text


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (answer("b''"), "exit code 0, and its last lines"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "exit code 3"),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], "SIGKILL ended it"),
        ([sys.executable, "-c", f"{SUCCESSOR}{STAYS}"], "told to end meanwhile"),
    ],
)
def test_a_successor_that_does_not_serve_is_gone_and_it_is_said_why(
    serve: Callable[..., Any], script: list[str], why: str
) -> None:
    """Whether it ends, or takes its time and this process is told to end meanwhile."""
    launcher = Launch(script)

    async def scenario(served: Process, daemon: Served) -> None:
        upgrade = asyncio.create_task(command(served, "upgrade"))
        if script[-1].endswith(STAYS):
            await until(lambda: launcher.started)
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(UpgradeFailed, match=why):
            await upgrade
        assert launcher.started[0].returncode is not None
        assert "hand over" not in daemon.asked

    serve(scenario, launcher)


def test_a_successor_that_is_given_up_is_gone_before_its_pipe(
    serve: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The end of the pipe tells it that this process gives way: it would take over what stays here."""
    codes = []

    class Watched:
        def __init__(self, successor: subprocess.Popen[bytes], ready: Any) -> None:
            self.successor, self.ready, self.fileno = successor, ready, ready.fileno

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            codes.append(self.successor.returncode)
            self.ready.close()

    class Watching(Launch):
        def start(self, *given: Any) -> tuple[subprocess.Popen[bytes], Any]:
            successor, ready = super().start(*given)
            return successor, Watched(successor, ready)

    async def scenario(served: Process, daemon: Served) -> None:
        with pytest.raises(UpgradeFailed, match=r"not ready within 0.01 s, and was killed"):
            await command(served, "upgrade")
        assert "not upgraded: the new process did not begin to serve: it was not ready" in caplog.text
        assert codes == [-signal.SIGKILL]

    serve(scenario, Watching([sys.executable, "-c", STAYS], patience=0.01))


def test_what_was_counted_is_taken_over_once_the_process_before_gives_way(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it may still end this one, the next would take the same over again."""
    read, write = os.pipe()
    monkeypatch.setenv(systemd.READY, str(write))

    async def scenario(served: Process, daemon: Served) -> None:
        assert os.read(read, 2) == b"1"
        for _ in range(100):
            await asyncio.sleep(0)
        assert daemon.asked == []
        os.close(read)
        await until(lambda: daemon.asked == ["take over"])

    serve(scenario)


def test_a_successor_that_takes_too_long_is_gone(serve: Callable[..., Any]) -> None:
    async def scenario(served: Process, daemon: Served) -> None:
        with pytest.raises(UpgradeFailed):
            await command(served, "upgrade")
        assert "hand over" not in daemon.asked

    serve(scenario, Launch([sys.executable, "-c", STAYS], patience=0.01))


def test_the_watchdog_is_the_successor_s_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd names the process that it started; the one that takes over has to answer in its place."""
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert systemd.watchdog_interval() == 1.5
    script = f"{SUCCESSOR}os.write(tell, repr(systemd.watchdog_interval()).encode())"
    successor, ready = Launcher([sys.executable, "-c", script]).start({}, Counted(), {}, [])
    with ready:
        assert ready.read() == b"1.5"
    successor.wait()
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_interval() is None


def test_a_daemon_is_closed_whatever_becomes_of_its_figures(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = Mock(close=AsyncMock(side_effect=RuntimeError("they are lost")))
    monkeypatch.setattr(process.Process, "_tell_figures", lambda self: Mock(exporter=exporter))
    served = []

    async def scenario(process: Process, daemon: Served) -> None:
        served.append(daemon)

    with pytest.raises(RuntimeError, match="they are lost"):
        serve(scenario)
    assert served[0].asked == ["drain", "close"]


@pytest.mark.parametrize("what", ["reload", "upgrade", "drain"])
def test_a_manager_that_is_away_changes_nothing(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """What was asked for is done: else a reload would fail, and after an upgrade two processes would serve."""

    async def scenario(process: Process, daemon: Served) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
        await command(process, what)
        await asyncio.sleep(0)
        asked = {"reload": ["reload", "reloaded"], "upgrade": ["hand over"], "drain": []}
        assert daemon.asked[: len(asked[what])] == asked[what]

    serve(scenario, Launch(answer("b'1'")))
    assert "$NOTIFY_SOCKET ('/nowhere/notify') can't be told" in caplog.text


def test_a_successor_lets_go_of_places_that_are_no_more_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file may have changed since; a socket of the service manager that nothing means is a mistake."""
    text = '[[forward]]\nlisten = "127.0.0.1:1"\nto = "dtp://alice/api"\n'
    for replaces in (True, False):
        with socket.socket() as sock, contextlib.ExitStack() as stack:
            sock.bind(("127.0.0.1", 0))
            name = f"127.0.0.1:{sock.getsockname()[1]}"
            if replaces:
                monkeypatch.setenv(systemd.READY, "1")
            else:
                monkeypatch.delenv(systemd.READY)
                stack.enter_context(pytest.raises(ConfigError, match="handed over"))
            assert by_setting(config(tmp_path, text), "unix:/x", [(name, sock)]) == {}
            assert sock.fileno() < 0
            assert f"{name} is in the file no more" in caplog.text


def test_a_successor_finds_sockets_by_their_settings_and_places(tmp_path: Path) -> None:
    """The kernel chose their ports, or the setting is another and means the same place."""
    with socket.socket() as one, socket.socket() as other, socket.socket() as page, socket.socket() as moved:
        for sock in (one, other, page, moved):
            sock.bind(("127.0.0.1", 0))
        port = moved.getsockname()[1]
        text = f"""[daemon]
listen = ["tcp://127.0.0.1:0", "tcp://127.0.0.1:{port}?backlog=9"]
[web]
listen = "127.0.0.1:0"
[[expose]]
service = "api"
backend = "127.0.0.1:1"
allow = "*"
[[forward]]
listen = "127.0.0.1:0"
to = "dtp://alice/api"
"""
        handed = [("127.0.0.1:0", one), ("tcp://127.0.0.1:0", other), ("web 127.0.0.1:0", page)]
        handed.append((f"tcp://127.0.0.1:{port}", moved))
        assert by_setting(config(tmp_path, text), "unix:/x", handed) == {
            "127.0.0.1:0": [one],
            "tcp://127.0.0.1:0": [other],
            "web 127.0.0.1:0": [page],
            f"tcp://127.0.0.1:{port}?backlog=9": [moved],
        }
