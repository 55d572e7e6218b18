"""Every limit of the protocol in one table: its default and the reason for it.

Sizes are bytes, times seconds. Those marked "told" go to the peer in the handshake; the others are our own
affair. Past a limit there is a named error, and other connections feel nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields

from dtp.errors import ConfigError

KIB = 1024
MIB = 1024 * KIB


#: Between these is the least length of a padded record: below it hides little, above it most of a line is padding.
LEAST_PADDING, MOST_PADDING = 64, 4 * KIB

#: Streams that the peer may open before it hears that it may open more, whatever `streams` allows: one frame opens
#: all up to the one that it names, at 3 to 5 us each, and that is one step of the loop.
STREAMS_AHEAD = 512

#: What comes on a stream for whose acknowledgements nobody waits (`Session.delay_acks`) is acknowledged after so many
#: seconds, unless so many bytes have come by then: a message by itself costs as much to acknowledge as to receive.
#: `AckWatch` asks after 1.5 s at the soonest.
LATE_ACK, LATE_BYTES = 1.0, 16 * KIB

#: A time that does not come.
NEVER = float("inf")

#: A carrier is silent when nothing has come for so many seconds since a PING, or for four round trips: its client
#: dials another one beside it. Less would be met by peers that have no processor for a moment.
SILENT = 1.0

#: Where streams are open, and so many bytes have moved since the last PING, one is sent after so many seconds of
#: silence, and not only after `keepalive`: who waits for more learns soon that its way is gone. A PING and its answer
#: are a hundredth of what has moved.
WORK_PAUSE, WORK_BYTES = 2.0, 8 * KIB

#: What a gateway of a show has answered and browsers haven't taken, all together: four segments of the largest size,
#: or two minutes of 4 Mbit/s. Past it the one that has most of it is closed, of the place where most of it is.
GATEWAY_UNTAKEN = 64 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection. Make another with `dataclasses.replace(limits, idle=60)`."""

    #: A peer that needs longer is broken or means harm; ghostunnel and nginx give 10 and 60 s.
    handshake: float = 10.0
    #: Handshake payload: identity, proof, service and a ticket need under 1 KiB; more is an attack.
    payload: int = 8 * KIB
    #: Plaintext of a record. From 4 KiB up the size hardly matters for speed; larger ones delay small messages
    #: on slow lines.
    record: int = 65_519
    #: Records are padded to this length on the wire, or its double, fourfold... up to a full record; 0: not at all.
    #: Whoever listens then learns sizes only roughly, for less than twice the bytes, and sees when some is sent.
    padding: int = 0
    #: What one stream may have unread. Full speed over 100 ms needs bandwidth x delay: 4 MiB is 320 Mbit/s.
    stream_window: int = 4 * MIB
    #: ... and at first (told). It has more once some was read of it, or has come while others have little unread, so
    #: that even 30 streams of which nobody reads anything leave room for all others. Keep it a small part of
    #: `connection_window`: where it is above a half, two streams that nobody reads fill that, and no other moves.
    first_window: int = 256 * KIB
    #: What all streams of a connection may have unread together (told): bounds memory, lets several streams run.
    connection_window: int = 16 * MIB
    #: What is sent and not acknowledged, and so kept; above it sending pauses, whatever credit the peer gives. Eight
    #: default windows, and 1.3 GB/s over `ack_delay`: only who never acknowledges gets there.
    unacknowledged: int = 128 * MIB
    #: What all connections of a listener keep together, unread, not acknowledged, in carriers or for open streams;
    #: those of one source (an address, or an IPv6 /64) half of it: sixteen full connection windows. Past it the one
    #: that keeps most is ended, and what one that has ended has left unread is dropped.
    held: int = 512 * MIB
    #: Streams that the peer may have open at once (told, see `STREAMS_AHEAD`). 1,000 idle streams cost about 2 MiB.
    streams: int = 1024
    #: A datagram (told): what fits one record with its frame header.
    datagram: int = 60 * KIB
    #: Datagrams waiting to be read or sent; the oldest goes first, as with UDP.
    datagrams: int = 1024
    #: ... and bytes of them: so many of what networks carry in one packet, not of the largest.
    datagram_buffer: int = 2 * MIB
    #: What `write` takes before `drain` waits: enough to keep the sealer busy, small enough to stay in the cache.
    write_high: int = MIB
    write_low: int = 256 * KIB
    #: Send a ping after this silence, so that a dead carrier is noticed and NATs keep their mapping. 0: never.
    keepalive: float = 15.0
    #: An unanswered ping for this long means that the carrier is dead.
    dead: float = 10.0
    #: Close a connection on which no stream data moved for this long. 0: never.
    idle: float = 0.0
    #: How long a connection without carrier waits to be resumed; what is unacknowledged is kept as long. It does
    #: not begin anew with carriers that die before any of that has passed.
    resume: float = 60.0
    #: Acknowledge what was received after this at the latest: frees the sender's memory, costs one frame.
    ack_delay: float = 0.1
    #: A stream's turn at least when several want to send; each has an equal part of what is sealed at once.
    quantum: int = 32 * KIB
    #: Move to the next key after so much plaintext: far below AES-GCM's bound of 2^36 records of 2^16 blocks.
    rekey_bytes: int = 64 * 1024 * MIB
    #: ... and after so much time, so that a stolen key opens little of the past, also where nothing moves.
    rekey_time: float = 900.0
    #: A client asks for keys of a fresh exchange when those in use are so old, or have sealed `rekey_bytes`, and
    #: something moves (0: never), so that a stolen key opens little of the future either. As WireGuard; over pipes
    #: through the chain an hour at least.
    exchange: float = 120.0
    #: Carriers at once: more than a handful gains nothing and costs a socket each.
    links: int = 8
    #: Half-open connections (listener): in all, and from one source. Past it the lot decides who makes
    #: room: of 800 a second from one address, three of four that need 0.1 s for an answer come through.
    half_open: int = 512
    half_open_per_source: int = 256
    #: Connections that one listener holds, or fewer where the process may open fewer files; each idle one costs about
    #: 20 KiB. Past it whoever has been idle longest goes, of the source that has most.
    connections: int = 100_000
    #: Control frames that wait to be sent (answers to pings and the like): past it the peer floods us.
    control: int = 1024
    #: Frames that move nothing (repetitions, unasked answers, pings, empty datagrams, metering): at once, ...
    idle_frames: int = 4096
    #: ... and a second, beside one for each 16 KiB that moves. Past it the peer floods us.
    idle_frame_rate: int = 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ConfigError(f"limit {field.name!r} must not be negative")
        if not 256 <= self.record <= 65_519:
            raise ConfigError("limit 'record' must be between 256 and 65519 bytes (a Noise message)")
        if 0 < self.exchange < 1:
            raise ConfigError("limit 'exchange' must be 0, or at least 1 second: servers answer no more")
        if self.padding and not LEAST_PADDING <= self.padding <= MOST_PADDING:
            raise ConfigError(
                f"limit 'padding' must be 0, or between {LEAST_PADDING} and {MOST_PADDING} bytes"
            )
        if self.stream_window < KIB or self.connection_window < self.stream_window:
            raise ConfigError(
                "limit 'connection_window' must be at least 'stream_window', and that 1024 bytes"
            )
        for name in ("first_window", "unacknowledged"):
            if getattr(self, name) < KIB:
                raise ConfigError(f"limit {name!r} must be at least 1024 bytes: nothing moves without any")
        if not 0 < self.datagram <= 65_515:
            raise ConfigError("limit 'datagram' must be between 1 and 65515 bytes (one record)")
        if self.datagram_buffer < self.datagram:
            raise ConfigError(
                "limit 'datagram_buffer' must be at least 'datagram', or none would ever be kept"
            )
        if self.first_credit > self.connection_window // 2:  # enough for one stream, so not refused
            warnings.warn(
                "limit 'first_window', or 'stream_window' where that is less, is more than half of "
                "'connection_window': two streams that nobody reads fill it, and no other moves",
                stacklevel=3,
            )

    @property
    def first_credit(self) -> int:
        """Bytes that a stream may have unread at first."""
        return min(self.first_window, self.stream_window)


DEFAULT = Limits()
