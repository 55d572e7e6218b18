"""The bytecode verifier: what a module must be before the machine may run it.

Passes, in this order; each raises `Refused` with a rule's name, an item and an instruction:

1. `structure`: declarations by themselves: no duplicates, no recursive or reference-holding datatypes, abilities of
   fields, well-formed signatures and type arguments, no natives outside the framework, no endless instantiation.
2. `link`: everything named from elsewhere exists with the same shape, is visible, and packages don't depend in
  circles.
3. `stack`: control flow ends properly, the operand stack is balanced per block, every instruction finds the types it
   needs, and abilities are kept: what can't be copied isn't, what can't be dropped isn't.
4. `locals`: locals are read only when they hold a value, and hold nothing undroppable at a return.
5. `references`: no use of a reference that may dangle or alias (a borrow graph).
6. `sui`: objects have their `UID` first and made fresh, one-time witnesses, `init` and `entry` functions, functions
   that only the module of a type may call.

Limits of size and depth of the protocol are checked where they protect the machine, not all of them.
"""

from dtp.localnet.vm.verify.common import Refused
from dtp.localnet.vm.verify.module import verify_module

__all__ = ["Refused", "verify_module"]
