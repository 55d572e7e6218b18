"""Requests as the node's values: ids, digests, types, cursors, transactions in both forms, signatures.

Whatever is wrong with a request is found here and leaves as `BadRequest` with the field's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dtp.localnet.grpc.errors import BadRequest, Unsupported
from dtp.localnet.model import LiteralInput, ObjectInput, PureInput, UnresolvedInput, UnresolvedTransaction
from dtp.sui import transaction as sui
from dtp.sui.bcs import BYTES, BcsError
from dtp.sui.grpc import from_value
from dtp.sui.names import SuiNameError, TypeTag, parse_address, parse_digest, parse_type

T = TypeVar("T")
_LARGEST = 2**63 - 1
#: Ed25519 is 0, secp256k1 1, secp256r1 2.
_LAST_SIMPLE = 2
_MAX_PAGE = 1000
_DEFAULT_PAGE = 50
_MAX_BATCH = 1000


def required(value: T | None, field: str) -> T:
    """Return the value of a field that must be set."""
    if value is None or value == "":
        raise BadRequest("is missing", field=field)
    return value


def _parsed(parse: Callable[[str], T], text: str | None, field: str) -> T:
    try:
        return parse(required(text, field))
    except SuiNameError as fault:
        raise BadRequest(str(fault), field=field) from fault


def address(text: str | None, field: str) -> bytes:
    """Return an address or id."""
    return _parsed(parse_address, text, field)


def digest(text: str | None, field: str) -> bytes:
    """Return a base58 digest."""
    return _parsed(parse_digest, text, field)


def type_tag(text: str | None, field: str) -> TypeTag:
    """Return a type."""
    return _parsed(parse_type, text, field)


def stored(number: int | None) -> int | None:
    """Return a number to look for in the node's database, which has none above 2^63 - 1."""
    return None if number is None else min(number, _LARGEST)


def page_size(wanted: int | None) -> int:
    """Return how many items a page has."""
    return min(wanted or _DEFAULT_PAGE, _MAX_PAGE)


def batch(items: list[T], field: str) -> list[T]:
    """Return the items of a batch, if they aren't too many."""
    if len(items) > _MAX_BATCH:
        raise BadRequest(f"{len(items)} in one batch; at most {_MAX_BATCH}", field=field)
    return items


# ------------------------------------------------------------------------------------------------ transactions


def transaction_bytes(message: Any) -> bytes | None:
    """Return the BCS in a `Transaction`, None when it is given field by field."""
    if message.bcs is None or message.bcs.value is None:
        return None
    return bytes(message.bcs.value)


def decode_transaction(data: bytes) -> sui.TransactionData:
    """Return the transaction that BCS is."""
    try:
        return sui.TransactionData.decode(data)
    except BcsError as fault:
        raise BadRequest(f"no TransactionData: {fault}", field="transaction.bcs") from fault


def unresolved(message: Any) -> UnresolvedTransaction:
    """Return a `Transaction` that is given field by field, of which versions and gas may be left to the node."""
    kind = required(message.kind, "transaction.kind")
    programmable = kind.programmable_transaction
    if programmable is None:
        raise BadRequest("only programmable transactions are taken", field="transaction.kind")
    payment = message.gas_payment
    return UnresolvedTransaction(
        sender=address(message.sender, "transaction.sender"),
        inputs=tuple(_input(each, f"inputs[{n}]") for n, each in enumerate(programmable.inputs)),
        commands=tuple(_command(each, f"commands[{n}]") for n, each in enumerate(programmable.commands)),
        expiration=_expiration(message.expiration) if message.expiration is not None else None,
        gas_payment=tuple(_reference(each, "gas_payment.objects") for each in payment.objects) or None
        if payment is not None
        else None,
        gas_owner=address(payment.owner, "gas_payment.owner")
        if payment is not None and payment.owner
        else None,
        gas_price=payment.price if payment is not None else None,
        gas_budget=payment.budget if payment is not None else None,
    )


def _reference(message: Any, field: str) -> sui.ObjectRef:
    return sui.ObjectRef(
        address(message.object_id, f"{field}.object_id"),
        int(required(message.version, f"{field}.version")),
        digest(message.digest, f"{field}.digest"),
    )


def _input(message: Any, field: str) -> UnresolvedInput:
    if message.literal is not None:
        return LiteralInput(from_value(message.literal))
    if message.pure is not None:
        return PureInput(bytes(message.pure))
    if message.funds_withdrawal is not None:
        raise Unsupported(f"{field}: withdrawals from address balances: this node has none")
    kind = int(message.kind or 0)
    writes = message.mutable
    if message.mutability is not None and int(message.mutability):
        writes = int(message.mutability) == int(sui.Mutability.MUTABLE) + 1
    return ObjectInput(
        id=address(message.object_id, f"{field}.object_id"),
        version=message.version,
        digest=digest(message.digest, f"{field}.digest") if message.digest else None,
        mutable=writes,
        receiving=kind == 4,
    )


def _argument(message: Any, field: str) -> sui.Argument:
    kind = int(required(message, field).kind or 0)
    if kind == 1:
        return sui.GasCoin()
    if kind == 2:
        return sui.Input(_u16(message.input, f"{field}.input"))
    if kind == 3:
        command = _u16(message.result, f"{field}.result")
        if message.subresult is None:
            return sui.Result(command)
        return sui.NestedResult(command, _u16(message.subresult, f"{field}.subresult"))
    raise BadRequest("says neither gas, input nor result", field=f"{field}.kind")


def _u16(number: int | None, field: str) -> int:
    found = required(number, field)
    if not 0 <= found < 1 << 16:
        raise BadRequest(f"{found} is not an index", field=field)
    return found


def _arguments(messages: list[Any], field: str) -> tuple[sui.Argument, ...]:
    return tuple(_argument(each, f"{field}[{n}]") for n, each in enumerate(messages))


def _ids(texts: list[str], field: str) -> tuple[bytes, ...]:
    return tuple(address(each, f"{field}[{n}]") for n, each in enumerate(texts))


def _command(message: Any, field: str) -> sui.Command:
    if (call := message.move_call) is not None:
        return sui.MoveCall(
            address(call.package, f"{field}.package"),
            required(call.module, f"{field}.module"),
            required(call.function, f"{field}.function"),
            tuple(type_tag(each, f"{field}.type_arguments") for each in call.type_arguments),
            _arguments(call.arguments, f"{field}.arguments"),
        )
    if (give := message.transfer_objects) is not None:
        objects = _arguments(give.objects, f"{field}.objects")
        return sui.TransferObjects(objects, _argument(give.address, f"{field}.address"))
    if (split := message.split_coins) is not None:
        amounts = _arguments(split.amounts, f"{field}.amounts")
        return sui.SplitCoins(_argument(split.coin, f"{field}.coin"), amounts)
    if (merge := message.merge_coins) is not None:
        sources = _arguments(merge.coins_to_merge, f"{field}.coins_to_merge")
        return sui.MergeCoins(_argument(merge.coin, f"{field}.coin"), sources)
    if (new := message.publish) is not None:
        return sui.Publish(tuple(map(bytes, new.modules)), _ids(new.dependencies, f"{field}.dependencies"))
    if (vector := message.make_move_vector) is not None:
        kind = vector.element_type
        return sui.MakeMoveVec(
            type_tag(kind, f"{field}.element_type") if kind else None,
            _arguments(vector.elements, f"{field}.elements"),
        )
    if (newer := message.upgrade) is not None:
        return sui.Upgrade(
            tuple(map(bytes, newer.modules)),
            _ids(newer.dependencies, f"{field}.dependencies"),
            address(newer.package, f"{field}.package"),
            _argument(newer.ticket, f"{field}.ticket"),
        )
    raise BadRequest("is not a command", field=field)


def _expiration(message: Any) -> sui.Expiration:
    kind = int(message.kind or 0)
    if kind in (0, 1):
        return sui.NoExpiration()
    if kind == 2:
        return sui.EpochExpiration(int(required(message.epoch, "expiration.epoch")))
    raise Unsupported(f"expiration of kind {kind}: give such a transaction as BCS")


def signature(message: Any, place: int) -> bytes:
    """Return a `UserSignature` as Sui's serialized form."""
    field = f"signatures[{place}]"
    if message.bcs is not None and message.bcs.value is not None:
        return _unprefixed(bytes(message.bcs.value), field)
    if (simple := message.simple) is not None:
        scheme = int(simple.scheme if simple.scheme is not None else message.scheme or 0)
        if not 0 <= scheme <= _LAST_SIMPLE:
            raise BadRequest(f"no simple scheme has number {scheme}", field=field)
        body = required(simple.signature, f"{field}.simple.signature")
        public = required(simple.public_key, f"{field}.simple.public_key")
        return bytes((scheme,)) + bytes(body) + bytes(public)
    raise Unsupported(f"{field}: give signatures as bcs, or ed25519, secp256k1 and secp256r1 ones as simple")


def _unprefixed(data: bytes, field: str) -> bytes:
    """Return a serialized signature, with or without its length in front. Flags are below 7, lengths are above."""
    if not data:
        raise BadRequest("is empty", field=field)
    if data[0] < 8:
        return data
    try:
        return BYTES.decode(data)
    except BcsError as fault:
        raise BadRequest(f"no signature: {fault}", field=field) from fault
