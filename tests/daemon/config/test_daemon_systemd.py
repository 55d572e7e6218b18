"""The unit that is shipped, under a real systemd: installed as the document says, started, reloaded, upgraded.

That systemd has namespaces of its own in which nothing of this machine can be written: the root is read-only, and
what it and the steps of docs/daemon.md write is in memory. What it starts is dtpd and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..process.test_daemon_programs import ask, connected, echo_server
from ..programs import DTPD, PATIENCE, Place, Program, free_port, need, place
from .test_daemon_packaging import INSTALLING

__all__ = ["place"]

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SYSTEMD = "/lib/systemd/systemd"
FILE = "/etc/dtpd/dtpd.toml"
NAMESPACES = ["unshare", "--cgroup", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
SETUP = """
set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir /run/lock
for folder in etc opt var; do
    mkdir -p /run/layers/$folder /run/layers/$folder.work
    layers=lowerdir=/$folder,upperdir=/run/layers/$folder,workdir=/run/layers/$folder.work
    mount -t overlay overlay -o $layers /$folder
done
mount -o remount,bind,ro /
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /etc/systemd/system /opt/dtpd/bin
printf '[Unit]\\nDefaultDependencies=no\\n' > /etc/systemd/system/nothing.target
export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system
exec "$0" --system --log-target=console --show-status=no --unit=nothing.target
"""


class Systemd:
    """A systemd that has nothing to do; `run` runs a line where it is process 1."""

    def __init__(self, outer: Program) -> None:
        """`outer` is the process in front of the namespaces."""
        self._outer = outer
        children = Path(f"/proc/{outer.process.pid}/task/{outer.process.pid}/children")
        deadline = time.monotonic() + PATIENCE
        while True:
            assert outer.process.poll() is None, outer.errors.decode()
            assert time.monotonic() < deadline, outer.errors.decode()
            if found := children.read_text().split():
                self._inner = int(found[0])
                if self._run("systemctl list-units").returncode == 0:
                    return

    def close(self) -> None:
        """End it, and with it all that it has started."""
        os.kill(self._inner, signal.SIGKILL)
        self._outer.wait(None)

    def _run(self, line: str, given: str = "") -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "--target", str(self._inner), "--all", f"--wd={ROOT}", "bash", "-c", line]
        path = {**os.environ, "PATH": f"/opt/dtpd/bin:{os.environ['PATH']}"}
        return subprocess.run(
            inside, input=given, capture_output=True, text=True, timeout=PATIENCE, check=False, env=path
        )

    def run(self, line: str, code: int = 0, given: str = "") -> str:
        """Run a line to its end, with this exit code; what it printed."""
        done = self._run(line, given)
        if done.returncode != code:
            logged = self._run("cat /run/dtpd.log").stdout + self._outer.errors.decode()
            pytest.fail(f"{line}: {done.returncode}\n{done.stdout}{done.stderr}{logged}")
        return done.stdout

    def unit(self, *names: str) -> list[str]:
        """Properties of dtpd's unit."""
        return [self.run(f"systemctl show dtpd --property={name} --value").strip() for name in names]

    def started_anew(self, *before: object) -> None:
        """Wait until it serves in a process that is none of those before."""
        deadline = time.monotonic() + PATIENCE
        while True:
            main, state = self.unit("MainPID", "ActiveState")
            if state == "active" and main not in ("0", *before):
                return
            assert time.monotonic() < deadline, self.run("cat /run/dtpd.log")


@pytest.fixture
def systemd(place: Place) -> Iterator[Systemd]:
    if os.geteuid() or not os.path.exists(SYSTEMD):
        pytest.skip("a systemd of its own takes root, and systemd")
    if any(str(path).startswith("/tmp/") for path in (ROOT, sys.prefix, sys.base_prefix)):
        pytest.skip("it has another /tmp than this checkout is in")
    need("nsenter")
    need("unshare")
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces can't be made here")
    mounted = re.search(r"^\S+ (\S+) cgroup2 rw", Path("/proc/mounts").read_text(), re.MULTILINE)
    if mounted is None:
        pytest.skip("there is no cgroup2 that can be written")
    folder = Path(mounted[1]) / f"dtp-test-{os.getpid()}"
    folder.mkdir()
    hold = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
    found = Systemd(place.program("bash", "-c", hold, folder, *NAMESPACES, "bash", "-c", SETUP, SYSTEMD))
    yield found
    found.close()
    for each in (*sorted(folder.rglob("*/"), reverse=True), folder):
        each.rmdir()


def install(systemd: Systemd, backend: int, port: int) -> None:
    """The steps of the document, but for packages: the program is that of this environment."""
    program = f'#!/bin/sh\nexec {sys.executable} -P -c "{DTPD}" "$@"\n'
    systemd.run("cat > /opt/dtpd/bin/dtpd; chmod 755 /opt/dtpd/bin/dtpd", given=program)
    # Whoever tests may have Python and the checkout in a home, which the unit doesn't see.
    homes = [str(path) for path in (sys.base_prefix, sys.prefix, ROOT)]
    homes = [path for path in homes if path.startswith(("/root/", "/home/"))]
    drop_in = ["[Unit]", "DefaultDependencies=no", "[Service]"]
    drop_in += [f"Standard{name}=append:/run/dtpd.log" for name in ("Output", "Error")]
    drop_in += ["ProtectHome=tmpfs", f"BindReadOnlyPaths={' '.join(homes)}"] if homes else []
    folder = "/etc/systemd/system/dtpd.service.d"
    systemd.run(f"mkdir {folder}; cat > {folder}/test.conf", given="\n".join(drop_in) + "\n")
    steps = [line.partition("  #")[0].strip() for line in INSTALLING.splitlines()]
    steps = [step.removeprefix("$ sudo ") for step in steps if step.startswith("$ sudo ")]
    for step in steps[: steps.index("dtpd status") + 1]:
        if step.startswith("dtpd init"):
            systemd.run(f"{step} --expose api=127.0.0.1:{backend} --allow '*'")
            systemd.run(f"sed -i 's|0.0.0.0:[0-9]*|127.0.0.1:{port}|' {FILE}")
        elif not step.startswith(("apt ", "python3 -m venv ", "/opt/dtpd/bin/pip ", "ln ")):
            systemd.run(step)


def status(systemd: Systemd) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(systemd.run(f"dtpd status --json -c {FILE}"))
    return found


MORE = """[[expose]]
service = "more"
backend = "127.0.0.1:1"
allow = "*"
"""


def test_it_is_installed_as_the_document_says_and_lives(systemd: Systemd, place: Place) -> None:
    """Each change is told to systemd, which starts it again when it is killed."""
    port = free_port()
    install(systemd, echo_server(place), port)
    assert systemd.unit("ActiveState", "StatusText") == ["active", "Serving"]
    (first,) = systemd.unit("MainPID")
    to = f"dtp+tcp://{status(systemd)['identity']}@127.0.0.1:{port}/api"
    _, places = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"')
    near = int(places[0]["listen"].rpartition(":")[2])
    with connected(near) as client:
        ask(client, b"before")
        systemd.run(f"cat >> {FILE}", given=MORE)
        systemd.run("systemctl reload dtpd")
        assert [one["service"] for one in status(systemd)["exposed"]] == ["api", "more"]
        systemd.run(f"cp {FILE} /run/good; echo 'colour = 1' >> {FILE}")
        systemd.run("systemctl reload dtpd", code=1)
        assert systemd.unit("ActiveState", "MainPID") == ["active", first]
        systemd.run(f"cp /run/good {FILE}; dtpd upgrade -c {FILE}")
        (second,) = systemd.unit("MainPID")
        assert second not in ("0", first)
        ask(client, b"over the old process")
        with connected(near) as new:
            ask(new, b"over the new one")
        assert systemd.unit("ActiveState", "NRestarts") == ["active", "0"]
    systemd.run("systemctl kill --kill-who=main --signal=KILL dtpd")
    systemd.started_anew(first, second)
    with connected(near) as client:
        ask(client, b"after it was killed")
    systemd.run("systemctl stop dtpd")
    assert systemd.unit("ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]


def test_what_only_a_person_mends_is_not_tried_again(systemd: Systemd, place: Place) -> None:
    install(systemd, echo_server(place), free_port())
    systemd.run("systemctl stop dtpd")
    systemd.run(f"cp {FILE} /run/good; echo 'colour = 1' >> {FILE}")
    systemd.run("systemctl start dtpd", code=1)
    assert systemd.unit("ActiveState", "ExecMainStatus", "NRestarts") == ["failed", "78", "0"]
    systemd.run(f"cp /run/good {FILE}; systemctl start dtpd")
    assert systemd.unit("ActiveState") == ["active"]


def test_one_that_hangs_or_dies_beside_an_old_process_is_started_again(
    systemd: Systemd, place: Place
) -> None:
    """It tells its watchdog nothing any more: systemd hears of no end of a process that another one has started."""
    port = free_port()
    install(systemd, echo_server(place), port)
    systemd.run(
        "sed -i 's/^WatchdogSec=.*/WatchdogSec=5s/' /etc/systemd/system/dtpd.service; systemctl daemon-reload;"
        "systemctl restart dtpd"
    )
    before = systemd.unit("MainPID")
    systemd.run("systemctl kill --kill-who=main --signal=STOP dtpd")
    systemd.started_anew(*before)
    to = f"dtp+tcp://{status(systemd)['identity']}@127.0.0.1:{port}/api"
    _, places = place.dtpd("near", f'[[forward]]\nlisten = "127.0.0.1:0"\nto = "{to}"')
    with connected(int(places[0]["listen"].rpartition(":")[2])) as client:
        ask(client, b"before")
        systemd.run(f"dtpd upgrade -c {FILE}")
        ask(client, b"over the old process")
        before = systemd.unit("MainPID")
        systemd.run("systemctl kill --kill-who=main --signal=KILL dtpd")
        systemd.started_anew(*before)
