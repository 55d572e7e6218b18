"""Events as streams: filters in full (terms, literals, negation), cursors, limits, both orders.

A cursor is the place of an event in the chain: checkpoint, transaction in it, event in that; 16 bytes. It means the
same wherever it came from, so a subscription's cursor continues a listing and the other way round.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from dtp.localnet.grpc import requests
from dtp.localnet.grpc.errors import BadRequest, Unsupported
from dtp.localnet.grpc.masks import Mask
from dtp.localnet.grpc.messages import library
from dtp.localnet.grpc.transactions import PlacedEvent, Transactions
from dtp.localnet.model import EventFilter, EventRecord
from dtp.localnet.node import LocalNode
from dtp.sui.names import SuiNameError, parse_address, parse_type

_PLACE = struct.Struct(">QII")
_LAST: Final = 0xFFFFFFFF
_LARGEST: Final = 2**63 - 1
_PAGE: Final = 200
_DEFAULT_LIMIT: Final = 100
_MAX_LIMIT: Final = 1000
#: Events that one request looks at; then it says where to go on.
SCAN_LIMIT: Final = 100_000

Place = tuple[int, int, int]
Predicate = Callable[[EventRecord], bool]


def encode_cursor(place: Place) -> bytes:
    """Return the cursor of a place."""
    return _PLACE.pack(*place)


def decode_cursor(data: bytes | None, field: str) -> Place | None:
    """Return the place of a cursor, None if there is none. Raises `BadRequest`."""
    if not data:
        return None
    if len(data) != _PLACE.size:
        raise BadRequest("is not a cursor of this node", field=field)
    checkpoint, transaction, event = _PLACE.unpack(data)
    return min(checkpoint, _LARGEST), transaction, event


# ----------------------------------------------------------------------------------------------------- filters


def predicate(message: Any) -> Predicate:
    """Return what an `EventFilter` message lets through. Raises `BadRequest`, `Unsupported`."""
    if message is None:
        return lambda event: True
    if not message.terms:
        raise BadRequest("needs a term", field="filter.terms")
    terms = [[_literal(each) for each in term.literals] for term in message.terms]
    if not all(terms):
        raise BadRequest("a term needs a literal", field="filter.terms")
    return lambda event: any(all(fits(event) for fits in term) for term in terms)


def _literal(message: Any) -> Predicate:
    found = _filter(message)
    return (lambda event: not found.matches(event)) if message.negated else found.matches


def _filter(message: Any) -> EventFilter:
    try:
        if message.sender is not None:
            return EventFilter(sender=requests.address(message.sender.address, "filter.sender"))
        if message.emit_module is not None:
            package, _, module = requests.required(
                message.emit_module.module, "filter.emit_module"
            ).partition("::")
            return EventFilter(package=parse_address(package), module=module or None)
        if message.event_type is not None:
            return _type_filter(requests.required(message.event_type.event_type, "filter.event_type"))
    except SuiNameError as fault:
        raise BadRequest(str(fault), field="filter") from fault
    if message.event_stream_head is not None:
        raise Unsupported("authenticated event streams: this node has none")
    raise BadRequest("a literal needs a predicate", field="filter.literals")


def _type_filter(text: str) -> EventFilter:
    parts = text.split("::", 2)
    if len(parts) == 3:
        return EventFilter(type=parse_type(text))
    return EventFilter(
        type_package=parse_address(parts[0]), type_module=parts[1] if len(parts) == 2 else None
    )


# ----------------------------------------------------------------------------------------------------- listing


@dataclass
class _Scan:
    """What a listing covers: checkpoints `first` to `last`, strictly between the places `after` and `before`."""

    first: int
    last: int
    after: Place | None
    before: Place | None
    descending: bool
    bounded: bool  # whether the request, not the tip, ends it

    def is_between(self, place: Place) -> bool:
        return (self.after is None or place > self.after) and (self.before is None or place < self.before)


class Events:
    """`ListEvents`, and what subscriptions share with it."""

    def __init__(self, node: LocalNode, transactions: Transactions) -> None:
        self._node = node
        self._transactions = transactions

    def list_events(self, request: Any, want: Mask) -> Iterator[Any]:
        """Give the frames of a `ListEvents` answer, the last one with `end`. Raises `BadRequest` before the first."""
        fits = predicate(request.filter)
        scan, limit = self._parse_scan(request)
        return self._make_frames(scan, limit, fits, want)

    def _parse_scan(self, request: Any) -> tuple[_Scan, int]:
        options = request.options
        after = decode_cursor(options.after, "options.after") if options else None
        before = decode_cursor(options.before, "options.before") if options else None
        limit = min(options.limit or _DEFAULT_LIMIT, _MAX_LIMIT) if options else _DEFAULT_LIMIT
        descending = bool(options and options.ordering is not None and int(options.ordering) == 1)
        info = self._node.service_info()
        first = max(min(request.start_checkpoint or 0, _LARGEST), info.lowest_checkpoint)
        last = info.checkpoint
        bounded = request.end_checkpoint is not None and request.end_checkpoint <= last + 1
        if bounded:
            last = request.end_checkpoint - 1
        if after is not None:
            first = max(first, after[0])
        if before is not None:
            last = min(last, before[0])
        return _Scan(first, last, after, before, descending, bounded), limit

    def _make_frames(self, scan: _Scan, limit: int, fits: Predicate, want: Mask) -> Iterator[Any]:
        v2 = library().v2
        reasons = v2.QueryEndReason
        sent = 0
        for seen, (placed, place) in enumerate(self._read_events(scan), 1):
            if fits(placed.event):
                sent += 1
                end = v2.QueryEnd(reason=reasons.ITEM_LIMIT) if sent == limit else None
                yield v2.ListEventsResponse(
                    event=self._transactions.event_message(placed, want),
                    watermark=self._make_watermark(scan, place),
                    end=end,
                )
                if end is not None:
                    return
            if seen == SCAN_LIMIT:
                mark, end = self._make_watermark(scan, place), v2.QueryEnd(reason=reasons.SCAN_LIMIT)
                yield v2.ListEventsResponse(watermark=mark, end=end)
                return
        yield v2.ListEventsResponse(
            watermark=self._final_mark(scan), end=v2.QueryEnd(reason=self._end_reason(scan))
        )

    @staticmethod
    def _end_reason(scan: _Scan) -> Any:
        reasons = library().v2.QueryEndReason
        if scan.descending or scan.bounded:
            return reasons.CURSOR_BOUND if scan.descending and scan.after else reasons.CHECKPOINT_BOUND
        return reasons.CURSOR_BOUND if scan.before is not None else reasons.LEDGER_TIP

    def _read_events(self, scan: _Scan) -> Iterator[tuple[PlacedEvent, Place]]:
        if scan.first > scan.last:
            return
        cursor: bytes | None = None
        places: dict[bytes, int | None] = {}
        while True:
            page = self._node.list_events(
                None,
                cursor,
                _PAGE,
                descending=scan.descending,
                first_checkpoint=scan.first,
                last_checkpoint=scan.last,
            )
            for event in page.items:
                if event.digest not in places:
                    places = {event.digest: self._find_place(event)}
                index = places[event.digest]
                place = (event.checkpoint or 0, index or 0, event.index)
                if scan.is_between(place):
                    yield PlacedEvent(event, index), place
            cursor = page.cursor
            if cursor is None:
                return

    def _find_place(self, event: EventRecord) -> int | None:
        record = self._node.find_transaction(event.digest)
        return None if record is None else self._transactions.find_place(record)

    @staticmethod
    def _make_watermark(scan: _Scan, place: Place) -> Any:
        checkpoint = place[0]
        if scan.descending:
            covered = checkpoint + 1 if checkpoint < scan.last else None
        else:
            covered = checkpoint - 1 if checkpoint > scan.first else None
        return library().v2.Watermark(cursor=encode_cursor(place), checkpoint=covered)

    @staticmethod
    def _final_mark(scan: _Scan) -> Any:
        if scan.last < 0:
            return (
                library().v2.Watermark()
            )  # nothing was asked for, and nothing comes before the first checkpoint
        if scan.descending:
            place, covered = (scan.first, 0, 0), scan.first
        else:
            place, covered = (scan.last, _LAST, _LAST), scan.last
            if scan.before is not None and scan.before < place:
                place, covered = scan.before, scan.before[0] - 1
            if scan.after is not None and scan.after > place:
                place, covered = scan.after, scan.after[0] - 1
        mark = library().v2.Watermark(cursor=encode_cursor(place))
        if covered >= scan.first:
            mark.checkpoint = covered
        return mark

    # ------------------------------------------------------------------------------------------- subscribing

    def checkpoint_frames(
        self, checkpoint: int, events: list[PlacedEvent], fits: Predicate, want: Mask
    ) -> Iterator[Any]:
        """Give the frames of a new checkpoint for a subscriber: its events, or how far it has come."""
        v2 = library().v2
        wanted = [each for each in events if fits(each.event)]
        for number, each in enumerate(wanted):
            last = number == len(wanted) - 1
            place = (checkpoint, each.transaction_index or 0, each.event.index)
            mark = v2.Watermark(
                cursor=encode_cursor((checkpoint, _LAST, _LAST) if last else place),
                checkpoint=checkpoint if last else checkpoint - 1,
            )
            yield v2.SubscribeEventsResponse(
                event=self._transactions.event_message(each, want), watermark=mark
            )
        if not wanted:
            mark = v2.Watermark(cursor=encode_cursor((checkpoint, _LAST, _LAST)), checkpoint=checkpoint)
            yield v2.SubscribeEventsResponse(watermark=mark)
