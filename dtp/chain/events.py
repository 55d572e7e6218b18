"""Following events: every one, in the chain's order, once; through lost connections, dead nodes and restarts.

A follower subscribes first, then reads the past up to now, then goes on with the subscription, so nothing falls
between. Where an event stands (checkpoint, transaction, index) is a total order: what isn't after the last one is
skipped. The cursor of each event says where to go on after it.

    async for found in EventFollower(chain, event_types(chain, channel.SCHEMA), cursor=store.load()):
        ...                      # handle found.event
        store.save(found.cursor) # or keep it in the same database transaction as what was done: then exactly once

A node that doesn't serve events by themselves is read by checkpoints instead.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from dtp.chain.errors import MALFORMED, HistoryPruned, NodeRefused, NodeUnavailable, NotFound, UnknownMethod
from dtp.chain.model import ChainEvent, canonical_id, canonical_type
from dtp.chain.node._answers import EventFrame
from dtp.chain.node._wire import NodeRpc
from dtp.chain.node.client import ChainClient
from dtp.chain.values import MoveSchema
from dtp.errors import ConfigError
from dtp.identity.private import make_private_folder
from dtp.replacing import replace_file
from dtp.sui.names import SuiNameError

#: Stands for "all of that checkpoint" in a cursor.
_WHOLE: Final = 2**63 - 1
#: Where to start: with the oldest checkpoint that the node has. Public nodes have the last few days'.
OLDEST: Final = -1


@dataclass(frozen=True)
class Cursor:
    """Everything up to and including this place was delivered.

    `position` is the node's own cursor for it, opaque, and may be empty; the place alone suffices.
    """

    checkpoint: int
    transaction_index: int = _WHOLE
    event_index: int = _WHOLE
    position: bytes = b""

    @property
    def place(self) -> tuple[int, int, int]:
        """What cursors are ordered by."""
        return (self.checkpoint, self.transaction_index, self.event_index)

    def to_text(self) -> str:
        """Return one line of JSON, for `from_text`."""
        record = [*self.place, base64.b64encode(self.position).decode()]
        return json.dumps(record)

    @classmethod
    def from_text(cls, text: str) -> Cursor:
        """Return the cursor that `to_text` gave. Raises `ConfigError`."""
        try:
            checkpoint, transaction, index, position = json.loads(text)
            return cls(
                int(checkpoint), int(transaction), int(index), base64.b64decode(position, validate=True)
            )
        except (ValueError, TypeError, binascii.Error) as fault:
            raise ConfigError(f"this is not a cursor of events: {fault!r}") from fault


@dataclass(frozen=True)
class Followed:
    """An event, and where to go on after it."""

    event: ChainEvent
    cursor: Cursor


def event_types(chain: ChainClient, schema: MoveSchema, *classes: type[Any]) -> tuple[str, ...]:
    """Return the filter for events of a module of ours, or of some of its structs only. Raises
    `PackageNotPublished`."""
    if classes:
        return tuple(chain.type_of(schema, cls) for cls in classes)
    return (f"{chain.deployments.original_id(schema.package)}::{schema.module}",)


def fits(event_type: str, wanted: str) -> bool:
    """Return whether an event's type is what the filter names: `0xpackage`, `0xpackage::module`, or a type."""
    parts = wanted.split("::")
    if len(parts) < 3:
        return event_type.startswith(wanted + "::")
    return event_type == wanted or ("<" not in wanted and event_type.startswith(wanted + "<"))


def canonical_filter(wanted: str) -> str:
    """Return a filter with its addresses written out. Raises `SuiNameError`."""
    parts = wanted.split("::")
    if len(parts) >= 3:
        return canonical_type(wanted)
    if len(parts) == 2 and not parts[1].isidentifier():
        raise SuiNameError(f"{wanted!r} names no module: write 0xpackage::module")
    return "::".join((canonical_id(parts[0]), *parts[1:]))


class CursorFile:
    """A cursor in a file, written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Cursor | None:
        """Return the cursor, None if there is no file yet. Raises `ConfigError`."""
        try:
            return Cursor.from_text(self.path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as fault:
            raise ConfigError(f"can't read {self.path}: {fault}") from fault

    def save(self, cursor: Cursor) -> None:
        """Keep the cursor. Raises `ConfigError`."""
        try:
            make_private_folder(self.path.parent)
            replace_file(self.path, cursor.to_text().encode())
        except OSError as fault:
            raise ConfigError(f"can't write {self.path}: {fault.strerror or fault}") from fault


class EventSource(Protocol):
    """Where events come from: `EventFollower`, or a fake of it."""

    async def begin(self) -> Cursor:
        """Fix where to begin."""

    def __aiter__(self) -> AsyncIterator[Followed]:
        """Yield the events, for ever."""

    def past_events(self) -> AsyncIterator[Followed]:
        """Yield the events there are now."""


class EventFollower:
    """Events whose type fits one of `types`, of transactions of `sender` alone where one is given, for ever. Iterate
    over it once; breaking off closes the connection.

    `cursor` goes on where an earlier follower stopped; without one it begins with what happens from now on
    (`start=None`), with checkpoint number `start`, or with the `OLDEST` that the node has. `attempts`
    failures in a row without any progress raise `NodeUnavailable`; 0 tries for ever. Raises `HistoryPruned` when the
    node has forgotten what comes after the cursor.
    """

    def __init__(
        self,
        chain: ChainClient,
        types: Iterable[str],
        *,
        sender: str = "",
        cursor: Cursor | None = None,
        start: int | None = None,
        attempts: int = 0,
    ) -> None:
        self._chain = chain
        self._sender = canonical_id(sender) if sender else ""
        self._types = tuple(map(canonical_filter, types))
        self.cursor = cursor if cursor is not None or start in (None, OLDEST) else Cursor(start - 1)
        self._oldest = cursor is None and start == OLDEST
        self._attempts = attempts
        self._failures = 0
        self._by_checkpoint = False

    async def begin(self) -> Cursor:
        """Fix where to begin, if no cursor was given, and give it: from then on nothing is missed."""
        if self.cursor is None:
            info = await self._chain.service_info()
            self.cursor = Cursor(info.lowest_checkpoint - 1 if self._oldest else info.checkpoint)
        return self.cursor

    async def __aiter__(self) -> AsyncIterator[Followed]:
        """Yield the events."""
        await self.begin()
        endpoints = self._chain.endpoints
        while True:
            try:
                wire = await endpoints.checked_wire()
                await self._check_history(wire)
                source = self._stream_checkpoints(wire) if self._by_checkpoint else self._stream_events(wire)
                try:
                    async for found in source:
                        self._failures = 0
                        yield found
                finally:
                    await source.aclose()  # type: ignore[attr-defined]
            except UnknownMethod:
                if self._by_checkpoint:
                    raise
                self._by_checkpoint = True
                continue
            except NodeUnavailable as fault:
                self._failures += 1
                if self._attempts and self._failures >= self._attempts:
                    raise NodeUnavailable(
                        f"events of {self._chain.network.name}: {self._failures} attempts failed ({fault})"
                    ) from fault
                endpoints.next()
            # The stream has ended, or was lost.
            await endpoints.sleep(endpoints.retry.pause(min(self._failures, 16)))

    async def past_events(self) -> AsyncIterator[Followed]:
        """Yield the events there are now, from the cursor on, and then an end.

        A question that a node breaks is asked again, here or of the next endpoint, behind what was given. Raises what
        iterating raises, `NodeUnavailable` after as many failures without any progress as the client makes attempts.
        """
        await self.begin()
        endpoints = self._chain.endpoints
        failures = 0
        while True:
            before = self.cursor
            try:
                wire = await endpoints.checked_wire()
                await self._check_history(wire)
                source = (
                    self._checkpoints_up_to(wire, None)
                    if self._by_checkpoint
                    else self._read_past(wire, None)
                )
                async for found in source:
                    yield found
                return
            except UnknownMethod:
                if self._by_checkpoint:
                    raise
                self._by_checkpoint = True
            except NodeUnavailable:
                failures = 1 if self.cursor != before else failures + 1
                if failures >= endpoints.retry.attempts:
                    raise
                endpoints.next()
                await endpoints.sleep(endpoints.retry.pause(failures - 1))

    async def _check_history(self, wire: NodeRpc) -> None:
        cursor = self._cursor_now()
        info = await wire.service_info()
        wanted = cursor.checkpoint + (cursor.transaction_index == _WHOLE)
        if info.lowest_checkpoint > wanted and self._oldest:  # by now, or this node: nothing was given yet
            self.cursor = Cursor(info.lowest_checkpoint - 1)
        elif info.lowest_checkpoint > wanted:
            raise HistoryPruned(
                f"{wire.url} has events from checkpoint {info.lowest_checkpoint} on, and the cursor is at {wanted}: "
                "what is between is lost there; ask an archive node, or begin anew"
            )

    def _cursor_now(self) -> Cursor:
        assert self.cursor is not None
        return self.cursor

    # ---------------------------------------------------------------------------------- by events themselves

    async def _stream_events(self, wire: NodeRpc) -> AsyncIterator[Followed]:
        async with wire.subscribe_events(self._types, sender=self._sender) as live:
            async for found in self._read_past(wire, None):
                yield found
            joined = False
            async for frame in live:
                if not joined:
                    # The past was read up to what the node had indexed then; the stream began somewhere near.
                    first = frame.event.checkpoint if frame.event is not None else frame.covered
                    if first is not None:
                        async for found in self._read_past(wire, first):
                            yield found
                        joined = True
                if joined and (followed := self._advance_over(frame)) is not None:
                    yield followed

    async def _read_past(self, wire: NodeRpc, end: int | None) -> AsyncIterator[Followed]:
        """Yield events after the cursor: up to now, or all of the checkpoints before `end`, waiting for them."""
        while end is None or self._cursor_now().place < (end - 1, _WHOLE, _WHOLE):
            last, before = "", self._cursor_now()
            async for frame in self._list_frames(wire, end):
                followed = self._advance_over(frame)
                last = frame.end
                if followed is not None:
                    yield followed
            if last in ("CHECKPOINT_BOUND", "CURSOR_BOUND") and end is not None:
                self._advance_cursor(Cursor(end - 1, position=self._cursor_now().position))
                return
            if last not in ("ITEM_LIMIT", "SCAN_LIMIT"):
                if end is None:
                    return
                await self._chain.endpoints.sleep(self._chain.endpoints.retry.pause(0))
            elif self._cursor_now() == before:
                raise NodeUnavailable(f"{wire.url} has more events, it says, and gives none")

    async def _list_frames(self, wire: NodeRpc, end: int | None) -> AsyncIterator[EventFrame]:
        cursor = self._cursor_now()
        if cursor.position:
            try:
                async for frame in wire.list_events(
                    self._types, sender=self._sender, after=cursor.position, end=end
                ):
                    yield frame
                return
            except (UnknownMethod, NotFound):
                raise
            except NodeRefused:
                # Another node's cursor. The place says the same; what was delivered is skipped.
                self.cursor = replace(self._cursor_now(), position=b"")
                cursor = self._cursor_now()
        start = cursor.checkpoint + (cursor.transaction_index == _WHOLE)
        async for frame in wire.list_events(self._types, sender=self._sender, start=start, end=end):
            yield frame

    def _advance_over(self, frame: EventFrame) -> Followed | None:
        """Move the cursor over a frame; return the event, unless it was delivered before."""
        event = frame.event
        if event is None:
            if frame.covered is not None:
                self._advance_cursor(Cursor(frame.covered, position=frame.cursor))
            elif frame.cursor:
                self.cursor = replace(self._cursor_now(), position=frame.cursor)
            return None
        if event.checkpoint is None or event.transaction_index is None:
            raise NodeRefused("the node sent an event without its place in the chain", MALFORMED)
        cursor = Cursor(event.checkpoint, event.transaction_index, event.index, frame.cursor)
        return Followed(event, cursor) if self._advance_cursor(cursor) else None

    def _advance_cursor(self, cursor: Cursor) -> bool:
        if cursor.place <= self._cursor_now().place:
            return False
        self.cursor = cursor
        self._oldest = False
        return True

    # ------------------------------------------------------------------------------------------ by checkpoints

    def _matches_event(self, event: ChainEvent) -> bool:
        fitting = not self._types or any(fits(event.type, wanted) for wanted in self._types)
        return fitting and self._sender in ("", event.sender)

    async def _stream_checkpoints(self, wire: NodeRpc) -> AsyncIterator[Followed]:
        async with wire.subscribe_checkpoints() as live:
            async for found in self._checkpoints_up_to(wire, None):
                yield found
            async for newest in live:
                async for found in self._checkpoints_up_to(wire, newest):
                    yield found

    async def _checkpoints_up_to(self, wire: NodeRpc, newest: int | None) -> AsyncIterator[Followed]:
        while True:
            cursor = self._cursor_now()
            number = cursor.checkpoint + (cursor.transaction_index == _WHOLE)
            if newest is not None and number > newest:
                return
            found = await wire.checkpoint(number)
            if found is None:
                if newest is None:
                    return
                # Announced and not readable yet.
                await self._chain.endpoints.sleep(self._chain.endpoints.retry.pause(0))
                continue
            for event in found.events:
                if self._matches_event(event):
                    followed = self._advance_over(EventFrame(event, b"", None))
                    if followed is not None:
                        yield followed
            self._advance_cursor(Cursor(number))
