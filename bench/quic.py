"""`python -m bench.quic`: the QUIC libraries that there are, side by side, in processor time.

Both ends are in this process, and what one sends the other gets, without sockets and without loss: what is measured
is the library. Decision 299 has chosen by it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import logging
import ssl
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import trustme

from bench import machine

LIBRARIES: Final = ("aioquic", "qh3")
COLUMNS: Final = ("handshake ms", "MB/s", "us a packet")
MIB: Final = 1024 * 1024
#: Bytes written at once, and bytes that may be under way.
_PIECE, _AHEAD = 65536, MIB
_NEAR, _FAR = ("127.0.0.1", 1), ("127.0.0.1", 2)


class Pair:
    """Two connections of one library, and a clock that goes on by itself."""

    def __init__(self, library: str, keys: Path) -> None:
        module = importlib.import_module
        settings = module(f"{library}.quic.configuration").QuicConfiguration
        self._connection = module(f"{library}.quic.connection").QuicConnection
        self._events = module(f"{library}.quic.events")
        common: dict[str, Any] = {
            "alpn_protocols": ["bench"],
            "max_datagram_frame_size": 65536,
            "max_datagram_size": 1200,
        }
        self._server_settings = settings(is_client=False, **common)
        self._server_settings.load_cert_chain(str(keys), str(keys))
        self.near = self._connection(
            configuration=settings(is_client=True, verify_mode=ssl.CERT_NONE, **common)
        )
        self.far: Any = None
        self.now = 1000.0
        self.done = False
        self.received = self.packets = 0
        self.near.connect(_FAR, now=self.now)

    def turn(self) -> None:
        """Let each have what the other sends; where that is nothing, what their timers are for."""
        sent = self.near.datagrams_to_send(now=self.now)
        for data, _ in sent:
            if (
                self.far is None
            ):  # a first packet: 1 byte, 4 of the version, then the length of the connection's id
                first = data[6 : 6 + data[5]]
                self.far = self._connection(
                    configuration=self._server_settings, original_destination_connection_id=first
                )
            self.far.receive_datagram(data, _NEAR, now=self.now)
        self._take(self.far)
        answered = self.far.datagrams_to_send(now=self.now)
        for data, _ in answered:
            self.near.receive_datagram(data, _FAR, now=self.now)
        self._take(self.near)
        self.now += 0.0001
        if not sent and not answered:
            self._timers()

    def _timers(self) -> None:
        both = [each for each in (self.near, self.far) if each.get_timer() is not None]
        due = min((each.get_timer() for each in both), default=self.now)
        if due < self.now + 2:  # not the idle timer
            self.now = max(self.now, due)
        for each in both:
            if each.get_timer() is not None and each.get_timer() <= self.now:
                each.handle_timer(now=self.now)

    def _take(self, connection: Any) -> None:
        events = self._events
        while (event := connection.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                self.received += len(event.data)
            elif isinstance(event, events.DatagramFrameReceived):
                self.packets += 1
            elif isinstance(event, events.HandshakeCompleted) and connection is self.near:
                self.done = True
            elif isinstance(event, events.ConnectionTerminated):
                raise RuntimeError(f"ended: {event.reason_phrase}")


def measure(library: str, keys: Path, size: int, packets: int) -> tuple[float, float, float]:
    """Return the row of `COLUMNS` for a library."""
    began = time.process_time()
    pair = Pair(library, keys)
    while not pair.done:
        pair.turn()
    for _ in range(20):
        pair.turn()
    handshake = time.process_time() - began
    began, sent, piece = time.process_time(), 0, bytes(_PIECE)
    while pair.received < size:
        if sent < size and sent - pair.received < _AHEAD:
            pair.near.send_stream_data(0, piece)
            sent += _PIECE
        pair.turn()
    bulk = time.process_time() - began
    began = time.process_time()
    for _ in range(packets):
        pair.near.send_datagram_frame(bytes(200))
        pair.turn()
    each = (time.process_time() - began) / packets
    if pair.packets != packets:
        raise RuntimeError(f"{library}: {pair.packets} of {packets} packets have come")
    return handshake * 1e3, size / MIB / bulk, each * 1e6


def main() -> None:
    """Print the table, and keep it with `--save`."""
    parser = argparse.ArgumentParser(prog="python -m bench.quic", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=8 * MIB, help="bytes of a transfer (default 8 MiB)")
    parser.add_argument("--packets", type=int, default=5000)
    parser.add_argument("--save", metavar="FILE", help="keep the rows as JSON")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows: dict[str, list[tuple[float, float, float]]] = {each: [] for each in LIBRARIES}
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.pem"
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(keys))
        for library in LIBRARIES:
            measure(library, keys, MIB, 10)  # loading it, and what it makes once
        for _ in range(options.rounds):
            for library in LIBRARIES:
                rows[library].append(measure(library, keys, options.size, options.packets))
    medians = {
        name: [statistics.median(column) for column in zip(*found, strict=True)]
        for name, found in rows.items()
    }
    print("| | " + " | ".join(COLUMNS) + " |\n|---" + "|---" * len(COLUMNS) + "|")
    for name, row in medians.items():
        version = importlib.metadata.version(name)
        print(f"| {name} {version} | " + " | ".join(f"{value:.3g}" for value in row) + " |")
    if options.save:
        kept = {"machine": machine.facts(), "columns": COLUMNS, "medians": medians, "rounds": rows}
        Path(options.save).write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
