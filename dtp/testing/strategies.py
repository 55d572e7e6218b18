"""Hypothesis strategies: identities, addresses, frames, carriers with faults, sessions with cuts, graphs, payments.

    from hypothesis import given
    from dtp.testing.strategies import addresses

    @given(addresses())
    def test_my_table_of_peers_keeps_every_address(address):
        ...

They need Hypothesis, which `pip install 'dtp-sockets[test]'` brings. What they draw is valid, and depends on the draw
alone; identities are made of the drawn bytes, so use them for nothing but tests. `docs/testing.md` has examples.
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dtp.chain.host import Terms
from dtp.crdt import BlobRef, Link
from dtp.crdt.temporal import (
    DAY,
    SECOND,
    Date,
    DateTime,
    Duration,
    LocalDateTime,
    LocalTime,
    Temporal,
    Time,
    moment_in_zone,
    to_python,
)
from dtp.identity import Identity, PeerId
from dtp.net.address import Address, AddressError, check_service
from dtp.pay.terms import Usage
from dtp.pay.voucher import Voucher
from dtp.session.events import StreamData
from dtp.session.frames import CONNECTION, FIXED, MAX_OFFSET, CloseFrame, FrameType, build_close, control
from dtp.testing.pairs import SessionPair, Wire

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    raise ImportError(
        "dtp.testing.strategies needs Hypothesis: pip install 'dtp-sockets[test]', or hypothesis by itself",
        name="hypothesis",
    ) from error

_U64 = st.integers(0, 2**64 - 1)
_KEYS = st.binary(min_size=32, max_size=32)
_OBJECTS = _KEYS.map(lambda key: f"0x{key.hex()}")


# ---- who and where ---------------------------------------------------------------------------------------


def identities() -> SearchStrategy[Identity]:
    """Return a strategy of identities with both keys."""
    return st.builds(Identity, _KEYS, _KEYS)


def peer_ids() -> SearchStrategy[PeerId]:
    """Return a strategy of peers' names."""
    return identities().map(lambda identity: identity.id)


def services() -> SearchStrategy[str]:
    """Return a strategy of names of services, "" too."""
    return st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=60).filter(
        _is_service
    )


def _is_service(name: str) -> bool:
    try:
        check_service(name)
    except AddressError:
        return False
    return True


_LABELS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)
_HOSTS = st.one_of(
    st.lists(_LABELS, min_size=1, max_size=4).map(".".join),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda ip: f"{ip}%eth0"),
)
_PORTS = st.integers(1, 65535)
_PATHS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).map("/".__add__)
_OPTIONS = st.from_regex(r"(carrier\.)?[a-z][a-z0-9_-]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("path", "service")
)
_QUERIES = st.dictionaries(
    _OPTIONS, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=3
).map(lambda options: tuple(options.items()))


def addresses(peers: SearchStrategy[PeerId] | None = None) -> SearchStrategy[Address]:
    """Return a strategy of addresses of all forms: with a carrier, by name, by host object; of `peers`."""
    peers = peer_ids() if peers is None else peers
    more: dict[str, Any] = {"service": services(), "query": _QUERIES}
    resolved = st.just("dtp")
    return st.one_of(
        st.builds(Address, resolved, peers, **more),
        st.builds(Address, resolved, host_object=_OBJECTS, **more),
        st.builds(Address, resolved, name=_LABELS.map("n-".__add__), **more),
        st.builds(Address, st.just("dtp+tcp"), peers, _HOSTS, _PORTS, **more),
        st.builds(Address, st.just("dtp+unix"), peers, path=_PATHS, **more),
        st.builds(
            Address,
            st.sampled_from(["dtp+ws", "dtp+wss"]),
            peers,
            _HOSTS,
            st.none() | _PORTS,
            st.just("") | _PATHS,
            **more,
        ),
    )


# ---- carriers and sessions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Faults:
    """What happens to the carriers of a `memory://` address; see `dtp.carriers.memory`."""

    delay: float = 0.0
    jitter: float = 0.0
    chunk: int = 0
    cut_at: int | None = None
    seed: int = 0

    def on(self, address: Address | str) -> Address:
        """Return the address by which to dial so that all of it happens."""
        options = {"delay": self.delay, "jitter": self.jitter, "chunk": self.chunk or None, "seed": self.seed}
        options["cut_at"] = self.cut_at
        said = "&".join(f"carrier.{name}={value}" for name, value in options.items() if value is not None)
        return Address.parse(f"{address}?{said}")


def faults() -> SearchStrategy[Faults]:
    """Return a strategy of what a connection has to survive: delays, reads of any size, and carriers that are cut
    behind 100,000 to 1,000,000 bytes. A record of 64 KiB gets through each, so everything arrives in the end."""
    return st.builds(
        Faults,
        delay=st.sampled_from([0.001, 0.02, 0.15]),
        jitter=st.sampled_from([0.0, 0.0, 0.05]),
        chunk=st.sampled_from([0, 0, 1400, 10_000]),
        cut_at=st.none() | st.integers(100_000, 1_000_000),
        seed=st.integers(0, 2**32 - 1),
    )


def frames() -> SearchStrategy[tuple[int, int, int, int, bytes]]:
    """Return a strategy of frames as a record has them: type, flags, stream, offset, body. Each is well formed; what
    a peer has to say of it depends on what was before."""
    bodies = [
        st.builds(control, st.just(kind), st.binary(min_size=shape.size, max_size=shape.size))
        for kind, shape in FIXED.items()
    ]
    closes = st.builds(
        build_close,
        st.builds(
            CloseFrame,
            st.integers(0, 2**32 - 1),
            st.text(max_size=80),
            st.booleans(),
            st.integers(0, 2**32 - 1),
        ),
    )
    data = st.tuples(
        st.just(int(FrameType.STREAM)),
        st.integers(0, 1),
        st.integers(0, CONNECTION - 1),
        st.integers(0, MAX_OFFSET - 4096),
        st.binary(max_size=200),
    )
    free = st.builds(control, st.sampled_from([FrameType.DATAGRAM, FrameType.METER]), st.binary(max_size=200))
    return st.one_of(data, closes, free, *bodies)


@dataclass(frozen=True)
class Step:
    """Something that happens to a `SessionPair`; what can't happen at that moment does not."""

    #: "write", "deliver", "cut", "resume", "widen" or "wait".
    what: str
    #: Which side writes or is delivered to.
    client: bool = True
    #: Which of its streams, or which of the wires.
    which: int = 0
    #: Bytes, or seconds to wait.
    size: int = 0


def steps(most: int = 40) -> SearchStrategy[list[Step]]:
    """Return a strategy of what happens to two sessions: writes, part of what is under way arriving, cuts, resumes,
    further carriers and pauses. For `play`."""
    what = st.sampled_from(["write", "write", "deliver", "deliver", "cut", "resume", "widen", "wait"])
    one = st.builds(Step, what, st.booleans(), st.integers(0, 3), st.integers(0, 9000))
    return st.lists(one, max_size=most)


def play(pair: SessionPair, story: Sequence[Step]) -> dict[tuple[bool, int], bytes]:
    """Let the steps happen, then resume, settle, and return what each side's streams were given to write: by whether
    it is the client, and by the stream's id. `read_by` says what has arrived."""
    written: defaultdict[tuple[bool, int], bytes] = defaultdict(bytes)
    pair.settle()  # the first record has to come through: before it there is nothing to resume
    for step in story:
        _take(pair, step, written)
    if not pair.wires:
        pair.resume()
    pair.settle()
    return dict(written)


def _take(pair: SessionPair, step: Step, written: defaultdict[tuple[bool, int], bytes]) -> None:
    wire: Wire | None = pair.wires[step.which % len(pair.wires)] if pair.wires else None
    if step.what == "write":
        session = pair.client if step.client else pair.server
        mine = [number for client, number in written if client == step.client]
        if step.which < len(mine) or session.can_open:
            number = mine[step.which] if step.which < len(mine) else session.open_stream()
            data = bytes((number + len(written) + at) % 251 for at in range(step.size))
            session.write_stream(number, data)
            written[step.client, number] += data
    elif step.what == "wait":
        pair.pass_time(step.size / 9000)
    elif step.what == "resume" and wire is None:
        pair.resume()
    elif wire is not None and step.what == "widen" and len(pair.wires) < 3:
        pair.resume(add=True)
    elif wire is not None and step.what == "cut":
        pair.cut(wire)
    elif wire is not None and step.what == "deliver":
        pair.seal(wire, client=not step.client)
        pair.deliver(wire, step.size, client=step.client)


def read_by(pair: SessionPair, *, client: bool) -> dict[int, bytes]:
    """Return what one side of a pair was told of each stream's data, joined."""
    found: defaultdict[int, bytes] = defaultdict(bytes)
    for event in pair.events[pair.client if client else pair.server]:
        if isinstance(event, StreamData):
            found[event.stream_id] += bytes(event.data)
    return dict(found)


# ---- graphs ----------------------------------------------------------------------------------------------


def temporal_values() -> SearchStrategy[Temporal]:
    """Return a strategy of dates, times and durations, to the nanosecond, also of years that Python doesn't have."""
    days, time = (
        st.integers(-400_000_000, 400_000_000) | st.integers(-30_000, 30_000),
        st.integers(0, DAY - 1),
    )
    time = time | st.integers(0, 24 * 60 - 1).map(lambda minutes: minutes * 60 * SECOND)
    local = st.builds(lambda day, of_day: day * DAY + of_day, days, time)
    offsets = st.sampled_from((0, 3600, -1800, 3208, 18 * 3600))
    numbers = st.integers(-(2**40), 2**40)
    zones = st.sampled_from(("UTC", "Europe/Stockholm", "America/New_York"))
    return st.one_of(
        st.builds(Date, days),
        st.builds(LocalTime, time),
        st.builds(Time, time, offsets),
        st.builds(LocalDateTime, local),
        st.builds(DateTime, local, offsets),
        st.builds(moment_in_zone, local, zones),
        st.builds(Duration, numbers, numbers, numbers),
    )


def graph_values() -> SearchStrategy[Any]:
    """Return a strategy of what a property of a node may be: plain values, links, lists and dicts of such."""
    plain = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**100), 2**100),
        st.floats(allow_nan=False),
        st.text(max_size=40),
        st.binary(max_size=40),
        st.text(string.ascii_lowercase + "/", min_size=1, max_size=12).map(Link),
        st.builds(BlobRef, _KEYS, _U64),
        temporal_values().map(to_python),
    )
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    )


@dataclass(frozen=True)
class Edit:
    """One of several authors changes a property of a node, or (`value` None) removes it."""

    author: int
    soul: str
    key: str
    value: Any


def graph_edits(authors: int = 2, most: int = 20) -> SearchStrategy[list[Edit]]:
    """Return a strategy of histories: what `authors` people do to a few nodes, in the order in which they do it."""
    one = st.builds(
        Edit,
        st.integers(0, authors - 1),
        st.sampled_from(["user/alice", "user/bob", "room/1"]),
        st.sampled_from(["name", "age", "topic"]),
        graph_values(),
    )
    return st.lists(one, max_size=most)


# ---- payments --------------------------------------------------------------------------------------------


def amounts(most: int = 10**12) -> SearchStrategy[int]:
    """Return a strategy of amounts of money in a coin's smallest unit (MIST: a SUI has 1,000,000,000)."""
    return st.sampled_from([0, 1, most]) | st.integers(0, most)


def terms() -> SearchStrategy[Terms]:
    """Return a strategy of what a service costs. `revision` is the chain's, and 0."""
    return st.builds(
        Terms,
        price_request=amounts(10**10),
        price_mib=amounts(10**10),
        min_deposit=amounts(),
        idle_ms=st.integers(3_600_000, 30 * 86_400_000),
        claim_ms=st.integers(60_000, 86_400_000),
    )


def usages() -> SearchStrategy[Usage]:
    """Return a strategy of what was used: requests and bytes."""
    return st.builds(Usage, st.integers(0, 10**6), st.integers(0, 2**40))


def vouchers() -> SearchStrategy[Voucher]:
    """Return a strategy of vouchers, unsigned: all that fits into their fields."""
    return st.builds(Voucher, _OBJECTS, st.integers(0, 255), _U64, _U64, _U64, _U64, st.none() | _KEYS, _U64)
