"""Move values as JSON, the way the chain's gRPC service shows them.

Numbers of up to 32 bits are numbers, larger ones text; `vector<u8>` is base64; addresses and ids are `0x…`; strings
and URLs are text, an option its value or null, a balance its number; an enum names its variant under `@variant`.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from dtp.localnet.vm import Type

__all__ = ["to_json"]

_STD: Final = (1).to_bytes(32, "big")
_SUI: Final = (2).to_bytes(32, "big")
_SMALL: Final = frozenset({"bool", "u8", "u16", "u32"})
_TEXTS: Final = frozenset({(_STD, "string", "String"), (_STD, "ascii", "String")})


def to_json(type: Type, data: Any) -> Any:
    """Return a value of the Move machine as JSON."""
    if type.kind in _SMALL:
        return data
    if type.kind in ("address", "signer"):
        return f"0x{data.hex()}"
    if type.kind == "vector":
        if type.element.kind == "u8":
            return base64.b64encode(data).decode()
        return [to_json(type.element, item) for item in data]
    if type.datatype is None:
        return str(data)
    return _datatype(type, data)


def _datatype(type: Type, data: Any) -> Any:
    found = type.datatype
    assert found is not None, "the caller looked"
    name = (found.package, found.module, found.name)
    if name in _TEXTS:
        # Only valid text can be in such a struct, whoever made it.
        return bytes(data[0]).decode("utf-8", "replace")
    if name == (_STD, "option", "Option"):
        return to_json(type.arguments[0], data[0][0]) if data[0] else None
    if name == (_SUI, "object", "UID"):
        return f"0x{data[0][0].hex()}"
    if name == (_SUI, "object", "ID"):
        return f"0x{data[0].hex()}"
    if name == (_SUI, "balance", "Balance"):
        return str(data[0])
    if name == (_SUI, "url", "Url"):
        return to_json(type.fields[0], data[0])
    if found.is_enum:
        number = data[0]
        fields = _fields(found.field_names[number], type.variants[number], data[1:])
        return {"@variant": found.variant_names[number], **fields}
    return _fields(found.field_names[0], type.fields, data)


def _fields(names: tuple[str, ...], types: tuple[Type, ...], data: Any) -> dict[str, Any]:
    # A struct without fields has one in the bytecode that its source has not.
    if names == ("dummy_field",):
        return {}
    return {name: to_json(type, item) for name, type, item in zip(names, types, data, strict=True)}
