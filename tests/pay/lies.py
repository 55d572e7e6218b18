"""What a node may tell in place of what is true: for `FaultyNode.lie`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dtp.chain import pass_ as pass_module
from dtp.chain.channel import SCHEMA, Channel
from dtp.chain.node._pysui import encode_transaction, library
from dtp.pay.client.budget import DAY_MS
from dtp.sui.transaction import TransactionData


def _changed(name: Any, change: Any) -> Any:
    def told(answer: Any) -> Any:
        message = getattr(library().v2, name).parse(answer)
        change(message)
        return bytes(message)

    return told


def price(factor: Any) -> Any:
    """A unit of gas costs so many times what it does."""

    def change(message: Any) -> None:
        message.epoch.reference_gas_price *= factor

    return {"GetEpoch": _changed("GetEpochResponse", change)}


def cheap_simulations() -> Any:
    """Nothing that is simulated costs computation."""

    def change(message: Any) -> None:
        message.transaction.effects.gas_used.computation_cost = 1

    return {"SimulateTransaction": _changed("SimulateTransactionResponse", change)}


def gas_budget(budget: Any) -> Any:
    """What a simulated transaction is to be signed with is so much gas."""

    def change(message: Any) -> None:
        filled = message.transaction.transaction.bcs
        data = TransactionData.decode(filled.value)
        filled.value = encode_transaction(replace(data, gas_data=replace(data.gas_data, budget=budget)))

    return {"SimulateTransaction": _changed("SimulateTransactionResponse", change)}


def balances(factor: Any) -> Any:
    """An account has so many times what it has."""

    def change(message: Any) -> None:
        message.balance.balance = int(message.balance.balance * factor)

    return {"GetBalance": _changed("GetBalanceResponse", change)}


def stale() -> Any:
    """Each object is as it was when it was asked about first."""
    first: dict[Any, Any] = {}

    def change(message: Any) -> None:
        for each in message.objects:
            if each.object is not None:
                each.object = first.setdefault(each.object.object_id, each.object)

    return {"BatchGetObjects": _changed("BatchGetObjectsResponse", change)}


def without(is_hidden: Any) -> Any:
    """The objects whose type is one of those aren't there."""

    def change(message: Any) -> None:
        message.objects = [
            each for each in message.objects if each.object is None or not is_hidden(each.object.object_type)
        ]

    return {"BatchGetObjects": _changed("BatchGetObjectsResponse", change)}


def other_numbers(was: Any, says: Any) -> Any:
    """Where an object has the first number (64 bits), it says the second: deposits, balances, and what is claimed."""

    def change(message: Any) -> None:
        for each in message.objects:
            if each.object is not None and each.object.contents is not None:
                contents = each.object.contents
                contents.value = contents.value.replace(was.to_bytes(8, "little"), says.to_bytes(8, "little"))

    return {"BatchGetObjects": _changed("BatchGetObjectsResponse", change)}


def time(off: Any) -> Any:
    """It is so much later, ms."""

    def change(message: Any) -> None:
        message.timestamp += timedelta(milliseconds=off)

    return {"GetServiceInfo": _changed("GetServiceInfoResponse", change)}


def failures() -> Any:
    """What was executed has failed, whenever it is asked about."""

    def change(message: Any) -> None:
        status = message.transaction.effects.status
        status.success, status.error = False, library().v2.ExecutionError(description="made up")

    return {
        "ExecuteTransaction": _changed("ExecuteTransactionResponse", change),
        "GetTransaction": _changed("GetTransactionResponse", change),
    }


def dear_effects(factor: Any) -> Any:
    """What was executed took so many times its gas."""

    def change(message: Any) -> None:
        message.transaction.effects.gas_used.computation_cost *= factor

    return {"ExecuteTransaction": _changed("ExecuteTransactionResponse", change)}


def together(*several: Any) -> Any:
    """All of these, the first first where several are about one method."""
    told: dict[Any, Any] = {}
    for lies in several:
        for method, change in lies.items():
            before = told.get(method)
            told[method] = change if before is None else _both(before, change)
    return told


def _both(first: Any, second: Any) -> Any:
    return lambda answer: second(first(answer))


def sometimes(lies: Any, tells: Any) -> Any:
    """These only where `tells()` says so, for each answer."""

    def at_times(change: Any) -> Any:
        return lambda answer: change(answer) if tells() else answer

    return {method: at_times(change) for method, change in lies.items()}


def channels(change: Any) -> Any:
    """Channels are what `change` makes of them, `Channel` -> `Channel`."""
    return {
        "BatchGetObjects": _changed(
            "BatchGetObjectsResponse", lambda message: _change_channels(message, change)
        )
    }


def _change_channels(message: Any, change: Any) -> None:
    for each in message.objects:
        if each.object is not None and "::channel::Channel<" in each.object.object_type:
            contents = each.object.contents
            contents.value = SCHEMA.encode(change(SCHEMA.decode(Channel, contents.value)))


#: The methods that pay and chain call whose answers can be told in any other way.
METHODS = (
    "BatchGetObjects",
    "ExecuteTransaction",
    "GetBalance",
    "GetCheckpoint",
    "GetEpoch",
    "GetObject",
    "GetServiceInfo",
    "GetTransaction",
    "ListBalances",
    "ListDynamicFields",
    "ListEvents",
    "ListOwnedObjects",
    "SimulateTransaction",
)


def anything(rng: Any) -> Any:
    """Each answer has one to three of its facts changed at random: objects, balances, events, gas, effects, names."""

    def change(message: Any) -> None:
        for _ in range(rng.randint(1, 3)):
            facts = list(_facts(message))
            if facts:
                _change_fact(rng, *rng.choice(facts))

    return {method: _changed(f"{method}Response", change) for method in METHODS}


def _facts(message: Any) -> Iterator[Any]:
    """Each value in a message and those inside it: (message, the name of its field)."""
    for each in fields(message):
        value = getattr(message, each.name)
        if value is None or value == [] or callable(value):
            continue
        yield message, each.name
        for inside in value if isinstance(value, list) else [value]:
            if is_dataclass(inside):
                yield from _facts(inside)


def _change_fact(rng: Any, message: Any, name: Any) -> None:
    """Give a field another value of its kind; several are left out, turned round or said twice."""
    value = getattr(message, name)
    several = [value[1:], value[::-1], value + value[:1]] if isinstance(value, list) else []
    setattr(message, name, rng.choice(several) if several else _other(rng, value))


def _other(rng: Any, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        most = 2**31 - 1 if value < 2**31 else 2**63 - 1
        return type(value)(
            rng.choice([0, min(value + 1, most), max(value - 1, 0), min(value * 2, most), most])
        )
    if isinstance(value, bytes | str):
        if not value or rng.random() < 0.3:
            return value[:0]
        at = rng.randrange(len(value))
        if isinstance(value, bytes):
            return value[:at] + bytes([rng.randrange(256)]) + value[at + 1 :]
        return value[:at] + rng.choice("0123456789abcdef:") + value[at + 1 :]
    if isinstance(value, datetime):
        return value + timedelta(milliseconds=rng.choice([-DAY_MS, -1, 1, DAY_MS]))
    return None  # a message inside


def made_up_pass(plan: Any, pass_: Any, account: Any, type: Any, later: int = 1) -> Any:
    """An account's open channels are under a pass that nobody bought: so say all objects that it touches.

    `plan` is the plan's id, so many versions `later`, `pass_` an object of `type`, and `account` what the plan would
    know of it.
    """
    v2 = library().v2

    def owned(message: Any) -> None:
        if not message.objects:  # coins aren't none
            told = v2.Bcs(value=pass_module.SCHEMA.encode(pass_))
            owner = v2.Owner(kind=v2.OwnerOwnerKind.ADDRESS, address=account.holder)
            message.objects.append(
                v2.Object(
                    object_id=pass_.id,
                    version=1,
                    digest="1" * 32,
                    owner=owner,
                    object_type=type,
                    contents=told,
                )
            )

    def accounts(message: Any) -> None:
        name = v2.Bcs(value=bytes.fromhex(pass_.id.removeprefix("0x")))
        value = v2.Bcs(value=pass_module.SCHEMA.encode(account))
        field = v2.DynamicField(kind=1, parent=plan, field_id=pass_.id, name=name, value=value)
        message.dynamic_fields.append(field)

    def changed(message: Any) -> None:
        for each in message.objects:
            if each.object is not None and each.object.object_id == plan:
                each.object.version += later  # its table is read again
        _change_channels(message, lambda found: replace(found, pass_=pass_.id, terms=_free(found.terms)))

    return {
        "ListOwnedObjects": _changed("ListOwnedObjectsResponse", owned),
        "ListDynamicFields": _changed("ListDynamicFieldsResponse", accounts),
        "BatchGetObjects": _changed("BatchGetObjectsResponse", changed),
    }


def _free(terms: Any) -> Any:
    return replace(terms, price_request=0, price_mib=0)
