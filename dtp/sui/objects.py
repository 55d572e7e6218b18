"""Objects as Sui writes them: owners, Move objects, packages, and the digest that a reference carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

from dtp.sui.bcs import (
    ADDRESS,
    BOOL,
    BYTES,
    DIGEST,
    STRING,
    U64,
    BcsError,
    Codec,
    enum,
    mapping,
    struct,
    vector,
)
from dtp.sui.names import (
    STRUCT_TAG,
    TYPE_TAG,
    TypeTag,
    format_address,
    parse_address,
    parse_type,
)

SUI_TYPE = parse_type("0x2::sui::SUI")
GAS_COIN_TYPE = parse_type("0x2::coin::Coin<0x2::sui::SUI>")
_STAKED_SUI = parse_type("0x3::staking_pool::StakedSui")
_SUI_FRAMEWORK = (2).to_bytes(32, "big")

# ------------------------------------------------------------------------------------------------ owners


@dataclass(frozen=True)
class AddressOwner:
    """Owned by an account (or sent to an object, see `transfer::receive`)."""

    address: bytes


@dataclass(frozen=True)
class ObjectOwner:
    """A child of an object (dynamic fields); `address` is the parent's id."""

    address: bytes


@dataclass(frozen=True)
class SharedOwner:
    """Used by anyone; `initial_shared_version` is the version at which it was shared."""

    initial_shared_version: int


@dataclass(frozen=True)
class Immutable:
    """Frozen: packages and frozen objects."""


@dataclass(frozen=True)
class ConsensusAddressOwner:
    """Owned by an account, sequenced by consensus (party objects)."""

    start_version: int
    address: bytes


Owner: TypeAlias = AddressOwner | ObjectOwner | SharedOwner | Immutable | ConsensusAddressOwner

OWNER: Codec[Owner] = enum(
    "Owner",
    {
        0: (AddressOwner, struct(AddressOwner, address=ADDRESS)),
        1: (ObjectOwner, struct(ObjectOwner, address=ADDRESS)),
        2: (SharedOwner, struct(SharedOwner, initial_shared_version=U64)),
        3: (Immutable, struct(Immutable)),
        4: (ConsensusAddressOwner, struct(ConsensusAddressOwner, start_version=U64, address=ADDRESS)),
    },
)

# ----------------------------------------------------------------------------------------------- objects


@dataclass(frozen=True)
class MoveObject:
    """A struct with a UID. `contents` is its BCS, which starts with the 32 bytes of the id."""

    type: TypeTag
    has_public_transfer: bool
    version: int
    contents: bytes


@dataclass(frozen=True)
class TypeOrigin:
    """The package (storage id) that first defined a datatype."""

    module: str
    datatype: str
    package: bytes


@dataclass(frozen=True)
class UpgradeInfo:
    """Which version of a dependency is used."""

    upgraded_id: bytes
    upgraded_version: int


@dataclass(frozen=True)
class MovePackageData:
    """A package as an object. `linkage` maps original ids to what is used for them."""

    id: bytes
    version: int
    modules: Mapping[str, bytes]
    type_origins: tuple[TypeOrigin, ...]
    linkage: Mapping[bytes, UpgradeInfo]


@dataclass(frozen=True)
class ObjectValue:
    """A whole object: content, owner, the transaction that wrote it, and the MIST that deleting it gives back."""

    data: MoveObject | MovePackageData
    owner: Owner
    previous_transaction: bytes
    storage_rebate: int


def _write_object_type(tag: TypeTag, out: bytearray) -> None:
    # The commonest types have short forms.
    if tag == GAS_COIN_TYPE:
        out.append(1)
    elif tag == _STAKED_SUI:
        out.append(2)
    elif tag.name == "Coin" and tag.module == "coin" and tag.address == _SUI_FRAMEWORK:
        out.append(3)
        TYPE_TAG.write(tag.arguments[0], out)
    else:
        out.append(0)
        STRUCT_TAG.write(tag, out)


def _read_object_type(data: bytes, at: int) -> tuple[TypeTag, int]:
    if at >= len(data):
        raise BcsError("an object's type is cut off", at)
    number = data[at]
    if number == 0:
        return STRUCT_TAG.read(data, at + 1)
    if number == 1:
        return GAS_COIN_TYPE, at + 1
    if number == 2:
        return _STAKED_SUI, at + 1
    if number == 3:
        inner, end = TYPE_TAG.read(data, at + 1)
        return TypeTag("Coin", (inner,), _SUI_FRAMEWORK, "coin"), end
    raise BcsError(f"MoveObjectType has no variant {number}", at)


OBJECT_TYPE: Codec[TypeTag] = Codec(_write_object_type, _read_object_type)
_MOVE_OBJECT = struct(MoveObject, type=OBJECT_TYPE, has_public_transfer=BOOL, version=U64, contents=BYTES)
_PACKAGE = struct(
    MovePackageData,
    id=ADDRESS,
    version=U64,
    modules=mapping(STRING, BYTES),
    type_origins=vector(struct(TypeOrigin, module=STRING, datatype=STRING, package=ADDRESS)),
    linkage=mapping(ADDRESS, struct(UpgradeInfo, upgraded_id=ADDRESS, upgraded_version=U64)),
)
OBJECT_DATA: Codec[MoveObject | MovePackageData] = enum(
    "Data", {0: (MoveObject, _MOVE_OBJECT), 1: (MovePackageData, _PACKAGE)}
)
OBJECT: Codec[ObjectValue] = struct(
    ObjectValue, data=OBJECT_DATA, owner=OWNER, previous_transaction=DIGEST, storage_rebate=U64
)


def object_digest(bcs: bytes) -> bytes:
    """Return the 32-byte digest of an object from its BCS (`OBJECT`)."""
    return blake2b(b"Object::" + bcs, digest_size=32).digest()


def fresh_object_id(digest: bytes, number: int) -> bytes:
    """Return the id of object number `number` that the transaction of a digest has made, a package too."""
    return blake2b(b"\xf1" + digest + number.to_bytes(8, "little"), digest_size=32).digest()


def dynamic_field_id(parent: str, key_type: str, key: bytes) -> str:
    """Return the id of the field of `parent` (a table's id, say) under a key, given as its type and its BCS."""
    tag = TYPE_TAG.encode(parse_type(key_type))
    body = b"\xf0" + parse_address(parent) + len(key).to_bytes(8, "little") + key + tag
    return format_address(blake2b(body, digest_size=32).digest())
