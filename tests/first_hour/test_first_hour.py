"""A newcomer's first hour: what README and the guide say, word for word, in a fresh environment outside the checkout.

Each `$ ` line of their console blocks is run by a shell as it stands, but for what the text leaves open (ADDRESS);
each block of Python runs as a file elsewhere. A line that nobody runs here fails the test: teach it, or say why not.
It takes minutes, since the package and all that it needs are installed, and binds the port that the documents name.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guide.md"
#: Seconds for one command; installing takes longest.
PATIENCE = 900
#: The code of the guide is one program, with `await` at its top level.
TOGETHER = """
import ast, asyncio, inspect, sys
names = {"__name__": "guide"}
with asyncio.Runner() as runner:
    for path in sys.argv[1:]:
        code = compile(open(path).read(), path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.isawaitable(result):
            async def work(found=result):
                await found
            runner.run(work())
"""


def console(path: Path) -> list[str]:
    """The lines of a page's console blocks that begin with `$ `, as they are typed."""
    blocks = re.findall(r"^```console\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [
        line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]


def programs(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def promised(code: str) -> list[str]:
    return [line.partition("# -> ")[2] for line in code.splitlines() if "# -> " in line]


class Newcomer:
    """Somebody's home, with a copy of the checkout in it and an environment for Python."""

    def __init__(self, home: Path) -> None:
        self.home, self.checkout, self.work = home, home / "checkout", home / "work"
        self.left: dict[Path, list[str]] = {path: console(path) for path in (README, GUIDE)}
        self._running: list[subprocess.Popen[str]] = []
        for name in ("work", "public", "Downloads", "backup", ".config/dtp", ".config/fish/completions"):
            (home / name).mkdir(parents=True)
        names = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.checkout / name)
        subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("DTP", "PYTHON", "XDG"))
        }
        self.environment = {**kept, "HOME": str(home), "PATH": f"{home}/venv/bin:{os.environ['PATH']}"}
        self.environment["VIRTUAL_ENV"] = str(home / "venv")

    def line(self, page: Path, beginning: str) -> str:
        """The line of a page that begins so, which counts as run from now on."""
        found = next((each for each in self.left[page] if each.startswith(beginning)), None)
        assert found is not None, f"{page.name} has no line that begins with {beginning!r}"
        self.left[page].remove(found)
        return found

    def run(self, line: str, *, where: Path | None = None, given: bytes = b"", **put: str) -> str:
        """Run a line to its end, and give what it printed. `put` is what the text leaves open."""
        done = subprocess.run(
            ["bash", "-c", _filled(line, put)],
            cwd=where or self.work,
            env=self.environment,
            input=given,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout.decode()}{done.stderr.decode()}"
        return done.stdout.decode()

    def start(self, line: str, **put: str) -> subprocess.Popen[str]:
        """Start a line that goes on until it is ended."""
        running = subprocess.Popen(
            ["bash", "-c", f"exec {_filled(line, put)}"],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running.append(running)
        return running

    def close(self) -> None:
        for each in self._running:
            each.terminate()
        for each in self._running:
            each.communicate(timeout=60)


def _filled(line: str, put: dict[str, str]) -> str:
    for name, value in put.items():
        line = line.replace(name, shlex.quote(value))
    return line


def address(running: subprocess.Popen[str], service: str = "") -> str:
    """The first address that a command prints, of this service."""
    assert running.stdout is not None
    watchdog = threading.Timer(PATIENCE, running.kill)
    watchdog.start()
    try:
        for line in running.stdout:
            found = re.search(rf"dtp\+tcp://dtp1\w+@[\w.:\[\]]+/{service}[\w-]*", line)
            if found:
                return found[0]
    finally:
        watchdog.cancel()
    raise AssertionError(f"{running.args} printed no address")


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    somebody = Newcomer(tmp_path / "home")
    yield somebody
    somebody.close()


def test_the_first_hour(newcomer: Newcomer) -> None:
    install(newcomer)
    code_of_the_readme(newcomer)
    commands_of_the_readme(newcomer)
    code_of_the_guide(newcomer)
    commands_of_the_guide(newcomer)
    assert newcomer.left == {README: [], GUIDE: []}, "lines that nobody has run"


def install(newcomer: Newcomer) -> None:
    shown = newcomer.run(newcomer.line(README, "pip install . && dtp demo"), where=newcomer.checkout)
    assert "equal: the file arrived as it was sent" in shown
    newcomer.line(README, "pip install '.[test]' && pytest")  # .ci/run does
    newcomer.run(newcomer.line(GUIDE, "pip install ."), where=newcomer.checkout)
    assert "equal: the file arrived as it was sent" in newcomer.run(newcomer.line(GUIDE, "dtp demo"))


def code_of_the_readme(newcomer: Newcomer) -> None:
    for number, code in enumerate(programs(README)):
        (newcomer.work / f"readme_{number}.py").write_text(code)
        assert newcomer.run(f"python readme_{number}.py").splitlines() == promised(code)


def commands_of_the_readme(newcomer: Newcomer) -> None:
    def line(beginning: str) -> str:
        return newcomer.line(README, beginning)

    me = re.search(r"dtp1\w+", newcomer.run(line("dtp keygen")))
    assert me is not None
    echo = address(newcomer.start(line("dtp serve --echo")))
    assert newcomer.run(line("dtp cat ADDRESS"), ADDRESS=echo, given=b"hello\n") == "hello\n"
    everywhere = _here(address(newcomer.start(line("dtp serve --echo --listen"))))
    assert newcomer.run("dtp cat ADDRESS", ADDRESS=everywhere, given=b"hello\n") == "hello\n"
    ping = line("dtp ping ADDRESS")
    assert "round trip" in newcomer.run(ping.replace("ping", "ping -c 2", 1), ADDRESS=echo)
    (newcomer.work / "holiday.mp4").write_bytes(os.urandom(3_000_000))
    inbox = address(newcomer.start(line("dtp recv --output ~/Downloads")))
    newcomer.run(line("dtp send holiday.mp4 ADDRESS"), ADDRESS=inbox)
    sent = (newcomer.work / "holiday.mp4").read_bytes()
    assert (newcomer.home / "Downloads" / "holiday.mp4").read_bytes() == sent
    (newcomer.work / "holiday.mp4").rename(newcomer.home / "public" / "holiday.mp4")
    serving = newcomer.start(line("dtp serve --file ~/public"))
    files = _here(address(serving, "files"))
    newcomer.run(line("dtp recv ADDRESS/holiday.mp4"), ADDRESS=files)
    assert (newcomer.work / "holiday.mp4").read_bytes() == sent
    assert re.search(r"\d:\d\d", newcomer.run("dtp cat ADDRESS", ADDRESS=files.replace("/files", "/date")))
    serving.terminate()
    serving.wait(60)


def _here(found: str) -> str:
    """An address of this machine that it reaches itself by."""
    return re.sub(r"@.*:(\d+)/", r"@127.0.0.1:\1/", found)


def code_of_the_guide(newcomer: Newcomer) -> None:
    folder = newcomer.home / "guide"
    folder.mkdir()
    blocks = programs(GUIDE)
    for number, code in enumerate(blocks):
        (folder / f"block_{number:02}.py").write_text(code)
    (folder / "together.py").write_text(TOGETHER)
    shown = newcomer.run("python together.py block_*.py", where=folder)
    assert shown.splitlines() == [line for code in blocks for line in promised(code)]


def commands_of_the_guide(newcomer: Newcomer) -> None:
    def line(beginning: str) -> str:
        return newcomer.line(GUIDE, beginning)

    disk = os.urandom(2_000_000)
    (newcomer.home / "public" / "disk.iso").write_bytes(disk)
    # The folder of the backup is the machine's; a newcomer without root has one of its own.
    serve = line("dtp serve --file ~/public --exec backup='tar x -C /srv/backup'")
    serving = newcomer.start(serve.replace("/srv/backup", str(newcomer.home / "backup")))
    found = _here(address(serving, "files")).rpartition("/")[0]
    (newcomer.home / ".config" / "dtp" / "peers.toml").write_text(
        f'[peers.alice]\nid = "{re.findall("dtp1[a-z0-9]+", found)[0]}"\naddresses = ["{found}"]\n'
    )
    newcomer.run(line("dtp recv dtp://alice/files/disk.iso"))
    assert (newcomer.work / "disk.iso").read_bytes() == disk
    (newcomer.work / "photos").mkdir()
    (newcomer.work / "photos" / "one.jpg").write_bytes(b"a photo")
    newcomer.run(line("tar c photos | dtp cat dtp://alice/backup"))
    assert (newcomer.home / "backup" / "photos" / "one.jpg").read_bytes() == b"a photo"
    line("ssh -o ProxyCommand=")  # needs an SSH server
    zsh = "autoload -Uz compinit && compinit; "
    for shell, file, first in (("bash", ".bashrc", ""), ("zsh", ".zshrc", zsh)):
        newcomer.run(line(f"echo '{first}eval \"$(_DTP_COMPLETE={shell}_source dtp)\"'"))
        assert f"{shell}_source dtp" in (newcomer.home / file).read_text()
    newcomer.run(line("_DTP_COMPLETE=fish_source dtp"))
    assert "dtp" in (newcomer.home / ".config" / "fish" / "completions" / "dtp.fish").read_text()
    assert newcomer.run("bash -ic 'complete -p dtp' 2>/dev/null").startswith("complete ")
