"""What a node may tell in place of what is true: for `FaultyNode.lie`."""

from dataclasses import replace
from datetime import timedelta

from dtp.chain._pysui import encode_transaction, library
from dtp.chain.channel import SCHEMA, Channel
from dtp.sui.transaction import TransactionData


def _changed(name, change):
    def told(answer):
        message = getattr(library().v2, name).parse(answer)
        change(message)
        return bytes(message)

    return told


def price(factor):
    """A unit of gas costs so many times what it does."""

    def change(message):
        message.epoch.reference_gas_price *= factor

    return {"GetEpoch": _changed("GetEpochResponse", change)}


def cheap_simulations():
    """Nothing that is simulated costs computation."""

    def change(message):
        message.transaction.effects.gas_used.computation_cost = 1

    return {"SimulateTransaction": _changed("SimulateTransactionResponse", change)}


def gas_budget(budget):
    """What a simulated transaction is to be signed with is so much gas."""

    def change(message):
        filled = message.transaction.transaction.bcs
        data = TransactionData.decode(filled.value)
        filled.value = encode_transaction(replace(data, gas_data=replace(data.gas_data, budget=budget)))

    return {"SimulateTransaction": _changed("SimulateTransactionResponse", change)}


def balances(factor):
    """An account has so many times what it has."""

    def change(message):
        message.balance.balance = int(message.balance.balance * factor)

    return {"GetBalance": _changed("GetBalanceResponse", change)}


def stale():
    """Each object is as it was when it was asked about first."""
    first = {}

    def change(message):
        for each in message.objects:
            if each.object is not None:
                each.object = first.setdefault(each.object.object_id, each.object)

    return {"BatchGetObjects": _changed("BatchGetObjectsResponse", change)}


def without(is_hidden):
    """The objects whose type is one of those aren't there."""

    def change(message):
        message.objects = [
            each for each in message.objects if each.object is None or not is_hidden(each.object.object_type)
        ]

    return {"BatchGetObjects": _changed("BatchGetObjectsResponse", change)}


def other_numbers(was, says):
    """Where an object has the first number (64 bits), it says the second: deposits, balances, and what is claimed."""

    def change(message):
        for each in message.objects:
            if each.object is not None and each.object.contents is not None:
                contents = each.object.contents
                contents.value = contents.value.replace(was.to_bytes(8, "little"), says.to_bytes(8, "little"))

    return {"BatchGetObjects": _changed("BatchGetObjectsResponse", change)}


def time(off):
    """It is so much later, ms."""

    def change(message):
        message.timestamp += timedelta(milliseconds=off)

    return {"GetServiceInfo": _changed("GetServiceInfoResponse", change)}


def failures():
    """What was executed has failed, whenever it is asked about."""

    def change(message):
        status = message.transaction.effects.status
        status.success, status.error = False, library().v2.ExecutionError(description="made up")

    return {
        "ExecuteTransaction": _changed("ExecuteTransactionResponse", change),
        "GetTransaction": _changed("GetTransactionResponse", change),
    }


def dear_effects(factor):
    """What was executed took so many times its gas."""

    def change(message):
        message.transaction.effects.gas_used.computation_cost *= factor

    return {"ExecuteTransaction": _changed("ExecuteTransactionResponse", change)}


def together(*several):
    """All of these, the first first where several are about one method."""
    told = {}
    for lies in several:
        for method, change in lies.items():
            before = told.get(method)
            told[method] = change if before is None else _both(before, change)
    return told


def _both(first, second):
    return lambda answer: second(first(answer))


def sometimes(lies, tells):
    """These only where `tells()` says so, for each answer."""

    def at_times(change):
        return lambda answer: change(answer) if tells() else answer

    return {method: at_times(change) for method, change in lies.items()}


def channels(change):
    """Channels are what `change` makes of them, `Channel` -> `Channel`."""

    def changed(message):
        for each in message.objects:
            if each.object is not None and "::channel::Channel<" in each.object.object_type:
                contents = each.object.contents
                contents.value = SCHEMA.encode(change(SCHEMA.decode(Channel, contents.value)))

    return {"BatchGetObjects": _changed("BatchGetObjectsResponse", changed)}
