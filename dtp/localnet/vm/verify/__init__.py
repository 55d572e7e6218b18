"""The bytecode verifier: what a module must be before the machine may run it.

`verify_move` has the rules of Move, in these passes; each raises `ModuleRefused` with a rule's name, an item and an
instruction:

1. `tables`: sizes within the protocol's limits, nothing twice, everything defined, constants, friends.
2. `structure`: no recursive or reference-holding datatypes, abilities of fields, well-formed signatures and type
   arguments, no natives outside the framework, no endless instantiation.
3. `link`: everything named from elsewhere exists with the same shape, is visible, and packages don't depend in
  circles.
4. `flow`: code ends properly, loops have one head and don't nest too deep, blocks are not too many.
5. `stack`: the operand stack is balanced per block and bounded, every instruction finds the types it needs, and
   abilities are kept: what can't be copied isn't, what can't be dropped isn't.
6. `locals`: locals are read only when they hold a value, and hold nothing undroppable at a return.
7. `references`: no use of a reference that may dangle or alias (a borrow graph).

`verify_sui` has what Sui asks on top, once all modules of a package have passed the rules of Move: objects have their
`UID` first and made fresh, one-time witnesses, `init` and `entry` functions, functions that only the module of a type
may call.

The numbers are in `dtp.localnet.limits`. Sui's metering of the verifier itself is not modelled.
"""

from dtp.localnet.vm.verify.common import ModuleRefused
from dtp.localnet.vm.verify.internal import internal_parameters
from dtp.localnet.vm.verify.module import verify_move, verify_sui

__all__ = ["ModuleRefused", "internal_parameters", "verify_move", "verify_sui"]
