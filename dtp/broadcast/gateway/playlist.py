"""The HLS playlist of a show (RFC 8216), made from the segments that are held."""

from __future__ import annotations

import math
from typing import Final

from dtp.broadcast.format import NO_INIT, Flag, Segment
from dtp.broadcast.held import HeldSegments

#: The most segments in the playlist of a live show. Players need at least three target durations.
WINDOW: Final = 12
#: Flags of segments that have nothing to play.
_UNSEEN: Final = Flag.INIT | Flag.KEYS
#: The duration in seconds assumed for a segment that doesn't give one.
_UNSAID: Final = 1.0


def window(held: HeldSegments, most: int = WINDOW) -> list[Segment]:
    """Return the newest complete segments that have something to play, in order. Playback can begin with the
    first."""
    numbers = range(max(held.oldest, held.edge - 4 * most), held.edge + 1)
    each_held = [each for each in map(held.get_segment, numbers) if each is not None and each.whole]
    found = [each.segment for each in each_held if not each.segment.flags & _UNSEEN and each.segment.size][
        -most:
    ]
    while found and Flag.START not in found[0].flags:
        del found[0]
    return found


def playlist(held: HeldSegments) -> str:
    """Return the playlist. Its segments are at `segments/NUMBER.m4s`, relative to it."""
    shown = window(held)
    target = max((math.ceil(_seconds(each)) for each in shown), default=1)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{target}",
        f"#EXT-X-MEDIA-SEQUENCE:{shown[0].number if shown else 0}",
    ]
    init, before = NO_INIT, None
    for each in shown:
        gap = (
            before is not None
            and each.number != before + 1
            and not _only_init_between(held, before, each.number)
        )
        if gap or (before is not None and each.init != init):
            lines.append("#EXT-X-DISCONTINUITY")
        if each.init not in (init, NO_INIT):
            lines.append(f'#EXT-X-MAP:URI="segments/{each.init}.mp4"')
        init, before = each.init, each.number
        lines += [f"#EXTINF:{_seconds(each):.3f},", f"segments/{each.number}.m4s"]
    if held.ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def _seconds(segment: Segment) -> float:
    return segment.duration_ms / 1000 or _UNSAID


def _only_init_between(held: HeldSegments, before: int, number: int) -> bool:
    between = [held.get_segment(each) for each in range(before + 1, number)]
    return all(each is not None and bool(each.segment.flags & _UNSEEN) for each in between)
