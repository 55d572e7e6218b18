"""What tests of records share: one buffer, frames made at random, and records sealed and opened in it."""

from __future__ import annotations

import random

from core_reference import (
    FIN,
    PADDING,
    STREAM,
    Plain,
    in_c,
)
from hypothesis import strategies as st

from dtp.core import (
    Buffer,
    LinkOpener,
    Sealer,
)
from dtp.core._dtp_core import ffi
from dtp.errors import DtpError

KEY = bytes(range(100, 132))
BUFFER = Buffer(1 << 20)

# Few streams and offsets that often continue each other, so that joining is met.
stream_frames = st.tuples(
    st.just(STREAM),
    st.sampled_from([0, 0, 0, FIN, 0x80, 0x80 | FIN]),
    st.sampled_from([0, 1, 2**64 - 1]),
    st.sampled_from([0, 1, 5, 2**62]),
    st.one_of(st.binary(max_size=9), st.integers(0, 3000).map(lambda n: random.Random(n).randbytes(n))),
)
other_frames = st.tuples(
    st.sampled_from([PADDING, 1, 2, 8, 0x10, 0xFF]),
    st.integers(0, 255),
    st.just(0),
    st.just(0),
    st.binary(max_size=40),
)
frame_lists = st.lists(st.one_of(stream_frames, other_frames), max_size=12)


@st.composite
def continued(draw: st.DrawFn) -> list[Plain]:
    """Frames whose STREAM ones go on where the stream was, as a session sends them."""
    at: dict[int, int] = {}
    frames: list[Plain] = []
    for kind, flags, stream_id, offset, data in draw(frame_lists):
        if kind == STREAM and draw(st.integers(0, 3)):
            offset = at.get(stream_id, 0)
        if kind == STREAM:
            at[stream_id] = offset + len(data)
        frames.append((kind, flags, stream_id, offset, data))
    return frames


def put(data: bytes, at: int = 0) -> int:
    """Copy into the shared buffer; the end."""
    BUFFER.view[at : at + len(data)] = data
    return at + len(data)


def take(frames: list[tuple[int, int, int, int, int, int]], buffer: Buffer = BUFFER) -> list[Plain]:
    return [
        (kind, flags, stream_id, offset, bytes(buffer.view[start : start + length]))
        for kind, flags, stream_id, offset, start, length in frames
    ]


def open_all(opener: LinkOpener, data: bytes) -> tuple[bytes, list[Plain], DtpError | None]:
    """Open `data`: what is left of it, the frames, the error."""
    end, at = put(data), 0
    frames: list[Plain] = []
    while True:
        taken, found, error = opener.open(BUFFER, at, end)
        frames += take(found)
        at += taken
        if error or not taken:
            return bytes(BUFFER.view[at:end]), frames, error


def seal(sealer: Sealer, frames: list[Plain], record: int = 16384, rekey: bool = False) -> bytes:
    return bytes(BUFFER.view[: sealer.seal(frames, BUFFER, record, rekey)])


def state(handle: Sealer | LinkOpener) -> bytes:
    """Everything C keeps about a link, but for the provider's context, which holds nothing of its own."""
    cipher = in_c(handle)
    return bytes(ffi.buffer(cipher)[: ffi.offsetof("dtp_cipher", "context")]) + cipher.rekeys.to_bytes(
        4, "big"
    )


def cut(frames: list[Plain]) -> list[Plain]:
    """Frames as bytes of streams: cuts between STREAM pieces don't count, their places do."""
    result: list[Plain] = []
    for kind, flags, stream_id, offset, data in frames:
        if kind == STREAM and result:
            last = result[-1]
            if (
                last[0] == STREAM
                and not last[1] & FIN
                and (last[2], last[3] + len(last[4])) == (stream_id, offset)
            ):
                result[-1] = (STREAM, flags, stream_id, last[3], last[4] + data)
                continue
        result.append((kind, flags, stream_id, offset, data))
    return result
