"""What the machine is and what runs on it: without it a number means nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.runner import ROOT

_FLAGS = ("aes", "vaes", "avx2", "avx512f", "avx512vl", "vpclmulqdq", "sha_ni")
_PACKAGES = ("pynacl", "cryptography", "noiseprotocol", "cffi", "pyzmq", "aioquic", "libp2p", "websockets")


def facts() -> dict[str, object]:
    """CPU, kernel, Python, libraries, TCP's congestion control, the commit and how busy the machine is."""
    model, flags = _cpu()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "cores usable": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "hypervisor": "hypervisor" in flags,
        "kernel": platform.release(),
        "system": _distribution(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl of ssl": ssl.OPENSSL_VERSION,
        "packages": _versions(),
        "libsodium": _libsodium(),
        "providers": _providers(),
        "tcp congestion control": setting("tcp_congestion_control"),
        "commit": _commit(),
        "load average": load(),
    }


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8").strip()
    return ""


def _cpu() -> tuple[str, set[str]]:
    lines = (line.partition(":") for line in _read("/proc/cpuinfo").splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    numbers = f"family {fields.get('cpu family')}, model {fields.get('model')}"
    model = f"{fields.get('model name', platform.processor())} ({numbers})"
    return model, set(fields.get("flags", "").split())


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return platform.system()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _libsodium() -> str:
    from nacl import _sodium

    with contextlib.suppress(AttributeError):
        return str(_sodium.ffi.string(_sodium.lib.sodium_version_string()).decode())
    return "of PyNaCl's wheel"


def _providers() -> dict[str, str]:
    from dtp.core import providers

    return providers()


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--", "dtp", "dtp_core")
    return (commit + (" with changes" if changed else "")) or "unknown"


def load() -> list[float]:
    """The load averages."""
    return [round(value, 2) for value in os.getloadavg()]


def setting(name: str) -> str:
    """A setting of IPv4 in this kernel; "" where there is none."""
    return _read(f"/proc/sys/net/ipv4/{name}")


@contextlib.contextmanager
def default_congestion(name: str) -> Iterator[None]:
    """For all programs of this machine, until the end: TCP's congestion control. For root; `PermissionError`."""
    path = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    before = path.read_text(encoding="ascii")
    path.write_text(name, encoding="ascii")
    try:
        yield
    finally:
        path.write_text(before, encoding="ascii")


def may_set(congestion: str) -> bool:
    """Whether a TCP socket of ours may have this congestion control."""
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        except OSError:
            return False
    return True
