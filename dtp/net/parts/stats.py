"""What a connection has done so far, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the connection began, and how it stands. Bytes are of records on carriers; times seconds.

    `handshake` is the Noise protocol's full name, such as `Noise_IK_25519_AESGCM_SHA256`.
    """

    bytes_sent: int
    bytes_received: int
    carriers: tuple[str, ...]
    cipher: str
    handshake: str
    resumes: int
    rtt: float | None
    streams: int
