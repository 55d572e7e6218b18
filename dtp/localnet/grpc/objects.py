"""Objects, owners, dynamic fields, coins and packages as messages. Tables say how each field is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dtp.localnet import model
from dtp.localnet.grpc.masks import Maker, Mask, build
from dtp.localnet.grpc.messages import library, value
from dtp.localnet.node import LocalNode
from dtp.sui.names import format_address, format_digest
from dtp.sui.objects import (
    AddressOwner,
    ConsensusAddressOwner,
    Immutable,
    MovePackageData,
    ObjectOwner,
    Owner,
    SharedOwner,
)

_FRAMEWORK = (2).to_bytes(32, "big")
_ID_BYTES = 32
_COIN_BYTES = _ID_BYTES + 8


def owner_message(owner: Owner) -> Any:
    """Return who owns an object."""
    v2 = library().v2
    kinds = v2.OwnerOwnerKind
    match owner:
        case AddressOwner(address):
            return v2.Owner(kind=kinds.ADDRESS, address=format_address(address))
        case ObjectOwner(address):
            return v2.Owner(kind=kinds.OBJECT, address=format_address(address))
        case SharedOwner(version):
            return v2.Owner(kind=kinds.SHARED, version=version)
        case Immutable():
            return v2.Owner(kind=kinds.IMMUTABLE)
        case ConsensusAddressOwner(version, address):
            return v2.Owner(kind=kinds.CONSENSUS_ADDRESS, address=format_address(address), version=version)


def bcs_message(name: str, data: bytes) -> Any:
    """Return BCS with the name of its type."""
    return library().v2.Bcs(name=name, value=data)


def type_text(record: model.ObjectRecord) -> str:
    """Return an object's type, "package" for a package."""
    return "package" if record.type is None else str(record.type)


def _coin_balance(record: model.ObjectRecord) -> int | None:
    tag = record.type
    if tag is None or (tag.address, tag.module, tag.name) != (_FRAMEWORK, "coin", "Coin"):
        return None
    return int.from_bytes(record.contents[_ID_BYTES:_COIN_BYTES], "little")


class Objects:
    """Objects of one node as messages."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node
        self._makers: Final[Mapping[str, Maker]] = {
            "bcs": lambda record, want: bcs_message("Object", record.bcs),
            "object_id": lambda record, want: format_address(record.id),
            "version": lambda record, want: record.version,
            "digest": lambda record, want: format_digest(record.digest),
            "owner": lambda record, want: owner_message(record.owner),
            "object_type": lambda record, want: type_text(record),
            "has_public_transfer": self._public_transfer,
            "contents": self._contents_message,
            "package": self._package_message,
            "previous_transaction": lambda record, want: format_digest(record.previous_transaction),
            "storage_rebate": lambda record, want: record.storage_rebate,
            "json": self._json_message,
            "balance": lambda record, want: _coin_balance(record),
        }

    def make_message(self, record: model.ObjectRecord, want: Mask) -> Any:
        """Return an object with the wanted fields."""
        return build(library().v2.Object, self._makers, record, want)

    @staticmethod
    def _public_transfer(record: model.ObjectRecord, want: Mask) -> bool | None:
        data = record.value.data
        return None if isinstance(data, MovePackageData) else data.has_public_transfer

    @staticmethod
    def _contents_message(record: model.ObjectRecord, want: Mask) -> Any:
        return None if record.type is None else bcs_message(str(record.type), record.contents)

    def _json_message(self, record: model.ObjectRecord, want: Mask) -> Any:
        if record.type is None:
            return None
        content = self._node.render_json(record.type, record.contents)
        return None if content is None else value(content)

    def _package_message(self, record: model.ObjectRecord, want: Mask) -> Any:
        found = self._node.find_package(record.id) if record.package is not None else None
        return None if found is None else package_message(found)

    def dynamic_field(self, found: model.DynamicField, want: Mask) -> Any:
        """Return a dynamic field with the wanted fields."""
        return build(library().v2.DynamicField, self._field_makers, found, want)

    @property
    def _field_makers(self) -> Mapping[str, Maker]:
        kinds = library().v2.DynamicFieldDynamicFieldKind
        return {
            "kind": lambda found, want: kinds.FIELD if found.child_id is None else kinds.OBJECT,
            "parent": lambda found, want: format_address(found.parent),
            "field_id": lambda found, want: format_address(found.field_id),
            "field_object": lambda found, want: self._linked_message(found.field_id, want),
            "name": lambda found, want: bcs_message(str(found.name_type), found.name),
            "value": self._field_value,
            "value_type": lambda found, want: str(found.value_type),
            "child_id": lambda found, want: (
                None if found.child_id is None else format_address(found.child_id)
            ),
            "child_object": lambda found, want: (
                None if found.child_id is None else self._linked_message(found.child_id, want)
            ),
        }

    @staticmethod
    def _field_value(found: model.DynamicField, want: Mask) -> Any:
        return None if found.value is None else bcs_message(str(found.value_type), found.value)

    def _linked_message(self, id: bytes, want: Mask) -> Any:
        record = self._node.find_object(id)
        return None if record is None else self.make_message(record, want)


def balance_message(found: model.Balance) -> Any:
    """Return a balance; all of it is in coins here, since this node has no address balances."""
    return library().v2.Balance(
        coin_type=str(found.coin_type), balance=found.amount, coin_balance=found.amount, address_balance=0
    )


def coin_info_message(found: model.CoinInfo) -> Any:
    """Return what is known of a coin."""
    v2 = library().v2
    metadata = None
    if found.metadata_id is not None or found.symbol:
        metadata = v2.CoinMetadata(
            id=None if found.metadata_id is None else format_address(found.metadata_id),
            decimals=found.decimals,
            name=found.name,
            symbol=found.symbol,
            description=found.description,
            icon_url=found.icon_url,
        )
    treasury = None
    if found.total_supply is not None:
        treasury = v2.CoinTreasury(
            id=format_address(found.treasury_cap_id) if found.treasury_cap_id is not None else None,
            total_supply=found.total_supply,
            supply_state=v2.CoinTreasurySupplyState.FIXED if found.treasury_cap_id is None else None,
        )
    return v2.GetCoinInfoResponse(coin_type=str(found.coin_type), metadata=metadata, treasury=treasury)


# ----------------------------------------------------------------------------------------------------- packages


def package_message(found: model.PackageInfo) -> Any:
    """Return a package with its modules."""
    v2 = library().v2
    return v2.Package(
        storage_id=format_address(found.storage_id),
        original_id=format_address(found.original_id),
        version=found.version,
        modules=[
            v2.Module(
                name=module.name,
                contents=module.contents,
                datatypes=[datatype_message(each) for each in module.datatypes],
                functions=[function_message(each) for each in module.functions],
            )
            for module in found.modules
        ],
        type_origins=[
            v2.TypeOrigin(
                module_name=each.module, datatype_name=each.datatype, package_id=format_address(each.package)
            )
            for each in found.data.type_origins
        ],
        linkage=[
            v2.Linkage(
                original_id=format_address(original),
                upgraded_id=format_address(used.upgraded_id),
                upgraded_version=used.upgraded_version,
            )
            for original, used in found.data.linkage.items()
        ],
    )


def _abilities(names: tuple[str, ...]) -> list[Any]:
    kinds = library().v2.Ability
    return [kinds[name.upper()] for name in names]


def _type_parameters(parameters: tuple[model.TypeParameter, ...]) -> list[Any]:
    v2 = library().v2
    return [
        v2.TypeParameter(constraints=_abilities(each.abilities), is_phantom=each.phantom)
        for each in parameters
    ]


def datatype_message(found: model.DatatypeInfo) -> Any:
    """Return a struct or an enum."""
    v2 = library().v2
    kinds = v2.DatatypeDescriptorDatatypeKind
    return v2.DatatypeDescriptor(
        type_name=found.type_name,
        defining_id=format_address(found.defining_id),
        module=found.module,
        name=found.name,
        abilities=_abilities(found.abilities),
        type_parameters=_type_parameters(found.type_parameters),
        kind=kinds.ENUM if found.is_enum else kinds.STRUCT,
        fields=[_field_message(each) for each in found.fields],
        variants=[
            v2.VariantDescriptor(
                name=each.name, position=each.position, fields=[_field_message(f) for f in each.fields]
            )
            for each in found.variants
        ],
    )


def _field_message(found: model.FieldInfo) -> Any:
    v2 = library().v2
    return v2.FieldDescriptor(name=found.name, position=found.position, type=_open_type(found.type))


def _open_type(found: model.OpenType) -> Any:
    v2 = library().v2
    kinds = v2.OpenSignatureBodyType
    kind = kinds.TYPE_PARAMETER if found.kind == "parameter" else kinds[found.kind.upper()]
    return v2.OpenSignatureBody(
        type=kind,
        type_name=found.name or None,
        type_parameter_instantiation=[_open_type(each) for each in found.arguments],
        type_parameter=found.index,
    )


def _open_signature(found: model.OpenSignature) -> Any:
    v2 = library().v2
    references = {
        "": None,
        "&": v2.OpenSignatureReference.IMMUTABLE,
        "&mut": v2.OpenSignatureReference.MUTABLE,
    }
    return v2.OpenSignature(reference=references[found.reference], body=_open_type(found.body))


def function_message(found: model.FunctionInfo) -> Any:
    """Return a function's signature."""
    v2 = library().v2
    return v2.FunctionDescriptor(
        name=found.name,
        visibility=v2.FunctionDescriptorVisibility[found.visibility.upper()],
        is_entry=found.is_entry,
        type_parameters=_type_parameters(found.type_parameters),
        parameters=[_open_signature(each) for each in found.parameters],
        returns=[_open_signature(each) for each in found.returns],
    )
