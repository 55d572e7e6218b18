"""Commands and arguments of a transaction as messages of `sui.rpc.v2`, for the client and the embedded node.

`v2` is the module of the message classes: who loads it, and when, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dtp.sui import transaction as sui
from dtp.sui.names import format_address

__all__ = ["argument_message", "command_message"]


def argument_message(argument: sui.Argument, v2: Any) -> Any:
    """Return an argument of a command."""
    kinds = v2.ArgumentArgumentKind
    match argument:
        case sui.GasCoin():
            return v2.Argument(kind=kinds.GAS)
        case sui.Input(index):
            return v2.Argument(kind=kinds.INPUT, input=index)
        case sui.Result(command):
            return v2.Argument(kind=kinds.RESULT, result=command)
        case sui.NestedResult(command, index):
            return v2.Argument(kind=kinds.RESULT, result=command, subresult=index)


def command_message(command: sui.Command, v2: Any) -> Any:
    """Return a command with its arguments."""

    def all_of(arguments: Iterable[sui.Argument]) -> list[Any]:
        return [argument_message(each, v2) for each in arguments]

    match command:
        case sui.MoveCall(package, module, function, types, arguments):
            call = v2.MoveCall(
                package=format_address(package),
                module=module,
                function=function,
                type_arguments=[str(each) for each in types],
                arguments=all_of(arguments),
            )
            return v2.Command(move_call=call)
        case sui.TransferObjects(objects, recipient):
            give = v2.TransferObjects(objects=all_of(objects), address=argument_message(recipient, v2))
            return v2.Command(transfer_objects=give)
        case sui.SplitCoins(coin, amounts):
            split = v2.SplitCoins(coin=argument_message(coin, v2), amounts=all_of(amounts))
            return v2.Command(split_coins=split)
        case sui.MergeCoins(target, sources):
            merge = v2.MergeCoins(coin=argument_message(target, v2), coins_to_merge=all_of(sources))
            return v2.Command(merge_coins=merge)
        case sui.Publish(modules, dependencies):
            ids = [format_address(each) for each in dependencies]
            return v2.Command(publish=v2.Publish(modules=list(modules), dependencies=ids))
        case sui.MakeMoveVec(tag, elements):
            vector = v2.MakeMoveVector(
                element_type=None if tag is None else str(tag), elements=all_of(elements)
            )
            return v2.Command(make_move_vector=vector)
        case sui.Upgrade(modules, dependencies, package, ticket):
            newer = v2.Upgrade(
                modules=list(modules),
                dependencies=[format_address(each) for each in dependencies],
                package=format_address(package),
                ticket=argument_message(ticket, v2),
            )
            return v2.Command(upgrade=newer)
