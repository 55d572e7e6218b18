"""Who is measured, as a table: each row names the module that can serve and drive it, and what it needs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

#: Where py-libp2p is installed, when not here: it has many dependencies, so a virtual environment of its own is best.
LIBP2P_PYTHON = "BENCH_LIBP2P_PYTHON"

STREAMS = "bench.contenders.streams"
PROTOCOLS = "bench.contenders.protocols"


@dataclass(frozen=True)
class Contender:
    """A row. `module` has `serve(job, ready)` and `drive(job, where)`; `variant` tells them which of theirs."""

    name: str
    label: str
    module: str
    variant: str
    #: What it can be measured in.
    workloads: frozenset[str]
    #: Python modules and programs that it needs.
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    #: It gets this part of the bytes and of the messages, so that slow ones don't hold up the rest.
    share: float = 1.0
    #: Measured with `--quick`.
    quick: bool = False
    #: Environment of its processes, beside ours.
    env: tuple[tuple[str, str], ...] = ()

    def missing(self) -> str:
        """Why it can't be measured here, or ""."""
        if self.variant == "libp2p" and (python := os.environ.get(LIBP2P_PYTHON)):
            done = subprocess.run([python, "-c", "import libp2p"], capture_output=True, check=False)
            return "" if done.returncode == 0 else f"{python} can't import libp2p"
        for module in self.modules:
            if importlib.util.find_spec(module) is None:
                return f"not installed (Python module {module})"
        for program in self.programs:
            if shutil.which(program) is None:
                return f"not installed (program {program})"
        return ""

    @property
    def python(self) -> str:
        """The interpreter of its processes."""
        if self.variant == "libp2p":
            return os.environ.get(LIBP2P_PYTHON, sys.executable)
        return sys.executable


_ALL = frozenset({"bulk", "roundtrip", "messages", "dial", "idle"})
_DATA = frozenset({"bulk", "roundtrip", "messages"})
_BULK = frozenset({"bulk"})

TABLE: tuple[Contender, ...] = (
    Contender("dtp", "DTP, AES-256-GCM", STREAMS, "dtp", _ALL, quick=True),
    Contender(
        "tls-buffered", "asyncio TLS 1.3, BufferedProtocol", PROTOCOLS, "tls-buffered", _DATA, quick=True
    ),
    Contender("raw-buffered", "asyncio TCP, BufferedProtocol", PROTOCOLS, "raw-buffered", _DATA, quick=True),
    Contender("tls-streams", "asyncio TLS 1.3, streams", STREAMS, "tls", _ALL, quick=True),
    Contender("dtp-open", "DTP, open_connection()", STREAMS, "dtp-open", _DATA, quick=True),
    Contender(
        "dtp-protocol", "DTP, create_connection(), Protocol", PROTOCOLS, "dtp-protocol", _DATA, quick=True
    ),
    Contender("dtp-chacha", "DTP, ChaCha20-Poly1305", STREAMS, "dtp-chacha", _DATA),
    Contender(
        "dtp-sodium",
        "DTP, AES-256-GCM of libsodium",
        STREAMS,
        "dtp",
        _BULK,
        env=(("DTP_PROVIDER", "sodium"),),
    ),
    Contender(
        "dtp-openssl",
        "DTP, AES-256-GCM of OpenSSL",
        STREAMS,
        "dtp",
        _BULK,
        env=(("DTP_PROVIDER", "openssl"),),
    ),
    Contender("tls-protocol", "asyncio TLS 1.3, Protocol", PROTOCOLS, "tls-protocol", _DATA),
    Contender("raw-protocol", "asyncio TCP, Protocol", PROTOCOLS, "raw-protocol", _DATA),
    Contender("raw-streams", "asyncio TCP, streams", STREAMS, "raw", _ALL),
    Contender("blocking", "blocking sockets", "bench.contenders.blocking", "raw", _DATA),
    Contender("noise", "noiseprotocol over asyncio TCP", PROTOCOLS, "noise", _DATA, ("noise",), share=1 / 4),
    Contender("zmq-curve", "pyzmq CURVE", "bench.contenders.zeromq", "curve", _DATA, ("zmq",), share=1 / 4),
    Contender("quic", "aioquic", STREAMS, "quic", _DATA, ("aioquic",), share=1 / 64),
    Contender("stunnel", "stunnel pair", PROTOCOLS, "stunnel", _DATA, programs=("stunnel",), share=1 / 2),
    Contender("spiped", "spiped pair", PROTOCOLS, "spiped", _DATA, programs=("spiped",), share=1 / 8),
    Contender(
        "libp2p",
        "py-libp2p, Noise over TCP",
        "bench.contenders.libp2p_noise",
        "libp2p",
        _DATA,
        ("libp2p",),
        share=1 / 32,
    ),
    Contender("dtp-xx", "DTP, XX handshake", STREAMS, "dtp-xx", frozenset({"dial"})),
    Contender("tls-mutual", "asyncio TLS 1.3, mutual, streams", STREAMS, "tls-mutual", frozenset({"dial"})),
    Contender("carrier", "DTP's TCP carrier, no session", "bench.contenders.carrier", "tcp", _BULK),
)

BY_NAME = {contender.name: contender for contender in TABLE}
