"""The Move packages that ship with dtp: bytecode, digest, and every name in it.

`load("transport")` gives a `MovePackage` out of the JSON beside this file, which `dtp move build` writes
from the sources in `move/`. Publishing needs nothing else. Names for use in Python are in the generated
folders `transport_names`, `escrow_names` and so on, a file for each Move module; they come out of the same bytecode,
so that Python and Move can't drift.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any

from dtp.errors import LocalError
from dtp.sui.bytecode import AbortCode, CompiledModule, deserialize, package_digest

FORMAT = 1
"""Version of the JSON's layout."""


class PackageError(LocalError):
    """A shipped Move package is unknown, or its file is damaged; the message says which and what to do."""

    code = "move-package"


@dataclass(frozen=True)
class MovePackage:
    """A compiled package as it is published.

    `modules` maps names to bytecode in publishing order, whose own address is zero. `dependencies` are
    32-byte ids, `digest` the 32 bytes that Sui gives the package, `compiler` what made it, `sources` maps
    each source file (relative to the package's folder) to its SHA-256 in hex.
    """

    name: str
    modules: dict[str, bytes]
    dependencies: tuple[bytes, ...]
    digest: bytes
    compiler: str
    sources: dict[str, str]

    @cached_property
    def compiled(self) -> dict[str, CompiledModule]:
        """The modules, read."""
        return {name: deserialize(code) for name, code in self.modules.items()}

    @property
    def size(self) -> int:
        """Bytes of bytecode, nearly all of the transaction that publishes it."""
        return sum(map(len, self.modules.values()))

    def describe_abort(self, module: str, raw: int) -> AbortCode:
        """Return what an abort code of one of this package's modules says. Raises `PackageError` for an unknown
        module."""
        if module not in self.modules:
            raise PackageError(
                f"package {self.name} has no module {module}: it has {', '.join(self.modules)}"
            )
        return self.compiled[module].describe_abort(raw)

    def to_json(self) -> dict[str, Any]:
        """Return the record that `from_json` reads."""
        return {
            "format": FORMAT,
            "name": self.name,
            "compiler": self.compiler,
            "digest": self.digest.hex(),
            "dependencies": ["0x" + dependency.hex() for dependency in self.dependencies],
            "sources": self.sources,
            "modules": {name: base64.b64encode(code).decode() for name, code in self.modules.items()},
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> MovePackage:
        """Read a record. Raises `PackageError` unless it is whole and its digest is that of its bytecode."""
        try:
            if record["format"] != FORMAT:
                raise PackageError(f"package file of format {record['format']}; this dtp reads {FORMAT}")
            package = cls(
                name=record["name"],
                modules={
                    name: base64.b64decode(text, validate=True) for name, text in record["modules"].items()
                },
                dependencies=tuple(bytes.fromhex(text.removeprefix("0x")) for text in record["dependencies"]),
                digest=bytes.fromhex(record["digest"]),
                compiler=record["compiler"],
                sources=record["sources"],
            )
        except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as fault:
            raise PackageError(
                f"not a package file: {fault!r}; reinstall dtp, or run `dtp move build`"
            ) from fault
        if package_digest(package.modules.values(), package.dependencies) != package.digest:
            raise PackageError(
                f"the bytecode of package {package.name} doesn't have the digest in its file; "
                "reinstall dtp, or run `dtp move build`"
            )
        return package


@cache
def available() -> tuple[str, ...]:
    """Return names of the packages that ship with this dtp, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


@cache
def load(name: str) -> MovePackage:
    """Return the package of that name. Raises `PackageError`."""
    if name not in available():
        raise PackageError(f"no Move package {name!r} ships with dtp: there is {', '.join(available())}")
    text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    try:
        record = json.loads(text)
    except json.JSONDecodeError as fault:
        raise PackageError(f"{name}.json is damaged: {fault}; reinstall dtp") from fault
    return MovePackage.from_json(record)
