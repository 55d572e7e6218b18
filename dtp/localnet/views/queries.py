"""What can be asked of the store: who owns what, dynamic fields, balances, coins, events; page by page.

A cursor is the position after the last item, as bytes that mean something only to the question they came from; a
cursor of another question is refused (`BadCursor`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from dtp.localnet.chain import Chain
from dtp.localnet.model import (
    BadCursor,
    Balance,
    CoinInfo,
    DynamicField,
    EventFilter,
    EventRecord,
    ObjectRecord,
    Page,
)
from dtp.localnet.system import TOTAL_SUPPLY
from dtp.localnet.vm import ExecutionFailure
from dtp.sui.names import TypeTag, parse_type
from dtp.sui.objects import SUI_TYPE

__all__ = ["MAX_PAGE", "ChainQueries"]

T = TypeVar("T")

MAX_PAGE: Final = 1000
"""Most items of one page; a larger limit is cut to it."""
_SUI: Final = (2).to_bytes(32, "big")


def _cursor(kind: str, *values: Any) -> bytes:
    parts = [value.hex() if isinstance(value, bytes) else value for value in values]
    return json.dumps([kind, *parts]).encode()


def _read_cursor(kind: str, cursor: bytes | None, *shapes: type) -> list[Any] | None:
    if cursor is None:
        return None
    try:
        found, *parts = json.loads(cursor)
        if found != kind or len(parts) != len(shapes):
            raise ValueError(f"it is for {found!r}")
        values: list[Any] = []
        for part, shape in zip(parts, shapes, strict=True):
            if shape is bytes:
                values.append(bytes.fromhex(part))
            elif type(part) is not shape:
                raise ValueError("its parts have other types")
            else:
                values.append(part)
        return values
    except (ValueError, TypeError) as fault:
        raise BadCursor(f"this is not a cursor of {kind!r}: {fault}; start without one") from None


def _page(items: Sequence[T], limit: int, cursor_of: Callable[[T], bytes]) -> Page[T]:
    """Return a page of items, of which one more than `limit` was asked for to see if there are more."""
    shown = tuple(items[:limit])
    return Page(shown, cursor_of(shown[-1]) if len(items) > limit else None)


def _limit(limit: int) -> int:
    return max(1, min(limit, MAX_PAGE))


class ChainQueries:
    """Questions to one chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._store = chain.store

    def _get_live(self, id: bytes) -> ObjectRecord:
        record = self._store.find_live(id)
        assert record is not None, "the index names live objects only"
        return record

    def objects_owned_by(
        self, address: bytes, tag: TypeTag | None, cursor: bytes | None, limit: int
    ) -> Page[ObjectRecord]:
        """Return objects of an address by type, coins by falling balance, then by id."""
        limit = _limit(limit)
        after = _read_cursor("owned", cursor, str, bytes, bytes) or ["", b"", b""]
        sql = (
            "SELECT type, inverse, id FROM live WHERE owner = ? AND kind != 'ObjectOwner'"
            " AND (type, inverse, id) > (?, ?, ?)"
        )
        values: list[Any] = [address, *after]
        if tag is not None:
            sql += " AND type = ?" if tag.arguments else " AND base = ?"
            values.append(tag.text)
        rows = self._store.select_rows(sql + " ORDER BY type, inverse, id LIMIT ?", (*values, limit + 1))
        page = _page(rows, limit, lambda row: _cursor("owned", *row))
        return Page(tuple(self._get_live(row[2]) for row in page.items), page.cursor)

    def get_balance(self, address: bytes, coin: TypeTag) -> Balance:
        """Return all coins of one type."""
        found = [b for b in self._sum_balances(address) if b.coin_type == coin]
        return found[0] if found else Balance(coin, 0, 0)

    def _sum_balances(self, address: bytes) -> list[Balance]:
        sums: dict[str, tuple[int, int]] = {}
        rows = self._store.select_rows(
            "SELECT coin, inverse FROM live WHERE owner = ? AND kind != 'ObjectOwner' AND coin IS NOT NULL"
            " ORDER BY coin",
            (address,),
        )
        for coin, inverse in rows:
            amount, count = sums.get(coin, (0, 0))
            sums[coin] = amount + (1 << 64) - 1 - int.from_bytes(inverse, "big"), count + 1
        return [Balance(parse_type(coin), amount, count) for coin, (amount, count) in sums.items()]

    def list_balances(self, address: bytes, cursor: bytes | None, limit: int) -> Page[Balance]:
        """Return balances by coin type."""
        limit = _limit(limit)
        after = _read_cursor("balances", cursor, str) or [""]
        found = [b for b in self._sum_balances(address) if b.coin_type.text > after[0]]
        return _page(found, limit, lambda b: _cursor("balances", b.coin_type.text))

    # -------------------------------------------------------------------------------------- dynamic fields

    def dynamic_fields(self, parent: bytes, cursor: bytes | None, limit: int) -> Page[DynamicField]:
        """Return fields of an object by the id of the field object."""
        limit = _limit(limit)
        after = _read_cursor("fields", cursor, bytes) or [b""]
        rows = self._store.select_rows(
            "SELECT id FROM live WHERE owner = ? AND kind = 'ObjectOwner' AND id > ?"
            " AND base = ? ORDER BY id LIMIT ?",
            (parent, after[0], f"0x{_SUI.hex()}::dynamic_field::Field", limit + 1),
        )
        page = _page(rows, limit, lambda row: _cursor("fields", row[0]))
        return Page(
            tuple(self._make_field(parent, self._get_live(row[0])) for row in page.items), page.cursor
        )

    def _make_field(self, parent: bytes, record: ObjectRecord) -> DynamicField:
        assert record.type is not None, "a field is not a package"
        name_type, value_type = record.type.arguments
        vm = self._chain.engine.vm
        type = vm.parse_type(record.type.text)
        data = vm.decode_value(type, record.contents)
        name = vm.encode_value(type.fields[1], data[1])
        value = vm.encode_value(type.fields[2], data[2])
        wrapper = (name_type.address, name_type.module, name_type.name)
        if wrapper == (_SUI, "dynamic_object_field", "Wrapper"):
            # The value is the id of the object; the name is wrapped so that both kinds of field keep apart.
            inner = name_type.arguments[0]
            child = self._store.find_live(value)
            found = child.type if child is not None and child.type is not None else value_type
            return DynamicField(parent, record.id, inner, name, found, None, value)
        return DynamicField(parent, record.id, name_type, name, value_type, value, None)

    # ------------------------------------------------------------------------------------------------ coins

    def _find_only(self, tag: str) -> ObjectRecord | None:
        rows = self._store.select_rows("SELECT id FROM live WHERE type = ? LIMIT 1", (tag,))
        return self._get_live(rows[0][0]) if rows else None

    def coin_info(self, coin: TypeTag) -> CoinInfo | None:
        """Return metadata and supply, None if there is no such type."""
        if coin == SUI_TYPE:
            return CoinInfo(coin, None, 9, "Sui", "SUI", "", None, None, TOTAL_SUPPLY)
        vm = self._chain.engine.vm
        try:
            metadata_type = vm.parse_type(f"0x2::coin::CoinMetadata<{coin}>")
            treasury_type = vm.parse_type(f"0x2::coin::TreasuryCap<{coin}>")
        except ExecutionFailure:
            return None
        metadata, treasury = self._find_only(metadata_type.tag), self._find_only(treasury_type.tag)
        shown: dict[str, Any] = {}
        if metadata is not None:
            shown = self._chain.render_json(parse_type(metadata_type.tag), metadata.contents)
        supply = None
        if treasury is not None:
            supply = int.from_bytes(treasury.contents[32:40], "little")
        return CoinInfo(
            coin,
            None if metadata is None else metadata.id,
            shown.get("decimals", 0),
            shown.get("name", ""),
            shown.get("symbol", ""),
            shown.get("description", ""),
            shown.get("icon_url"),
            None if treasury is None else treasury.id,
            supply,
        )

    # ----------------------------------------------------------------------------------------------- events

    def list_events(
        self,
        wanted: EventFilter | None,
        cursor: bytes | None,
        limit: int,
        descending: bool,
        first: int | None,
        last: int | None,
    ) -> Page[EventRecord]:
        """Return events in the order of the chain, or backwards."""
        limit = _limit(limit)
        conditions, values = _event_conditions(wanted or EventFilter())
        after = _read_cursor("events", cursor, int)
        if after is not None:
            conditions.append("number < ?" if descending else "number > ?")
            values.append(after[0])
        if first is not None:
            conditions.append("checkpoint >= ?")
            values.append(first)
        if last is not None:
            conditions.append("checkpoint <= ?")
            values.append(last)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._store.select_rows(
            "SELECT digest, position, checkpoint, timestamp, package, module, sender, type, contents, number"
            f" FROM events{where} ORDER BY number {'DESC' if descending else 'ASC'} LIMIT ?",
            (*values, limit + 1),
        )
        page = _page(rows, limit, lambda row: _cursor("events", row[9]))
        return Page(tuple(self._make_event(row) for row in page.items), page.cursor)

    def _make_event(self, row: tuple[Any, ...]) -> EventRecord:
        digest, index, checkpoint, time, package, module, sender, tag, contents, number = row
        return EventRecord(
            digest,
            index,
            checkpoint,
            time,
            package,
            module,
            sender,
            parse_type(tag),
            contents,
            number,
            self._chain.render_json,
        )

    @staticmethod
    def event_cursor(event: EventRecord) -> bytes:
        """Return the cursor after an event."""
        return _cursor("events", event.number)

    def package_versions(self, id: bytes, cursor: bytes | None, limit: int) -> Page[tuple[int, bytes]]:
        """Return versions of the package that `id` belongs to, in order."""
        limit = _limit(limit)
        after = _read_cursor("versions", cursor, int) or [0]
        rows = self._store.select_rows(
            "SELECT version, id FROM packages WHERE original ="
            " (SELECT original FROM packages WHERE id = ?) AND version > ? ORDER BY version LIMIT ?",
            (id, after[0], limit + 1),
        )
        found = [(int(version), bytes(storage)) for version, storage in rows]
        return _page(found, limit, lambda item: _cursor("versions", item[0]))


def _event_conditions(wanted: EventFilter) -> tuple[list[str], list[Any]]:
    tag = wanted.type
    columns = {
        "package": wanted.package,
        "module": wanted.module,
        "sender": wanted.sender,
        "type_package": wanted.type_package,
        "type_module": wanted.type_module,
        "type" if tag is not None and tag.arguments else "base": None if tag is None else tag.text,
    }
    used = {name: value for name, value in columns.items() if value is not None}
    return [f"{name} = ?" for name in used], list(used.values())
