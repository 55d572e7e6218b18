"""Compares `chain_model` with the embedded node, transaction by transaction, and makes differences small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from dtp.chain.values import TableRef

from .played import Played
from .scenes import Action
from .things import CLOSED, DRAINING, MINUTE, OPEN, Refused
from .world import World
from .writer import ACCOUNTS, Writer

Step = tuple[int, Action]


@dataclass
class Difference:
    """Where model and node part."""

    step: Step
    what: str
    model: Any
    node: Any

    def __str__(self) -> str:
        return f"{self.step}: {self.what}: model {self.model}, node {self.node}"


class Comparison:
    """One history on both sides."""

    def __init__(self, played: Played) -> None:
        self.played = played
        self.world = World(played.now, played.epoch, ACCOUNTS)
        self.steps: list[Step] = []
        self.count = 0
        self.outcomes: dict[tuple[str, str | None], int] = {}

    def do(self, step: Step) -> Difference | None:
        """Do one step on both sides; the first difference. What is of things that aren't there is left out."""
        label, (sender, op, arguments) = step
        world, played = self.world, self.played
        self.steps.append(step)
        if op == "advance":
            world.now += arguments["ms"]
            played.node.advance_clock(arguments["ms"])
            return None
        if op == "epoch":
            played.node.advance_epoch()
            world.epoch, world.now = played.epoch, played.now
            return None
        before = dict(world.balances)
        world.label = label
        refused = None
        try:
            events = world.do(sender, op, **arguments)
        except Refused as fault:
            refused, events = (fault.module, fault.name), []
        except KeyError:
            self.steps.pop()
            return None
        self.count += 1
        key = (op, refused and "::".join(refused))
        self.outcomes[key] = self.outcomes.get(key, 0) + 1
        error, told, moved, executed = played.do(sender, op, label, arguments)
        if error != refused:
            return Difference(step, "refusal", refused, error)
        expected = [(name, {k: self.wire(k, v) for k, v in parts.items()}) for name, parts in events]
        if expected != told:
            return Difference(step, "events", expected, told)
        change = {name: world.balances[name] - before[name] for name in ACCOUNTS}
        if change != moved:
            return Difference(step, "money", change, moved)
        gas = executed.effects.gas_used
        touched = {id for id, _ in executed.effects.changed}
        freed = sum(r.storage_rebate for r in executed.inputs if r.id in touched)
        if gas.storage_rebate + gas.non_refundable != freed:
            return Difference(step, "rebates", freed, gas)
        return self.state(step, arguments)

    def wire(self, field: str, value: Any) -> Any:
        """A field of an event, as the chain has it."""
        return self.played.public(value) if field in ("key", "commitment") else value

    def state(self, step: Step, arguments: dict[str, Any]) -> Difference | None:
        """Compare the objects that the step names."""
        world = self.world
        together = [a for _, a in arguments["steps"]] if "steps" in arguments else [arguments]
        names = {value for each in together for value in each.values() if isinstance(value, str)}
        for known in (world.channels, world.pipes, world.plans, world.hosts, world.locks):
            for name in sorted(names & known.keys()):
                for id in (name, "beacon-" + name) if known is world.hosts else (name,):
                    for path, model, node in self.differences(known[name], self.played.state(id), ""):
                        return Difference(step, f"state of {id}{path}", model, node)
        return None

    def differences(self, model: Any, node: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
        """Where an object of the node isn't as the model has it; what only one of them has is left out."""
        if is_dataclass(model):
            for each in fields(model):
                of = [
                    getattr(node, part) for part in PARTS.get(each.name, (each.name,)) if hasattr(node, part)
                ]
                if of:
                    theirs = of[0] if len(of) == 1 else of
                    yield from self.differences(getattr(model, each.name), theirs, f"{path}.{each.name}")
        elif isinstance(model, dict | set) and isinstance(node, TableRef):
            if len(model) != node.size:
                yield path, model, node
        elif isinstance(model, dict):
            if model.keys() != node.keys():
                yield path, list(model), list(node)
            else:
                for key in model:
                    yield from self.differences(model[key], node[key], f"{path}[{key}]")
        elif isinstance(model, list | tuple):
            if len(model) != len(node):
                yield path, model, node
            else:
                for at, (one, other) in enumerate(zip(model, node, strict=True)):
                    yield from self.differences(one, other, f"{path}[{at}]")
        elif self.played.leaf(model, node) != node:
            yield path, model, node


#: Parts of the chain's objects that have another name in the model.
PARTS = {
    "generation": ("op_generation", "generation"),
    "acks": ("acks_to_server", "acks_to_client"),
    "free": ("free_to_server", "free_to_client"),
}


def unwind(comparison: Comparison, label: int):
    """Steps that bring every coin and every storage deposit back, from whatever state; few epochs, bounded time."""
    world = comparison.world
    yield "", "advance", {"ms": 1}
    for name in list(world.pipes):
        yield world.pipes[name].holder, "pipe_destroy", {"pipe": name}
    for name in list(world.channels):
        if world.channels[name].state == OPEN:
            yield world.channels[name].client, "request_close", {"channel": name}
    closing = [c.claims_until_ms - world.now for c in world.channels.values() if c.state < DRAINING]
    if closing and max(closing) > 0:
        yield "", "advance", {"ms": max(closing)}
    for name in list(world.channels):
        entry = world.channels[name]
        client = entry.client
        if entry.state < CLOSED:
            yield "dan", "finalize", {"channel": name}
        epochs = -(-entry.balance // entry.terms.epoch_cap)
        if world.channels[name].state == DRAINING and epochs <= 12:
            for _ in range(epochs):
                yield "", "epoch", {}
                yield "dan", "finalize", {"channel": name}
        if world.channels[name].state == CLOSED:
            yield client, "destroy", {"channel": name}
    ends = [k.deadline_ms - world.now + 1 for k in world.locks.values()]
    if ends and max(ends) > 0:
        yield "", "advance", {"ms": max(ends)}
    for name in list(world.locks):
        yield "dan", "refund", {"lock": name}
    for name in list(world.passes):
        held = world.passes[name]
        if (
            held.plan in world.plans
            and name in world.plans[held.plan].accounts
            and not world.plans[held.plan].accounts[name].revoked
        ):
            yield held.holder, "cancel", {"plan": held.plan, "pass_": name}
    for name, plan in list(world.plans.items()):
        lost = [
            each
            for each, account in plan.accounts.items()
            if each not in world.passes and not account.revoked
        ]
        if lost and plan.host in world.hosts:  # thrown away with periods ahead
            yield "ann", "new_operator", {"host": plan.host, "cap": plan.host, "rights": 8, "to": "ann"}
            operator = list(world.operators)[-1]
            for each in lost:
                yield "ann", "revoke", {"plan": name, "host": plan.host, "operator": operator, "pass_": each}
        else:  # the host is deleted
            for each in lost:
                cap = {"plan": name, "cap": plan.host, "pass_": each}
                yield world.caps[plan.host], "revoke_as_owner", cap
    periods = [p.period_ms for p in world.plans.values()]
    if periods:
        yield "", "advance", {"ms": max(MINUTE, *periods)}
        yield "", "epoch", {}
    for name in list(world.plans):
        plan = world.plans[name]
        owner = world.caps[plan.host]
        yield owner, "set_on_sale", {"plan": name, "cap": plan.host, "on_sale": False}
        yield owner, "forget", {"plan": name, "cap": plan.host, "passes": list(plan.accounts)}
        yield owner, "retire", {"plan": name, "cap": plan.host}
    for name in list(world.passes):
        yield world.passes[name].holder, "discard", {"pass_": name}
    for name, host in list(world.hosts.items()):
        if host.allow or host.deny:
            yield "ann", "new_operator", {"host": name, "cap": name, "rights": 4, "to": "ann"}
            operator = list(world.operators)[-1]
            for which, members in enumerate((host.allow, host.deny)):
                yield (
                    "ann",
                    "edit_list",
                    {
                        "host": name,
                        "operator": operator,
                        "which": which,
                        "add": False,
                        "addresses": sorted(members),
                    },
                )
        yield "ann", "host_destroy", {"host": name, "beacon": name, "cap": name}
    for name in list(world.caps):
        yield "ann", "destroy_cap", {"host": name}
    for name in list(world.operators):
        yield world.operators[name].holder, "destroy_operator", {"operator": name}


KINDS = ("pipes", "plans", "passes", "locks", "hosts", "caps", "operators")


def run(played: Played, seed: int, length: int) -> tuple[Comparison, Difference | None]:
    """One random history, and its unwinding."""
    comparison = Comparison(played)
    writer = Writer(seed)
    label = seed * 1000
    for action in writer.history(comparison.world, length):
        label += 1
        found = comparison.do((label, action))
        if found:
            return comparison, found
    for action in unwind(comparison, label):
        label += 1
        before = dict(comparison.outcomes)
        found = comparison.do((label, action))
        if found:
            return comparison, found
        new = [k for k in comparison.outcomes if k[1] and comparison.outcomes[k] != before.get(k)]
        assert not new, f"{action} of the unwinding is refused: {new}"
    world = comparison.world
    slow = {n: c for n, c in world.channels.items() if c.state == DRAINING}
    left = {kind: getattr(world, kind) for kind in KINDS if getattr(world, kind)}
    assert not left, left
    assert slow.keys() == world.channels.keys()
    held = sum(c.balance + c.client_credit for c in slow.values())
    assert sum(world.balances.values()) == -held
    return comparison, None


def replay(played: Played, steps: list[Step]) -> Difference | None:
    """The first difference of these steps."""
    comparison = Comparison(played)
    for step in steps:
        found = comparison.do(step)
        if found:
            return found
    return None


def shrink(played: Played, steps: list[Step], what: str) -> list[Step]:
    """Fewer steps with a difference of the same kind."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            try:
                found = replay(played, fewer)
            except AssertionError:
                found = None
            if found and found.what.split()[0] == what.split()[0]:
                steps = fewer
            else:
                at += size
        size //= 2
    return steps
