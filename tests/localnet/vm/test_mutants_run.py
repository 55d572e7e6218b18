"""Programs that no compiler makes: mutants that both verifiers accept, run on both machines."""

from __future__ import annotations

import random

import pytest
from genuine import HOME, Packages, genuine_call, genuine_packages, number, numbers, our_call, placed, text
from move_writer import write_module
from test_verifier import mutate
from vm_world import modules

from dtp.localnet.vm import VM, Package
from dtp.localnet.vm.verify import ModuleRefused, verify_move
from dtp.sui.bytecode import BytecodeError, CompiledModule, deserialize


def u64(value: int) -> bytes:
    """A u64's BCS."""
    return number(value, 64)


_WIDTHS = [number(1, bits) for bits in (8, 16, 32, 128, 256)]
CALLS: dict[str, dict[str, list[list[bytes]]]] = {
    "flow": {
        "collatz": [[u64(7), u64(50)], [u64(27), u64(9)]],
        "gcd": [[u64(48), u64(18)]],
        "pairs": [[u64(9), u64(2)]],
        "classify": [[u64(x)] for x in (0, 4, 9, 77, 55, 1002, 8)],
        "insertion_sort": [[numbers([3, 1, 2, 9, 4])]],
        "sieve": [[u64(20)]],
        "is_even": [[u64(7)]],
        "fail_text": [[u64(1)]],
    },
    "places": {
        "raise_larger": [[u64(1), u64(2), u64(3)], [u64(5), u64(2), u64(3)]],
        "raise_field": [[u64(1), u64(2), flag, u64(9)] for flag in (b"\0", b"\1")],
        "copies": [[u64(4)]],
        "sequence": [[u64(4)]],
        "compare": [[u64(4)]],
        "options": [[u64(4)]],
        "at": [[numbers([1, 2]), u64(1)]],
        "swap_far": [[text(b"abc"), u64(0), u64(2)]],
        "widths": [[*_WIDTHS, flag, bytes(32)] for flag in (b"\0", b"\1")],
        "rotate": [[b"\3" + b"".join(map(u64, range(6)))]],
        "grow": [[b"\0\0" + u64(1), u64(3)]],
    },
    "shapes": {
        "areas": [[number(kind, 8), u64(3), u64(2)] for kind in range(4)],
        "picked": [[number(kind, 8), u64(3), u64(2)] for kind in range(3)],
        "sides": [[number(kind, 8), u64(3), text(b"xyz")] for kind in range(3)],
    },
    "generic": {
        "replaced": [[u64(0)], [u64(3)]],
        "names": [[]],
        "swapped": [[u64(8), text(b"q")]],
        "bytes_of": [[u64(8), text(b"q"), b"\1"]],
        "sets": [[numbers([3, 3, 1])]],
        "maps": [[numbers([3, 3, 1])]],
        "queue": [[numbers([3, 5, 1])]],
        "peeled": [[text(u64(5) + text(b"hi") + b"\1" + bytes(32) + b"\1" + number(9, 128) + b"rest")]],
    },
}
"""Arguments that lead through every function, per module."""

FRAMEWORK = genuine_packages()
OTHERS = {(p.original_id, name): deserialize(data) for p in FRAMEWORK for name, data in p.modules.items()}
ORIGINALS = [module for module in map(deserialize, placed(modules("basics"))) if module.name in CALLS]


def changed_function(before: CompiledModule, after: CompiledModule) -> str:
    """Name of the function that differs."""
    return next(
        before.function_name(old.handle)
        for old, new in zip(before.function_defs, after.function_defs, strict=True)
        if old != new
    )


def accepted(chance: random.Random) -> tuple[CompiledModule, str]:
    """A mutant that the verifier lets pass, and the function that was changed."""
    while True:
        original = chance.choice(ORIGINALS)
        mutant = mutate(original, chance)
        if mutant == original:
            continue
        try:
            deserialize(write_module(mutant))
            verify_move(mutant, {**OTHERS, (HOME, mutant.name): mutant})
        except (BytecodeError, ModuleRefused):
            continue
        return mutant, changed_function(original, mutant)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_accepted_mutants_run_alike(seed: int) -> None:
    """Values, aborts, their codes and their places are the same, whatever the compiler would never write."""
    chance = random.Random(seed)
    runs = 0
    for turn in range(25):
        module, function = accepted(chance)
        data = write_module(module)
        linkage = {p.original_id: p.storage_id for p in FRAMEWORK}
        vm = VM(Packages(*FRAMEWORK, Package(HOME, HOME, 1, {module.name: data}, linkage)))
        # A helper that can't be called by itself is reached through those that can.
        functions = [function] if function in CALLS[module.name] else list(CALLS[module.name])
        for name in functions:
            for arguments in CALLS[module.name][name]:
                ours = our_call(vm, HOME, module.name, name, arguments)
                if ours.failure == "InsufficientGas":
                    continue  # the genuine machine has another meter here, and would run on
                genuine = genuine_call(module.name, name, arguments, modules=(data,))
                if genuine.failure == "UNKNOWN_INVARIANT_VIOLATION_ERROR":
                    # A reference that is dead by the verifier's rules still sits in a local when what it points
                    # to moves: the genuine machine counts references and stops; to ours it makes no difference.
                    continue
                assert ours == genuine, f"seed {seed}, turn {turn}: {name} of a changed {function}"
                runs += 1
    assert runs > 20
