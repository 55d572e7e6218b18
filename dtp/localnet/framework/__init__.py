"""The framework packages 0x1 (Move standard library) and 0x2 (Sui) of the embedded node, as compiled bytecode.

Sources are ours (`move-stdlib/`, `sui-framework/`), written to the genuine framework's signatures, struct layouts,
abort codes and behaviour; `build.mjs` compiles them. They leave out what a development node has no counterpart for:
the accumulator, deny lists, kiosks, zkLogin, pairing curves and other exotic cryptography. A package that uses
something absent is refused at publish with its name.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from importlib.resources import files

from dtp.localnet.vm.contract import Package
from dtp.sui.bytecode import deserialize

__all__ = ["STD", "SUI", "system_packages"]

STD = (1).to_bytes(32, "big")
"""Address of the Move standard library."""
SUI = (2).to_bytes(32, "big")
"""Address of the Sui framework."""


@cache
def system_packages() -> tuple[Package, Package]:
    """Return the two framework packages, always the same objects."""
    stored: dict[str, list[str]] = json.loads(
        files(__package__).joinpath("framework.json").read_text("utf-8")
    )
    return (
        _package(STD, stored["0x1"], {}),
        _package(SUI, stored["0x2"], {STD: STD}),
    )


def _package(id: bytes, encoded: list[str], linkage: dict[bytes, bytes]) -> Package:
    modules = {}
    origins = {}
    for text in encoded:
        data = base64.b64decode(text)
        module = deserialize(data)
        modules[module.name] = data
        origins.update({(module.name, name): id for name in (*module.structs, *module.enums)})
    return Package(id, id, 1, dict(sorted(modules.items())), linkage, origins)
